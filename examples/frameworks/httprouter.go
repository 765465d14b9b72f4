package frameworks

import (
	"fmt"
	"log/slog"
	"net/http"

	"github.com/julienschmidt/httprouter"

	"github.com/guestkit/guest"
)

// HTTPRouter has no middleware of its own: the router is wrapped.
func HTTPRouter(guests *guest.Manager) http.Handler {
	router := httprouter.New()
	router.POST("/cart/:sku", func(w http.ResponseWriter, r *http.Request, params httprouter.Params) {
		n, err := Cart.Add(r.Context(), params.ByName("sku"), 1)
		if err != nil {
			http.Error(w, "the cart is away", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, n)
	})
	router.POST("/login", func(w http.ResponseWriter, r *http.Request, _ httprouter.Params) {
		user, ok := signIn(r.FormValue("user"), r.FormValue("password"))
		if !ok {
			http.Error(w, "wrong password", http.StatusUnauthorized)
			return
		}
		if _, err := guests.Claim(w, r, user); err != nil {
			slog.WarnContext(r.Context(), "the guest was not claimed", "error", err) // no reason to fail the login
		}
		fmt.Fprint(w, "hello ", user)
	})
	return guests.Middleware(router)
}
