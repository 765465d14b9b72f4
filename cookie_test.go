package guest_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// Any bytes in the cookie, the token header and a ticket: no panic, no error for the visitor, no forgery.
func FuzzHostileTokens(f *testing.F) {
	m, err := guest.New(guest.Config{
		Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Cookie: guest.Cookie{Insecure: true},
		Header: "X-Guest", Create: guest.OnFirstWrite,
	})
	if err != nil {
		f.Fatal(err)
	}
	var v *guest.Visitor
	h := m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { v = guest.FromContext(r.Context()) }))
	first := httptest.NewRecorder()
	h.ServeHTTP(first, httptest.NewRequest("GET", "/", nil))
	genuine := first.Header().Get("X-Guest")
	ticket, err := m.Ticket(m.AsGuest(f.Context(), v.GuestID()), "a", time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"", genuine, genuine[1:], ticket, "guest", "a=b; guest=" + genuine, "\x00", strings.Repeat("A", 300)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, header := range []string{"Cookie", "X-Guest"} {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header[header] = []string{s}
			if header == "Cookie" {
				r.Header[header] = []string{"guest=" + s}
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != 200 {
				t.Errorf("%s %q: %d", header, s, w.Code)
			}
			if !v.IsNew() && !strings.Contains(s, genuine) {
				t.Errorf("%s %q is accepted", header, s)
			}
		}
		r := httptest.NewRequest("POST", "/", nil)
		if _, err := m.ClaimTicket(httptest.NewRecorder(), r, s, "a", "ann"); err == nil && s != ticket {
			t.Errorf("the ticket %q is accepted", s)
		}
	})
}

func TestEveryChangedByteOfATokenIsRefused(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	b.page()
	b.page()
	res, _ := b.request("GET", "/static")
	token := strings.TrimPrefix(res.Request.Header.Get("Cookie"), "guest=")
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_="
	for i := range token {
		for _, c := range alphabet {
			forged := token[:i] + string(c) + token[i+1:]
			if forged == token {
				continue
			}
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Cookie", "guest="+forged)
			s.guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !guest.FromContext(r.Context()).IsNew() {
					t.Errorf("accepted with byte %d = %c", i, c)
				}
			})).ServeHTTP(httptest.NewRecorder(), r)
		}
	}
}

func TestForgedCookiesReachNoStore(t *testing.T) {
	s := newSite(t, func(c *guest.Config) { c.Create = guest.OnFirstWrite })
	for i := range 10_000 {
		r := httptest.NewRequest("GET", "/page", nil)
		r.Header.Set("Cookie", "guest="+strings.Repeat("QUJD", i%60))
		s.guests.Middleware(s.mux).ServeHTTP(httptest.NewRecorder(), r)
	}
	if n := s.store.calls.Load(); n != 0 {
		t.Errorf("%d store calls", n)
	}
}

func TestSecretsRotate(t *testing.T) {
	secrets := [][]byte{secret}
	s := newSite(t, nil)
	b := s.browser()
	b.add("tea")
	id := b.page().Guest
	for i := range 3 {
		secrets = append([][]byte{[]byte(strings.Repeat(string(rune('a'+i)), 32))}, secrets...)
		next := newSite(t, func(c *guest.Config) { c.Store = s.store; c.Secrets = secrets })
		r := httptest.NewRequest("GET", "/page", nil)
		res, _ := b.request("GET", "/static")
		r.Header.Set("Cookie", res.Request.Header.Get("Cookie"))
		w := httptest.NewRecorder()
		next.guests.Middleware(next.mux).ServeHTTP(w, r)
		if !strings.Contains(w.Body.String(), id) {
			t.Errorf("after %d rotations: %s", i+1, w.Body)
		}
	}
}

func TestLivesOfCookies(t *testing.T) {
	for _, days := range []int{1, 29, 31, 180, 400} {
		synctest.Test(t, func(t *testing.T) {
			ttl := time.Duration(days) * 24 * time.Hour
			m, err := guest.New(guest.Config{Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, TTL: ttl})
			if err != nil {
				t.Fatal(err)
			}
			var v *guest.Visitor
			b := &bubble{jar: map[string]*http.Cookie{}, h: m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				v = guest.FromContext(r.Context())
			}))}
			b.get("/")
			b.get("/")
			id := v.GuestID()
			time.Sleep(ttl - time.Minute)
			if b.get("/"); v.GuestID() != id {
				t.Errorf("%d days: lost before its time", days)
			}
			time.Sleep(ttl + 2*time.Second)
			if b.get("/"); v.GuestID() == id || !v.Replaced() {
				t.Errorf("%d days: alive after its time", days)
			}
		})
	}
}

func TestAsGuestOfWhatIsNoID(t *testing.T) {
	s := newSite(t, nil)
	for _, id := range []string{"", "x", strings.Repeat("A", 21), strings.Repeat("A", 23), strings.Repeat("A", 300), strings.Repeat("\n", 22), strings.Repeat("A", 21) + "B"} {
		if err := Theme.Set(s.guests.AsGuest(t.Context(), id), "dark"); !errors.Is(err, guest.ErrNotAdmitted) {
			t.Errorf("%q: %v", id, err)
		}
	}
}
