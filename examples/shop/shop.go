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
	links    links
	codes    codes
	flows    flows
	choices  choices
	known    known
	limits   limits
	orders   orders
	cookies  cookies

	dev          bool   // for its developers: plain http, and pages for all to read
	url          string // where visitors find the shop, for links in mails; never taken from a request
	clientHeader string // in which the proxy says whose request it is; "" if there is no proxy

	mail   mailer  // nil: no links
	sms    texter  // nil: no codes
	oauth  *oauth  // nil: no OpenID provider
	outbox *outbox // nil: it is really sent
	tally  *tally  // nil: no /admin
}

// newShop puts the shop together. dev is for plain http, the outbox and /admin; without it they are
// not there.
func newShop(ctx context.Context, db *sql.DB, store guest.Store, secrets [][]byte, dev bool) (*shop, error) {
	var hooks guest.Hooks
	var counts *tally
	if dev {
		counts = newTally()
		hooks = counts.hooks()
	}
	guests, err := newGuests(store, secrets, dev, hooks)
	if err != nil {
		return nil, err
	}
	accounts, err := newAccounts(ctx, db)
	if err != nil {
		return nil, err
	}
	cookies := cookies{insecure: dev}
	s := &shop{
		guests: guests, accounts: accounts, sessions: sessions{db, cookies}, links: links{db}, codes: codes{db},
		flows: flows{db}, choices: choices{db}, known: known{db, cookies}, limits: limits{db}, orders: orders{db},
		cookies: cookies, tally: counts, dev: dev,
	}
	if dev {
		s.outbox = &outbox{}
		s.mail, s.sms = s.outbox, s.outbox
	}
	return s, nil
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
	pages.HandleFunc("GET /choose", s.showChoice)
	pages.HandleFunc("POST /choose", s.choose)
	if s.mail != nil {
		pages.HandleFunc("POST /link", s.mailLink)
		pages.HandleFunc("GET /link", s.showLink)
		pages.HandleFunc("POST /link/open", s.openLink)
	}
	if s.sms != nil {
		pages.HandleFunc("POST /code", s.sendCode)
		pages.HandleFunc("GET /code", s.showCode)
		pages.HandleFunc("POST /code/open", s.typeCode)
	}
	if s.oauth != nil {
		pages.HandleFunc("POST /oauth", s.startOAuth)
		pages.HandleFunc("GET "+oauthCallback, s.endOAuth)
		pages.HandleFunc("POST "+oauthCallback, s.bringOAuth)
	}
	if s.outbox != nil {
		pages.HandleFunc("GET /outbox", s.showOutbox)
	}

	// The session comes first: it tells Config.Account who is signed in.
	visitors := s.sessions.middleware(s.guests.Middleware(pages))

	site := http.NewServeMux()
	site.Handle("/", visitors)
	site.Handle("GET /static/", assets()) // the same for all: no visitor, and caches may keep it
	if s.tally != nil {
		site.HandleFunc("GET /admin", s.showAdmin)
	}
	protection := http.NewCrossOriginProtection()
	// This one comes from the OpenID provider's page, and signs no one in.
	protection.AddInsecureBypassPattern("POST " + oauthCallback)
	return onlyFor(s.serves, protection.Handler(http.MaxBytesHandler(site, 16<<10)))
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
	} else if guest.FromContext(r.Context()).Replaced() {
		s.cookies.flash(w, "That is saved.", replacedText)
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
