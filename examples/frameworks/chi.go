package frameworks

import (
	"fmt"
	"log/slog"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/guestkit/guest"
)

// Chi mounts the middleware with Use, on the outermost router.
func Chi(guests *guest.Manager) http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.Recoverer)
	r.Use(guests.Middleware)
	r.Use(middleware.Compress(5))

	r.Post("/cart/{sku}", func(w http.ResponseWriter, r *http.Request) {
		n, err := Cart.Add(r.Context(), chi.URLParam(r, "sku"), 1)
		if err != nil {
			http.Error(w, "the cart is away", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, n)
	})
	r.Post("/login", func(w http.ResponseWriter, r *http.Request) {
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
	return r
}
