package guest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
)

func TestCookiesThatDoNotVerifyAreNoGuest(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	old := newSite(t, func(c *guest.Config) {
		c.Secrets = [][]byte{[]byte("a secret that was removed since,32")}
	})
	foreign := old.browser()
	foreign.page()
	foreign.page()
	res, _ := foreign.request("GET", "/page")
	signedElsewhere := res.Request.Header.Get("Cookie")

	b := s.browser()
	b.page()
	b.page()
	res, _ = b.request("GET", "/page")
	mine := strings.TrimPrefix(res.Request.Header.Get("Cookie"), "guest=")

	for name, cookie := range map[string]string{
		"garbage":            "guest=garbage",
		"empty":              "guest=",
		"5,000 bytes":        "guest=" + strings.Repeat("A", 5000),
		"removed secret":     signedElsewhere,
		"truncated":          "guest=" + mine[:len(mine)-1],
		"extended":           "guest=" + mine + "A",
		"renamed":            "guest.abcdef=" + mine,
		"upper case":         "guest=" + strings.ToUpper(mine),
		"line break inside":  "guest=" + mine[:10] + "\n" + mine[10:],
		"another's cookie":   "session=" + mine,
		"not base64":         "guest=%%%",
		"many made-up names": strings.Repeat("guest.xxxxxx=y; ", 200),
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/page", nil)
			r.Header["Cookie"] = []string{cookie}
			w := httptest.NewRecorder()
			s.guests.Middleware(s.mux).ServeHTTP(w, r)
			if w.Code != 200 || !strings.Contains(w.Body.String(), `"New":true`) {
				t.Errorf("%d %s; want 200 and a new guest", w.Code, w.Body)
			}
			set := slices.DeleteFunc(w.Header().Values("Set-Cookie"), func(line string) bool {
				return strings.Contains(line, "Max-Age=0")
			})
			if len(set) != 1 {
				t.Errorf("Set-Cookie: %q", w.Header().Values("Set-Cookie"))
			}
		})
	}
	t.Run("twice the same", func(t *testing.T) {
		r := httptest.NewRequest("GET", "/page", nil)
		r.Header["Cookie"] = []string{"guest=" + mine + "; guest=" + mine, `guest="` + mine + `"`}
		w := httptest.NewRecorder()
		s.guests.Middleware(s.mux).ServeHTTP(w, r)
		if !strings.Contains(w.Body.String(), b.page().Guest) {
			t.Errorf("%s", w.Body)
		}
	})
}

func TestTwoDifferentGuestCookies(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	cookieOf := func(b *browser) string {
		b.page()
		b.add("tea")
		res, _ := b.request("GET", "/page")
		return res.Request.Header.Get("Cookie")
	}
	mine, planted := s.browser(), s.browser()
	a, c := cookieOf(mine), cookieOf(planted)

	r := httptest.NewRequest("POST", "/login/ann", nil)
	r.Header["Cookie"] = []string{a + "; " + c}
	w := httptest.NewRecorder()
	s.guests.Middleware(s.mux).ServeHTTP(w, r)
	if !strings.Contains(w.Body.String(), guest.ErrAmbiguous.Error()) {
		t.Errorf("claim with two cookies: %s; want ErrAmbiguous", w.Body)
	}
	if got := s.account("ann"); len(got) != 0 {
		t.Errorf("the account got %v", got)
	}
	r = httptest.NewRequest("GET", "/page", nil)
	r.Header["Cookie"] = []string{a + "; " + c}
	w = httptest.NewRecorder()
	s.guests.Middleware(s.mux).ServeHTTP(w, r)
	if !strings.Contains(w.Body.String(), mine.page().Guest) {
		t.Errorf("the first guest is not served: %s", w.Body)
	}
}

