package frameworks

import (
	"fmt"
	"log/slog"
	"net/http"

	"github.com/gorilla/mux"

	"github.com/guestkit/guest"
)

// GorillaMux wraps the router, because Use runs no middleware for a request that no route matches.
func GorillaMux(guests *guest.Manager) http.Handler {
	router := mux.NewRouter()
	router.HandleFunc("/cart/{sku}", func(w http.ResponseWriter, r *http.Request) {
		n, err := Cart.Add(r.Context(), mux.Vars(r)["sku"], 1)
		if err != nil {
			http.Error(w, "the cart is away", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, n)
	}).Methods("POST")
	router.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		user, ok := signIn(r.FormValue("user"), r.FormValue("password"))
		if !ok {
			http.Error(w, "wrong password", http.StatusUnauthorized)
			return
		}
		if _, err := guests.Claim(w, r, user); err != nil {
			slog.WarnContext(r.Context(), "the guest was not claimed", "error", err) // no reason to fail the login
		}
		fmt.Fprint(w, "hello ", user)
	}).Methods("POST")
	return guests.Middleware(router)
}
