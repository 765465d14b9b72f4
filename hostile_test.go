package guest_test

import (
	"encoding/json"
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
