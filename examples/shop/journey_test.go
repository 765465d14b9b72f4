package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
	"github.com/guestkit/guest/redisstore"
)

// stores are what the shop can keep guest data in.
var stores = map[string]func(*testing.T) guest.Store{
	"memory": func(t *testing.T) guest.Store { return memstore.New(memstore.Config{}) },
	"redis": func(t *testing.T) guest.Store {
		server, err := sharedRedis()
		if err != nil {
			t.Fatal(err)
		}
		return redisstore.New(server.Client(), redisstore.Config{Prefix: "shop-" + rand.Text()})
	},
}

func forEachStore(t *testing.T, test func(*testing.T, *testShop)) {
	for _, name := range slices.Sorted(maps.Keys(stores)) {
		t.Run(name, func(t *testing.T) { test(t, openShop(t, stores[name](t), newSecret())) })
	}
}

// A testShop is a shop that listens on a port of its own.
type testShop struct {
	*shop
	url           string
	longestCookie atomic.Int64 // header that it was sent, in bytes
	formPosts     atomic.Int64 // of the OpenID provider's pages
	log           lines
}

func openShop(t *testing.T, store guest.Store, secret []byte) *testShop {
	t.Helper()
	before := slog.Default()
	open := &testShop{}
	slog.SetDefault(slog.New(slog.NewTextHandler(testLog{t, &open.log}, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	db, err := openDatabase("")
	if err != nil {
		t.Fatal(err)
	}
	s, err := newShop(t.Context(), db, store, [][]byte{secret}, true)
	if err != nil {
		t.Fatal(err)
	}
	open.shop = s
	handler := sync.OnceValue(s.handler) // a test may change the shop until it is first asked
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		open.longestCookie.Store(max(open.longestCookie.Load(), int64(len(r.Header.Get("Cookie")))))
		if r.Method == http.MethodPost && r.URL.Path == oauthCallback {
			open.formPosts.Add(1)
			if len(r.Cookies()) > 0 {
				t.Error("a POST from another site carries cookies")
			}
		}
		aBrowser := r.Header.Get("Sec-Fetch-Site") != "" // Go's client knows no Referrer-Policy
		if aBrowser && secretInAddress.MatchString(r.Referer()) || strings.Contains(r.RequestURI, "ticket=") {
			t.Errorf("%s after %s: a secret is where it is logged", r.RequestURI, r.Referer())
		}
		handler().ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.Close()
		db.Close()
	})
	open.url, s.url = server.URL, server.URL
	return open
}

var secretInAddress = regexp.MustCompile(`(token|state|code|ticket)=|#`)

// testLog shows what the shop logs if the test fails.
type testLog struct {
	t   *testing.T
	all *lines
}

func (l testLog) Write(line []byte) (int, error) {
	l.all.add(string(line))
	l.t.Logf("%s", line)
	return len(line), nil
}

// lines are what was logged so far.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.WriteString(line)
}

// keepQuiet checks that none of the secrets was logged.
func (l *lines) keepQuiet(t *testing.T, secrets ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, secret := range secrets {
		if strings.Contains(l.text.String(), secret) {
			t.Errorf("logged: %s", secret)
		}
	}
}

func newSecret() []byte { return []byte(rand.Text() + rand.Text()) }

// account checks what is stored for the account, whatever the pages say.
func (s *testShop) account(t *testing.T, email string, cart map[string]int64, wishes []string, theme string) {
	t.Helper()
	var id string
	if err := s.accounts.db.QueryRow(`SELECT id FROM users WHERE email = ?`, email).Scan(&id); err != nil {
		t.Fatal(err)
	}
	data, err := load(s.guests.As(context.Background(), id))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(wishes)
	if got := slices.Sorted(maps.Keys(data.Wishes)); !maps.Equal(data.Cart, cart) || !slices.Equal(got, wishes) || data.Theme != theme {
		t.Fatalf("stored for the account: cart %v, wishes %v, theme %q; want %v, %v, %q", data.Cart, got, data.Theme, cart, wishes, theme)
	}
}

const (
	ada      = "ada@example.com"
	password = "correct horse"
)

