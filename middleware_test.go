package guest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

func TestNewReportsEveryFaultAtOnce(t *testing.T) {
	t.Parallel()
	_, err := guest.New(guest.Config{
		Secrets: [][]byte{make([]byte, 32), []byte("short")},
		Data: []guest.Kind{Cart, guest.NewValue("cart", guest.PreferAccount[string]),
			guest.NewValue("No Good", guest.PreferAccount[int]), guest.NewValue[int]("ruleless", nil), nil},
		Create: 7,
		Cookie: guest.Cookie{Name: "__Host-x y", Domain: "a b", Path: "x", Insecure: true,
			Partitioned: true},
		Header:         "not a header",
		TTL:            500 * 24 * time.Hour,
		ProvisionalTTL: -time.Second,
		TombstoneTTL:   time.Hour,
		AccountTTL:     -1,
		ClaimTimeout:   -1,
		StoreBudget:    -1,
		Quota:          guest.Quota{Fields: -1},
	})
	var got []string
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var fault *guest.ConfigError
		if !errors.As(e, &fault) || fault.Fault == "" {
			t.Errorf("%v is no ConfigError", e)
			continue
		}
		got = append(got, fault.Field)
	}
	slices.Sort(got)
	want := []string{"AccountTTL", "ClaimTimeout", "Cookie.Domain", "Cookie.Insecure", "Cookie.Name",
		"Cookie.Path", "Create", "Data", "Data", "Data", "Data", "Header", "ProvisionalTTL", "Quota",
		"Secrets", "Store", "StoreBudget", "TTL", "TombstoneTTL"}
	if !slices.Equal(got, want) {
		t.Errorf("faults of %v\nwant      %v\n%v", got, want, err)
	}
}

func TestNew(t *testing.T) {
	t.Parallel()

	t.Run("faults name the fix", func(t *testing.T) {
		t.Parallel()
		ok := func() guest.Config {
			return guest.Config{Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}}
		}
		for _, tt := range []struct {
			change func(*guest.Config)
			want   string
		}{
			{func(c *guest.Config) { c.Store = nil }, "memstore.New"},
			{func(c *guest.Config) { c.Secrets = nil }, "openssl rand"},
			{func(c *guest.Config) { c.Secrets = [][]byte{[]byte("x")} }, "at least 32"},
			{func(c *guest.Config) {
				c.Data = []guest.Kind{Cart, Cart}
			}, "declared twice (give one of them another name"},
			{func(c *guest.Config) { c.TTL = -time.Hour }, "0 is the default"},
			{func(c *guest.Config) { c.TTL = time.Millisecond }, "use 1s or more"},
			{func(c *guest.Config) {
				c.Cookie.Name = "__Host-Http-guest"
			}, "leave __Host-Http- and __Secure- out"},
			{func(c *guest.Config) {
				c.Cookie = guest.Cookie{Insecure: true, SameSite: http.SameSiteNoneMode}
			}, "serve https"},
		} {
			cfg := ok()
			tt.change(&cfg)
			if _, err := guest.New(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want %q in it", err, tt.want)
			}
		}
		if _, err := guest.New(ok()); err != nil {
			t.Error(err)
		}
	})

	t.Run("copies its Config", func(t *testing.T) {
		t.Parallel()
		own := append([]byte{}, secret...)
		s := newSite(t, func(c *guest.Config) {
			c.Secrets = [][]byte{own}
			c.Data = []guest.Kind{Cart, Theme}
		})
		b := s.browser()
		first := b.page()
		clear(own)
		if p := b.page(); p.Guest != first.Guest {
			t.Error("changing the secret after New changed the manager")
		}
	})

	// Every line that sets or clears a cookie has its Path and Domain. Longer ones would leave no
	// room in a response's header.
	t.Run("a long Path or Domain", func(t *testing.T) {
		t.Parallel()
		for length, want := range map[string]bool{"longest": false, "longer": true} {
			cookie := guest.Cookie{Path: "/" + strings.Repeat("p", 511), Domain: strings.Repeat("d", 253)}
			if want {
				cookie.Path, cookie.Domain = cookie.Path+"p", cookie.Domain+"d"
			}
			_, err := guest.New(guest.Config{Store: newStore(), Secrets: [][]byte{secret}, Cookie: cookie})
			for _, field := range []string{"Cookie.Path", "Cookie.Domain"} {
				if got := err != nil && strings.Contains(err.Error(), field); got != want {
					t.Errorf("%s: a fault in %s: %v, want %v", length, field, got, want)
				}
			}
		}
	})

	t.Run("a kind that was never made", func(t *testing.T) {
		t.Parallel()
		for _, k := range []guest.Kind{
			&guest.Counters{}, (*guest.Counters)(nil),
			&guest.Value[string]{},
		} {
			_, err := guest.New(guest.Config{Store: memstore.New(memstore.Config{}),
				Secrets: [][]byte{secret}, Data: []guest.Kind{k}})
			var fault *guest.ConfigError
			if !errors.As(err, &fault) || fault.Field != "Data" {
				t.Errorf("%T: %v", k, err)
			}
		}
	})
}

