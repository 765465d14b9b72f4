package guest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

func TestFirstVisitMakesAGuestThatComesBack(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	first := b.page()
	if !first.New || !first.IsGuest || first.Guest == "" || first.Replaced {
		t.Fatalf("first visit: %+v", first)
	}
	if got := b.cookies(); len(got) != 1 || !strings.HasPrefix(got[0], "guest.") {
		t.Fatalf("cookies after the first visit: %v; want one provisional", got)
	}
	second := b.page()
	if second.New || second.Guest != first.Guest {
		t.Fatalf("second visit: %+v, first was %+v", second, first)
	}
	if got := b.cookies(); len(got) != 1 || got[0] != "guest" {
		t.Fatalf("cookies after the second visit: %v; want the confirmed one", got)
	}
	if third := b.page(); third.Guest != first.Guest {
		t.Fatalf("third visit: %+v", third)
	}
}

func TestRoundTrips(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	trips := func(want int, what string, f func()) {
		t.Helper()
		if got := s.store.took(f); got != want {
			t.Errorf("%s: %d round trips, want %d", what, got, want)
		}
	}
	trips(1, "first visit that saves", func() { b.add("tea") })
	trips(1, "confirming", func() { b.request("GET", "/static") })
	trips(0, "known guest, data untouched", func() { b.request("GET", "/static") })
	trips(1, "add to the cart", func() { b.add("tea") })
	trips(2, "read two kinds", func() { b.page() })
	trips(1, "first visit that saves nothing", func() { s.browser().request("GET", "/static") })
	trips(1, "first visit that reads", func() { s.browser().page() })
	trips(7, "claim", func() { b.login("ann") })
	b.user = "ann"
	trips(0, "member, data untouched", func() { b.request("GET", "/static") })
	trips(1, "member adds to the cart", func() { b.add("tea") })

	lazy := newSite(t, func(c *guest.Config) { c.Create = guest.OnFirstWrite })
	if n := lazy.store.took(func() { lazy.browser().page() }); n != 0 {
		t.Errorf("OnFirstWrite, first visit that reads: %d round trips, want 0", n)
	}
}