// Sign up, log out, come back: the story of the README.
func TestJourney(t *testing.T) {
	forEachStore(t, func(t *testing.T, s *testShop) {
		b := newBrowser(t, s.url)

		// A new visitor chooses three plants, a wish and a theme.
		b.open("/")
		b.sees("who", "Guest")
		b.counts("0", "0")
		b.click("#add-monstera")
		b.click("#add-pilea")
		b.click("#add-monstera")
		b.click("#heart-snake")
		b.click("#dark")
		b.waits(`html[data-theme="dark"]`)
		b.counts("3", "1")
		b.sees("amount-monstera", "2 in cart")
		b.sees("announcement", "3 items in your cart")
		first := b.guestCookies()
		if len(first) != 1 || first["guest"] == "" {
			t.Fatalf("guest cookies %v, want one named guest", slices.Collect(maps.Keys(first)))
		}

		// They sign up: it is the account's now, and the guest cookie is gone.
		b.signsIn("/signup", " Ada@Example.com", password)
		b.sees("who", ada)
		b.sees("flash", "Welcome to Windowsill! Your 3 items moved to your account. Your wish list came along, with 1 plant. Your theme was kept.")
		b.counts("3", "1")
		b.waits(`html[data-theme="dark"]`)
		if left := b.guestCookies(); len(left) != 0 {
			t.Fatalf("%d guest cookies after signing up", len(left))
		}
		s.account(t, ada, map[string]int64{"monstera": 2, "pilea": 1}, []string{"snake"}, "dark")
		b.open("/cart")
		b.lacks("#flash")
		b.sees("amount-monstera", "2")
		b.sees("amount-pilea", "1")
		b.sees("total", "€72.50")

		// They log out: the next visitor is a new guest with nothing.
		b.follow("#logout")
		b.sees("who", "Guest")
		b.counts("0", "0")
		b.lacks("html[data-theme]")
		b.open("/cart")
		b.lacks(".lines")
		if second := b.guestCookies(); len(second) != 1 || second["guest"] == first["guest"] {
			t.Fatal("no new guest after logging out")
		}

		// The new guest chooses other things and logs in to the same account: merged by the rules.
		b.open("/")
		b.click("#add-pilea")
		b.click("#add-fern")
		b.click("#heart-snake")
		b.click("#heart-aloe")
		b.click("#light")
		b.waits(`html[data-theme="light"]`)
		b.counts("2", "2")
		b.signsIn("/login", "ADA@example.com ", password)
		b.sees("flash", "Welcome back! 2 items from this browser were added to the 3 you had. 1 plant was added to your wish list. Your account’s own theme is back.")
		merged := func(b *tab) {
			t.Helper()
			b.sees("who", ada)
			b.counts("5", "2")
			b.waits(`html[data-theme="dark"]`)
			b.sees("amount-pilea", "2 in cart")
			s.account(t, ada, map[string]int64{"monstera": 2, "pilea": 2, "fern": 1}, []string{"aloe", "snake"}, "dark")
		}
		merged(b)

		// Once: not again with a reload, nor in another tab.
		do(b, "reload", chromedp.Reload())
		b.lacks("#flash")
		merged(b)
		other := b.another()
		other.open("/")
		other.lacks("#flash")
		merged(other)

		// Logged out, neither tab shows it, nor does the back button.
		b.follow("#logout")
		for _, b := range []*tab{b, other} {
			do(b, "reload", chromedp.Reload())
			b.sees("who", "Guest")
			b.counts("0", "0")
			b.lacks("html[data-theme]")
		}
		do(b, "back", chromedp.NavigateBack())
		b.sees("who", "Guest")
		b.counts("0", "0")
		b.open("/wishes")
		b.lacks(".card")
		b.open("/orders")
		b.sees("submit", "Log in")
	})
}

// The back button after a logout, as on a shared computer. Browsers keep whole pages for it,
// whatever their max-age and Vary, but for pages that say no-store.
func TestBackAfterLogout(t *testing.T) {
	t.Run("by no-store alone", func(t *testing.T) {
		b := signedInWithAFern(t, func(h http.Header) { h.Del("Clear-Site-Data") })
		b.open("/cart")
		b.sees("amount-fern", "1")
		b.follow("#logout")
		b.back(1, "#cart")
		b.sees("who", "Guest")
		b.counts("0", "0")
		b.lacks("#line-fern")
	})

	// A page that says no more than private is ended by Clear-Site-Data. This takes the pages that
	// were left before; that of the logout button itself is only now put by, so no-store is what
	// counts.
	t.Run("by Clear-Site-Data alone", func(t *testing.T) {
		b := signedInWithAFern(t, func(h http.Header) {
			if strings.Contains(h.Get("Cache-Control"), "no-store") {
				h.Set("Cache-Control", "private")
			}
		})
		b.open("/cart")
		b.sees("amount-fern", "1")
		b.open("/orders")
		b.follow("#logout")
		b.back(2, "#cart")
		b.sees("who", "Guest")
		b.counts("0", "0")
		b.lacks("#line-fern")
	})
}

