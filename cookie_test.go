package guest_test

import (
	"context"
	"errors"
	"math/rand/v2"
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
	// COOKIE and TICKET stand for the genuine ones, which each process of a fuzzer makes for itself.
	for _, seed := range []string{"", "COOKIE", "TICKET", "xCOOKIE", "COOKIE=", "guest", "a=b; guest=COOKIE", "\x00", strings.Repeat("A", 300)} {
		f.Add(seed)
	}
	stands := strings.NewReplacer("COOKIE", genuine, "TICKET", ticket)
	f.Fuzz(func(t *testing.T, s string) {
		s = stands.Replace(s)
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

// Forgeries of all kinds: 100,000, with -long a million, under -race a tenth.
func TestForgedCookiesReachNoStore(t *testing.T) {
	n := 100_000
	if *long {
		n *= 10
	}
	if guest.RaceEnabled {
		n /= 10
	}
	minted := 0
	s := newSite(t, func(c *guest.Config) {
		c.Create = guest.OnFirstWrite
		c.Hooks.Created = func(context.Context) { minted++ }
	})
	genuine := strings.TrimPrefix(cookieHeader(confirmed(s)), "guest=")
	other := newSite(t, func(c *guest.Config) { c.Secrets = [][]byte{[]byte("a secret of somebody else, 32 b.")} })
	foreign := strings.TrimPrefix(cookieHeader(confirmed(other)), "guest=")
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	rnd := rand.New(rand.NewPCG(1, 1))
	forge := []func() string{
		func() string { // one letter
			i := rnd.IntN(len(genuine) - 2)
			c := alphabet[rnd.IntN(64)]
			for c == genuine[i] {
				c = alphabet[rnd.IntN(64)]
			}
			return "guest=" + genuine[:i] + string(c) + genuine[i+1:]
		},
		func() string { // another guest's ID behind a genuine start
			return "guest=" + genuine[:32] + foreign[32:]
		},
		func() string { return "guest=" + foreign },
		func() string { return "guest=" + genuine[:rnd.IntN(len(genuine))] },
		func() string { return "guest." + genuine[:6] + "=" + genuine },
		func() string { // random
			b := make([]byte, len(genuine)/4*4)
			for i := range b {
				b[i] = alphabet[rnd.IntN(64)]
			}
			return "guest=" + string(b)
		},
		func() string { return "guest=" + genuine + "; guest=" + foreign },
	}
	r := httptest.NewRequest("GET", "/static", nil)
	h := s.guests.Middleware(s.mux)
	calls := s.store.calls.Load()
	minted = 0
	for i := range n {
		cookie := forge[i%(len(forge)-1)]()
		r.Header["Cookie"] = []string{cookie}
		w := &httptest.ResponseRecorder{}
		if h.ServeHTTP(w, r); minted != i+1 {
			t.Fatalf("%q is accepted", cookie)
		}
	}
	if n := s.store.calls.Load() - calls; n != 0 {
		t.Errorf("%d store calls", n)
	}
	r.Header["Cookie"] = []string{forge[len(forge)-1]()}
	if h.ServeHTTP(&httptest.ResponseRecorder{}, r); minted != n {
		t.Error("a genuine cookie beside a foreign one is refused")
	}
}

// confirmed is a browser whose guest has come back.
func confirmed(s *site) *browser {
	b := s.browser()
	b.add("tea")
	b.request("GET", "/static")
	return b
}

// A token has one spelling: nothing can be put in, left out or written otherwise.
func TestATokenHasOneSpelling(t *testing.T) {
	s := newSite(t, func(c *guest.Config) { c.Header = "X-Guest"; c.Create = guest.OnFirstWrite })
	genuine := strings.TrimPrefix(cookieHeader(confirmed(s)), "guest=")
	accepts := func(header, value string) (ok bool) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header[header] = []string{value}
		s.guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ok = !guest.FromContext(r.Context()).IsNew()
		})).ServeHTTP(httptest.NewRecorder(), r)
		return ok
	}
	if !accepts("Cookie", "guest="+genuine) || !accepts("X-Guest", genuine) || !accepts("Cookie", `guest="`+genuine+`"`) {
		t.Fatal("the genuine one is refused")
	}
	refuse := func(value string) {
		outside := strings.Trim(value, "\"\r\n\t") != value // of the value: the header may quote it, and space it
		for range 2 {                                       // also when it was seen before
			if accepts("X-Guest", value) || !outside && accepts("Cookie", "guest="+value) {
				t.Errorf("%q is accepted for %q", value, genuine)
			}
		}
	}
	for i := range len(genuine) + 1 {
		for _, extra := range []string{"\r", "\n", "\r\n", "=", "A", "\x00", "\t", "%3D", "+", "/", "é"} {
			refuse(genuine[:i] + extra + genuine[i:])
		}
		if i < len(genuine) {
			refuse(genuine[:i] + genuine[i+1:] + "A")
			refuse(genuine[:i] + genuine[i+1:])
			if c := genuine[i] ^ 0x20; c != '-'^0x20 {
				refuse(genuine[:i] + string(rune(c)) + genuine[i+1:])
			}
		}
	}
	trimmed := strings.TrimRight(genuine, "=")
	for _, other := range []string{trimmed + "===", genuine + "====", genuine + genuine, strings.ToLower(genuine), `"` + genuine + `"`} {
		refuse(other)
	}
	if trimmed != genuine {
		refuse(trimmed)
	}
	// The last letters before the padding have bits that mean nothing.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for _, c := range alphabet {
		if other := trimmed[:len(trimmed)-1] + string(c) + genuine[len(trimmed):]; other != genuine {
			refuse(other)
		}
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
	for _, days := range []int{1, 29, 31, 180, 399, 400} {
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
		if err := Theme.Set(s.guests.AsGuest(t.Context(), id), "dark"); !errors.Is(err, guest.ErrInvalid) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// Apps that were given one secret share nothing if they have names: neither cookies, nor tickets, nor encrypted data.
func TestAppsThatShareASecret(t *testing.T) {
	store := newStore()
	app := func(name string) *guest.Manager {
		m, err := guest.New(guest.Config{Store: store, Secrets: [][]byte{secret}, App: name, Data: []guest.Kind{Email}})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	one := app("one")
	var id, ticket string
	keep := func(w http.ResponseWriter, r *http.Request) {
		if err := Email.Set(r.Context(), "ann@example.com"); err != nil {
			t.Fatal(err)
		}
		id = guest.FromContext(r.Context()).GuestID()
		ticket, _ = one.Ticket(r.Context(), "a", time.Hour)
	}
	cookie := at(one, at(one, "", keep), keep)
	for name, same := range map[string]bool{"one": true, "two": false, "": false} {
		m := app(name)
		at(m, cookie, func(w http.ResponseWriter, r *http.Request) {
			if v := guest.FromContext(r.Context()); (v.GuestID() == id) != same {
				t.Errorf("app %q: the cookie is taken: %v", name, !same)
			}
		})
		if got, err := Email.Get(m.AsGuest(t.Context(), id)); (got == "ann@example.com" && err == nil) != same {
			t.Errorf("app %q reads %q, %v", name, got, err)
		}
		at(m, "", func(w http.ResponseWriter, r *http.Request) {
			if !same {
				if _, err := m.ClaimTicket(w, r, ticket, "a", "eve"); err != guest.ErrTicket {
					t.Errorf("app %q: the ticket: %v", name, err)
				}
			}
		})
	}
}
