package guest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// request sends one in process, with these cookies.
func (s *site) request(method, path, cookies string) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.Header["Cookie"] = []string{cookies}
	w := httptest.NewRecorder()
	s.guests.Middleware(s.mux).ServeHTTP(w, r)
	if w.Code != 200 {
		s.t.Fatalf("%s %s: %d: %s", method, path, w.Code, w.Body)
	}
	return w
}

// newcomer is the cookie, confirmed, of a guest with this in its cart.
func (s *site) newcomer(sku string) string {
	s.t.Helper()
	first := s.request("POST", "/add/"+sku, "").Result().Cookies()[0]
	for _, c := range s.request("GET", "/static", first.Name+"="+first.Value).Result().Cookies() {
		if c.Name == "guest" {
			return "guest=" + c.Value
		}
	}
	s.t.Fatal("the guest is not confirmed")
	return ""
}

// A subdomain may set a cookie under any name but ours, and browsers strip only space and tab from a name. So a name is
// ours exactly as we write it, and nothing beside it makes another cookie ours.
func TestOnlyExactCookieNamesAreOurs(t *testing.T) {
	m, err := guest.New(guest.Config{Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Data: []guest.Kind{Cart}})
	if err != nil {
		t.Fatal(err)
	}
	const name = "__Host-Http-guest"
	first := func() (id string, spare, main *http.Cookie) {
		v, w := visited(m, "GET", "")
		spare = w.Result().Cookies()[0]
		id = v.GuestID()
		_, w = visited(m, "GET", pair(spare))
		for _, c := range w.Result().Cookies() {
			if c.Name == name {
				main = c
			}
		}
		return id, spare, main
	}
	attacker, spare, main := first() // the older one, which would take in the other
	suffix := spare.Name[len(name):]

	names := map[string]string{
		name:                         main.Value,
		name + suffix:                spare.Value,
		"guest":                      main.Value,
		"GUEST":                      main.Value,
		"__HOST-HTTP-GUEST":          main.Value,
		"__host-http-guest" + suffix: spare.Value,
		"__Host-Http-ｇuest":          main.Value, // a full-width letter
		"__Hoſt-Http-guest":          main.Value, // a letter that folds to s
		`"` + name + `"`:             main.Value,
		"'" + name + "'":             main.Value,
		"$" + name:                   main.Value,
		"a=" + name:                  main.Value,
		"a," + name:                  main.Value,
		"=" + name:                   main.Value,
		"==" + name + suffix:         spare.Value,
		"=a=" + name:                 main.Value,
		`="` + name:                  main.Value + `"`,
		name + ".":                   spare.Value,
		name + suffix[:6]:            spare.Value,
		name + suffix + "A":          spare.Value,
		name + "." + suffix:          spare.Value,
		name + suffix[:6] + "=":      spare.Value,
		name + suffix[:6] + "\xff":   spare.Value,
		name + ".abc~de":             spare.Value,
	}
	for _, strange := range []string{
		"\u2000", "\u2003", "\u2028", "\u3000", "\u1680", "\u0085", "\u00a0", "\x85", "\xa0", "\ufeff", "\u200b", "\x80", "\xff",
		"\x00", "\v", "\f", "\r", "\n", "\x1c", "\x7f", "%20", "+", "\\", "/", ",", "$", ":",
	} {
		for _, exact := range []string{name, name + suffix} {
			value := main.Value
			if exact != name {
				value = spare.Value
			}
			names[strange+exact] = value
			names[exact+strange] = value
			names[strange+" "+exact] = value
			names["\t"+strange+exact+" "+strange] = value
			names[exact[:3]+strange+exact[3:]] = value
		}
	}
	for other, value := range names {
		ours := other == name || other == name+suffix
		v, w := visited(m, "GET", other+"="+value)
		if (v.GuestID() == attacker) != ours {
			t.Errorf("%q is read as the guest's cookie: %v", other, !ours)
		}
		for _, line := range w.Header()["Set-Cookie"] {
			if !strings.HasPrefix(line, name+"=") && !strings.HasPrefix(line, name+".") {
				t.Errorf("%q: answered by Set-Cookie %q", other, line)
			}
		}
		if ours {
			continue
		}
		victim, _, mine := first()
		for _, header := range []string{pair(mine) + "; " + other + "=" + value, other + "=" + value + ";" + pair(mine)} {
			if v, _ := visited(m, "GET", header); v.GuestID() != victim || v.IsNew() {
				t.Errorf("%q beside the visitor's own cookie: the visitor is not that guest any more", other)
			}
		}
	}

	// What is not ours is not cleared either: net/http writes no line for a name that it finds invalid.
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("%s.ab\xff%03d=x", name, i), fmt.Sprintf("%s.\xc3\xa9%04d=x", name, i), fmt.Sprintf("%s.%03d=x", name, i))
	}
	_, w := visited(m, "GET", strings.Join(many, "; "))
	if lines := w.Header()["Set-Cookie"]; len(lines) != 1 || !strings.HasPrefix(lines[0], name+".") {
		t.Errorf("a new visitor with cookies that are not ours gets Set-Cookie %q", lines)
	}
}

