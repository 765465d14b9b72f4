package main

import (
	"crypto/rand"
	"log/slog"
	"net/http"
)

func (s *shop) showCart(w http.ResponseWriter, r *http.Request) {
	p := s.newPage(w, r, "Cart")
	p.Body = rand.Text() // the number of the order form
	p.render(w, r, http.StatusOK, "cart")
}

func (s *shop) changeCart(w http.ResponseWriter, r *http.Request) {
	sku := r.PathValue("sku")
	if plants[sku] == nil {
		http.NotFound(w, r)
		return
	}
	var err error
	switch r.PathValue("change") {
	case "more":
		err = addToCart(r.Context(), sku, 1)
	case "less":
		err = addToCart(r.Context(), sku, -1)
	case "remove":
		err = Cart.Delete(r.Context(), sku)
	default:
		http.NotFound(w, r)
		return
	}
	s.changed(w, r, err)
}

// checkout makes an order of the cart. Guests sign in first, which takes their cart along.
func (s *shop) checkout(w http.ResponseWriter, r *http.Request) {
	user, form := userOf(r), r.FormValue("form")
	if user.ID == "" {
		http.Redirect(w, r, "/login?next=/cart", http.StatusSeeOther)
		return
	}
	if form == "" {
		http.Error(w, "the form has no number", http.StatusBadRequest)
		return
	}
	cart, err := Cart.All(r.Context())
	if err != nil {
		s.sorry(w, r, err)
		http.Redirect(w, r, "/cart", http.StatusSeeOther)
		return
	}
	lines := linesOf(cart)
	if len(lines) == 0 { // ordered already, from another tab
		http.Redirect(w, r, "/cart", http.StatusSeeOther)
		return
	}
	placed, err := s.orders.place(r.Context(), user.ID, form, lines)
	if err != nil {
		fail(w, r, err)
		return
	}
	if placed {
		s.cookies.flash(w, "Thank you!", "Your order is placed.")
		// What was ordered leaves the cart; what another tab has added meanwhile stays.
		for _, l := range lines {
			if err := addToCart(r.Context(), l.SKU, -l.Amount); err != nil {
				slog.WarnContext(r.Context(), "an ordered line stays in the cart", "error", err)
				s.cookies.flash(w, "Thank you!", "Your order is placed, though some of it may still be in your cart.")
			}
		}
	}
	http.Redirect(w, r, "/orders", http.StatusSeeOther)
}

func (s *shop) showOrders(w http.ResponseWriter, r *http.Request) {
	user := userOf(r)
	if user.ID == "" {
		http.Redirect(w, r, "/login?next=/orders", http.StatusSeeOther)
		return
	}
	orders, err := s.orders.of(r.Context(), user.ID)
	if err != nil {
		fail(w, r, err)
		return
	}
	p := s.newPage(w, r, "Orders")
	p.Body = orders
	p.render(w, r, http.StatusOK, "orders")
}
