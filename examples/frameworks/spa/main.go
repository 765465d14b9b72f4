// Command spa is a single-page app: static files that any cache may keep, and an API whose visitors
// are guests or members.
//
//	cd examples/frameworks && go run ./spa
package main

import (
	"crypto/rand"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"log"
	"net/http"
	"sync"

	"github.com/rs/cors"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

var (
	Cart = guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))
	Seen = guest.NewCounters("seen", guest.EachItem(guest.Sum[int64]))
)

func main() {
	guests, err := guest.New(config(guest.Cookie{Insecure: true})) // plain http, for this demo only
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("http://localhost:8080")
	log.Fatal(http.ListenAndServe("localhost:8080", site(guests)))
}

func config(cookie guest.Cookie) guest.Config {
	return guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("change me: 32 random bytes or more")},
		Data:    []guest.Kind{Cart, Seen},
		Account: account,
		Cookie:  cookie,
	}
}

// site serves page and API from one origin. The middleware is only around the API: the files carry
// no cookie and do not vary by it.
func site(guests *guest.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", static())
	mux.Handle("/api/", guests.Middleware(api(guests)))
	return mux
}

// subdomain serves the API to a page of another subdomain, such as https://www.shop.test to
// api.shop.test. It is the same site, so the cookie of the API's host needs neither Domain nor
// SameSite=None.
func subdomain(guests *guest.Manager, page string) http.Handler {
	policy := cors.New(cors.Options{
		AllowedOrigins:   []string{page}, // each by name: a listed origin can act as the visitor
		AllowedMethods:   []string{"GET", "POST"},
		AllowCredentials: true,
	})
	return policy.Handler(guests.Middleware(api(guests)))
}

//go:embed static
var files embed.FS

func static() http.Handler {
	root, err := fs.Sub(files, "static")
	if err != nil {
		panic(err) // only for an invalid path
	}
	server := http.FileServerFS(root)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600")
		server.ServeHTTP(w, r)
	})
}

func api(guests *guest.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/cart", func(w http.ResponseWriter, r *http.Request) {
		items, err := Cart.All(r.Context())
		answer(w, items, err)
	})
	mux.HandleFunc("POST /api/cart/{sku}", func(w http.ResponseWriter, r *http.Request) {
		n, err := Cart.Add(r.Context(), r.PathValue("sku"), 1)
		answer(w, n, err)
	})
	mux.HandleFunc("GET /api/seen", func(w http.ResponseWriter, r *http.Request) {
		items, err := Seen.All(r.Context())
		answer(w, items, err)
	})
	mux.HandleFunc("POST /api/seen/{sku}", func(w http.ResponseWriter, r *http.Request) {
		n, err := Seen.Add(r.Context(), r.PathValue("sku"), 1)
		answer(w, n, err)
	})
	mux.HandleFunc("POST /api/login", login)
	mux.Handle("POST /api/claim", guests.ClaimHandler(func(r *http.Request) (string, error) { return account(r), nil }))
	return mux
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, "the data are away", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// sessions stands for the app's own sessions: from a cookie to an account.
var sessions sync.Map

func account(r *http.Request) string {
	if c, err := r.Cookie("session"); err == nil {
		if user, ok := sessions.Load(c.Value); ok {
			return user.(string)
		}
	}
	return ""
}

func login(w http.ResponseWriter, r *http.Request) {
	var in struct{ User, Password string }
	if json.NewDecoder(r.Body).Decode(&in) != nil || in.User == "" || in.Password != "tulip" {
		http.Error(w, "wrong password", http.StatusUnauthorized)
		return
	}
	id := rand.Text()
	sessions.Store(id, in.User)
	http.SetCookie(w, &http.Cookie{Name: "session", Value: id, Path: "/", HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode})
	w.WriteHeader(http.StatusNoContent)
}
