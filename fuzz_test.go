package guest_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// visited is what a request with this Cookie header comes to, and the response.
func visited(m *guest.Manager, method, cookies string) (v *guest.Visitor, w *httptest.ResponseRecorder) {
	r := httptest.NewRequest(method, "/", nil)
	if cookies != "" {
		r.Header["Cookie"] = []string{cookies}
	}
	w = httptest.NewRecorder()
	m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { v = guest.FromContext(r.Context()) })).ServeHTTP(w, r)
	return v, w
}

// Any bytes for a Cookie header: the guest is there exactly if its cookie is, and nothing else asks the store.
func FuzzCookieHeader(f *testing.F) {
	store := &spy{Store: memstore.New(memstore.Config{})}
	m, err := guest.New(guest.Config{Store: store, Secrets: [][]byte{secret}, Cookie: guest.Cookie{Insecure: true}, Create: guest.OnFirstWrite})
	if err != nil {
		f.Fatal(err)
	}
	v, w := visited(m, "GET", "")
	spare := w.Result().Cookies()[0]
	provisional := spare.Name + "=" + spare.Value
	id := v.GuestID()
	_, w = visited(m, "GET", provisional)
	var main string
	for _, c := range w.Result().Cookies() {
		if c.Name == "guest" {
			main = "guest=" + c.Value
		}
	}
	// MAIN and SPARE stand for the values, which each process of a fuzzer makes for itself, and suffix for the spare's name.
	stands := strings.NewReplacer("MAIN", strings.TrimPrefix(main, "guest="), "SPARE", spare.Value, "suffix", strings.TrimPrefix(spare.Name, "guest."))
	for _, seed := range []string{
		"", "guest=MAIN", "guest.suffix=SPARE", "guest.suffix=SPARE; guest=MAIN", "guest=MAIN; guest=MAIN", `guest="MAIN"`,
		"a=b;guest=MAIN;c=d", "guest=xMAIN", "guest=MAIN=", "guest=; guest=MAIN", "guest.abc=x; guest..=MAIN", "guest=SPARE",
		"guest.suffix=MAIN", strings.Repeat("guest.aaaaaa=b;", 70) + "guest=MAIN", strings.Repeat("guest.aaaaaa=SPARE;", 70) + "guest.suffix=SPARE; guest=MAIN", "guest==MAIN", "\tguest=MAIN\r\n", "Guest=MAIN",
		"guestx=MAIN", "guest=\x00", ";;;=;=", "\u2000guest=MAIN", "guest\u00a0=MAIN", "\x85guest.suffix=SPARE", "\vguest=MAIN",
		"guest.suffix\u3000=SPARE", "guest.suffixx=SPARE", "guest.aé\xff=x", "==guest=MAIN", "$guest=MAIN", `"guest"=MAIN`,
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

// Any request to the claim handler gets one of its answers, and a guest is claimed only by a POST of this site with its
// cookie, for the account that the app named.
func FuzzClaimRequest(f *testing.F) {
	for _, seed := range []struct{ method, site, origin, contentType, body string }{
		{"POST", "", "", "application/x-www-form-urlencoded", "user=ann"},
		{"POST", "same-origin", "http://example.com", "application/x-www-form-urlencoded", "user=a%00b%7B"},
		{"POST", "cross-site", "null", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=user\r\n\r\nann\r\n--x--"},
		{"GET", "none", "", "", ""},
		{"post", "", "http://[::1", "multipart/form-data", "--"},
		{"POST", "", "", "application/x-www-form-urlencoded", "user=" + strings.Repeat("k", 600)},
		{"POST", "", "", "application/x-www-form-urlencoded", "user=%zz;&&=="},
	} {
		f.Add(seed.method, seed.site, seed.origin, seed.contentType, seed.body)
	}
	f.Fuzz(func(t *testing.T, method, site, origin, contentType, body string) {
		m, err := guest.New(guest.Config{
			Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Data: []guest.Kind{Cart},
			Cookie: guest.Cookie{Insecure: true},
		})
		if err != nil {
			t.Fatal(err)
		}
		var named string
		claim := m.ClaimHandler(func(r *http.Request) (string, error) {
			named = r.FormValue("user")
			return named, nil
		})
		first := httptest.NewRecorder()
		m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), "tea", 1) })).
			ServeHTTP(first, httptest.NewRequest("GET", "/", nil))

		r := httptest.NewRequest("GET", "/", strings.NewReader(body))
		r.Method = method
		r.Header.Set("Content-Type", contentType)
		r.Header["Sec-Fetch-Site"] = []string{site}
		r.Header["Origin"] = []string{origin}
		r.AddCookie(first.Result().Cookies()[0])
		w := httptest.NewRecorder()
		m.Middleware(claim).ServeHTTP(w, r)
		switch w.Code {
		case 200, 401, 403, 405:
		default:
			t.Errorf("%d: %s", w.Code, w.Body)
		}
		var receipt guest.Receipt
		if w.Code == 200 {
			if err := json.Unmarshal(w.Body.Bytes(), &receipt); err != nil || !receipt.Claimed {
				t.Errorf("%v: %s", err, w.Body)
			}
		}
		foreign := site != "" && site != "same-origin" && site != "none"
		if receipt.Claimed && (method != "POST" || foreign || named == "" || len(named) > 512) {
			t.Errorf("%s of %q by %q: %+v", method, site, named, receipt)
		}
		if named != "" && len(named) <= 512 {
			cart, err := Cart.All(m.As(t.Context(), named))
			if err != nil || (len(cart) == 1) != receipt.Claimed {
				t.Errorf("%q has %v, %v; %+v", named, cart, err, receipt)
			}
		}
	})
}