// Two cookies of one name come from two scopes, for example after a change of Cookie.Domain. If one
// of their guests was claimed, the other is served, for as long as both cookies come, and our
// cookie takes the claimed one's place. A claim takes neither.
func TestOfTwoCookiesTheUnclaimedIsServed(t *testing.T) {
	t.Parallel()
	for _, newProcess := range []bool{false, true} {
		for _, order := range []string{"claimed first", "claimed last"} {
			t.Run(fmt.Sprint(order, " newProcess=", newProcess), func(t *testing.T) {
				s := newSite(t, nil)
				old, live := s.confirmedCookie("old"), s.confirmedCookie("new")
				s.request("POST", "/login/ann", old)
				if newProcess {
					s = newSite(t, func(c *guest.Config) { c.Store = s.store })
				}
				both := old + "; " + live
				if order == "claimed last" {
					both = live + "; " + old
				}
				for i := range 3 {
					s.request("POST", "/add/cup", both)
					w := s.request("GET", "/page", both)
					var p page
					json.Unmarshal(w.Body.Bytes(), &p)
					if p.Cart["new"] != 1 || p.Cart["cup"] != int64(i+1) || p.Replaced {
						t.Errorf("served %+v", p)
					}
					var value string
					for _, c := range w.Result().Cookies() {
						if c.Name == "guest" && c.MaxAge > 0 {
							value = c.Value
						}
					}
					if p := s.show("guest=" + value); p.Cart["new"] != 1 {
						t.Errorf("the cookie that takes the claimed one's place is of %+v", p)
					}
				}
				if calls := s.store.took(func() { s.request("GET", "/static", both) }); calls != 0 {
					t.Errorf("once known, a page took %d calls", calls)
				}
				var c claimed
				json.Unmarshal(s.request("POST", "/login/bob", both).Body.Bytes(), &c)
				if c.Err != guest.ErrAmbiguous.Error() || len(s.account("bob")) != 0 {
					t.Errorf("a claim with both: %+v", c)
				}
			})
		}
	}
}