func TestMisuseIsATypedErrorThatNamesTheFix(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *guest.Config) { c.Quota = guest.Quota{Fields: 3, Bytes: 100} })
	undeclared := guest.NewValue("undeclared", guest.PreferAccount[string])
	unencodable := guest.NewValue("theme", guest.PreferAccount[any])
	ctx := s.guests.As(t.Context(), "ann")
	if err := Theme.Set(ctx, "dark"); err != nil {
		t.Fatal(err)
	}
	odd := newSite(t, func(c *guest.Config) {
		c.Data = []guest.Kind{unencodable, Number}
		c.Store = s.store
	})
	oddCtx := odd.guests.As(t.Context(), "ann")
	var infinite = math.Inf(1)
	add := func(item string, n int64) error { _, err := Cart.Add(ctx, item, n); return err }

	for _, tt := range []struct {
		name string
		err  error
		is   error
		text string
	}{
		{"outside the middleware", Theme.Set(t.Context(), "x"), guest.ErrNoVisitor,
			"wrap the handler in Manager.Middleware"},
		{"a value that does not encode", unencodable.Set(oddCtx, func() {}), guest.ErrInvalid,
			"cannot encode this value"},
		{"a number that does not encode", Number.Set(oddCtx, infinite), guest.ErrInvalid,
			"cannot encode this value"},
		{"an undeclared kind", undeclared.Set(ctx, "x"), guest.ErrInvalid, "list it there"},
		{"an empty item", add("", 1), guest.ErrInvalid, "1 to 128 bytes"},
		{"a long item", add(strings.Repeat("x", 129), 1), guest.ErrInvalid, "not 129"},
		{"NUL", add("a\x00b", 1), guest.ErrInvalid, "encode other bytes first"},
		{"a line break", add("a\nb", 1), guest.ErrInvalid, "without control characters"},
		{"bytes that are no UTF-8", add("\xff", 1), guest.ErrInvalid, "UTF-8"},
		{"an amount beyond 2^53", add("tea", 1<<53+1), guest.ErrInvalid, "2^53"},
		{"over the quota of bytes", Theme.Set(ctx, strings.Repeat("x", 100)), guest.ErrQuota,
			"raise the quota"},
		{"Wishes, too", Wishes.Set(ctx, "\x00", wish{}), guest.ErrInvalid, "UTF-8"},
	} {
		if !errors.Is(tt.err, tt.is) || !strings.Contains(tt.err.Error(), tt.text) {
			t.Errorf("%s: %v; want %q", tt.name, tt.err, tt.text)
		}
	}
	for i, item := range []string{"a", "b", "c"} {
		if err := add(item, 1); (err != nil) != (i == 2) || i == 2 && !errors.Is(err, guest.ErrQuota) {
			t.Errorf("item %d of 3 fields, one taken: %v", i, err)
		}
	}
	theme, _ := Theme.Get(ctx)
	if cart := s.account("ann"); len(cart) != 2 || theme != "dark" {
		t.Errorf("half-written: %v, %q", cart, theme)
	}
}