// Five hundred Cookie headers of what a subdomain can plant, in any order: a claim takes the one guest whose cookie is
// there under its name, or if there are two of them none.
func TestCookieTossing(t *testing.T) {
	s := newSite(t, nil)
	rnd := rand.New(rand.NewPCG(3, 3))
	outcomes := map[string]int{}
	for i := range 500 {
		mine, planted := s.newcomer("mine"), s.newcomer("planted")
		others := []string{
			"guest=", "guest=forged", mine[:len(mine)-2], "guest=" + planted[7:], "guest.abcdef=" + planted[6:], "guest.=x", "guestx=" + planted[6:],
			"Guest=" + planted[6:], "session=1", "__Host-Http-guest=" + planted[6:], `guest="`, "=", "",
		}
		var cookies []string
		n := map[string]int{mine: rnd.IntN(3), planted: rnd.IntN(2) * rnd.IntN(3)}
		for cookie, n := range n {
			for range n {
				if rnd.IntN(4) == 0 {
					cookie = `guest="` + cookie[6:] + `"`
				}
				cookies = append(cookies, cookie)
			}
		}
		for range rnd.IntN(8) {
			cookies = append(cookies, others[rnd.IntN(len(others))])
		}
		rnd.Shuffle(len(cookies), func(i, j int) { cookies[i], cookies[j] = cookies[j], cookies[i] })
		header := strings.Join(cookies, "; ")

		var got claimed
		user := fmt.Sprint("user", i)
		if err := json.Unmarshal(s.request("POST", "/login/"+user, header).Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		want, fault := map[string]int64{}, ""
		switch {
		case n[mine] > 0 && n[planted] > 0:
			fault = guest.ErrAmbiguous.Error()
		case n[mine] > 0:
			want["mine"] = 1
		case n[planted] > 0:
			want["planted"] = 1
		}
		if has := s.account(user); !maps.Equal(has, want) || got.Err != fault || got.Receipt.Claimed != (len(want) > 0) {
			t.Fatalf("%q: %+v; the account has %v, want %v", header, got, has, want)
		}
		outcomes[fmt.Sprint(want, fault)]++
		for sku, cookie := range map[string]string{"mine": mine, "planted": planted} { // who was not claimed has lost nothing
			var p page
			json.Unmarshal(s.request("GET", "/page", cookie).Body.Bytes(), &p)
			if p.Cart[sku] == 1 == (want[sku] == 1) {
				t.Fatalf("%q: afterwards the cart of %s is %v", header, sku, p.Cart)
			}
		}
	}
	if len(outcomes) != 4 {
		t.Errorf("not all cases were there: %v", outcomes)
	}
}

// Ten thousand replays of the cookies of claimed guests: on the process that claimed them they ask nothing, on another
// it is one look at a tombstone; nothing of the guests or the account is read or changed.
func TestReplays(t *testing.T) {
	n := 10_000
	if guest.RaceEnabled || *storeFlag != "memory" {
		n /= 10
	}
	config := func(c *guest.Config) { c.Create = guest.OnFirstWrite }
	s := newSite(t, config)
	var old []string
	for range 50 {
		cookie := s.newcomer("secret")
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

	// Writing makes a fresh guest, once the look says so.
	fresh := newSite(t, func(c *guest.Config) { config(c); c.Store = store })
	for _, cookie := range old {
		ask(fresh, cookie, 2, "POST", "/add/cup")
		ask(fresh, cookie, 1, "POST", "/add/cup")
	}
	if after := dump(); strings.Count(after, "secret") != 1 || strings.Count(after, "cart/cup") != 2*len(old) {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// The cookie of a claimed guest is worth no more than none: who admits decides on the fresh guest, too. Else anybody
// could have guests without limit, by repeating one such cookie.
func TestAReplayedCookieIsAdmittedLikeNone(t *testing.T) {
	open := true
	s := newSite(t, func(c *guest.Config) { c.Admit = func(*http.Request) bool { return open } })
	b := s.browser()
	b.add("tea")
	b.page()
	old := b.copy()
	b.login("ann")
	open = false
	before := len(s.store.keys(t, "g:"))
	for _, again := range []bool{false, true} { // on a process that knows of the claim, and on one that does not
		m := s
		if again {
			m = newSite(t, func(c *guest.Config) { c.Store = s.store; c.Admit = func(*http.Request) bool { return open } })
		}
		for range 3 {
			tab := m.browser()
			tab.Jar.SetCookies(mustURL(t, m.url), old.Jar.Cookies(mustURL(t, s.url)))
			if p := tab.page(); p.Guest != "" || len(p.Cart) != 0 || !p.Replaced {
				t.Errorf("%+v", p)
			}
			if res, body := tab.request("POST", "/add/cup"); res.StatusCode != 503 || body != "guest: data \"cart\": "+guest.ErrNotAdmitted.Error()+"\n" {
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

// Whatever cookies a request brings, it works on eight guests; the rest have their turn in later requests, which lose
// nothing. Guests that this process knows to be claimed cost nothing.
func TestWorkPerRequest(t *testing.T) {
	const n, most = 64, 8 * 10 // round trips: seven a claim, up to three more to tidy up and to look again
	spares := func(s *site) (cookies []string) {
		for i := range n {
			c := s.request("POST", fmt.Sprint("/add/sku", i), "").Result().Cookies()[0]
			cookies = append(cookies, c.Name+"="+c.Value)
		}
		return cookies
	}
	t.Run("of a guest", func(t *testing.T) {
		s := newSite(t, nil)
		b := s.browser()
		for _, c := range spares(s) {
			name, value, _ := strings.Cut(c, "=")
			b.Jar.SetCookies(mustURL(t, s.url), []*http.Cookie{{Name: name, Value: value}})
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
		header := strings.Join(spares(s), "; ")
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
		header := strings.Join(spares(s), "; ")
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

// The guest under the main name is absorbed before its cookie is overwritten, however many others there are and also if
// the store fails just then.
func TestTheMainCookieIsNotOverwrittenTooSoon(t *testing.T) {
	s := newSite(t, nil)
	var spares []string
	for i := range 12 { // all older than the one under the main name
		c := s.request("POST", fmt.Sprint("/add/sku", i), "").Result().Cookies()[0]
		spares = append(spares, c.Name+"="+c.Value)
		tick()
	}
	header := s.newcomer("main") + "; " + strings.Join(spares, "; ")
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
}

// Two cookies of one name come from two scopes: a change of Cookie.Domain, say. If one of their guests was claimed the other is
// served, for as long as both come, and our cookie takes the dead one's place; none of the two is claimed.
func TestOfTwoCookiesTheUnclaimedIsServed(t *testing.T) {
	for _, newProcess := range []bool{false, true} {
		for _, order := range []string{"dead first", "dead last"} {
			t.Run(fmt.Sprint(order, " newProcess=", newProcess), func(t *testing.T) {
				s := newSite(t, nil)
				dead, live := s.newcomer("old"), s.newcomer("new")
				s.request("POST", "/login/ann", dead)
				if newProcess {
					s = newSite(t, func(c *guest.Config) { c.Store = s.store })
				}
				both := dead + "; " + live
				if order == "dead last" {
					both = live + "; " + dead
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
						t.Errorf("the cookie that takes the dead one's place is of %+v", p)
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

func TestTwoDeadCookies(t *testing.T) {
	s := newSite(t, nil)
	one, two := s.newcomer("one"), s.newcomer("two")
	s.request("POST", "/login/ann", one)
	s.request("POST", "/login/bob", two)
	next := newSite(t, func(c *guest.Config) { c.Store = s.store })
	for _, s := range []*site{s, next} {
		w := s.request("POST", "/add/cup", one+"; "+two)
		if n := w.Body.String(); n != "1" {
			t.Errorf("a fresh guest's first cup is %s", n)
		}
		if len(w.Result().Cookies()) != 2 {
			t.Errorf("want the dead name cleared and a fresh guest's cookie: %q", w.Header()["Set-Cookie"])
		}
	}
	if s.account("ann")["one"] != 1 || s.account("bob")["two"] != 1 || len(s.account("ann")) != 1 {
		t.Errorf("ann %v, bob %v", s.account("ann"), s.account("bob"))
	}
}

// A browser whose cookie was set in a former scope is served as ever; the cookie moves to the new scope when it is renewed, and
// a login clears it in both. Otherwise the browser would send the dead one for the rest of its life.
func TestFormerCookies(t *testing.T) {
	for name, tt := range map[string]struct{ was, is guest.Cookie }{
		"Path":        {guest.Cookie{Path: "/shop"}, guest.Cookie{Path: "/shop/new"}},
		"Domain":      {guest.Cookie{Domain: "shop.test"}, guest.Cookie{Domain: "www.shop.test"}},
		"Partitioned": {guest.Cookie{}, guest.Cookie{Partitioned: true}},
	} {
		t.Run(name, func(t *testing.T) {
			store := newStore()
			make := func(c guest.Cookie, former ...guest.Cookie) *guest.Manager {
				m, err := guest.New(guest.Config{Store: store, Secrets: [][]byte{secret}, Data: []guest.Kind{Cart}, Cookie: c, FormerCookies: former})
				if err != nil {
					t.Fatal(err)
				}
				return m
			}
			add := func(sku string) func(w http.ResponseWriter, r *http.Request) {
				return func(w http.ResponseWriter, r *http.Request) {
					if _, err := Cart.Add(r.Context(), sku, 1); err != nil {
						t.Error(err)
					}
				}
			}
			before := make(tt.was)
			cookie := at(before, at(before, "", add("tea")), add("tea"))
			after := make(tt.is, tt.was)
			lines := func(f http.HandlerFunc) (cleared, set []string) {
				r := httptest.NewRequest("POST", "/shop/new/cart", nil)
				r.Header.Set("Cookie", cookie)
				w := httptest.NewRecorder()
				after.Middleware(f).ServeHTTP(w, r)
				for _, c := range w.Result().Cookies() {
					scope := fmt.Sprintf("%s %s %v", c.Domain, c.Path, c.Partitioned)
					if c.MaxAge < 0 {
						cleared = append(cleared, scope)
					} else {
						set = append(set, scope)
					}
				}
				return cleared, set
			}
			scope := func(c guest.Cookie) string {
				if c.Path == "" {
					c.Path = "/"
				}
				return fmt.Sprintf("%s %s %v", c.Domain, c.Path, c.Partitioned)
			}
			cleared, set := lines(func(w http.ResponseWriter, r *http.Request) {
				if n, err := Cart.Get(r.Context(), "tea"); n != 2 || err != nil {
					t.Errorf("the cart has %d, %v", n, err)
				}
				if _, err := after.Claim(w, r, "ann"); err != nil {
					t.Error(err)
				}
			})
			if want := []string{scope(tt.is), scope(tt.was)}; !slices.Equal(cleared, want) || len(set) != 0 {
				t.Errorf("a claim clears %q, want %q; and sets %q", cleared, want, set)
			}
			cookie = at(after, at(after, "", add("cup")), add("cup")) + "; " + cookie // the next guest's beside it
			cleared, set = lines(add("cup"))
			if !slices.Equal(cleared, []string{scope(tt.was)}) || !slices.Equal(set, []string{scope(tt.is)}) {
				t.Errorf("beside the next guest's cookie %q is cleared, and %q set", cleared, set)
			}
		})
	}
}