func TestCookieAttributes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		cookie guest.Cookie
		want   []string
	}{
		{"default", guest.Cookie{}, []string{"__Host-Http-guest.", "Path=/", "HttpOnly", "Secure", "SameSite=Lax", "Max-Age=3600"}},
		{"domain", guest.Cookie{Domain: "example.com"}, []string{"__Secure-guest.", "Domain=example.com", "Secure"}},
		{"plain http", guest.Cookie{Name: "me", Insecure: true}, []string{"me.", "HttpOnly", "SameSite=Lax"}},
		{"embedded", guest.Cookie{SameSite: http.SameSiteNoneMode, Partitioned: true}, []string{"__Host-Http-guest.", "SameSite=None", "Secure", "Partitioned"}},
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

func TestCookiesThatDoNotVerifyAreNoGuest(t *testing.T) {
	s := newSite(t, nil)
	old := newSite(t, func(c *guest.Config) { c.Secrets = [][]byte{[]byte("a secret that was removed since,32")} })
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
			set := slices.DeleteFunc(w.Header().Values("Set-Cookie"), func(line string) bool { return strings.Contains(line, "Max-Age=0") })
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

func TestWhoIsAdmitted(t *testing.T) {
	for _, tt := range []struct {
		name   string
		method string
		header []string
		want   bool
	}{
		{"curl", "GET", []string{"User-Agent", "curl/8.0"}, true},
		{"no headers at all", "GET", nil, true},
		{"a page", "GET", []string{"Sec-Fetch-Dest", "document", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Site", "none"}, true},
		{"a fetch", "GET", []string{"Sec-Fetch-Dest", "empty", "Sec-Fetch-Site", "same-origin"}, true},
		{"a form from this site", "POST", []string{"Sec-Fetch-Site", "same-origin"}, true},
		{"a link from another site", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Dest", "document"}, true},
		{"a telephone by Cubot", "GET", []string{"User-Agent", "Mozilla/5.0 (Linux; Android 13; CUBOT X70) Chrome/120 Mobile"}, true},
		{"a form from another site", "POST", []string{"Sec-Fetch-Site", "cross-site"}, false},
		{"a form from another origin", "POST", []string{"Origin", "https://elsewhere.example"}, false},
		{"HEAD", "HEAD", nil, false},
		{"OPTIONS", "OPTIONS", nil, false},
		{"prefetch", "GET", []string{"Sec-Purpose", "prefetch"}, false},
		{"prerender", "GET", []string{"Sec-Purpose", "prefetch;prerender"}, false},
		{"prefetch by Turbo", "GET", []string{"X-Sec-Purpose", "prefetch"}, false},
		{"prefetch by Chromium", "GET", []string{"Purpose", "prefetch"}, false},
		{"prefetch by an old Firefox", "GET", []string{"X-Moz", "prefetch"}, false},
		{"a preview by Safari", "GET", []string{"X-Purpose", "preview"}, false},
		{"image", "GET", []string{"Sec-Fetch-Dest", "image"}, false},
		{"script", "GET", []string{"Sec-Fetch-Dest", "script"}, false},
		{"style", "GET", []string{"Sec-Fetch-Dest", "style"}, false},
		{"font", "GET", []string{"Sec-Fetch-Dest", "font"}, false},
		{"WebSocket", "GET", []string{"Upgrade", "websocket", "Connection", "Upgrade"}, false},
		{"crawler", "GET", []string{"User-Agent", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, nil)
			req, _ := http.NewRequest(tt.method, s.url+"/page", nil)
			for i := 0; i < len(tt.header); i += 2 {
				req.Header.Set(tt.header[i], tt.header[i+1])
			}
			res, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode != 200 {
				t.Errorf("%s: %s", res.Status, body)
			}
			if got := len(res.Header.Values("Set-Cookie")) > 0; got != tt.want {
				t.Errorf("minted: %v, want %v", got, tt.want)
			}
			if n := len(s.store.keys(t, "")); (n > 0) != tt.want {
				t.Errorf("%d records stored", n)
			}
		})
	}
}

func TestAVisitorWhoIsNotAdmittedReadsNothingAndCannotWrite(t *testing.T) {
	s := newSite(t, func(c *guest.Config) { c.Admit = func(*http.Request) bool { return false } })
	b := s.browser()
	if p := b.page(); p.IsGuest || p.Err != "" || len(p.Cart) != 0 {
		t.Errorf("%+v", p)
	}
	if _, body := b.request("POST", "/add/tea"); !strings.Contains(body, guest.ErrNotAdmitted.Error()) {
		t.Errorf("writing: %s", body)
	}
	if n := s.store.calls.Load(); n != 0 {
		t.Errorf("%d store calls", n)
	}
}

func TestAllComposes(t *testing.T) {
	yes := func(*http.Request) bool { return true }
	no := func(*http.Request) bool { return false }
	r := httptest.NewRequest("GET", "/", nil)
	if !guest.All()(r) || !guest.All(yes, yes)(r) || guest.All(yes, no)(r) {
		t.Error("All does not mean all")
	}
}

func TestTheWriterOfAKnownVisitorIsPassedOnUntouched(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	b.page()
	b.page()
	res, _ := b.request("GET", "/page")
	var got http.ResponseWriter
	h := s.guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = w }))
	for name, header := range map[string][2]string{
		"guest":        {"Cookie", res.Request.Header.Get("Cookie")},
		"member":       {"User", "ann"},
		"not admitted": {"Sec-Purpose", "prefetch"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set(header[0], header[1])
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got != http.ResponseWriter(w) {
			t.Errorf("%s: the handler got a %T", name, got)
		}
		if w.Header().Get("Vary") != "Cookie" {
			t.Errorf("%s: Vary: %q", name, w.Header().Get("Vary"))
		}
	}
}

func TestTTLSlidesOnceADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &spy{Store: memstore.New(memstore.Config{})}
		m, err := guest.New(guest.Config{Store: store, Secrets: [][]byte{secret}, Data: []guest.Kind{Cart}})
		if err != nil {
			t.Fatal(err)
		}
		b := &bubble{h: m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/add" {
				Cart.Add(r.Context(), "tea", 1)
			}
			if r.URL.Path == "/cart" {
				n, _ := Cart.Get(r.Context(), "tea")
				io.WriteString(w, strings.Repeat("x", int(n)))
			}
		})), jar: map[string]*http.Cookie{}}

		b.get("/add")
		b.get("/") // confirms
		if n := store.took(func() { b.get("/"); time.Sleep(23 * time.Hour); b.get("/") }); n != 0 {
			t.Errorf("%d round trips within a day", n)
		}
		time.Sleep(2 * time.Hour)
		if n := store.took(func() { b.get("/"); b.get("/") }); n != 1 {
			t.Errorf("%d round trips after a day, want 1", n)
		}
		for range 20 { // 580 days, a visit every 29
			time.Sleep(29 * 24 * time.Hour)
			if got := b.get("/cart"); got != "x" {
				t.Fatalf("the cart is lost: %q", got)
			}
		}
		time.Sleep(31 * 24 * time.Hour)
		if got := b.get("/cart"); got != "" {
			t.Errorf("after 31 days away the cart is still there: %q", got)
		}
	})
}

func TestAProvisionalGuestLivesAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &spy{Store: memstore.New(memstore.Config{})}
		m, _ := guest.New(guest.Config{Store: store, Secrets: [][]byte{secret}})
		h := m.Middleware(http.NotFoundHandler())
		for range 10 {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		}
		if n := len(store.keys(t, "g:")); n != 10 {
			t.Fatalf("%d records, want 10", n)
		}
		time.Sleep(time.Hour + time.Second)
		if n := len(store.keys(t, "g:")); n != 0 {
			t.Errorf("%d records after an hour", n)
		}
	})
}

// A guest's record lives as long as the cookie, which is lengthened by visits, once a day; an account's since its last write.
func TestWritesCarryTheTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &spy{Store: memstore.New(memstore.Config{})}
		m, _ := guest.New(guest.Config{Store: store, Secrets: [][]byte{secret}, Data: []guest.Kind{Cart}, Create: guest.OnFirstWrite, AccountTTL: 24 * time.Hour})
		b := &bubble{jar: map[string]*http.Cookie{}, h: m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/add" {
				Cart.Add(r.Context(), "tea", 1)
			}
		}))}
		b.get("/add")
		time.Sleep(time.Hour + time.Second)
		if keys := store.keys(t, "g:"); len(keys) != 0 {
			t.Errorf("a provisional guest's record lives on after an hour")
		}
		b.get("/")
		time.Sleep(time.Hour)
		b.get("/add") // not a day since it was confirmed
		time.Sleep(30*24*time.Hour - time.Hour - time.Minute)
		if keys := store.keys(t, "g:"); len(keys) != 1 {
			t.Errorf("a guest's record is gone before its cookie")
		}
		time.Sleep(2 * time.Minute)
		if keys := store.keys(t, "g:"); len(keys) != 0 {
			t.Errorf("a guest's record outlives its cookie")
		}
		Cart.Add(m.AsGuest(t.Context(), "AAAAAAAAAAAAAAAAAAAAAA"), "tea", 1) // it makes the record
		if keys := store.keys(t, "g:"); len(keys) != 1 {
			t.Errorf("%d records, want 1", len(keys))
		}
		time.Sleep(29 * 24 * time.Hour)
		Cart.Add(m.As(t.Context(), "ann"), "tea", 1)
		time.Sleep(24*time.Hour + time.Second)
		if keys := store.keys(t, ""); len(keys) != 0 {
			t.Errorf("left behind: %v", keys)
		}
	})
}

func TestAnExpiredCookieSaysReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := guest.New(guest.Config{Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}})
		var v *guest.Visitor
		b := &bubble{jar: map[string]*http.Cookie{}, keep: true}
		b.h = m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { v = guest.FromContext(r.Context()) }))
		b.get("/")
		b.get("/")
		b.get("/") // by now the process knows the cookie
		time.Sleep(31 * 24 * time.Hour)
		old := maps.Clone(b.jar)
		for range 2 {
			b.jar = maps.Clone(old)
			b.get("/")
			if !v.Replaced() || !v.IsNew() {
				t.Errorf("replaced %v, new %v", v.Replaced(), v.IsNew())
			}
		}
	})
}

// bubble is a browser inside a synctest bubble.
type bubble struct {
	h    http.Handler
	jar  map[string]*http.Cookie
	keep bool // keeps cookies beyond their life
}

func (b *bubble) get(path string) string {
	r := httptest.NewRequest("GET", path, nil)
	for _, c := range b.jar {
		r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
	}
	w := httptest.NewRecorder()
	b.h.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if c.MaxAge < 0 {
			delete(b.jar, c.Name)
		} else {
			b.jar[c.Name] = c
		}
	}
	return w.Body.String()
}

func TestStoreDown(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	b.add("tea")
	b.page()
	before := b.cookies()

	s.store.down(errors.New("connection refused"))
	if p := b.page(); !strings.Contains(p.Err, guest.ErrUnavailable.Error()) || !p.IsGuest {
		t.Errorf("a known guest: %+v", p)
	}
	res, body := b.request("POST", "/add/tea")
	if res.StatusCode != 503 || !strings.Contains(body, guest.ErrUnavailable.Error()) {
		t.Errorf("a write: %s: %s", res.Status, body)
	}
	fresh := s.browser()
	if p := fresh.page(); !p.New {
		t.Errorf("a new visitor: %+v", p)
	}
	if p := fresh.page(); p.New || !p.IsGuest { // not confirmed, not replaced
		t.Errorf("its return: %+v", p)
	}
	if c := b.login("ann"); c.Err == "" || !c.Receipt.Pending {
		t.Errorf("a login: %+v; want Pending", c)
	}
	if got := b.cookies(); !equal(got, before) {
		t.Errorf("cookies %v, before the outage %v", got, before)
	}

	s.store.down(nil)
	if p := b.page(); p.Cart["tea"] != 1 || p.Err != "" {
		t.Errorf("after the outage: %+v", p)
	}
	if p := fresh.page(); p.New || p.Err != "" {
		t.Errorf("after the outage: %+v", p)
	}
	if c := b.login("ann"); c.Err != "" || !c.Receipt.Claimed {
		t.Errorf("login after the outage: %+v", c)
	}
	if got := s.account("ann"); got["tea"] != 1 {
		t.Errorf("the account holds %v", got)
	}
}

func equal(a, b []string) bool { return strings.Join(a, ",") == strings.Join(b, ",") }

func TestParallelFirstRequestsBecomeOneGuest(t *testing.T) {
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
				if res, body := b.request("POST", "/together/"+[]string{"tea", "cup"}[i%2]); res.StatusCode != 200 {
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
		p, pages := b.page(), 1 // a request settles eight guests, so a small page's are settled by the first
		for ; pages < n && (p.Cart["tea"]+p.Cart["cup"] < int64(n) || len(b.cookies()) > 1); pages++ {
			p = b.page()
		}
		if p.Cart["tea"]+p.Cart["cup"] != int64(n) || n <= 4 && pages > 1 || pages > 1+n/4 {
			t.Errorf("%d requests, cart %v after %d pages", n, p.Cart, pages)
		}
		if got := b.cookies(); len(got) != 1 || got[0] != "guest" {
			t.Errorf("cookies %v", got)
		}
		if notes := outbox(t, s.store); notes != 0 {
			t.Errorf("%d notes left", notes)
		}
	}
}