var Number = guest.NewValue("number", guest.Max[float64])

func TestManager_Middleware(t *testing.T) {
	t.Parallel()

	t.Run("a first visit makes a guest that comes back", func(t *testing.T) {
		t.Parallel()
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
	})

	t.Run("the writer of a known visitor is passed on untouched", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		b := s.browser()
		b.page()
		b.page()
		res, _ := b.request("GET", "/page")
		var got http.ResponseWriter
		h := s.guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = w
		}))
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
	})

	t.Run("while the store is down", func(t *testing.T) {
		t.Parallel()
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
		if got := b.cookies(); !slices.Equal(got, before) {
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
	})
}

func TestRoundTrips(t *testing.T) {
	t.Parallel()
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

// What a whole request of a known visitor allocates; with -store=redis including the client, and up
// to four more for a timer that calls share, if the machine is slow. A rise needs a reason.
func TestAllocations(t *testing.T) {
	if raceEnabled || *storeFlag == "cluster" {
		t.Skip("the race detector, and the routing of a Cluster client, allocate on their own account")
	}
	s := newSite(t, nil)
	b := s.browser()
	b.page()
	b.add("tea")
	cookie := cookieHeader(b)
	for _, tt := range []struct {
		name          string
		memory, redis float64
		h             http.HandlerFunc
	}{
		{"only the ID", 5, 5, func(w http.ResponseWriter, r *http.Request) {
			guest.FromContext(r.Context()).GuestID()
		}},
		{"read", 10, 27, func(w http.ResponseWriter, r *http.Request) { Cart.Get(r.Context(), "tea") }},
		{"add", 19, 40, adds("tea")},
	} {
		h := s.guests.Middleware(tt.h)
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", cookie)
		w := httptest.NewRecorder()
		most := tt.memory
		if *storeFlag == "redis" {
			most = tt.redis
		}
		if n := testing.AllocsPerRun(500, func() { clear(w.Header()); h.ServeHTTP(w, r) }); n > most {
			t.Errorf("%s: %v allocations, at most %v", tt.name, n, most)
		}
	}
}

func TestTTLSlidesOnceADay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &spy{Store: memstore.New(memstore.Config{})}
		m := newManager(t, guest.Config{Store: store})
		b := newBubble(m, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/add" {
				Cart.Add(r.Context(), "tea", 1)
			}
			if r.URL.Path == "/cart" {
				n, _ := Cart.Get(r.Context(), "tea")
				io.WriteString(w, strings.Repeat("x", int(n)))
			}
		})

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
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &spy{Store: memstore.New(memstore.Config{})}
		m := newManager(t, guest.Config{Store: store})
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

func TestAnExpiredCookieSaysReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, guest.Config{})
		var v *guest.Visitor
		b := newBubble(m, func(w http.ResponseWriter, r *http.Request) {
			v = guest.FromContext(r.Context())
		})
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

func TestLifetimes(t *testing.T) {
	t.Parallel()

	// A guest's record lives as long as the cookie, whose life visits lengthen once a day. An
	// account's record lives from its last write.
	t.Run("writes carry the TTL", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			store := &spy{Store: memstore.New(memstore.Config{})}
			m := newManager(t, guest.Config{Store: store, Create: guest.OnFirstWrite,
				AccountTTL: 24 * time.Hour})
			b := newBubble(m, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/add" {
					Cart.Add(r.Context(), "tea", 1)
				}
			})
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
	})

	// A record does not expire while a stream writes to it, nor while the cookie lives that an
	// absorbed sibling was given.
	t.Run("a record outlives its writers", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			const ttl = 30 * time.Minute
			m := newManager(t, guest.Config{TTL: ttl})
			quiet := func(http.ResponseWriter, *http.Request) {}
			cookie := at(m, at(m, "", quiet), quiet)
			at(m, cookie, func(w http.ResponseWriter, r *http.Request) {
				for n := range int64(90) {
					if have, err := Cart.Add(r.Context(), "tea", 1); have != n+1 || err != nil {
						t.Fatalf("after %d minutes the cart holds %d, %v", n, have, err)
					}
					time.Sleep(time.Minute)
				}
			})

			older, younger := at(m, "", quiet), at(m, "", quiet)
			confirmed := at(m, younger, quiet)
			at(m, older+"; "+confirmed, quiet) // absorbs it, and the response is lost
			for range 10 {
				time.Sleep(ttl / 3)
				confirmed = at(m, confirmed, func(w http.ResponseWriter, r *http.Request) {
					if _, err := Cart.Add(r.Context(), "pot", 1); err != nil {
						t.Error(err)
					}
				})
			}
			at(m, confirmed, func(w http.ResponseWriter, r *http.Request) {
				if n, err := Cart.Get(r.Context(), "pot"); n != 10 || err != nil {
					t.Errorf("the cart holds %d, %v", n, err)
				}
			})
		})
	})
}

