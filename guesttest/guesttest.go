// Package guesttest puts a guest or a member, with data, into a request: for tests of an app's own
// handlers.
//
//	r = guesttest.Guest(t, guests, r, func(ctx context.Context) error { return Cart.Set(ctx, "tea", 2) })
//	cart(httptest.NewRecorder(), r)
//
// The handler may be tested alone or behind the Manager's middleware; the visitor is the same.
package guesttest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// New returns a Manager that keeps these kinds of data in memory, for handlers that do not need the
// app's Manager.
func New(t testing.TB, kinds ...guest.Kind) *guest.Manager {
	t.Helper()
	m, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("a secret that only tests know, 32+")},
		Data:    kinds,
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Guest returns a copy of r sent by a guest of m, whose cookie has come back before; setup gives it
// data. r keeps its own cookies. The test fails if setup does, or if Config.Admit or Config.Account
// of m do not allow a guest.
func Guest(t testing.TB, m *guest.Manager, r *http.Request,
	setup ...func(context.Context) error) *http.Request {
	t.Helper()
	r = r.Clone(r.Context())
	var cookies []*http.Cookie
	for range 2 { // the second request brings the cookie back
		w, ask := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		for _, c := range cookies {
			ask.AddCookie(c)
		}
		visitor := guest.FromContext(m.Identify(w, ask).Context())
		if !visitor.IsGuest() {
			t.Fatal("guesttest: a plain GET request gets no guest (see Config.Admit and Config.Account)")
		}
		cookies = live(w.Result().Cookies())
	}
	for _, c := range cookies {
		r.AddCookie(c)
	}
	r = m.Identify(httptest.NewRecorder(), r)
	if !guest.FromContext(r.Context()).IsGuest() {
		t.Fatal("guesttest: the request is not a guest's (see Config.Account, or use Member)")
	}
	fill(t, r.Context(), setup)
	return r
}

// Member returns a copy of r sent by a user who is signed in to this account; setup gives the
// account data. The result of Config.Account for r does not matter.
func Member(t testing.TB, m *guest.Manager, r *http.Request, accountID string,
	setup ...func(context.Context) error) *http.Request {
	t.Helper()
	ctx := m.As(r.Context(), accountID)
	fill(t, ctx, setup)
	return r.Clone(ctx)
}

func fill(t testing.TB, ctx context.Context, setup []func(context.Context) error) {
	t.Helper()
	for _, f := range setup {
		if err := f(ctx); err != nil {
			t.Fatalf("guesttest: setup: %v", err)
		}
	}
}

// live drops the cookies that a response clears.
func live(cookies []*http.Cookie) (kept []*http.Cookie) {
	for _, c := range cookies {
		if c.MaxAge > 0 {
			kept = append(kept, c)
		}
	}
	return kept
}
