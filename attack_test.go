package guest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// minted is the spare cookie of a new guest with this in its cart.
func (s *site) minted(sku string) string {
	defer tick()
	return pair(s.request("POST", "/add/"+sku, "").Result().Cookies()[0])
}

// mainOf is the main cookie that a response sets, or "".
func mainOf(w *httptest.ResponseRecorder) string {
	for _, c := range w.Result().Cookies() {
		if c.Name == "guest" && c.MaxAge > 0 {
			return pair(c)
		}
	}
	return ""
}

// forgetting adds a route.
func (s *site) forgetting() *site {
	s.mux.HandleFunc("POST /forget", func(w http.ResponseWriter, r *http.Request) {
		if err := s.guests.Forget(w, r); err != nil {
			http.Error(w, err.Error(), 500)
		}
	})
	return s
}

// A browser still has the cookie of a guest that was absorbed by one that was claimed (or forgotten) since. The next
// guest of this browser does not go where that one went.
func TestTheNextGuestDoesNotFollowAnAbsorbedOne(t *testing.T) {
	for _, end := range []string{"/login/ann", "/forget"} {
		for _, newProcess := range []bool{false, true} {
			t.Run(fmt.Sprint(end, " newProcess=", newProcess), func(t *testing.T) {
				s := newSite(t, nil).forgetting()
				elder, younger := s.minted("tea"), s.minted("cup")
				main := mainOf(s.request("GET", "/page", elder+"; "+younger))
				s.request("POST", end, main)
				tick()
				next := s.minted("next")
				if newProcess {
					s = newSite(t, func(c *guest.Config) { c.Store = s.store })
				}
				if p := s.show(younger + "; " + next); p.Cart["next"] != 1 || len(p.Cart) != 1 {
					t.Errorf("the next visitor sees %v", p.Cart)
				}
				if ann := s.account("ann"); ann["next"] != 0 {
					t.Errorf("ann has %v", ann)
				}
			})
		}
	}
}

// The same from nothing but a rolling deployment that changes the cookie's scope, a real jar, and two people.
func TestTheNextGuestInARollingChangeOfScope(t *testing.T) {
	make := scopes(t)
	older, newer := make(guest.Cookie{}), make(guest.Cookie{Domain: "shop.test"}, guest.Cookie{})
	jar, _ := cookiejar.New(nil)
	u, _ := url.Parse("http://www.shop.test/")
	send := func(m *guest.Manager, cookies []*http.Cookie, f http.HandlerFunc) []*http.Cookie {
		r := httptest.NewRequest("POST", u.String(), nil)
		for _, c := range cookies {
			r.AddCookie(c)
		}
		w := httptest.NewRecorder()
		m.Middleware(f).ServeHTTP(w, r)
		tick()
		return w.Result().Cookies()
	}
	add := func(sku string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if _, err := Cart.Add(r.Context(), sku, 1); err != nil {
				t.Error(err)
			}
		}
	}
	one, two := send(newer, nil, add("tea")), send(older, nil, add("cup")) // parallel first requests
	jar.SetCookies(u, one)
	jar.SetCookies(u, two)
	jar.SetCookies(u, send(newer, jar.Cookies(u), add("more")))
	jar.SetCookies(u, send(newer, jar.Cookies(u), func(w http.ResponseWriter, r *http.Request) {
		if _, err := newer.Claim(w, r, "ann"); err != nil {
			t.Error(err)
		}
	}))
	for range 3 { // the next person
		jar.SetCookies(u, send(newer, jar.Cookies(u), add("next")))
	}
	send(newer, jar.Cookies(u), func(w http.ResponseWriter, r *http.Request) {
		if n, err := Cart.Get(r.Context(), "next"); n != 3 || err != nil {
			t.Errorf("the next person has %d, %v", n, err)
		}
	})
	if ann, err := Cart.All(newer.As(t.Context(), "ann")); ann["next"] != 0 || err != nil {
		t.Errorf("ann has %v, %v", ann, err)
	}
}