func TestManager_Identify(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	w := httptest.NewRecorder()
	r := s.guests.Identify(w, httptest.NewRequest("GET", "/", nil))
	v := guest.FromContext(r.Context())
	if !v.IsNew() || len(w.Header().Values("Set-Cookie")) != 1 ||
		w.Header().Get("Cache-Control") != "private, no-store" {
		t.Errorf("new %v, header %v", v.IsNew(), w.Header())
	}
	if n := len(s.store.keys(t, "g:")); n != 1 {
		t.Errorf("%d records", n)
	}
	if _, err := Cart.Add(r.Context(), "tea", 1); err != nil {
		t.Error(err)
	}
}

func TestVisitor_nil(t *testing.T) {
	t.Parallel()
	var v *guest.Visitor
	if v.GuestID() != "" || v.AccountID() != "" || v.IsGuest() || v.IsNew() || v.Replaced() {
		t.Error("a nil visitor is a guest or a member")
	}
	if guest.FromContext(context.Background()) != nil {
		t.Error("an empty context has a visitor")
	}
}

// deferred serves as some frameworks do: the response is written after the handler has returned.
func deferred(m *guest.Manager, h func(x guest.Exchange, header http.Header)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := m.Begin(w.Header(), r)
		h(x, w.Header())
		x.End()
		x.Commit(http.StatusOK)
		w.WriteHeader(http.StatusOK)
	})
}