// garbled is a store whose records somebody else has written to: its answers hold these fields, whatever it was told.
type garbled struct {
	guest.Store
	guest, account, outbox guest.Fields
	faults                 []string
}

func (g *garbled) mix(fields guest.Fields, key string, names []string) guest.Fields {
	mixed := maps.Clone(fields)
	if mixed == nil {
		mixed = guest.Fields{}
	}
	for name, value := range map[string]guest.Fields{"g": g.guest, "a": g.account, "o": g.outbox}[key[:min(1, len(key))]] {
		if names == nil || slices.Contains(names, name) {
			mixed[name] = value
		}
	}
	return mixed
}

func (g *garbled) Get(ctx context.Context, key string, names ...string) (guest.Fields, error) {
	fields, err := g.Store.Get(ctx, key, names...)
	return g.mix(fields, key, names), err
}

func (g *garbled) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	for name := range u.Set {
		if name == "" || u.Set[name] == "" {
			g.faults = append(g.faults, name)
		}
	}
	res, err := g.Store.Update(ctx, key, u)
	names := append(slices.Collect(maps.Keys(u.If)), u.Return...)
	if u.ReturnAll {
		names = nil
	}
	res.Fields = g.mix(res.Fields, key, names)
	return res, err
}

// Any bytes in the records of a guest, an account and the outbox: data calls, claims and all that operators call end,
// with an error at worst.
func FuzzStoredFields(f *testing.F) {
	for _, seed := range [][3]string{
		{"", "", ""},
		{"theme\x00\"dark\"\x00cart/tea\x001", "theme\x00\"light\"\x00cart/tea\x00x", "g:a/b/a:c\x001"},
		{"\x00", "\x00x", "\x00"},
		{"x\x00", "x\x00\x00", "//\x00"},
		{"email\x00\x01abc", "email\x00\x01", "g:/\x00\x00"},
		{".s\x00sa:ann\x00.i\x00abc\x00cart\x001", ".c\x0010\x00.cabc\x00x 0 cart=mzzzz", ""},
		{".s\x00bg:AAAAAAAAAAAAAAAAAAAAAA@0\x00.t\x00x", ".s\x00s", "g:AAAAAAAAAAAAAAAAAAAAAA/x/g:AAAAAAAAAAAAAAAAAAAAAA@1\x001"},
		{".s\x00s", ".s\x00b", ".s\x00"},
		{"cart/\x001\x00cart\x002\x00wishes/a\x00{}\x00wishes/b\x00null", "cart/\xff\x009223372036854775807\x00wishes/a\x00[]", ""},
		{"old/a\x00\x00old\x00", "old\x00\x00old/b\x00", "/\x00"},
		{"cart//\x001\x00cart//a\x002\x00wishes/a/\x00{}\x00wishes/a/b\x00{}", "cart//\x00-1\x00cart//a\x001\x00wishes/a/\x00{}", "g:a/b/a:team/\x001\x00g:a/b/a:team/ann\x001"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(fuzzStored)
}

func parseFields(s string) guest.Fields { // names and values in turn
	all := guest.Fields{}
	parts := strings.Split(s, "\x00")
	for i := 0; i+1 < len(parts); i += 2 {
		all[parts[i]] = parts[i+1]
	}
	return all
}

func fuzzStored(t *testing.T, guestFields, accountFields, notes string) {
	store := &garbled{Store: memstore.New(memstore.Config{}), guest: parseFields(guestFields), account: parseFields(accountFields), outbox: parseFields(notes)}
	m, err := guest.New(guest.Config{
		Store: store, Secrets: [][]byte{secret}, Data: []guest.Kind{Theme, Cart, Wishes, Email}, Cookie: guest.Cookie{Insecure: true},
		Account: func(r *http.Request) string { return r.Header.Get("User") }, AutoClaim: func(*http.Request) bool { return false },
		ClaimTimeout: time.Minute, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	_, w := visited(m, "GET", "")
	cookie := w.Result().Cookies()[0]
	touch := func(ctx context.Context) {
		Theme.Get(ctx)
		Theme.Update(ctx, func(s string) (string, error) { return s + "!", nil })
		Email.Get(ctx)
		Email.Set(ctx, "ann@example.com")
		Cart.Add(ctx, "tea", 1)
		Cart.All(ctx)
		Wishes.All(ctx)
		Wishes.Set(ctx, "pot", wish{"blue"})
		m.Preview(ctx, "ann")
		m.Export(ctx)
		if ctx, err := guest.Prefetch(ctx, Theme, Cart, Wishes, Email); err == nil {
			Cart.All(ctx)
		}
	}
	for _, path := range []string{"/", "/login", "/forget"} {
		r := httptest.NewRequest("POST", path, nil)
		r.AddCookie(cookie)
		w := httptest.NewRecorder()
		m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			touch(r.Context())
			switch path {
			case "/login":
				receipt, err := m.Claim(w, r, "ann")
				if _, fault := json.Marshal(receipt); fault != nil {
					t.Error(fault)
				}
				if err == nil && receipt.Pending || err != nil && !receipt.Pending && !errors.Is(err, guest.ErrClaimed) {
					t.Errorf("%+v, %v", receipt, err)
				}
				touch(r.Context())
			case "/forget":
				m.Forget(w, r)
			}
		})).ServeHTTP(w, r)
		if w.Code != 200 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	touch(m.As(t.Context(), "ann"))
	touch(m.AsGuest(t.Context(), guestFields))
	m.Recover(t.Context())
	m.EraseAccount(t.Context(), "ann")
	if len(store.faults) > 0 {
		t.Errorf("the library breaks duty 11 of a store: it sets %q", store.faults)
	}
}
