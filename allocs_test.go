package guest_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/guestkit/guest"
)

// What a whole request of a known visitor costs; with -store=redis the client's part too, and up to four for a
// timer that calls share, if the machine is that slow. A rise wants a reason.
func TestAllocations(t *testing.T) {
	if guest.RaceEnabled || *storeFlag == "cluster" {
		t.Skip("the race detector, and the routing of a Cluster client, allocate on their own account")
	}
	s := newSite(t, nil)
	b := s.browser()
	b.page()
	b.add("tea")
	cookie := cookieHeader(b)
	for _, tt := range []struct {
		name          string
		memory, redis float64
		h             http.HandlerFunc
	}{
		{"only the ID", 5, 5, func(w http.ResponseWriter, r *http.Request) { guest.FromContext(r.Context()).GuestID() }},
		{"read", 10, 27, func(w http.ResponseWriter, r *http.Request) { Cart.Get(r.Context(), "tea") }},
		{"add", 19, 40, func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), "tea", 1) }},
	} {
		h := s.guests.Middleware(tt.h)
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", cookie)
		w := httptest.NewRecorder()
		most := tt.memory
		if *storeFlag == "redis" {
			most = tt.redis
		}
		if n := testing.AllocsPerRun(500, func() { clear(w.Header()); h.ServeHTTP(w, r) }); n > most {
			t.Errorf("%s: %v allocations, at most %v", tt.name, n, most)
		}
	}
}