func TestExchange(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	serve := func(r *http.Request, h func(x guest.Exchange, header http.Header)) http.Header {
		w := httptest.NewRecorder()
		deferred(s.guests, h).ServeHTTP(w, r)
		return w.Result().Header
	}
	get := func() *http.Request { return httptest.NewRequest("GET", "/", nil) }

	t.Run("the header is settled when it is sent", func(t *testing.T) {
		h := serve(get(), func(x guest.Exchange, header http.Header) {
			if !x.Watched() || header.Get("Set-Cookie") == "" {
				t.Error("the header of a new guest is not there before the handler")
			}
			clear(header)
		})
		if len(h["Set-Cookie"]) != 1 || h.Get("Cache-Control") != "private, no-store" ||
			h.Get("Vary") != "Cookie" {
			t.Errorf("header %v", h)
		}
	})
	t.Run("also if it becomes public after End", func(t *testing.T) {
		w, r := httptest.NewRecorder(), get()
		x := s.guests.Begin(w.Header(), r)
		x.End()
		w.Header().Set("Cache-Control", "public, max-age=60")
		x.Commit(http.StatusOK)
		if h := w.Header(); h.Get("Set-Cookie") != "" || h.Get("Cache-Control") != "public, max-age=60" {
			t.Errorf("header %v", h)
		}
	})
	t.Run("a handler that sends nothing itself", func(t *testing.T) {
		w := httptest.NewRecorder()
		s.guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=60")
		})).ServeHTTP(w, get())
		if h := w.Result().Header; h.Get("Set-Cookie") != "" ||
			h.Get("Cache-Control") != "public, max-age=60" {
			t.Errorf("header %v", h)
		}
	})
	t.Run("only the first Commit counts", func(t *testing.T) {
		h := serve(get(), func(x guest.Exchange, header http.Header) {
			x.Commit(http.StatusOK)
			header.Del("Set-Cookie")
			x.Commit(http.StatusOK)
		})
		if h.Get("Set-Cookie") != "" {
			t.Errorf("header %v", h)
		}
	})
	t.Run("twice around one request", func(t *testing.T) {
		h := serve(get(), func(x guest.Exchange, header http.Header) {
			inner := s.guests.Begin(header, x.Request)
			if inner.Request != x.Request || inner.Watched() {
				t.Error("the inner one is at work too")
			}
			inner.Commit(http.StatusOK)
			inner.End()
			sent := 0
			inner.Inform(func() { sent++ })
			if sent != 1 {
				t.Error("the inner one sends no 1xx")
			}
		})
		if len(h["Set-Cookie"]) != 1 {
			t.Errorf("header %v", h)
		}
	})
	t.Run("while a 1xx is sent the header is the app's", func(t *testing.T) {
		guests := newManager(t, guest.Config{Store: newStore(), Header: "Guest-Token"})
		r := get()
		r.Header.Set("Guest-Token", "")
		header := http.Header{"Cache-Control": {"no-cache"}, "Vary": {"Accept"},
			"Set-Cookie": {"theirs=1"}}
		said := header.Clone()
		x := guests.Begin(header, r)
		header.Add("Cache-Control", "max-age=5")
		said.Add("Cache-Control", "max-age=5")
		before := header.Clone()
		if reflect.DeepEqual(before, said) {
			t.Error("nothing of ours is in the header")
		}
		x.Inform(func() {
			if !reflect.DeepEqual(header, said) {
				t.Errorf("header %v, want %v", header, said)
			}
		})
		if !reflect.DeepEqual(header, before) {
			t.Errorf("header %v, it was %v", header, before)
		}
		x.Commit(http.StatusNotModified)
		if !reflect.DeepEqual(header, http.Header{
			"Cache-Control": {"no-cache", "max-age=5"}, "Vary": {"Accept", "Cookie", "Guest-Token"},
			"Set-Cookie": {"theirs=1"},
		}) {
			t.Errorf("after a 304: %v", header)
		}
	})
	t.Run("the writer commits", func(t *testing.T) {
		for name, send := range map[string]func(w http.ResponseWriter){
			"status": func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) },
			"body":   func(w http.ResponseWriter) { io.WriteString(w, "page") },
			"flush":  func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
		} {
			rec := httptest.NewRecorder()
			x := s.guests.Begin(rec.Header(), get())
			w := x.Writer(rec)
			x.End() // and the response is written after it
			clear(w.Header())
			send(w)
			if h := rec.Result().Header; len(h["Set-Cookie"]) != 1 || h.Get("Vary") != "Cookie" {
				t.Errorf("%s: header %v", name, h)
			}
		}
	})
	t.Run("Vary of a known visitor", func(t *testing.T) {
		b := s.browser()
		b.page()
		b.page()
		r := get()
		r.Header.Set("Cookie", cookieHeader(b))
		h := serve(r, func(x guest.Exchange, header http.Header) {
			if w := httptest.NewRecorder(); x.Watched() || x.Writer(w) != http.ResponseWriter(w) {
				t.Error("a known visitor's page is watched")
			}
			header.Del("Vary")
			header.Add("Set-Cookie", "guest=another visitor's; Path=/") // from a cache of pages
		})
		if h.Get("Vary") != "Cookie" || h.Get("Set-Cookie") != "" || h.Get("Cache-Control") != "" {
			t.Errorf("header %v", h)
		}
	})
}