func TestSeveralMainCookies(t *testing.T) {
	t.Parallel()

	// Two different cookies of the main name are ambiguous even if the first one's provisional
	// cookie comes before them.
	t.Run("two behind a provisional one", func(t *testing.T) {
		t.Parallel()
		var refused []string
		s := newSite(t, func(c *guest.Config) {
			c.Hooks.Refused = func(_ context.Context, reason string) { refused = append(refused, reason) }
		})
		guestOf := func(sku string) (provisional, main string) {
			b := s.browser()
			res, _ := b.request("POST", "/add/"+sku)
			provisional = pair(given(res)[0])
			res, _ = b.request("GET", "/page")
			return provisional, pair(given(res)[0])
		}
		_, attacker := guestOf("bait")
		provisional, victim := guestOf("tea")
		for _, cookies := range []string{victim + "; " + attacker, provisional + "; " + victim + "; " +
			attacker} {
			refused = nil
			s.browser().request("GET", "/page", "Cookie", cookies)
			if !slices.Contains(refused, guest.RefusedCookies) {
				t.Errorf("not refused: %v", refused)
			}
		}
		_, body := s.browser().request("GET", "/page", "Cookie", attacker)
		if strings.Contains(body, "tea") {
			t.Errorf("the tossed cookie's guest has the victim's cart: %s", body)
		}
	})

	t.Run("of two claimed guests", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		one, two := s.confirmedCookie("one"), s.confirmedCookie("two")
		s.request("POST", "/login/ann", one)
		s.request("POST", "/login/bob", two)
		next := newSite(t, func(c *guest.Config) { c.Store = s.store })
		for _, s := range []*site{s, next} {
			w := s.request("POST", "/add/cup", one+"; "+two)
			if n := w.Body.String(); n != "1" {
				t.Errorf("a fresh guest's first cup is %s", n)
			}
			if len(w.Result().Cookies()) != 2 {
				t.Errorf("want the main name cleared and a fresh guest's cookie: %q", w.Header()["Set-Cookie"])
			}
		}
		if s.account("ann")["one"] != 1 || s.account("bob")["two"] != 1 || len(s.account("ann")) != 1 {
			t.Errorf("ann %v, bob %v", s.account("ann"), s.account("bob"))
		}
	})

	// Of several cookies of one name, a cookie that was not looked at, and whose guest is not
	// claimed, is neither cleared nor overwritten.
	t.Run("no living guest is lost", func(t *testing.T) {
		t.Parallel()
		for name, planted := range map[string]struct{ claimed, open int }{
			"eight claimed":            {8, 0},
			"one claimed and one open": {1, 1},
		} {
			t.Run(name, func(t *testing.T) {
				s := newSite(t, nil)
				mine := s.confirmedCookie("mine")
				var cookies []string
				for i := range planted.claimed {
					c := s.confirmedCookie("bait")
					s.request("POST", fmt.Sprint("/login/eve", i), c)
					cookies = append(cookies, c)
				}
				for range planted.open {
					cookies = append(cookies, s.confirmedCookie("bait"))
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
	})

	// The guest under the main name is absorbed before its cookie is overwritten, however many
	// others there are, and even if the store fails just then.
	t.Run("none is overwritten too soon", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		var siblings []string
		for i := range 12 { // all older than the one under the main name
			c := s.request("POST", fmt.Sprint("/add/sku", i), "").Result().Cookies()[0]
			siblings = append(siblings, c.Name+"="+c.Value)
			tick()
		}
		header := s.confirmedCookie("main") + "; " + strings.Join(siblings, "; ")
		s.store.on(func(op, key string, u guest.Update) error {
			if op == "update" && strings.HasPrefix(key, "o:") {
				return errors.New("no answer")
			}
			return nil
		})
		for _, c := range s.request("GET", "/static", header).Result().Cookies() {
			if c.Name == "guest" {
				t.Error("its cookie is overwritten, though it could not be absorbed")
			}
		}
		s.store.on(nil)
		w := s.request("GET", "/page", header)
		var p page
		json.Unmarshal(w.Body.Bytes(), &p)
		if p.Cart["main"] != 1 {
			t.Errorf("after eight guests of thirteen the cart is %v", p.Cart)
		}
	})

	// A response follows a guest to its sibling and finds the sibling claimed or forgotten. It does
	// not overwrite the cookie of a guest that another response has confirmed meanwhile.
	t.Run("that of a claimed guest is not set again", func(t *testing.T) {
		t.Parallel()
		for _, end := range []string{"/login/ann", "/forget"} {
			s := newSite(t, nil).forgetting()
			elder, younger := s.provisional("tea"), s.provisional("cup")
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
	})
}

// Siblings are guests of one browser: its first requests were parallel, so each began one.
func TestSiblings(t *testing.T) {
	t.Parallel()

	t.Run("parallel first requests become one guest", func(t *testing.T) {
		t.Parallel()
		for _, n := range []int{2, 6, 50} {
			s := newSite(t, nil)
			b := s.browser()
			arrived := make(chan struct{}, n)
			release := make(chan struct{})
			s.mux.HandleFunc("POST /together/{sku}", func(w http.ResponseWriter, r *http.Request) {
				arrived <- struct{}{}
				<-release // all are cookieless: none is answered before all have come
				if _, err := Cart.Add(r.Context(), r.PathValue("sku"), 1); err != nil {
					http.Error(w, err.Error(), 500)
				}
			})
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					if res, body := b.request("POST", "/together/"+
						[]string{"tea", "cup"}[i%2]); res.StatusCode != 200 {
						t.Errorf("%s: %s", res.Status, body)
					}
				})
			}
			for range n {
				<-arrived
			}
			close(release)
			wg.Wait()
			if got := len(b.cookies()); got != n {
				t.Fatalf("%d cookies, want %d", got, n)
			}
			// A request absorbs eight guests, so those of a small page are absorbed by the first.
			p, pages := b.page(), 1
			for ; pages < n && (p.Cart["tea"]+p.Cart["cup"] < int64(n) || len(b.cookies()) > 1); pages++ {
				p = b.page()
			}
			if p.Cart["tea"]+p.Cart["cup"] != int64(n) || n <= 4 && pages > 1 || pages > 1+n/4 {
				t.Errorf("%d requests, cart %v after %d pages", n, p.Cart, pages)
			}
			if got := b.cookies(); len(got) != 1 || got[0] != "guest" {
				t.Errorf("cookies %v", got)
			}
			if n := outbox(t, s.store); n != 0 {
				t.Errorf("%d entries left in the outbox", n)
			}
		}
	})

	t.Run("a write to an absorbed sibling follows it", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		absorbed := make(chan struct{})
		s.mux.HandleFunc("POST /slow", func(w http.ResponseWriter, r *http.Request) {
			if _, err := Cart.Add(r.Context(), "slow", 1); err != nil {
				t.Error(err)
			}
			w.(http.Flusher).Flush() // the browser has this guest's cookie now
			<-absorbed
			if _, err := Cart.Add(r.Context(), "slow", 1); err != nil {
				t.Error(err)
			}
			all, err := Cart.All(r.Context())
			if want := map[string]int64{"slow": 2, "quick": 1}; !maps.Equal(all, want) || err != nil {
				t.Errorf("the slow request reads %v, %v; want %v", all, err, want)
			}
		})
		b, parallel := s.browser(), s.browser()
		b.add("quick")
		res, err := parallel.Post(s.url+"/slow", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b.Jar.SetCookies(res.Request.URL, res.Cookies())
		if want, p := (map[string]int64{"slow": 1, "quick": 1}), b.page(); !maps.Equal(p.Cart, want) {
			t.Errorf("cart %v, want %v", p.Cart, want)
		}
		close(absorbed)
		io.Copy(io.Discard, res.Body)
		if want, p := (map[string]int64{"slow": 2, "quick": 1}), b.page(); !maps.Equal(p.Cart, want) {
			t.Errorf("cart %v, want %v", p.Cart, want)
		}
	})

	// Data that follow an absorbed guest into an account make no record that ends with the guest's
	// life.
	t.Run("an account made by a sibling lives", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			m := newManager(t, guest.Config{})
			nothing := func(http.ResponseWriter, *http.Request) {}
			first := func(f http.HandlerFunc) string {
				defer time.Sleep(time.Millisecond)
				r := httptest.NewRequest("POST", "/", nil)
				w := httptest.NewRecorder()
				m.Middleware(f).ServeHTTP(w, r)
				return pair(w.Result().Cookies()[0])
			}
			elder := first(nothing)
			younger := first(adds("tea"))
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
	})

	// Where no other host can plant a cookie, guests of different times are one visitor's: a
	// SameSite=Strict cookie is not sent when the visitor follows a link from another site, and
	// what the landing page writes joins the guest of yesterday.
	t.Run("a SameSite=Strict cookie stays at home", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			m := newManager(t, guest.Config{Cookie: guest.Cookie{SameSite: http.SameSiteStrictMode}})
			add := func(cookie, sku string) string {
				return at(m, cookie, adds(sku))
			}
			home := add(add("", "old"), "old")
			time.Sleep(48 * time.Hour)
			landing := add("", "landing")
			at(m, home+"; "+landing, func(w http.ResponseWriter, r *http.Request) {
				if cart, err := Cart.All(r.Context()); cart["old"] != 2 || cart["landing"] != 1 || err != nil {
					t.Errorf("the cart holds %v, %v", cart, err)
				}
			})
		})
	})

	// A browser with more made-up provisional cookies than a request looks at is a visitor like any
	// other, and loses them.
	t.Run("made-up provisional cookies", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		b := s.browser()
		for i := range 200 {
			b.Jar.SetCookies(mustParse(s.url), []*http.Cookie{{Name: fmt.Sprintf("guest.%06d", i),
				Value: "made-up", Path: "/"}})
		}
		const enough = 60 // requests: each response clears four
		for i := range enough {
			res, _ := b.request("POST", "/add/tea")
			if n := len(res.Header.Values("Set-Cookie")); n > 5 {
				t.Errorf("%d lines of Set-Cookie", n)
			}
			if p := b.page(); p.Cart["tea"] != int64(i+1) {
				t.Fatalf("after %d additions the cart holds %v", i+1, p.Cart)
			}
		}
		if got := b.cookies(); len(got) != 1 || got[0] != "guest" {
			t.Errorf("%d cookies left: %v", len(got), got)
		}
		if n := len(s.store.keys(t, "g:")); n != 1 {
			t.Errorf("%d records", n)
		}
	})

	// A sibling tried to absorb a guest that an account has claimed. The process does not remember
	// that guest as absorbed.
	t.Run("a claimed guest is not taken for absorbed", func(t *testing.T) {
		t.Parallel()
		for _, end := range []string{"/login/ann", "/forget"} {
			s := newSite(t, nil).forgetting()
			elder, younger := s.provisional("mine"), s.provisional("cup")
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
	})
}