// back goes back to a page with this, which may be one that the browser has put by.
func (b *tab) back(pages int, selector string) {
	b.Helper()
	do(b, "back", chromedp.Evaluate[any](fmt.Sprintf("history.go(-%d)", pages)))
	b.waits(selector)
}

// signedInWithAFern is the browser of a member whose shop sends other headers than it means to.
func signedInWithAFern(t *testing.T, change func(http.Header)) *tab {
	handler := newTrouble(t).handler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(&otherHeader{w, change}, r)
	}))
	t.Cleanup(server.Close)
	b := newBrowser(t, server.URL)
	b.open("/")
	b.click("#add-fern")
	b.counts("1", "0")
	b.signsIn("/signup", ada, password)
	return b
}

// otherHeader changes a header just before it is sent.
type otherHeader struct {
	http.ResponseWriter
	change func(http.Header)
}

func (w *otherHeader) WriteHeader(status int) {
	w.change(w.Header())
	w.ResponseWriter.WriteHeader(status)
}

func TestNothingOfAMemberIsStored(t *testing.T) {
	s := newTrouble(t)
	c := s.client(t)
	c.get("/")
	c.post("/cart/fern/more")
	c.post("/signup", "email", ada, "password", password)
	for path := range strings.FieldsSeq("/ /cart /wishes /orders /login /signup /code /outbox /nowhere /link /choose") {
		if got := c.do("GET", path).Header().Get("Cache-Control"); !strings.Contains(got, "no-store") {
			t.Errorf("%s: Cache-Control %q", path, got)
		}
	}
	h := c.do("POST", "/logout").Header()
	if h.Get("Clear-Site-Data") != `"cache"` || !strings.Contains(h.Get("Cache-Control"), "no-store") {
		t.Errorf("logout: %v", h)
	}
}

// Two browsers of one person, logging in at the same time.
func TestTwoBrowsers(t *testing.T) {
	forEachStore(t, func(t *testing.T, s *testShop) {
		home, work := newBrowser(t, s.url), newBrowser(t, s.url)
		if status := newBrowser(t, s.url).signsIn("/signup", ada, password); status != 200 {
			t.Fatalf("status %d", status)
		}
		s.account(t, ada, map[string]int64{}, nil, "")

		home.open("/")
		home.click("#add-monstera")
		home.click("#add-pilea")
		home.click("#heart-fern")
		home.counts("2", "1")
		work.open("/")
		work.click("#add-pilea")
		work.click("#add-pilea")
		work.click("#add-aloe")
		work.counts("3", "0")

		for _, b := range []*tab{home, work} {
			b.open("/login?next=/cart")
			b.fill("email", ada)
			b.fill("password", password)
		}
		home.click("#submit")
		work.click("#submit")
		home.sees("who", ada)
		work.sees("who", ada)
		for _, b := range []*tab{home, work} {
			do(b, "reload", chromedp.Reload()) // one of them was first and has not seen the other's
			b.counts("5", "1")
			b.sees("amount-pilea", "3")
			b.sees("total", "€84.00")
			if left := b.guestCookies(); len(left) != 0 {
				t.Fatalf("%d guest cookies after logging in", len(left))
			}
		}
		s.account(t, ada, map[string]int64{"monstera": 1, "pilea": 3, "aloe": 1}, []string{"fern"}, "")
	})
}