func TestWhoIsAdmitted(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		method string
		header []string
		want   bool
	}{
		{"curl", "GET", []string{"User-Agent", "curl/8.0"}, true},
		{"no headers at all", "GET", nil, true},
		{"a page", "GET", []string{"Sec-Fetch-Dest", "document", "Sec-Fetch-Mode", "navigate",
			"Sec-Fetch-Site", "none"}, true},
		{"a fetch", "GET", []string{"Sec-Fetch-Dest", "empty", "Sec-Fetch-Site", "same-origin"}, true},
		{"a form from this site", "POST", []string{"Sec-Fetch-Site", "same-origin"}, true},
		{"a link from another site", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Dest",
			"document"}, true},
		{"a telephone by Cubot", "GET", []string{"User-Agent",
			"Mozilla/5.0 (Linux; Android 13; CUBOT X70) Chrome/120 Mobile"}, true},
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
		{"crawler", "GET", []string{"User-Agent",
			"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"}, false},
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
				t.Errorf("a guest was created: %v, want %v", got, tt.want)
			}
			if n := len(s.store.keys(t, "")); (n > 0) != tt.want {
				t.Errorf("%d records stored", n)
			}
		})
	}
}

func TestAdmit(t *testing.T) {
	t.Parallel()

	t.Run("a visitor who is not admitted reads nothing and cannot write", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, func(c *guest.Config) { c.Admit = func(*http.Request) bool { return false } })
		b := s.browser()
		if p := b.page(); p.IsGuest || p.Err != "" || len(p.Cart) != 0 {
			t.Errorf("%+v", p)
		}
		_, body := b.request("POST", "/add/tea")
		if !strings.Contains(body, guest.ErrNotAdmitted.Error()) {
			t.Errorf("writing: %s", body)
		}
		if n := s.store.calls.Load(); n != 0 {
			t.Errorf("%d store calls", n)
		}
	})

	t.Run("All", func(t *testing.T) {
		t.Parallel()
		yes := func(*http.Request) bool { return true }
		no := func(*http.Request) bool { return false }
		r := httptest.NewRequest("GET", "/", nil)
		if !guest.All()(r) || !guest.All(yes, yes)(r) || guest.All(yes, no)(r) {
			t.Error("All does not mean all")
		}
	})

	// The files list User-Agents as they are known: crawlers and preview fetchers that say so, and
	// the browsers of people, some of whose phones are called "M bot 60", "Spider 8" or, by Cubot,
	// "CUBOT X30". Two are made up: Slurp X, Robot 4.
	t.Run("crawlers and phones", func(t *testing.T) {
		t.Parallel()
		for file, want := range map[string]bool{
			"testdata/agents/crawlers": false,
			"testdata/agents/people":   true,
		} {
			list, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for agent := range strings.Lines(string(list)) {
				n++
				for _, spelt := range []string{agent, strings.ToUpper(agent), strings.ToLower(agent)} {
					r := httptest.NewRequest("GET", "/", nil)
					r.Header.Set("User-Agent", strings.TrimSuffix(spelt, "\n"))
					if got := guest.Browsers(r); got != want {
						t.Errorf("%s:%d: admitted: %v, want %v: %s", file, n, got, want, spelt)
					}
				}
			}
			if n < 50 {
				t.Errorf("%s: only %d lines", file, n)
			}
		}
		for _, agent := range []string{
			"", "(", ")))bot", "((((bot", "[bot", "bot", ")bot(",
			strings.Repeat("(", 1<<17) + "bot",
		} {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("User-Agent", agent)
			guest.Browsers(r) // whatever it says: no panic, and at once
		}
	})
}

func from(addr string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = addr
	return r
}

// admitted is how many of n requests pass.
func admitted(admit func(*http.Request) bool, addr string, n int) (passed int) {
	for range n {
		if admit(from(addr)) {
			passed++
		}
	}
	return passed
}

// What counts as one client, and what does not.
func TestLimit_Clients(t *testing.T) {
	for _, tt := range []struct {
		name, first, second string
		same                bool
	}{
		{"another port", "192.0.2.1:1", "192.0.2.1:2", true},
		{"another address", "192.0.2.1:1", "192.0.2.2:1", false},
		{"IPv4 written as IPv6", "192.0.2.1:1", "[::ffff:192.0.2.1]:1", true},
		{"another IPv4 written as IPv6", "[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:1", false},
		{"the same /64", "[2001:db8:1:2::1]:1", "[2001:db8:1:2:ffff:ffff:ffff:ffff]:1", true},
		{"another /64", "[2001:db8:1:2::1]:1", "[2001:db8:1:3::1]:1", false},
		{"another zone", "[fe80::1%eth0]:1", "[fe80::1%eth1]:1", true},
		{"no addresses", "@", "", true},
		{"none, and one", "@", "192.0.2.1:1", false},
		{"none, and the IPv4 of zeros", "@", "0.0.0.0:1", false},
	} {
		admit := guest.Limit(time.Hour, 1, nil)
		if !admit(from(tt.first)) || admit(from(tt.first)) {
			t.Errorf("%s: not one of %s", tt.name, tt.first)
		}
		if got := admit(from(tt.second)); got == tt.same {
			t.Errorf("%s: %s after %s: admitted %v", tt.name, tt.second, tt.first, got)
		}
	}
}