// Without __Host- a subdomain can plant a provisional cookie. The guest of yesterday is neither
// replaced by the planted one nor absorbs it.
func TestAPlantedProvisionalCookie(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		between time.Duration // from the victim's first visit to the attacker's
		wait    time.Duration // from the later of the two to the attack
		taken   bool
	}{
		{"a parallel first request", time.Second, time.Second, true},
		{"another one, half an hour before the victim", -30 * time.Minute, time.Second, true},
		{"a new one beside the guest of yesterday", 24 * time.Hour, time.Second, false},
		{"one that was kept for the purpose", -24 * time.Hour, time.Second, false},
		{"one of the victim's own time, kept until tomorrow", time.Second, 24 * time.Hour, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newManager(t, guest.Config{Cookie: guest.Cookie{Domain: "shop.example"},
					ProvisionalTTL: time.Hour})
				add := func(cookie, sku string) string {
					return at(m, cookie, adds(sku))
				}
				reads := func(cookie string) (cart map[string]int64) {
					at(m, cookie, func(w http.ResponseWriter, r *http.Request) { cart, _ = Cart.All(r.Context()) })
					return cart
				}
				var victim, planted string
				visit := func() { victim = add(add("", "mine"), "mine") }
				create := func() { planted = add("", "theirs") }
				if tt.between < 0 {
					create()
					time.Sleep(-tt.between)
					visit()
				} else {
					visit()
					time.Sleep(tt.between)
					create()
				}
				time.Sleep(tt.wait)

				cart := reads(victim + "; " + planted)
				theirs := reads(planted)
				if taken := theirs["mine"] != 0; taken != tt.taken || cart["mine"] != 2 || !taken &&
					cart["theirs"] != 0 {
					t.Errorf("the victim reads %v, the attacker %v", cart, theirs)
				}
				if own := reads(victim); own["mine"] != 2 {
					t.Errorf("the victim without the planted cookie reads %v", own)
				}
			})
		})
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

