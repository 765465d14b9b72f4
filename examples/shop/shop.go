package main

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/guestkit/guest"
)

type shop struct {
	guests   *guest.Manager
	accounts *accounts
	sessions sessions
	orders   orders
	cookies  cookies
}

// newShop puts the shop together. insecure is for plain http.
func newShop(ctx context.Context, db *sql.DB, store guest.Store, secrets [][]byte, insecure bool) (*shop, error) {
	guests, err := newGuests(store, secrets, insecure)
	if err != nil {
		return nil, err
	}
	accounts, err := newAccounts(ctx, db)
	if err != nil {
		return nil, err
	}
	cookies := cookies{insecure}
	return &shop{guests, accounts, sessions{db, cookies}, orders{db}, cookies}, nil
}

func (s *shop) handler() http.Handler {
	pages := http.NewServeMux()
	pages.HandleFunc("GET /{$}", s.showPlants)
	pages.HandleFunc("GET /wishes", s.showWishes)
	pages.HandleFunc("GET /cart", s.showCart)
	pages.HandleFunc("POST /wishes/{sku}/{change}", s.changeWishes)
	pages.HandleFunc("POST /cart/{sku}/{change}", s.changeCart)
	pages.HandleFunc("POST /theme", s.changeTheme)
	pages.HandleFunc("POST /checkout", s.checkout)
	pages.HandleFunc("GET /orders", s.showOrders)
	pages.HandleFunc("GET /signup", s.showSignUp)
	pages.HandleFunc("GET /login", s.showLogIn)
	pages.HandleFunc("POST /signup", s.signUp)
	pages.HandleFunc("POST /login", s.logIn)
	pages.HandleFunc("POST /logout", s.logOut)

	// The session comes first: it tells Config.Account who is signed in.
	visitors := s.sessions.middleware(s.guests.Middleware(pages))

	site := http.NewServeMux()
	site.Handle("/", visitors)
	site.Handle("GET /static/", assets()) // the same for everybody: no visitor, and caches may keep it
	return http.NewCrossOriginProtection().Handler(http.MaxBytesHandler(site, 16<<10))
}

func (s *shop) showPlants(w http.ResponseWriter, r *http.Request) {
	p := s.newPage(w, r, "Plants")
	var cards []card
	for i := range catalog {
		cards = append(cards, p.card(&catalog[i]))
	}
	p.Body = cards
	p.render(w, r, http.StatusOK, "products")
}

func (s *shop) showWishes(w http.ResponseWriter, r *http.Request) {
	p := s.newPage(w, r, "Wish list")
	p.Body = p.wished()
	p.render(w, r, http.StatusOK, "wishes")
}

func (s *shop) changeWishes(w http.ResponseWriter, r *http.Request) {
	sku := r.PathValue("sku")
	if plants[sku] == nil {
		http.NotFound(w, r)
		return
	}
	var err error
	switch r.PathValue("change") {
	case "add":
		err = Wishes.Set(r.Context(), sku, time.Now())
	case "remove":
		err = Wishes.Delete(r.Context(), sku)
	default:
		http.NotFound(w, r)
		return
	}
	s.changed(w, r, err)
}

func (s *shop) changeTheme(w http.ResponseWriter, r *http.Request) {
	theme := r.FormValue("theme")
	if theme != "light" && theme != "dark" {
		http.Error(w, "there is a light and a dark theme", http.StatusBadRequest)
		return
	}
	s.changed(w, r, Theme.Set(r.Context(), theme))
}

// changed ends a request that wrote guest data.
func (s *shop) changed(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		s.sorry(w, r, err)
	}
	back(w, r)
}

// sorry says on the next page that guest data could not be written.
func (s *shop) sorry(w http.ResponseWriter, r *http.Request, err error) {
	slog.WarnContext(r.Context(), "guest data cannot be written", "path", r.URL.Path, "error", err)
	text := "That could not be saved."
	if errors.Is(err, guest.ErrUncertain) {
		text = "That may not have been saved."
	}
	s.cookies.flash(w, text, "Please look, and try again in a moment.")
}