func TestLimit_Panics(t *testing.T) {
	for _, f := range []func(){
		func() { guest.Limit(0, 1, nil) },
		func() { guest.Limit(-time.Second, 1, nil) },
		func() { guest.Limit(time.Second, 0, nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("accepted")
				}
			}()
			f()
		}()
	}
}

// A client over its limit is served, without a guest.
func TestLimit_PageIsServed(t *testing.T) {
	s := newSite(t, func(c *guest.Config) { c.Admit = guest.All(guest.Browsers, guest.Limit(time.Hour, 2, nil)) })
	for i := range 5 {
		b := s.browser()
		res, body := b.request("GET", "/page")
		if got := len(b.cookies()); res.StatusCode != 200 || (got == 1) != (i < 2) {
			t.Errorf("visitor %d: %s, %d cookies: %s", i, res.Status, got, body)
		}
	}
	if n := len(s.store.keys(t, "g:")); n != 2 {
		t.Errorf("%d records", n)
	}
}

// A crawler takes nothing from a limit that stands after Browsers.
func TestLimit_AfterBrowsers(t *testing.T) {
	admit := guest.All(guest.Browsers, guest.Limit(time.Hour, 1, nil))
	crawler := from("192.0.2.1:1")
	crawler.Header.Set("User-Agent", "Googlebot/2.1")
	for range 3 {
		if admit(crawler) {
			t.Error("admitted")
		}
	}
	if !admit(from("192.0.2.1:1")) {
		t.Error("the crawler took the browser's place")
	}
}

// A client function that says the same for all is a limit for all.
func TestLimit_ForAll(t *testing.T) {
	all := func(*http.Request) netip.Addr { return netip.Addr{} }
	admit := guest.All(guest.Limit(time.Hour, 3, nil), guest.Limit(time.Hour, 7, all))
	passed := 0
	for i := range 10 {
		passed += admitted(admit, fmt.Sprintf("192.0.2.%d:1", i), 5)
	}
	if passed != 7 {
		t.Errorf("%d", passed)
	}
}

// The records of one-time visitors are no more than the limit lets in while one of them lives.
func TestLimit_BoundsTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Config{})
		all := func(*http.Request) netip.Addr { return netip.Addr{} }
		m, err := guest.New(guest.Config{
			Store: store, Secrets: [][]byte{secret}, ProvisionalTTL: time.Minute,
			Admit: guest.Limit(time.Second, 10, all),
		})
		if err != nil {
			t.Fatal(err)
		}
		h := m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
		for range 20_000 {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
			time.Sleep(10 * time.Millisecond)
		}
		live := 0
		for range store.Keys(t.Context(), "") {
			live++
		}
		// In 200 s the limit lets in 210; in the last minute 60, and those live.
		if live < 59 || live > 61 {
			t.Errorf("%d records", live)
		}
	})
}

// A silent store answers as memstore does while it may; else a call ends by its context or by the
// store's own deadline.
type silent struct {
	*memstore.Store
	own   time.Duration
	quiet bool
}

func (s *silent) wait(ctx context.Context) error {
	if !s.quiet {
		return ctx.Err()
	}
	timer := time.NewTimer(s.own)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return errors.New("no answer")
	}
}

func (s *silent) Get(ctx context.Context, key string, names ...string) (guest.Fields, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.Store.Get(ctx, key, names...)
}

