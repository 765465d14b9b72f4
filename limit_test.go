package guest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

func from(addr string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = addr
	return r
}

// admitted is how many of n requests pass.
func admitted(admit func(*http.Request) bool, addr string, n int) (passed int) {
	for range n {
		if admit(from(addr)) {
			passed++
		}
	}
	return passed
}

// What counts as one client, and what does not.
func TestLimit_Clients(t *testing.T) {
	for _, tt := range []struct {
		name, first, second string
		same                bool
	}{
		{"another port", "192.0.2.1:1", "192.0.2.1:2", true},
		{"another address", "192.0.2.1:1", "192.0.2.2:1", false},
		{"IPv4 written as IPv6", "192.0.2.1:1", "[::ffff:192.0.2.1]:1", true},
		{"another IPv4 written as IPv6", "[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:1", false},
		{"the same /64", "[2001:db8:1:2::1]:1", "[2001:db8:1:2:ffff:ffff:ffff:ffff]:1", true},
		{"another /64", "[2001:db8:1:2::1]:1", "[2001:db8:1:3::1]:1", false},
		{"another zone", "[fe80::1%eth0]:1", "[fe80::1%eth1]:1", true},
		{"no addresses", "@", "", true},
		{"none, and one", "@", "192.0.2.1:1", false},
		{"none, and the IPv4 of zeros", "@", "0.0.0.0:1", false},
	} {
		admit := guest.Limit(time.Hour, 1, nil)
		if !admit(from(tt.first)) || admit(from(tt.first)) {
			t.Errorf("%s: not one of %s", tt.name, tt.first)
		}
		if got := admit(from(tt.second)); got == tt.same {
			t.Errorf("%s: %s after %s: admitted %v", tt.name, tt.second, tt.first, got)
		}
	}
}

func TestLimit_Panics(t *testing.T) {
	for _, f := range []func(){
		func() { guest.Limit(0, 1, nil) },
		func() { guest.Limit(-time.Second, 1, nil) },
		func() { guest.Limit(time.Second, 0, nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("accepted")
				}
			}()
			f()
		}()
	}
}

// A client over its limit is served, without a guest.
func TestLimit_PageIsServed(t *testing.T) {
	s := newSite(t, func(c *guest.Config) { c.Admit = guest.All(guest.Browsers, guest.Limit(time.Hour, 2, nil)) })
	for i := range 5 {
		b := s.browser()
		res, body := b.request("GET", "/page")
		if got := len(b.cookies()); res.StatusCode != 200 || (got == 1) != (i < 2) {
			t.Errorf("visitor %d: %s, %d cookies: %s", i, res.Status, got, body)
		}
	}
	if n := len(s.store.keys(t, "g:")); n != 2 {
		t.Errorf("%d records", n)
	}
}

// A crawler takes nothing from a limit that stands after Browsers.
func TestLimit_AfterBrowsers(t *testing.T) {
	admit := guest.All(guest.Browsers, guest.Limit(time.Hour, 1, nil))
	crawler := from("192.0.2.1:1")
	crawler.Header.Set("User-Agent", "Googlebot/2.1")
	for range 3 {
		if admit(crawler) {
			t.Error("admitted")
		}
	}
	if !admit(from("192.0.2.1:1")) {
		t.Error("the crawler took the browser's place")
	}
}

// A client function that says the same for all is a limit for all.
func TestLimit_ForAll(t *testing.T) {
	all := func(*http.Request) netip.Addr { return netip.Addr{} }
	admit := guest.All(guest.Limit(time.Hour, 3, nil), guest.Limit(time.Hour, 7, all))
	passed := 0
	for i := range 10 {
		passed += admitted(admit, fmt.Sprintf("192.0.2.%d:1", i), 5)
	}
	if passed != 7 {
		t.Errorf("%d", passed)
	}
}

// The records of one-time visitors are no more than the limit lets in while one of them lives.
func TestLimit_BoundsTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Config{})
		all := func(*http.Request) netip.Addr { return netip.Addr{} }
		m, err := guest.New(guest.Config{
			Store: store, Secrets: [][]byte{secret}, ProvisionalTTL: time.Minute,
			Admit: guest.Limit(time.Second, 10, all),
		})
		if err != nil {
			t.Fatal(err)
		}
		h := m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
		for range 20_000 {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
			time.Sleep(10 * time.Millisecond)
		}
		live := 0
		for range store.Keys(t.Context(), "") {
			live++
		}
		// In 200 s the limit lets in 210; in the last minute 60, and those live.
		if live < 59 || live > 61 {
			t.Errorf("%d records", live)
		}
	})
}
