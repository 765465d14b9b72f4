package proofs

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// Two nodes share guests and claims although their clocks differ by an hour, and both from Redis's
// by many years: a bubble has a clock of its own, which begins in the year 2000, and the Redis
// outside has the real one.
func TestNodesAnHourApart(t *testing.T) {
	server := redistest.Single(t)
	cart := guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))
	began := time.Now()

	// on runs a request on a node whose clock is ahead by this much.
	on := func(ahead time.Duration, cookies map[string]string, f func(m *guest.Manager, w http.ResponseWriter, r *http.Request)) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(ahead)
			rdb := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true})
			defer rdb.Close()
			m, err := guest.New(guest.Config{
				Store: redisstore.New(
					rdb, redisstore.Config{MinTimeout: time.Hour}),
				Secrets: [][]byte{make([]byte, 32)}, Data: []guest.Kind{cart},
				Cookie: guest.Cookie{Insecure: true}, ClaimTimeout: time.Hour,
			})
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest("POST", "/", nil)
			for name, value := range cookies {
				r.AddCookie(&http.Cookie{Name: name, Value: value})
			}
			w := httptest.NewRecorder()
			m.Middleware(http.HandlerFunc(
				func(w http.ResponseWriter, r *http.Request) { f(m, w, r) })).ServeHTTP(w, r)
			for _, c := range w.Result().Cookies() {
				if cookies[c.Name] = c.Value; c.MaxAge < 0 {
					delete(cookies, c.Name)
				}
			}
		})
	}
	const early, late = 0, time.Hour
	for _, nodes := range [][3]time.Duration{{early, late, early}, {late, early, late}} {
		jar := map[string]string{}
		var id, ticket string
		for i, node := range nodes { // first visit, return, next visit
			on(node, jar, func(m *guest.Manager, _ http.ResponseWriter, r *http.Request) {
				v := guest.FromContext(r.Context())
				if i == 0 {
					id = v.GuestID()
				}
				if v.GuestID() != id || v.IsNew() != (i == 0) {
					t.Errorf("on node %v of %v the guest is lost", i, nodes)
				}
				n, err := cart.Add(r.Context(), "tea", 1)
				if err != nil || n != int64(i+1) {
					t.Errorf("on node %v of %v: %d, %v", i, nodes, n, err)
				}
				if ticket, err = m.Ticket(r.Context(), "a", 2*time.Hour); err != nil {
					t.Error(err)
				}
			})
		}
		other := map[string]string{"guest": jar["guest"]}
		var first guest.Receipt
		on(nodes[1], jar, func(m *guest.Manager, w http.ResponseWriter, r *http.Request) {
			var err error
			if first, err = m.Claim(w, r, id); err != nil || !first.Claimed ||
				first.Kinds[0].GuestTotal != 3 {
				t.Errorf("%+v, %v", first, err)
			}
		})
		if first.At.Before(began.Add(-time.Second)) || first.At.After(time.Now().Add(time.Second)) {
			t.Errorf("claimed at %v, which is not by Redis's clock", first.At)
		}
		on(nodes[0], other, func(m *guest.Manager, w http.ResponseWriter, r *http.Request) {
			again, err := m.ClaimTicket(w, r, ticket, "a", id)
			if err != nil || !again.Replayed || !again.At.Equal(first.At) {
				t.Errorf("repeated on the other node: %+v, %v; first %+v", again, err, first)
			}
			if _, err := m.Recover(r.Context()); err != nil {
				t.Error(err)
			}
			if got, err := cart.All(m.As(r.Context(), id)); got["tea"] != 3 || err != nil {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}