// A visitor leaves a browser to the next person, whose data go neither into what was forgotten nor
// into the first visitor's account.
func TestTheNextPerson(t *testing.T) {
	t.Parallel()

	// A visitor leaves a browser with more first cookies than one response clears, by Forget or by
	// a login and logout.
	t.Run("after more first cookies than one response clears", func(t *testing.T) {
		t.Parallel()
		for _, n := range []int{4, 8, 12, 30} {
			for _, end := range []string{"forget", "login"} {
				for _, processes := range []int{1, 2} {
					t.Run(fmt.Sprint(n, " cookies/", end, "/processes: ", processes), func(t *testing.T) {
						s := newSite(t, nil)
						s.mux.HandleFunc("POST /forget", func(w http.ResponseWriter, r *http.Request) {
							if err := s.guests.Forget(w, r); err != nil {
								t.Error(err)
							}
						})
						b := s.browser()
						for i := range n {
							c := s.request("POST", fmt.Sprint("/add/first", i), "").Result().Cookies()[0]
							b.Jar.SetCookies(mustParse(s.url), []*http.Cookie{{Name: c.Name, Value: c.Value}})
						}
						stolen := b.copy()
						tick()
						if end == "forget" {
							b.request("POST", "/forget")
						} else {
							b.login("ann")
						}
						tick()
						if processes == 2 {
							next := newSite(t, func(c *guest.Config) { c.Store = s.store })
							jar := b.Jar.Cookies(mustParse(s.url))
							b = next.browser()
							b.Jar.SetCookies(mustParse(next.url), jar)
						}
						for i := range 3 {
							b.add(fmt.Sprint("next", i))
						}
						for range n {
							b.page()
						}
						p := b.page()
						for i := range 3 {
							if p.Cart[fmt.Sprint("next", i)] != 1 {
								t.Errorf("the next person has %v", p.Cart)
								break
							}
						}
						for sku := range s.account("ann") {
							if strings.HasPrefix(sku, "next") {
								t.Errorf("the first one's account has the next person's %s", sku)
							}
						}
						if end == "forget" {
							for range n {
								if p := stolen.page(); len(p.Cart) != 0 {
									t.Fatalf("a copy of the forgotten cookies reads %v", p.Cart)
								}
							}
						}
						// for two minutes a successor keeps its own provisional cookie
						if got := b.cookies(); len(got) > 2 {
							t.Errorf("cookies %v", got)
						}
					})
				}
			}
		}
	})

	// A browser still has the cookie of a guest that was absorbed by another, which has been
	// claimed or forgotten since. The next guest of this browser does not follow it.
	t.Run("does not follow an absorbed guest", func(t *testing.T) {
		t.Parallel()
		for _, end := range []string{"/login/ann", "/forget"} {
			for _, newProcess := range []bool{false, true} {
				t.Run(fmt.Sprint(end, " newProcess=", newProcess), func(t *testing.T) {
					s := newSite(t, nil).forgetting()
					elder, younger := s.provisional("tea"), s.provisional("cup")
					main := mainOf(s.request("GET", "/page", elder+"; "+younger))
					s.request("POST", end, main)
					tick()
					next := s.provisional("next")
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
	})

	// The same, without cookies made by hand: a rolling deployment changes the cookie's scope, and
	// two people use one browser.
	t.Run("in a rolling change of the cookie's scope", func(t *testing.T) {
		t.Parallel()
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
	})

	// A sibling of a claimed guest could not be moved at once. Its data are not the next person's.
	t.Run("beside a sibling that was left behind", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		elder, younger := s.provisional("tea"), s.provisional("cup")
		main := mainOf(s.request("GET", "/static", elder))
		tick()
		s.request("POST", "/login/ann", main)
		tick()
		next := s.provisional("next")
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
	})

	// A browser may have the cookie of a claimed guest beside newer ones, because a late response
	// brought it back.
	t.Run("beside the cookies of a claimed guest and its siblings", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		main, early := s.browser(), s.browser()
		main.add("tea")
		tick()
		// in parallel with the first, but its response is late
		res, _ := early.request("POST", "/add/early")
		main.page()
		stale := main.copy()
		tick() // guests and claims are ordered by the millisecond
		main.login("ann")
		tick()
		late := s.browser() // the next person at this browser
		lateRes, _ := late.request("POST", "/add/late")

		// a process that knows nothing of the claim
		next := newSite(t, func(c *guest.Config) { c.Store = s.store })
		b := next.browser()
		for _, cookies := range [][]*http.Cookie{
			stale.Jar.Cookies(mustParse(s.url)), res.Cookies(),
			lateRes.Cookies(),
		} {
			b.Jar.SetCookies(mustParse(next.url), cookies)
		}
		p := b.page()
		if want := map[string]int64{"late": 1}; !maps.Equal(p.Cart, want) || p.New {
			t.Errorf("the next person sees %+v, want %v", p, want)
		}
		if want := map[string]int64{"tea": 1, "early": 1}; !maps.Equal(s.account("ann"), want) {
			t.Errorf("ann has %v, want %v", s.account("ann"), want)
		}
		if got := b.cookies(); len(got) != 1 || got[0] != "guest" {
			t.Errorf("cookies %v", got)
		}
		if p := b.page(); p.Cart["late"] != 1 || p.Replaced {
			t.Errorf("and then %+v", p)
		}
	})

	// The next person's guest is not taken for a sibling, even if the clock of the process is
	// behind the store's.
	t.Run("is not taken for a sibling by a slow clock", func(t *testing.T) {
		t.Parallel()
		store := fastClock{newStore()}
		s := newSite(t, func(c *guest.Config) { c.Store = store })
		mine := s.confirmedCookie("tea")
		s.request("POST", "/login/ann", mine) // its response is lost
		tick()
		w := s.request("POST", "/add/next", mine)
		next := pair(given(w.Result())[0])
		s = newSite(t, func(c *guest.Config) { c.Store = store })
		if p := s.show(mine + "; " + next); p.Cart["next"] != 1 {
			t.Errorf("the next person sees %v, ann has %v", p.Cart, s.account("ann"))
		}
	})
}

// Ten thousand replays of the cookies of claimed guests. The process that claimed them makes no
// call of the store, another process looks at one tombstone. Nothing of the guests or the account
// is read or changed.
func TestReplays(t *testing.T) {
	t.Parallel()
	n := 10_000
	if raceEnabled || *storeFlag != "memory" {
		n /= 10
	}
	config := func(c *guest.Config) { c.Create = guest.OnFirstWrite }
	s := newSite(t, config)
	var old []string
	for range 50 {
		cookie := s.confirmedCookie("secret")
		s.request("POST", "/login/ann", cookie)
		old = append(old, cookie)
	}
	dump := func() string {
		var all []string
		for _, prefix := range []string{"g:", "a:", "o:"} {
			for _, key := range s.store.keys(t, prefix) {
				fields, err := s.store.Store.Get(t.Context(), key)
				if err != nil {
					t.Fatal(err)
				}
				line, _ := json.Marshal(fields)
				all = append(all, key+string(line))
			}
		}
		slices.Sort(all)
		return strings.Join(all, "\n")
	}
	before := dump()
	if strings.Count(before, "secret") != 1 { // the account's
		t.Fatal(before)
	}
	store := s.store
	store.on(func(op, key string, u guest.Update) error {
		if strings.HasPrefix(key, "a:") {
			t.Errorf("%s of an account's record", op)
		}
		return nil
	})
	ask := func(s *site, cookie string, most int, method, path string) {
		t.Helper()
		var w *httptest.ResponseRecorder
		if calls := store.took(func() { w = s.request(method, path, cookie) }); calls > most {
			t.Errorf("%s %s: %d store calls, at most %d", method, path, calls, most)
		}
		if strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s %s shows %s", method, path, w.Body)
		}
	}
	other := s
	for i := range n {
		if cookie := old[i%len(old)]; i%2 == 0 {
			ask(s, cookie, 0, "GET", "/page")
		} else {
			if i%100 == 1 {
				other = newSite(t, func(c *guest.Config) { config(c); c.Store = store })
			}
			ask(other, cookie, 1, "GET", "/page")
		}
	}
	if after := dump(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}

	// A write creates a fresh guest, once the tombstone has been seen.
	fresh := newSite(t, func(c *guest.Config) { config(c); c.Store = store })
	for _, cookie := range old {
		ask(fresh, cookie, 2, "POST", "/add/cup")
		ask(fresh, cookie, 1, "POST", "/add/cup")
	}
	if after := dump(); strings.Count(after, "secret") != 1 ||
		strings.Count(after, "cart/cup") != 2*len(old) {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// The cookie of a claimed guest is worth no more than none: Config.Admit decides on the fresh
// guest, too. Otherwise one such cookie, repeated, would create guests without limit.
func TestAReplayedCookieIsAdmittedLikeNone(t *testing.T) {
	t.Parallel()
	open := true
	s := newSite(t, func(c *guest.Config) { c.Admit = func(*http.Request) bool { return open } })
	b := s.browser()
	b.add("tea")
	b.page()
	old := b.copy()
	b.login("ann")
	open = false
	before := len(s.store.keys(t, "g:"))
	// on a process that knows of the claim, and on one that does not
	for _, again := range []bool{false, true} {
		m := s
		if again {
			m = newSite(t, func(c *guest.Config) {
				c.Store = s.store
				c.Admit = func(*http.Request) bool { return open }
			})
		}
		for range 3 {
			tab := m.browser()
			tab.Jar.SetCookies(mustParse(m.url), old.Jar.Cookies(mustParse(s.url)))
			if p := tab.page(); p.Guest != "" || len(p.Cart) != 0 || !p.Replaced {
				t.Errorf("%+v", p)
			}
			if res, body := tab.request("POST", "/add/cup"); res.StatusCode != 503 ||
				body != "guest: data \"cart\": "+guest.ErrNotAdmitted.Error()+"\n" {
				t.Errorf("a write: %s %s", res.Status, body)
			}
		}
	}
	if n := len(s.store.keys(t, "g:")); n != before {
		t.Errorf("%d records, %d before", n, before)
	}
	open = true
	if p := old.page(); !p.New || !p.Replaced {
		t.Errorf("admitted again: %+v", p)
	}
}

// A request works on eight guests, however many cookies it brings. The others are dealt with in
// later requests, and nothing is lost. Guests that this process knows to be claimed cost nothing.
func TestWorkPerRequest(t *testing.T) {
	t.Parallel()
	// round trips: seven a claim, up to three more to tidy up and to look again
	const n, most = 64, 8 * 10
	siblings := func(s *site) (cookies []string) {
		for i := range n {
			c := s.request("POST", fmt.Sprint("/add/sku", i), "").Result().Cookies()[0]
			cookies = append(cookies, c.Name+"="+c.Value)
		}
		return cookies
	}
	t.Run("of a guest", func(t *testing.T) {
		s := newSite(t, nil)
		b := s.browser()
		for _, c := range siblings(s) {
			name, value, _ := strings.Cut(c, "=")
			b.Jar.SetCookies(mustParse(s.url), []*http.Cookie{{Name: name, Value: value}})
		}
		var p page
		for range n / 4 {
			if calls := s.store.took(func() { p = b.page() }); calls > most {
				t.Errorf("a page took %d calls", calls)
			}
		}
		if len(p.Cart) != n || len(b.cookies()) != 1 {
			t.Errorf("%d of %d items, cookies %v", len(p.Cart), n, b.cookies())
		}
	})
	t.Run("of a member", func(t *testing.T) {
		s := newSite(t, nil)
		header := strings.Join(siblings(s), "; ")
		ask := func() int {
			return s.store.took(func() {
				r := httptest.NewRequest("GET", "/static", nil)
				r.Header.Set("Cookie", header)
				r.Header.Set("User", "ann")
				s.guests.Middleware(s.mux).ServeHTTP(httptest.NewRecorder(), r)
			})
		}
		for range n / 8 {
			if calls := ask(); calls > most {
				t.Errorf("a request took %d calls", calls)
			}
		}
		if got := s.account("ann"); len(got) != n {
			t.Errorf("ann has %d of %d items", len(got), n)
		}
		if calls := ask(); calls != 0 {
			t.Errorf("replaying %d claimed guests took %d calls", n, calls)
		}
	})
	t.Run("of a login", func(t *testing.T) {
		s := newSite(t, nil)
		header := strings.Join(siblings(s), "; ")
		for range n/7 + 1 {
			if calls := s.store.took(func() { s.request("POST", "/login/ann", header) }); calls > most+10 {
				t.Errorf("a login took %d calls", calls)
			}
		}
		if got := s.account("ann"); len(got) != n {
			t.Errorf("ann has %d of %d items", len(got), n)
		}
		if calls := s.store.took(func() { s.request("POST", "/login/ann", header) }); calls > 4 {
			t.Errorf("repeating it took %d calls", calls)
		}
	})
}