// A guest that an account has is not remembered as absorbed by the sibling that tried.
func TestAClaimedGuestIsNotTakenForAbsorbed(t *testing.T) {
	for _, end := range []string{"/login/ann", "/forget"} {
		s := newSite(t, nil).forgetting()
		elder, younger := s.minted("mine"), s.minted("cup")
		s.request("POST", end, younger)
		if end == "/login/ann" {
			s = newSite(t, func(c *guest.Config) { c.Store = s.store })
		} else {
			s = newSite(t, func(c *guest.Config) { c.Store = s.store }).forgetting()
		}
		s.request("GET", "/page", elder+"; "+younger)
		if p := s.show(younger); len(p.Cart) != 0 {
			t.Errorf("%s: a copy of the cookie of the claimed guest reads %v", end, p.Cart)
		}
	}
}

// A ticket whose guest has no record says ErrGone; the guest itself, whose cookie is alive, goes on.
func TestAGoneTicketDoesNotEndItsGuest(t *testing.T) {
	s := newSite(t, func(c *guest.Config) { c.Create = guest.OnFirstWrite })
	var ticket string
	s.mux.HandleFunc("/ticket", func(w http.ResponseWriter, r *http.Request) {
		ticket, _ = s.guests.Ticket(r.Context(), "ann@example.com", time.Hour)
	})
	s.mux.HandleFunc("/link", func(w http.ResponseWriter, r *http.Request) {
		_, err := s.guests.ClaimTicket(w, r, ticket, "ann@example.com", "ann")
		fmt.Fprint(w, err)
	})
	s.store.down(errors.New("a moment's outage"))
	b := s.browser()
	b.request("GET", "/ticket")
	s.store.down(nil)
	if _, body := s.browser().request("GET", "/link"); body != guest.ErrGone.Error() {
		t.Fatal(body)
	}
	other := newSite(t, func(c *guest.Config) { c.Store = s.store })
	w := other.request("POST", "/add/tea", cookieHeaderOf(b))
	cookies := cookieHeaderOf(b)
	if m := mainOf(w); m != "" {
		cookies = m
	}
	if p := s.show(cookies); p.Cart["tea"] != 1 {
		t.Errorf("the cart is %v", p.Cart)
	}
	r := httptest.NewRequest("GET", "/static", nil)
	r.Header.Set("Cookie", cookies)
	r.Header.Set("User", "ann")
	rec := httptest.NewRecorder()
	s.guests.Middleware(s.mux).ServeHTTP(rec, r)
	if ann := s.account("ann"); ann["tea"] != 1 {
		t.Errorf("signed in, ann has %v; the response says %q", ann, rec.Header()["Set-Cookie"])
	}
}

func cookieHeaderOf(b *browser) string {
	u, _ := url.Parse(b.s.url)
	var all []string
	for _, c := range b.Jar.Cookies(u) {
		all = append(all, pair(c))
	}
	return strings.Join(all, "; ")
}

// Of several cookies of one name, that which is neither claimed nor looked at is neither cleared nor overwritten.
func TestOfManyMainCookiesNoLivingOneIsLost(t *testing.T) {
	for name, planted := range map[string]struct{ dead, open int }{"eight dead": {8, 0}, "one dead and one open": {1, 1}} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, nil)
			mine := s.newcomer("mine")
			var cookies []string
			for i := range planted.dead {
				c := s.newcomer("bait")
				s.request("POST", fmt.Sprint("/login/eve", i), c)
				cookies = append(cookies, c)
			}
			for range planted.open {
				cookies = append(cookies, s.newcomer("bait"))
			}
			s = newSite(t, func(c *guest.Config) { c.Store = s.store })
			for range 3 {
				w := s.request("GET", "/page", strings.Join(append(cookies, mine), "; "))
				for _, c := range w.Result().Cookies() {
					if c.Name == "guest" && c.Value != mine[6:] {
						if p := s.show(pair(c)); p.Cart["mine"] != 1 {
							t.Fatalf("the visitor's cookie is overwritten by %q, whose cart is %v", c, p.Cart)
						}
					}
				}
			}
		})
	}
}

