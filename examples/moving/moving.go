// Package moving shows how an app that keeps carts in a cookie of its own, or in the session of
// another library, moves them to guest while its visitors shop: each is moved at the visitor's next
// request, and removed from its old place.
//
// Mount it inside the guest middleware, and inside the old library's:
//
//	guests.Middleware(moving.FromCookie(mux))
//	sessions.LoadAndSave(guests.Middleware(moving.FromSCS(sessions, mux)))
package moving

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/alexedwards/scs/v2"
	"github.com/gorilla/sessions"

	"github.com/guestkit/guest"
)

// Cart is the new place of carts.
var Cart = guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))

// keep adds the items of an old cart that the new one lacks, so it may be repeated, after a double
// click or a response that never arrived. It does not touch items that the visitor has now.
func keep(ctx context.Context, old map[string]int64) error {
	have, err := Cart.All(ctx)
	if err != nil {
		return err
	}
	for sku, n := range old {
		if _, ok := have[sku]; ok || n <= 0 {
			continue
		}
		if err := Cart.Set(ctx, sku, n); err != nil {
			return err
		}
	}
	return nil
}

// FromCookie moves the cart of a cookie made by hand: cart={"tea":2}, URL-encoded. A visitor can
// have written anything into it, so treat it like input from a form.
func FromCookie(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := r.Cookie("cart"); err == nil {
			if err := keep(r.Context(), parse(c.Value)); err == nil {
				http.SetCookie(w, &http.Cookie{Name: "cart", Path: "/", MaxAge: -1}) // only now, as the old cookie is what allows a retry
			} else {
				slog.WarnContext(r.Context(), "an old cart was not moved", "error", err)
			}
		}
		next.ServeHTTP(w, r)
	})
}

// parse returns an empty cart if the value is not one.
func parse(value string) (cart map[string]int64) {
	if text, err := url.QueryUnescape(value); err == nil && json.Unmarshal([]byte(text), &cart) == nil {
		return cart
	}
	return nil
}

// FromSCS moves the cart of a session of alexedwards/scs, which the app keeps using for other
// things, such as signing in.
func FromSCS(old *scs.SessionManager, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if cart, ok := old.Get(r.Context(), "cart").(map[string]int64); ok {
			if err := keep(r.Context(), cart); err == nil {
				old.Remove(r.Context(), "cart")
			} else {
				slog.WarnContext(r.Context(), "an old cart was not moved", "error", err)
			}
		}
		next.ServeHTTP(w, r)
	})
}

// FromGorilla moves the cart of a session of gorilla/sessions.
func FromGorilla(store sessions.Store, name string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if old, err := store.Get(r, name); err == nil {
			if cart, ok := old.Values["cart"].(map[string]int64); ok {
				err := keep(r.Context(), cart)
				if err == nil {
					delete(old.Values, "cart")
					err = old.Save(r, w)
				}
				if err != nil {
					slog.WarnContext(r.Context(), "an old cart was not moved", "error", err)
				}
			}
		}
		next.ServeHTTP(w, r)
	})
}

func init() { gob.Register(map[string]int64{}) } // as the old app did
