package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// Asked which cart to keep, in a browser.
func TestChoice(t *testing.T) {
	s := newTrouble(t)
	for _, test := range []struct {
		keep, flash string
		want        map[string]int64
	}{
		{"both", "Welcome back! 1 item from this browser was added to the one you had.", map[string]int64{"fern": 1, "pilea": 1}},
		{"browser", "Welcome back! Your cart is this browser’s.", map[string]int64{"fern": 1}},
		{"account", "Welcome back! Your cart is your account’s.", map[string]int64{"pilea": 1}},
	} {
		t.Run(test.keep, func(t *testing.T) {
			email := test.keep + "@example.com"
			before := s.client(t)
			before.get("/")
			before.post("/cart/pilea/more")
			before.post("/signup", "email", email, "password", password)

			b := newBrowser(t, s.url)
			b.open("/")
			b.click("#add-fern")
			b.counts("1", "0")
			b.open("/login?next=/cart")
			b.fill("email", email)
			b.fill("password", password)
			b.click("#ask")
			b.follow("#submit")
			b.sees("both", "Keep both 2 items in all")
			b.sees("who", "Guest") // until it is chosen
			s.account(t, email, map[string]int64{"pilea": 1}, nil, "")
			b.follow("#" + test.keep)
			b.sees("who", email)
			b.sees("flash", test.flash)
			for _, sku := range slices.Sorted(maps.Keys(test.want)) {
				b.sees("amount-"+sku, "1")
			}
			s.account(t, email, test.want, nil, "")
			if len(b.guestCookies()) != 0 {
				t.Error("the guest is still there")
			}
		})
	}
}

func TestChoiceIsAskedOnlyForTwoCarts(t *testing.T) {
	s := newTrouble(t)
	c := s.client(t)
	c.get("/")
	c.post("/signup", "email", ada, "password", password)
	c.post("/logout")
	c.get("/")
	c.post("/cart/fern/more")
	c.shows(c.post("/login", "email", ada, "password", password, "ask", "yes"), "Your item moved to your account.")

	// A visitor who has not logged in cannot choose, and no visitor chooses twice.
	stranger := s.client(t)
	stranger.get("/")
	if page := stranger.post("/choose", "keep", "account"); strings.Contains(page, ada) {
		t.Error("signed in by choosing")
	}
	stranger.refuses(400, "POST", "/choose", "keep both carts, or one", "keep", "none")
	stranger.post("/cart/aloe/more")
	stranger.shows(stranger.post("/login", "email", ada, "password", password, "ask", "yes"), "Which cart?")
	token := stranger.cookies[choiceCookie]
	stranger.shows(stranger.post("/choose", "keep", "both"), "1 item from this browser was added")
	stranger.cookies[choiceCookie] = token
	stranger.shows(stranger.post("/choose", "keep", "browser"), "Your cart")
	s.account(t, ada, map[string]int64{"fern": 1, "aloe": 1}, nil, "")
}