// Forget by a tab that has the cookie of a guest that was absorbed meanwhile erases what is left of it, or says that it did not.
func TestForgettingAnAbsorbedGuest(t *testing.T) {
	s := newSite(t, nil)
	elder := s.minted("early")
	mine := s.newcomer("secret")
	s.request("GET", "/page", elder+"; "+mine) // absorbed; the tab's own request is under way
	next := newSite(t, func(c *guest.Config) { c.Store = s.store }).forgetting()
	w := next.request("POST", "/forget", mine)
	t.Logf("%q", w.Header()["Set-Cookie"])
	for _, key := range next.store.keys(t, "g:") {
		if fields, _ := next.store.Get(t.Context(), key); fields["cart/secret"] != "" {
			t.Errorf("Forget was told nothing, and %v is kept", fields)
		}
	}
}

// A page outside the Path of a former cookie does not know its guest, so it must not clear it.
func TestAFormerCookieOfAnotherPathIsKept(t *testing.T) {
	make := scopes(t)
	before, after := make(guest.Cookie{Path: "/shop"}), make(guest.Cookie{}, guest.Cookie{Path: "/shop"})
	jar, _ := cookiejar.New(nil)
	visit := func(m *guest.Manager, path string, f http.HandlerFunc) {
		u, _ := url.Parse("http://www.shop.test" + path)
		r := httptest.NewRequest("POST", u.String(), nil)
		for _, c := range jar.Cookies(u) {
			r.AddCookie(c)
		}
		w := httptest.NewRecorder()
		m.Middleware(f).ServeHTTP(w, r)
		jar.SetCookies(u, w.Result().Cookies())
		tick()
	}
	add := func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), "tea", 1) }
	look := func(w http.ResponseWriter, r *http.Request) {}
	visit(before, "/shop/", add)
	visit(before, "/shop/", add)
	visit(after, "/", look) // the home page, twice
	visit(after, "/", look)
	visit(after, "/shop/", func(w http.ResponseWriter, r *http.Request) {
		if n, _ := Cart.Get(r.Context(), "tea"); n != 2 {
			t.Errorf("the cart has %d", n)
		}
	})
}

// What a sibling of a claimed guest holds is not the next person's, though it could not be moved at once.
func TestASiblingLeftBehindIsNotTheNextPersons(t *testing.T) {
	s := newSite(t, nil)
	elder, younger := s.minted("tea"), s.minted("cup")
	main := mainOf(s.request("GET", "/static", elder))
	tick()
	s.request("POST", "/login/ann", main)
	tick()
	next := s.minted("next")
	s = newSite(t, func(c *guest.Config) { c.Store = s.store })
	s.store.on(func(op, key string, u guest.Update) error {
		if strings.HasPrefix(key, "o:") {
			return errors.New("no answer")
		}
		return nil
	})
	w := s.request("GET", "/static", main+"; "+younger+"; "+next)
	s.store.on(nil)
	cookies := main // what the browser has by then
	if m := mainOf(w); m != "" {
		cookies = m
	}
	if !strings.Contains(strings.Join(w.Header()["Set-Cookie"], "\n"), younger[:12]+"=;") {
		cookies += "; " + younger
	}
	if !strings.Contains(strings.Join(w.Header()["Set-Cookie"], "\n"), next[:12]+"=;") {
		cookies += "; " + next
	}
	if p := s.show(cookies); p.Cart["cup"] != 0 || p.Cart["next"] != 1 {
		t.Errorf("the next person sees %v", p.Cart)
	}
}

