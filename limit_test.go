package guest_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
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

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		admit := guest.Limit(time.Minute, 3, nil)
		for _, tt := range []struct {
			after time.Duration
			want  int
		}{
			{0, 3}, {59 * time.Second, 0}, {time.Second, 1}, {2 * time.Minute, 2}, {time.Hour, 3}, {1000 * time.Hour, 3},
		} {
			time.Sleep(tt.after)
			if got := admitted(admit, "192.0.2.1:1234", 10); got != tt.want {
				t.Errorf("%v later: %d of 10 admitted, want %d", tt.after, got, tt.want)
			}
		}
	})
}

// What counts as one client, and what does not.
func TestLimitTellsClientsApart(t *testing.T) {
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

func TestLimitOverAnything(t *testing.T) {
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
	if got := admitted(guest.Limit(1<<62, 1<<62, nil), "192.0.2.1:1", 100); got == 0 {
		t.Error("a huge limit admits nobody")
	}
}

// Whoever is over the limit is served, without a guest.
func TestOverTheLimitThePageIsServed(t *testing.T) {
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

func TestACrawlerTakesNothingFromALimitAfterBrowsers(t *testing.T) {
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
func TestALimitForAll(t *testing.T) {
	everybody := func(*http.Request) netip.Addr { return netip.Addr{} }
	admit := guest.All(guest.Limit(time.Hour, 3, nil), guest.Limit(time.Hour, 7, everybody))
	passed := 0
	for i := range 10 {
		passed += admitted(admit, fmt.Sprintf("192.0.2.%d:1", i), 5)
	}
	if passed != 7 {
		t.Errorf("%d", passed)
	}
}

// networks is a limit of so many at once, and a function that tells whether another request of a network passes.
func networks(burst int) func(network uint64) bool {
	addr := netip.MustParseAddr("2001:db8::1")
	limit := guest.Limit(time.Hour, burst, func(*http.Request) netip.Addr { return addr })
	return func(network uint64) bool {
		b := addr.As16()
		binary.BigEndian.PutUint64(b[:], network)
		addr = netip.AddrFrom16(b)
		return limit(nil)
	}
}

// A million networks make a limiter neither grow nor forget.
func TestLimitUnderAFlood(t *testing.T) {
	n := 1_000_000
	if raceEnabled {
		n = 100_000
	}
	const burst = 2
	admit, passed := networks(burst), 0
	victim := uint64(1) << 63
	admit(victim)
	rnd := rand.New(rand.NewPCG(1, 1))
	allocs := testing.AllocsPerRun(n, func() {
		if admit(rnd.Uint64() >> 1) {
			passed++
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations a request: the limiter grows", allocs)
	}
	if first, second := admit(victim), admit(victim); first && second {
		t.Errorf("the flood made it forget a network")
	}
	// Each guest moves one cell of 2 × 65,536, and burst of them fill it.
	if most := burst << 17; passed > most || n < most && passed < n*9/10 {
		t.Errorf("%d of %d networks got a guest; at most %d together", passed, n, most)
	}
}

// Clients that are counted together never get more than each one's limit, and mostly not less.
func TestLimitIsEachNetworksOwn(t *testing.T) {
	const burst = 2
	for _, tt := range []struct{ networks, least int }{
		{10_000, 10_000 * burst * 97 / 100},
		{50_000, 0},
	} {
		admit, got := networks(burst), make([]int, tt.networks)
		rnd := rand.New(rand.NewPCG(1, 1))
		sum := 0
		for range 8 * tt.networks {
			i := rnd.IntN(tt.networks)
			if admit(uint64(i)) {
				got[i]++
				sum++
			}
		}
		if most := slices.Max(got); most > burst || sum < tt.least {
			t.Errorf("%d networks: one got %d guests; all got %d", tt.networks, most, sum)
		}
	}
}

// The records of one-time visitors are no more than the limit lets in while one of them lives.
func TestALimitBoundsTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Config{})
		everybody := func(*http.Request) netip.Addr { return netip.Addr{} }
		m, err := guest.New(guest.Config{
			Store: store, Secrets: [][]byte{secret}, ProvisionalTTL: time.Minute,
			Admit: guest.Limit(time.Second, 10, everybody),
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
