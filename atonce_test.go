package guest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/guestkit/guest"
)

// All that a handler may call with a context, at once, by many goroutines, and on after the response.
func TestEverythingAtOnceInOneRequest(t *testing.T) {
	s := newSite(t, func(c *guest.Config) {
		c.Header = "Guest"
		c.FormerCookies = []guest.Cookie{{Path: "/x"}}
		c.Quota = guest.Quota{Fields: 10_000, Bytes: 10 << 20} // ann gets what a hundred requests bring
	})
	var wg sync.WaitGroup
	acked := map[string]int{}
	var mu sync.Mutex
	s.mux.HandleFunc("/all", func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		n := r.Header.Get("N")
		for i, f := range []func(){
			func() { s.guests.Ticket(ctx, "a", time.Minute) },
			func() { s.guests.Preview(ctx, "ann") },
			func() { s.guests.Export(ctx) },
			func() { guest.FromContext(ctx).GuestID() },
			func() { guest.FromContext(ctx).Replaced() },
			func() { guest.Prefetch(ctx, Cart) },
			func() { Cart.All(ctx) },
		} {
			for range 2 {
				wg.Go(func() { f() })
			}
			wg.Go(func() {
				sku := fmt.Sprint(n, "-", i)
				if _, err := Cart.Add(ctx, sku, 1); err == nil {
					mu.Lock()
					acked[sku]++
					mu.Unlock()
				}
			})
		}
		if strings.HasSuffix(n, "c") {
			s.guests.Claim(w, r, "ann")
		}
		if strings.HasSuffix(n, "f") {
			s.guests.Forget(w, r)
		}
	})
	for i := range 300 {
		cookies := ""
		if i%2 == 1 {
			cookies = s.newcomer(fmt.Sprint("old", i))
		}
		n := fmt.Sprint(i, []string{"c", "f", "-"}[i%3])
		r := httptest.NewRequest([]string{"GET", "POST"}[i/2%2], "/all", nil)
		r.Header.Set("N", n)
		if cookies != "" {
			r.Header.Set("Cookie", cookies)
		}
		if i%5 == 0 {
			r.Header.Set("Guest", "")
		}
		w := httptest.NewRecorder()
		s.guests.Middleware(s.mux).ServeHTTP(w, r)
		wg.Wait()
		if strings.HasSuffix(n, "f") {
			continue
		}
		has := map[string]int64{}
		for sku, c := range s.account("ann") {
			has[sku] += c
		}
		jar := map[string]string{}
		if cookies != "" {
			jar["guest"] = cookies
		}
		for _, c := range w.Result().Cookies() {
			jar[c.Name] = pair(c)
			if c.MaxAge < 0 {
				delete(jar, c.Name)
			}
		}
		var all []string
		for _, c := range jar {
			all = append(all, c)
		}
		for sku, c := range s.show(strings.Join(all, "; ")).Cart {
			has[sku] += c
		}
		for j := range 7 {
			sku := fmt.Sprint(n, "-", j)
			if int64(acked[sku]) != has[sku] {
				t.Errorf("request %s %s with %q: %s acknowledged %d, found %d", n, r.Method, cookies, sku, acked[sku], has[sku])
			}
		}
	}
}