// A write that was acknowledged is kept, also if another goroutine of the handler claims, or sends a public page, meanwhile.
func TestAWriteBesideAClaimInOneRequest(t *testing.T) {
	for _, end := range []string{"claim", "public", "forget"} {
		t.Run(end, func(t *testing.T) {
			s := newSite(t, nil)
			var claim func()
			s.mux.HandleFunc("/both", func(w http.ResponseWriter, r *http.Request) {
				done := make(chan bool)
				claim = func() {
					switch end {
					case "claim":
						s.guests.Claim(w, r, "ann")
					case "public":
						w.Header().Set("Cache-Control", "public")
						w.WriteHeader(200)
					case "forget":
						s.guests.Forget(w, r)
					}
				}
				go func() {
					defer close(done)
					_, err := Cart.Add(r.Context(), "tea", 1)
					if err != nil {
						io.WriteString(w, err.Error())
					}
				}()
				<-done
			})
			s.store.on(func(op, key string, u guest.Update) error {
				if c := claim; c != nil && strings.HasPrefix(key, "g:") {
					claim = nil
					c()
				}
				return nil
			})
			w := s.request("POST", "/both", "")
			var found int
			if s.account("ann")["tea"] == 1 {
				found++
			}
			for _, c := range w.Result().Cookies() {
				if s.show(pair(c)).Cart["tea"] == 1 {
					found++
				}
			}
			if w.Body.Len() == 0 && found != 1 {
				t.Errorf("acknowledged, and found %d times; cookies %q", found, w.Header()["Set-Cookie"])
			}
		})
	}
}

// What follows an absorbed guest into an account makes no record that ends with the guest's life.
func TestAnAccountMadeByASiblingLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := guest.New(guest.Config{Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Data: []guest.Kind{Cart}})
		nothing := func(http.ResponseWriter, *http.Request) {}
		first := func(f http.HandlerFunc) string {
			defer time.Sleep(time.Millisecond)
			r := httptest.NewRequest("POST", "/", nil)
			w := httptest.NewRecorder()
			m.Middleware(f).ServeHTTP(w, r)
			return pair(w.Result().Cookies()[0])
		}
		elder := first(nothing)
		younger := first(func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), "tea", 1) })
		if _, err := claimBy(m, elder, "ann"); err != nil { // it is empty, so it makes no record
			t.Error(err)
		}
		time.Sleep(time.Millisecond)
		at(m, elder+"; "+younger, nothing)
		ann := m.As(t.Context(), "ann")
		if n, err := Cart.Add(ann, "tea", 1); n != 2 || err != nil {
			t.Error(n, err)
		}
		time.Sleep(40 * 24 * time.Hour)
		if n, err := Cart.Get(ann, "tea"); n != 2 || err != nil {
			t.Errorf("after forty days the account has %d, %v", n, err)
		}
	})
}

// A response that follows a guest to its sibling, and finds that forgotten, does not put the dead one's cookie over
// that of a guest which another response has confirmed meanwhile.
func TestNoDeadGuestsCookieIsSet(t *testing.T) {
	for _, end := range []string{"/login/ann", "/forget"} {
		s := newSite(t, nil).forgetting()
		elder, younger := s.minted("tea"), s.minted("cup")
		main := mainOf(s.request("GET", "/page", elder+"; "+younger))
		another := newSite(t, func(c *guest.Config) { c.Store = s.store }).forgetting()
		another.request("POST", end, main)
		for name, s := range map[string]*site{ // one knows that the elder has absorbed it, one nothing
			"knows": s, "new": newSite(t, func(c *guest.Config) { c.Store = s.store }),
		} {
			for method, path := range map[string]string{"POST": "/add/next", "GET": "/static"} {
				if c := mainOf(s.request(method, path, younger)); c != "" {
					t.Errorf("%s, %s, %s: the response sets %q: cart %v", end, name, path, c, s.show(c).Cart)
				}
			}
		}
	}
}