func (s *silent) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	if err := s.wait(ctx); err != nil {
		return guest.Result{}, err
	}
	return s.Store.Update(ctx, key, u)
}

// However many calls a page makes, it waits a quarter of a second for a store that does not answer.
func TestStoreBudget(t *testing.T) {
	for _, tt := range []struct {
		name     string
		own      time.Duration // deadline of the store
		patience time.Duration
		account  bool // the request is signed in: it begins with a claim
		late     bool // the cookie has not come back yet: the request begins with a write
		want     time.Duration
	}{
		{"a known guest", 150 * time.Millisecond, 0, false, false, 240 * time.Millisecond},
		{"a guest that returns for the first time", 150 * time.Millisecond, 0, false, true, 240 * time.Millisecond},
		{"a claim", 150 * time.Millisecond, 0, true, false, 240 * time.Millisecond},
		{"a store that takes longer", time.Second, 0, false, false, time.Second},
		{"more patience", 150 * time.Millisecond, 400 * time.Millisecond, false, false, 400 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &silent{Store: memstore.New(memstore.Config{}), own: tt.own}
				m, err := guest.New(guest.Config{
					Store: store, Secrets: [][]byte{secret}, Data: []guest.Kind{Cart}, StoreBudget: tt.patience,
					Account: func(r *http.Request) string { return r.Header.Get("Account") },
				})
				if err != nil {
					t.Fatal(err)
				}
				b := &bubble{jar: map[string]*http.Cookie{}}
				handle := func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), "tea", 1) }
				b.h = m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handle(w, r) }))
				b.get("/")
				if !tt.late {
					b.get("/")
				}
				store.quiet = true
				handle = func(w http.ResponseWriter, r *http.Request) {
					for range 4 {
						if _, err := Cart.Get(r.Context(), "tea"); !errors.Is(err, guest.ErrUnavailable) {
							t.Error("a read:", err)
						}
						if _, err := Cart.Add(r.Context(), "tea", 1); !errors.Is(err, guest.ErrUnavailable) {
							t.Error("an addition:", err)
						}
					}
				}
				start := time.Now()
				if tt.account {
					r := httptest.NewRequest("GET", "/", nil)
					for _, c := range b.jar {
						r.AddCookie(c)
					}
					r.Header.Set("Account", "ann")
					b.h.ServeHTTP(httptest.NewRecorder(), r)
				} else {
					b.get("/")
				}
				if waited := time.Since(start); waited != tt.want {
					t.Errorf("the page waited for %v, want %v", waited, tt.want)
				}
			})
		})
	}
}

// A slow store that answers uses up no patience, and a stream gets its patience back after a
// second.
func TestStoreBudgetReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &silent{Store: memstore.New(memstore.Config{}), own: time.Second}
		slow := &slowly{Store: store, takes: 100 * time.Millisecond}
		m, _ := guest.New(guest.Config{Store: slow, Secrets: [][]byte{secret}, Data: []guest.Kind{Cart}})
		b := &bubble{jar: map[string]*http.Cookie{}}
		b.h = m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			add := func(want bool, took time.Duration) {
				t.Helper()
				start := time.Now()
				if _, err := Cart.Add(r.Context(), "tea", 1); (err == nil) != want {
					t.Errorf("an addition: %v", err)
				}
				if waited := time.Since(start); waited != took {
					t.Errorf("it took %v, want %v", waited, took)
				}
			}
			for range 10 {
				add(true, 100*time.Millisecond)
			}
			store.quiet = true
			add(false, time.Second)
			store.quiet = false
			for range 3 {
				time.Sleep(300 * time.Millisecond)
				add(false, 0)
			}
			time.Sleep(100 * time.Millisecond)
			add(true, 100*time.Millisecond)
			add(true, 100*time.Millisecond)
		}))
		b.get("/")
	})
}

// slowly takes its time, and answers.
type slowly struct {
	guest.Store
	takes time.Duration
}

func (s *slowly) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	res, err := s.Store.Update(ctx, key, u)
	if err == nil {
		time.Sleep(s.takes)
	}
	return res, err
}
