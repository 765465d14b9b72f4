package guest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// Any bytes in the cookie, the token header and a ticket: no panic, no error for the visitor, no
// forgery.
func FuzzHostileTokens(f *testing.F) {
	m := newManager(f, guest.Config{
		Cookie: guest.Cookie{Insecure: true},
		Header: "X-Guest", Create: guest.OnFirstWrite,
	})
	var v *guest.Visitor
	h := m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v = guest.FromContext(r.Context())
	}))
	first := httptest.NewRecorder()
	h.ServeHTTP(first, httptest.NewRequest("GET", "/", nil))
	genuine := first.Header().Get("X-Guest")
	ticket, err := m.Ticket(m.AsGuest(f.Context(), v.GuestID()), "a", time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	// COOKIE and TICKET stand for the genuine ones, which each process of a fuzzer makes for
	// itself.
	for _, seed := range []string{
		"", "COOKIE", "TICKET", "xCOOKIE", "COOKIE=", "guest",
		"a=b; guest=COOKIE", "\x00", strings.Repeat("A", 300),
	} {
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

// Any bytes in a Cookie header: the guest is recognised exactly if its cookie is there, and no
// other cookie causes a call of the store.
func FuzzCookieHeader(f *testing.F) {
	store := &spy{Store: memstore.New(memstore.Config{})}
	m := newManager(f, guest.Config{
		Store: store, Cookie: guest.Cookie{Insecure: true}, Create: guest.OnFirstWrite,
	})
	v, w := visited(m, "GET", "")
	first := w.Result().Cookies()[0]
	provisional := pair(first)
	id := v.GuestID()
	_, w = visited(m, "GET", provisional)
	var main string
	for _, c := range w.Result().Cookies() {
		if c.Name == "guest" {
			main = "guest=" + c.Value
		}
	}
	// MAIN and PROVISIONAL stand for the values, which each process of a fuzzer makes for itself,
	// and suffix for the end of the provisional cookie's name.
	stands := strings.NewReplacer("MAIN", strings.TrimPrefix(main, "guest="), "PROVISIONAL",
		first.Value, "suffix", strings.TrimPrefix(first.Name, "guest."))
	for _, seed := range []string{
		"", "guest=MAIN", "guest.suffix=PROVISIONAL", "guest.suffix=PROVISIONAL; guest=MAIN",
		"guest=MAIN; guest=MAIN", `guest="MAIN"`,
		"a=b;guest=MAIN;c=d", "guest=xMAIN", "guest=MAIN=", "guest=; guest=MAIN",
		"guest.abc=x; guest..=MAIN", "guest=PROVISIONAL",
		"guest.suffix=MAIN", strings.Repeat("guest.aaaaaa=b;", 70) + "guest=MAIN",
		strings.Repeat("guest.aaaaaa=PROVISIONAL;", 70) + "guest.suffix=PROVISIONAL; guest=MAIN",
		"guest==MAIN", "\tguest=MAIN\r\n", "Guest=MAIN",
		"guestx=MAIN", "guest=\x00", ";;;=;=", "\u2000guest=MAIN", "guest\u00a0=MAIN",
		"\x85guest.suffix=PROVISIONAL", "\vguest=MAIN",
		"guest.suffix\u3000=PROVISIONAL", "guest.suffixx=PROVISIONAL", "guest.aé\xff=x", "==guest=MAIN",
		"$guest=MAIN", `"guest"=MAIN`,
	} {
		f.Add(seed)
	}
	exact := regexp.MustCompile(`^guest(\.[A-Za-z0-9_-]{6})?$`) // only these names count
	f.Fuzz(func(t *testing.T, cookies string) {
		cookies = stands.Replace(cookies)
		var holds, named bool
		looked := map[bool]int{} // of those under the main name, and of others that have a token's form
		for pair := range strings.SplitSeq(cookies, ";") {
			name, value, _ := strings.Cut(strings.Trim(pair, " \t"), "=") // RFC 6265bis, section 5.6
			if !exact.MatchString(name) {
				continue
			}
			value = strings.Trim(value, `"`) // as the header may: RFC 6265, section 4.1.1
			isMain := name == "guest"
			if !isMain && m.Inspect().Token(name, value).Verdict == guest.TokenMalformed {
				continue
			}
			if looked[isMain]++; looked[isMain] > 64 {
				continue
			}
			cookie := name + "=" + value
			holds = holds || cookie == main || cookie == provisional
			named = named || cookie == provisional
		}
		var w *httptest.ResponseRecorder
		calls := store.took(func() { v, w = visited(m, "GET", cookies) })
		if w.Code != 200 {
			t.Errorf("%d", w.Code)
		}
		if (v.GuestID() == id) != holds || v.IsNew() == holds {
			t.Errorf("holds the cookie: %v, guest %q, new %v", holds, v.GuestID(), v.IsNew())
		}
		if !named && calls != 0 || calls > 1 {
			t.Errorf("%d store calls", calls)
		}
		for _, line := range w.Header()["Set-Cookie"] {
			if name, _, _ := strings.Cut(line, "="); !exact.MatchString(name) {
				t.Errorf("Set-Cookie: %q", line)
			}
		}
	})
}

func TestEveryChangedByteOfATokenIsRefused(t *testing.T) {
	t.Parallel()
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

// Forgeries of all kinds: 100,000 of them, with -long a million, with the race detector a tenth.
func TestForgedCookiesReachNoStore(t *testing.T) {
	t.Parallel()
	n := 100_000
	if *long {
		n *= 10
	}
	if raceEnabled {
		n /= 10
	}
	created := 0
	s := newSite(t, func(c *guest.Config) {
		c.Create = guest.OnFirstWrite
		c.Hooks.Created = func(context.Context) { created++ }
	})
	genuine := strings.TrimPrefix(cookieHeader(confirmed(s)), "guest=")
	other := newSite(t, func(c *guest.Config) {
		c.Secrets = [][]byte{[]byte("a secret of another app, 32 bytes")}
	})
	others := strings.TrimPrefix(cookieHeader(confirmed(other)), "guest=")
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
			return "guest=" + genuine[:32] + others[32:]
		},
		func() string { return "guest=" + others },
		func() string { return "guest=" + genuine[:rnd.IntN(len(genuine))] },
		func() string { return "guest." + genuine[:6] + "=" + genuine },
		func() string { // random
			b := make([]byte, len(genuine)/4*4)
			for i := range b {
				b[i] = alphabet[rnd.IntN(64)]
			}
			return "guest=" + string(b)
		},
		func() string { return "guest=" + genuine + "; guest=" + others },
	}
	r := httptest.NewRequest("GET", "/static", nil)
	h := s.guests.Middleware(s.mux)
	calls := s.store.calls.Load()
	created = 0
	for i := range n {
		cookie := forge[i%(len(forge)-1)]()
		r.Header["Cookie"] = []string{cookie}
		w := &httptest.ResponseRecorder{}
		if h.ServeHTTP(w, r); created != i+1 {
			t.Fatalf("%q is accepted", cookie)
		}
	}
	if n := s.store.calls.Load() - calls; n != 0 {
		t.Errorf("%d store calls", n)
	}
	r.Header["Cookie"] = []string{forge[len(forge)-1]()}
	if h.ServeHTTP(&httptest.ResponseRecorder{}, r); created != n {
		t.Error("a genuine cookie beside another app's is refused")
	}
}

// A token has one spelling: nothing can be inserted, left out or written in another way.
func TestATokenHasOneSpelling(t *testing.T) {
	t.Parallel()
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
	if !accepts("Cookie", "guest="+genuine) || !accepts("X-Guest", genuine) ||
		!accepts("Cookie", `guest="`+genuine+`"`) {
		t.Fatal("the genuine one is refused")
	}
	refuse := func(value string) {
		// outside of the value: the header may quote it, and have space around it
		outside := strings.Trim(value, "\"\r\n\t") != value
		for range 2 { // also when it was seen before
			if accepts("X-Guest", value) || !outside && accepts("Cookie", "guest="+value) {
				t.Errorf("%q is accepted for %q", value, genuine)
			}
		}
	}
	for i := range len(genuine) + 1 {
		for _, extra := range []string{
			"\r", "\n", "\r\n", "=", "A", "\x00", "\t", "%3D", "+", "/", "é",
		} {
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
	for _, other := range []string{
		trimmed + "===", genuine + "====", genuine + genuine,
		strings.ToLower(genuine), `"` + genuine + `"`,
	} {
		refuse(other)
	}
	if trimmed != genuine {
		refuse(trimmed)
	}
	// The last letters before the padding have bits without a meaning (RFC 4648, section 3.5).
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for _, c := range alphabet {
		if other := trimmed[:len(trimmed)-1] + string(c) + genuine[len(trimmed):]; other != genuine {
			refuse(other)
		}
	}
}

// Three rotations lose none of ten thousand guests (a tenth with the race detector), nor their
// encrypted data. When the secret that signed their cookies is removed, the visitors begin anew,
// without an error.
func TestRotations(t *testing.T) {
	t.Parallel()
	n := 10_000
	if raceEnabled || *storeFlag != "memory" {
		n /= 10
	}
	secrets := [][]byte{secret}
	s := newSite(t, nil)
	cookies := make([]string, n)
	ids := map[string]int{}
	for i := range cookies {
		cookies[i] = s.confirmedCookie(fmt.Sprint("sku", i))
	}
	for i := 0; i < n; i += 100 {
		ctx := s.guests.AsGuest(t.Context(), s.show(cookies[i]).Guest)
		if err := Email.Set(ctx, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 3 {
		secrets = append([][]byte{[]byte(strings.Repeat(string(rune('a'+round)), 32))}, secrets...)
		s = newSite(t, func(c *guest.Config) { c.Store = s.store; c.Secrets = slices.Clone(secrets) })
		for i, cookie := range cookies {
			p := s.show(cookie)
			if p.New || p.Replaced || len(p.Cart) != 1 || p.Cart[fmt.Sprint("sku", i)] != 1 {
				t.Fatalf("rotation %d: guest %d is lost: %+v", round+1, i, p)
			}
			if round > 0 && ids[p.Guest] != i {
				t.Fatalf("rotation %d: guest %d is another", round+1, i)
			}
			ids[p.Guest] = i
			if i%100 == 0 {
				if got, err := Email.Get(s.guests.AsGuest(t.Context(), p.Guest)); got != fmt.Sprint(i) ||
					err != nil {
					t.Fatalf("rotation %d: encrypted data of guest %d: %q, %v", round+1, i, got, err)
				}
			}
		}
	}
	if len(ids) != n {
		t.Errorf("%d guests", len(ids))
	}
	young := s.confirmedCookie("young") // of the newest secret
	s = newSite(t, func(c *guest.Config) { c.Store = s.store; c.Secrets = secrets[:1] })
	if p := s.show(young); p.New || p.Cart["young"] != 1 {
		t.Errorf("signed with an old secret: %+v", p)
	}
	for i, cookie := range cookies {
		if p := s.show(cookie); !p.New || len(p.Cart) != 0 || p.Err != "" || ids[p.Guest] != 0 {
			t.Fatalf("without its secret guest %d is %+v", i, p)
		}
	}
}

// A new secret is rolled out while replicas of both ages serve the same visitors, at random. In the
// two steps that Config.Secrets describes, nothing is lost or seen twice at any time. In one step a
// visitor may see two carts for a while, but they become one.
func TestRotationWhileBothVersionsRun(t *testing.T) {
	t.Parallel()
	a, b := []byte(strings.Repeat("a", 32)), []byte(strings.Repeat("b", 32))
	for name, tt := range map[string]struct {
		steps    [][2][][]byte // the secrets of the older and of the newer replica
		seamless bool
	}{
		"two steps": {[][2][][]byte{{{a}, {a, b}}, {{a, b}, {b, a}}}, true},
		"one step":  {[][2][][]byte{{{a}, {b, a}}, {{b, a}, {b, a}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			const visitors, adds = 40, 5
			store := &spy{Store: newStore()}
			rnd := rand.New(rand.NewPCG(1, 1))
			browsers := make([]*browser, visitors)
			total := 0
			for _, secrets := range tt.steps {
				var replicas [2]*site
				for i := range replicas {
					replicas[i] = newSite(t, func(c *guest.Config) { c.Store, c.Secrets = store, secrets[i] })
				}
				for i := range browsers {
					if browsers[i] == nil {
						browsers[i] = replicas[0].browser()
					}
				}
				for range adds {
					total++
					for i, b := range browsers {
						visit := func(s *site) page {
							jar := b.Jar.Cookies(mustParse(b.s.url))
							next := s.browser() // the same browser: the balancer has another replica for it
							next.Jar.SetCookies(mustParse(s.url), jar)
							browsers[i], b = next, next
							return b.page()
						}
						visit(replicas[rnd.IntN(2)])
						b.add("tea")
						if p := visit(replicas[rnd.IntN(2)]); tt.seamless && p.Cart["tea"] != int64(total) {
							t.Fatalf("visitor %d sees %v, not %d", i, p.Cart, total)
						}
					}
				}
			}
			for i, b := range browsers {
				b.page()
				if p := b.page(); p.Cart["tea"] != int64(total) {
					t.Errorf("in the end visitor %d has %v, not %d; cookies %v", i, p.Cart, total, b.cookies())
				}
			}
		})
	}
}

// A main cookie that does not verify gives way to a provisional one if no newer process can have
// signed it: one of a secret that was removed, or a forged one of another time.
func TestAnOldCookieGivesWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Config{})
		make := func(secret string) *guest.Manager {
			secrets := [][]byte{[]byte(strings.Repeat(secret, 32))}
			return newManager(t, guest.Config{Store: store, Secrets: secrets})
		}
		add := adds("tea")
		leaked := make("a")
		old := at(leaked, at(leaked, "", add), add)
		time.Sleep(2 * time.Hour)
		m := make("b")
		provisional := at(m, old, add)
		if main := at(m, old+"; "+provisional, add); !strings.HasPrefix(main, "__Host-Http-guest=") {
			t.Errorf("the guest is not confirmed: %s", main)
		}
		newer := make("c")
		young := at(newer, at(newer, "", add), add)
		if got := at(m, young+"; "+provisional, add); got != young+"; "+provisional {
			t.Errorf("a newer process's cookie is overwritten: %s", got)
		}
		own := at(m, at(m, "", add), add)
		time.Sleep(25 * time.Hour)
		planted := at(newer, at(newer, "", add), add)
		if got := at(m, own+"; "+planted, add); got == own+"; "+planted {
			t.Error("a cookie of no secret of ours keeps the visitor's own from being renewed")
		}
	})
}

// Apps that have one secret share nothing if they have names: neither cookies, nor tickets, nor
// encrypted data.
func TestAppsThatShareASecret(t *testing.T) {
	t.Parallel()
	store := newStore()
	app := func(name string) *guest.Manager {
		return newManager(t, guest.Config{Store: store, App: name, Data: []guest.Kind{Email}})
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
		if got, err := Email.Get(m.AsGuest(t.Context(), id)); (got == "ann@example.com" &&
			err == nil) != same {
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

// A subdomain may set a cookie under any name but ours, and browsers strip only space and tab from
// a name (RFC 6265bis, section 5.6). So a name is ours exactly as we write it, and nothing beside
// it makes another cookie ours.
func TestOnlyExactCookieNamesAreOurs(t *testing.T) {
	t.Parallel()
	m := newManager(t, guest.Config{})
	const name = "__Host-Http-guest"
	first := func() (id string, provisional, main *http.Cookie) {
		v, w := visited(m, "GET", "")
		provisional = w.Result().Cookies()[0]
		id = v.GuestID()
		_, w = visited(m, "GET", pair(provisional))
		for _, c := range w.Result().Cookies() {
			if c.Name == name {
				main = c
			}
		}
		return id, provisional, main
	}
	attacker, provisional, main := first() // the older one, which would take in the other
	suffix := provisional.Name[len(name):]

	names := map[string]string{
		name:                         main.Value,
		name + suffix:                provisional.Value,
		"guest":                      main.Value,
		"GUEST":                      main.Value,
		"__HOST-HTTP-GUEST":          main.Value,
		"__host-http-guest" + suffix: provisional.Value,
		"__Host-Http-ｇuest":          main.Value, // a full-width letter
		"__Hoſt-Http-guest":          main.Value, // a letter that folds to s
		`"` + name + `"`:             main.Value,
		"'" + name + "'":             main.Value,
		"$" + name:                   main.Value,
		"a=" + name:                  main.Value,
		"a," + name:                  main.Value,
		"=" + name:                   main.Value,
		"==" + name + suffix:         provisional.Value,
		"=a=" + name:                 main.Value,
		`="` + name:                  main.Value + `"`,
		name + ".":                   provisional.Value,
		name + suffix[:6]:            provisional.Value,
		name + suffix + "A":          provisional.Value,
		name + "." + suffix:          provisional.Value,
		name + suffix[:6] + "=":      provisional.Value,
		name + suffix[:6] + "\xff":   provisional.Value,
		name + ".abc~de":             provisional.Value,
	}
	for _, strange := range []string{
		"\u2000", "\u2003", "\u2028", "\u3000", "\u1680", "\u0085", "\u00a0", "\x85", "\xa0", "\ufeff",
		"\u200b", "\x80", "\xff",
		"\x00", "\v", "\f", "\r", "\n", "\x1c", "\x7f", "%20", "+", "\\", "/", ",", "$", ":",
	} {
		for _, exact := range []string{name, name + suffix} {
			value := main.Value
			if exact != name {
				value = provisional.Value
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
		for _, header := range []string{pair(mine) + "; " + other + "=" + value, other + "=" + value +
			";" + pair(mine)} {
			if v, _ := visited(m, "GET", header); v.GuestID() != victim || v.IsNew() {
				t.Errorf("%q beside the visitor's own cookie: the visitor is not that guest any more", other)
			}
		}
	}

	// A cookie that is not ours is not cleared either: net/http writes no line for a name that it
	// finds invalid.
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("%s.ab\xff%03d=x", name, i),
			fmt.Sprintf("%s.\xc3\xa9%04d=x", name, i), fmt.Sprintf("%s.%03d=x", name, i))
	}
	_, w := visited(m, "GET", strings.Join(many, "; "))
	if lines := w.Header()["Set-Cookie"]; len(lines) != 1 || !strings.HasPrefix(lines[0], name+".") {
		t.Errorf("a new visitor with cookies that are not ours gets Set-Cookie %q", lines)
	}
}

// Five hundred Cookie headers of cookies that a subdomain can plant, in any order. A claim takes
// the one guest whose cookie is there under its name, and none if there are two.
func TestCookieTossing(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	rnd := rand.New(rand.NewPCG(3, 3))
	outcomes := map[string]int{}
	for i := range 500 {
		mine, planted := s.confirmedCookie("mine"), s.confirmedCookie("planted")
		others := []string{
			"guest=", "guest=forged", mine[:len(mine)-2], "guest=" + planted[7:],
			"guest.abcdef=" + planted[6:], "guest.=x", "guestx=" + planted[6:],
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
		w := s.request("POST", "/login/"+user, header)
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
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
		if has := s.account(user); !maps.Equal(has, want) || got.Err != fault ||
			got.Receipt.Claimed != (len(want) > 0) {
			t.Fatalf("%q: %+v; the account has %v, want %v", header, got, has, want)
		}
		outcomes[fmt.Sprint(want, fault)]++
		// a guest that was not claimed has lost nothing
		for sku, cookie := range map[string]string{"mine": mine, "planted": planted} {
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

func TestCookieAttributes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		cookie guest.Cookie
		want   []string
	}{
		{"default", guest.Cookie{}, []string{
			"__Host-Http-guest.", "Path=/", "HttpOnly", "Secure", "SameSite=Lax", "Max-Age=3600",
		}},
		{"domain", guest.Cookie{Domain: "example.com"},
			[]string{"__Secure-guest.", "Domain=example.com", "Secure"}},
		{"plain http", guest.Cookie{Name: "me", Insecure: true},
			[]string{"me.", "HttpOnly", "SameSite=Lax"}},
		{"embedded", guest.Cookie{SameSite: http.SameSiteNoneMode, Partitioned: true},
			[]string{"__Host-Http-guest.", "SameSite=None", "Secure", "Partitioned"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, func(c *guest.Config) { c.Cookie = tt.cookie })
			res, err := http.Get(s.url + "/page")
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			lines := res.Header.Values("Set-Cookie")
			if len(lines) != 1 {
				t.Fatalf("Set-Cookie: %q, want one line", lines)
			}
			for _, want := range tt.want {
				if !strings.Contains(lines[0], want) {
					t.Errorf("Set-Cookie: %s: no %q", lines[0], want)
				}
			}
			if tt.cookie.Insecure && strings.Contains(lines[0], "Secure") {
				t.Errorf("Set-Cookie: %s: Secure over plain http", lines[0])
			}
			if len(lines[0]) > 300 {
				t.Errorf("Set-Cookie has %d bytes", len(lines[0]))
			}
		})
	}
}

func TestLivesOfCookies(t *testing.T) {
	t.Parallel()
	for _, days := range []int{1, 29, 31, 180, 399, 400} {
		synctest.Test(t, func(t *testing.T) {
			ttl := time.Duration(days) * 24 * time.Hour
			m := newManager(t, guest.Config{TTL: ttl})
			var v *guest.Visitor
			b := newBubble(m, func(w http.ResponseWriter, r *http.Request) {
				v = guest.FromContext(r.Context())
			})
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

func TestConfig_FormerCookies(t *testing.T) {
	t.Parallel()

	// A browser whose cookie was set in a former scope is served as before. The cookie moves to the
	// new scope when it is renewed, and a login clears it in both; otherwise the browser would send
	// the old one for the rest of its life.
	t.Run("a cookie of a former scope is served and moves", func(t *testing.T) {
		t.Parallel()
		for name, tt := range map[string]struct{ was, is guest.Cookie }{
			"Path":        {guest.Cookie{Path: "/shop"}, guest.Cookie{Path: "/shop/new"}},
			"Domain":      {guest.Cookie{Domain: "shop.test"}, guest.Cookie{Domain: "www.shop.test"}},
			"Partitioned": {guest.Cookie{}, guest.Cookie{Partitioned: true}},
		} {
			t.Run(name, func(t *testing.T) {
				store := newStore()
				make := func(c guest.Cookie, former ...guest.Cookie) *guest.Manager {
					return newManager(t, guest.Config{Store: store, Cookie: c, FormerCookies: former})
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
				if want := []string{scope(tt.is), scope(tt.was)}; !slices.Equal(cleared, want) ||
					len(set) != 0 {
					t.Errorf("a claim clears %q, want %q; and sets %q", cleared, want, set)
				}
				// the next guest's beside it
				cookie = at(after, at(after, "", add("cup")), add("cup")) + "; " + cookie
				cleared, set = lines(add("cup"))
				if !slices.Equal(cleared, []string{scope(tt.was)}) ||
					!slices.Equal(set, []string{scope(tt.is)}) {
					t.Errorf("beside the next guest's cookie %q is cleared, and %q set", cleared, set)
				}
			})
		}
	})

	// A page outside the Path of a former cookie does not know its guest, so it must not clear it.
	t.Run("one of another path is kept", func(t *testing.T) {
		t.Parallel()
		make := scopes(t)
		before, after := make(guest.Cookie{Path: "/shop"}),
			make(guest.Cookie{}, guest.Cookie{Path: "/shop"})
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
		add := adds("tea")
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
	})
}

// A token in a header can be read by scripts, so only clients that send the header get one.
func TestTheTokenHeaderIsForThoseWhoAsk(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *guest.Config) { c.Header = "x-Guest" })
	b := s.browser()
	res, _ := b.request("POST", "/add/tea")
	if h := res.Header["X-Guest"]; h != nil || len(res.Header["Set-Cookie"]) == 0 {
		t.Errorf("a browser gets %q", h)
	}
	res, _ = b.request("GET", "/page") // confirms the guest
	if h := res.Header["X-Guest"]; h != nil || len(res.Header["Set-Cookie"]) == 0 {
		t.Errorf("a browser gets %q", h)
	}
	res, _ = s.browser().request("POST", "/add/tea", "X-Guest", "")
	if res.Header.Get("X-Guest") == "" {
		t.Error("a client that asks gets none")
	}
}

func TestConfig_Header(t *testing.T) {
	t.Parallel()

	t.Run("a client that keeps the token in a header", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, func(c *guest.Config) { c.Header = "X-Guest" })
		get := func(token string) (page string, next string) {
			req, _ := http.NewRequest("POST", s.url+"/add/tea", nil)
			req.Header.Set("X-Guest", token)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			if next = res.Header.Get("X-Guest"); next == "" {
				next = token
			}
			return string(body), next
		}
		n, token := get("")
		if n != "1" || token == "" {
			t.Fatalf("%q, token %q", n, token)
		}
		for _, want := range []string{"2", "3", "4"} {
			if n, token = get(token); n != want {
				t.Errorf("cart %s, want %s", n, want)
			}
		}
		for _, path := range []string{"/login/ann", "/login/ann"} { // claimed, and claimed already
			req, _ := http.NewRequest("POST", s.url+path, nil)
			req.Header.Set("X-Guest", token)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if over, ok := res.Header["X-Guest"]; !ok || over[0] != "" || res.Header["Set-Cookie"] != nil {
				t.Errorf("after the claim: %q, %q; want one that is empty, and no cookie", over,
					res.Header["Set-Cookie"])
			}
		}
	})

	// A sibling has absorbed the guest, which shows when data are read, and then the sibling is
	// claimed. The response names no token beside the empty one, which says that it is over.
	t.Run("a claim of an absorbed guest", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			c := guest.Config{Store: memstore.New(memstore.Config{}), Header: "X-Guest"}
			one, other := newManager(t, c), newManager(t, c)
			serve := func(m *guest.Manager, cookie string, token []string, f http.HandlerFunc) http.Header {
				time.Sleep(time.Second) // on the bubble's clock: the guests are of different ages
				r := httptest.NewRequest("POST", "/", nil)
				r.Header.Set("Cookie", cookie)
				if token != nil {
					r.Header["X-Guest"] = token
				}
				w := httptest.NewRecorder()
				m.Middleware(f).ServeHTTP(w, r)
				return w.Result().Header
			}
			older := at(one, "", adds("tea"))
			first := serve(one, "", []string{""}, adds("nut"))["X-Guest"]
			second := serve(one, "", first, adds("nut"))
			main, _, _ := strings.Cut(second.Get("Set-Cookie"), ";")
			serve(one, older+"; "+main, nil, adds("tea")) // the older guest absorbs the other
			got := serve(other, "", second["X-Guest"], func(w http.ResponseWriter, r *http.Request) {
				if cart, err := Cart.All(r.Context()); err != nil || cart["nut"] != 2 {
					t.Errorf("the sibling's cart: %v, %v", cart, err)
				}
				if receipt, err := other.Claim(w, r, "ann"); err != nil || !receipt.Claimed {
					t.Errorf("%+v, %v", receipt, err)
				}
			})["X-Guest"]
			if !slices.Equal(got, []string{""}) {
				t.Errorf("%d tokens %q, want an empty one", len(got), got)
			}
		})
	})

	// An app has an Origin of its own and keeps the token in the header. Its first request may be a
	// POST, and it may claim by ClaimHandler, even after the middleware has claimed. A page of
	// another site, which cannot send the header, may not.
	t.Run("a client of another origin", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, func(c *guest.Config) { c.Header = "X-Guest" })
		post := func(path, user string, header ...string) *http.Response {
			t.Helper()
			b := s.browser()
			b.user = user
			from := []string{"Origin", "capacitor://localhost", "Sec-Fetch-Site", "cross-site"}
			res, body := b.request("POST", path, append(from, header...)...)
			res.Body = io.NopCloser(strings.NewReader(body))
			return res
		}
		res := post("/add/tea", "", "X-Guest", "")
		token := res.Header.Get("X-Guest")
		if res.StatusCode != 200 || token == "" {
			t.Fatalf("the first request: %s, token %q", res.Status, token)
		}
		res = post("/claim", "ann", "X-Guest", token) // signed in, so the middleware has claimed
		var receipt guest.Receipt
		if err := json.NewDecoder(res.Body).Decode(&receipt); err != nil || res.StatusCode != 200 ||
			!receipt.Claimed || s.account("ann")["tea"] != 1 {
			t.Errorf("the claim: %s, %+v, %v; ann has %v", res.Status, receipt, err, s.account("ann"))
		}
		if res := post("/add/tea", ""); res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a guest for another site's page: %s", res.Status)
		}
		if res := post("/claim", "eve"); res.StatusCode != http.StatusForbidden {
			t.Errorf("a claim of another site's page: %s", res.Status)
		}
	})
}