func TestFailedLoginChangesNothing(t *testing.T) {
	forEachStore(t, func(t *testing.T, s *testShop) {
		owner := newBrowser(t, s.url)
		owner.open("/")
		owner.click("#add-fern")
		owner.counts("1", "0")
		owner.signsIn("/signup", ada, password)

		b := newBrowser(t, s.url)
		b.open("/")
		b.click("#add-monstera")
		b.click("#add-monstera")
		b.counts("2", "0")
		b.open("/") // the cookie has come back, and is now the one that stays
		before := b.guestCookies()

		for _, try := range []struct{ page, email, password, mistake string }{
			{"/login", ada, "wrong horse", errLogin.Text},
			{"/login", "nobody@example.com", password, errLogin.Text},
			{"/signup", ada, password, errTaken.Text},
		} {
			if status := b.signsIn(try.page, try.email, try.password); status != 422 {
				t.Fatalf("status %d", status)
			}
			b.sees("mistake", try.mistake)
			if got := do(b, "e-mail", chromedp.Value(chromedp.ID("email"))); got != try.email {
				t.Fatalf("the field holds %q, want %q", got, try.email)
			}
			if got := do(b, "password", chromedp.Value(chromedp.ID("password"))); got != "" {
				t.Fatalf("the password came back: %q", got)
			}
			b.sees("who", "Guest")
			b.counts("2", "0")
			if after := b.guestCookies(); !maps.Equal(after, before) {
				t.Fatal("the guest cookie has changed")
			}
		}
		b.open("/cart")
		b.sees("amount-monstera", "2")
		s.account(t, ada, map[string]int64{"fern": 1}, nil, "")
	})
}

// A cookie is judged before a store is asked, so one store is enough.
func TestForeignCookies(t *testing.T) {
	s := openShop(t, memstore.New(memstore.Config{}), newSecret())
	for name, give := range map[string]func(*testing.T, *tab){
		"garbage": func(t *testing.T, b *tab) { b.setGuestCookie("%00garbage!!") },
		"5000 bytes": func(t *testing.T, b *tab) { // browsers do not keep one, but it may be sent
			do(b, "setting headers", call(network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{
				Headers: network.Headers{"Cookie": "guest=" + strings.Repeat("A", 5000)},
			}))
		},
		"another site's": func(t *testing.T, b *tab) {
			b.setGuestCookie("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.bm90IG91cnM")
		},
		"of a removed secret": func(t *testing.T, b *tab) {
			old := openShop(t, memstore.New(memstore.Config{}), newSecret())
			was := *b
			was.url = old.url // cookies do not know ports
			was.open("/")
			was.click("#add-cactus")
			was.counts("1", "0")
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBrowser(t, s.url)
			give(t, b)
			before := b.guestCookies()
			if status := b.open("/"); status != 200 {
				t.Fatalf("status %d", status)
			}
			b.sees("who", "Guest")
			b.counts("0", "0")
			after := b.guestCookies()
			if len(after) == 0 || maps.Equal(before, after) {
				t.Fatal("no fresh guest")
			}
			if name == "5000 bytes" { // from here on with what the browser keeps itself
				if n := s.longestCookie.Load(); n < 5000 {
					t.Fatalf("the longest Cookie header had %d bytes", n)
				}
				do(b, "setting headers", call(network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{}}))
			}
			b.click("#add-fern")
			b.counts("1", "0")
			b.open("/cart")
			b.sees("amount-fern", "1")
		})
	}
}

func TestWithoutScripts(t *testing.T) {
	forEachStore(t, func(t *testing.T, s *testShop) {
		b := newBrowser(t, s.url)
		b.disableScripts()
		b.open("/")
		b.follow("#add-monstera") // each is a new page
		b.follow("#add-pilea")
		b.follow("#heart-aloe")
		b.follow("#heart-fern")
		b.follow("#dark")
		b.counts("2", "2")
		b.waits(`html[data-theme="dark"]`)
		b.follow(`a[href="/wishes"]`)
		b.follow("#heart-fern")
		b.counts("2", "1")
		b.follow("#add-aloe")
		b.follow(`a[href="/cart"]`)
		b.follow("#more-monstera")
		b.sees("amount-monstera", "2")
		b.follow("#less-pilea")
		b.lacks("#line-pilea")
		b.follow("#more-aloe")
		b.follow("#remove-aloe")
		b.lacks("#line-aloe")
		b.sees("total", "€58.00")

		b.follow("#checkout")
		b.follow(`main a[href^="/signup"]`)
		b.fill("email", ada)
		b.fill("password", password)
		b.follow("#submit")
		b.sees("flash", "Welcome to Windowsill! Your 2 items moved to your account. Your wish list came along, with 1 plant. Your theme was kept.")
		b.sees("total", "€58.00")
		s.account(t, ada, map[string]int64{"monstera": 2}, []string{"aloe"}, "dark")

		b.follow("#checkout")
		b.sees("flash", "Thank you! Your order is placed.")
		b.counts("0", "1")
		b.waits(`[aria-label="Order 1"]`)
		s.account(t, ada, map[string]int64{}, []string{"aloe"}, "dark")
		b.follow("#logout")
		b.counts("0", "0")
	})
}