// Forget ends all guests of the request, or says that it did not.
func TestForgetEndsAllGuestsOfTheRequest(t *testing.T) {
	s := newSite(t, nil).forgetting()
	var cookies []string
	for i := range 12 {
		cookies = append(cookies, s.minted(fmt.Sprint("sku", i)))
	}
	s.request("POST", "/forget", strings.Join(cookies, "; "))
	for _, key := range s.store.keys(t, "g:") {
		fields, _ := s.store.Get(t.Context(), key)
		for field := range fields {
			if strings.HasPrefix(field, "cart/") {
				t.Errorf("%s is left", field)
			}
		}
	}
}

// A claim that is pending goes on with the owner's next request, also if a page of a signed-out tab has looked at the
// guest meanwhile.
func TestAPendingClaimGoesOnThoughATabLooked(t *testing.T) {
	s := newSite(t, nil)
	mine := s.newcomer("tea")
	s.store.on(func(op, key string, u guest.Update) error {
		if strings.HasPrefix(key, "a:") {
			return errors.New("no answer")
		}
		return nil
	})
	s.request("POST", "/login/ann", mine)
	s.store.on(nil)
	s.show(mine) // was sent before
	time.Sleep(1100 * time.Millisecond)
	r := httptest.NewRequest("GET", "/static", nil)
	r.Header.Set("Cookie", mine)
	r.Header.Set("User", "ann")
	w := httptest.NewRecorder()
	s.guests.Middleware(s.mux).ServeHTTP(w, r)
	if s.account("ann")["tea"] != 1 {
		t.Errorf("ann has %v, and the response says %q", s.account("ann"), w.Header()["Set-Cookie"])
	}
}

// fastClock is a store whose clock is an hour ahead of the processes'.
type fastClock struct{ guest.Store }

func ahead(f guest.Fields) guest.Fields {
	if at, ok := f[".t"]; ok {
		var ms int64
		fmt.Sscan(at, &ms)
		f[".t"] = fmt.Sprint(ms + 3600_000)
	}
	return f
}

func (s fastClock) Get(ctx context.Context, key string, names ...string) (guest.Fields, error) {
	f, err := s.Store.Get(ctx, key, names...)
	return ahead(f), err
}

func (s fastClock) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	if at := u.If[".t"]; at != "" {
		var ms int64
		fmt.Sscan(at, &ms)
		u.If = maps.Clone(u.If)
		u.If[".t"] = fmt.Sprint(ms - 3600_000)
	}
	res, err := s.Store.Update(ctx, key, u)
	ahead(res.Fields)
	return res, err
}

// The next person's guest is the next person's, also if the node's clock is behind the store's.
func TestAnHeirIsNotTakenForASiblingByASlowClock(t *testing.T) {
	store := fastClock{newStore()}
	s := newSite(t, func(c *guest.Config) { c.Store = store })
	mine := s.newcomer("tea")
	s.request("POST", "/login/ann", mine) // its response is lost
	tick()
	w := s.request("POST", "/add/next", mine)
	next := pair(given(w.Result())[0])
	s = newSite(t, func(c *guest.Config) { c.Store = store })
	if p := s.show(mine + "; " + next); p.Cart["next"] != 1 {
		t.Errorf("the next person sees %v, ann has %v", p.Cart, s.account("ann"))
	}
}

// scopes returns a function that makes Managers on one store whose cookies have these scopes, and had those formerly.
func scopes(t *testing.T) func(c guest.Cookie, former ...guest.Cookie) *guest.Manager {
	store := newStore()
	return func(c guest.Cookie, former ...guest.Cookie) *guest.Manager {
		c.Insecure = true
		m, err := guest.New(guest.Config{
			Store: store, Secrets: [][]byte{secret}, Data: []guest.Kind{Cart}, Cookie: c, FormerCookies: former,
		})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
}