// A browser with more made-up spare cookies than we look at is a visitor like any other, and loses them.
func TestMadeUpSpareCookies(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	for i := range 200 {
		b.Jar.SetCookies(mustURL(t, s.url), []*http.Cookie{{Name: fmt.Sprintf("guest.%06d", i), Value: "made-up", Path: "/"}})
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
}

func outbox(t testing.TB, store guest.Store) (notes int) {
	for key, err := range store.Keys(t.Context(), "o:") {
		if err != nil {
			t.Fatal(err)
		}
		fields, err := store.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		notes += len(fields)
	}
	return notes
}

func TestAWriteToAnAbsorbedSiblingFollowsIt(t *testing.T) {
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
}

func TestIdentifyIsThePlainStep(t *testing.T) {
	s := newSite(t, nil)
	w := httptest.NewRecorder()
	r := s.guests.Identify(w, httptest.NewRequest("GET", "/", nil))
	v := guest.FromContext(r.Context())
	if !v.IsNew() || len(w.Header().Values("Set-Cookie")) != 1 || w.Header().Get("Cache-Control") != "private, no-store" {
		t.Errorf("new %v, header %v", v.IsNew(), w.Header())
	}
	if n := len(s.store.keys(t, "g:")); n != 1 {
		t.Errorf("%d records", n)
	}
	if _, err := Cart.Add(r.Context(), "tea", 1); err != nil {
		t.Error(err)
	}
}

func TestNobody(t *testing.T) {
	var v *guest.Visitor
	if v.GuestID() != "" || v.AccountID() != "" || v.IsGuest() || v.IsNew() || v.Replaced() {
		t.Error("a nil visitor is somebody")
	}
	if guest.FromContext(context.Background()) != nil {
		t.Error("an empty context has a visitor")
	}
}

func TestHeaderToken(t *testing.T) {
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
			t.Errorf("after the claim: %q, %q; want one that is empty, and no cookie", over, res.Header["Set-Cookie"])
		}
	}
}

// A token in a header can be read by scripts, so only clients that send the header get one.
func TestTheTokenHeaderIsForThoseWhoAsk(t *testing.T) {
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
	if res, _ = s.browser().request("POST", "/add/tea", "X-Guest", ""); res.Header.Get("X-Guest") == "" {
		t.Error("a client that asks gets none")
	}
}

// An app of one's own, with an Origin of its own and the token in the header, makes its first request with POST, and may
// claim by ClaimHandler, also after the middleware has claimed. Another site's page, which cannot send the header, may not.
func TestHeaderClientsOfAnotherOrigin(t *testing.T) {
	s := newSite(t, func(c *guest.Config) { c.Header = "X-Guest" })
	post := func(path, user string, header ...string) *http.Response {
		t.Helper()
		b := s.browser()
		b.user = user
		res, body := b.request("POST", path, append([]string{"Origin", "capacitor://localhost", "Sec-Fetch-Site", "cross-site"}, header...)...)
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
	if err := json.NewDecoder(res.Body).Decode(&receipt); err != nil || res.StatusCode != 200 || !receipt.Claimed || s.account("ann")["tea"] != 1 {
		t.Errorf("the claim: %s, %+v, %v; ann has %v", res.Status, receipt, err, s.account("ann"))
	}
	if res := post("/add/tea", ""); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a guest for another site's page: %s", res.Status)
	}
	if res := post("/claim", "eve"); res.StatusCode != http.StatusForbidden {
		t.Errorf("a claim of another site's page: %s", res.Status)
	}
}
