package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/guestkit/guest"
)

// A shop is the site on a TLS server, and a record of its requests.
type shop struct {
	*httptest.Server
	guests  *guest.Manager
	created atomic.Int64

	mu    sync.Mutex
	asked map[string]int // how often, by host and path
}

// newShop serves an app. The first four POST requests to /api/seen/ wait for each other, so that
// none is answered before all have arrived.
func newShop(t *testing.T, app func(m *guest.Manager, port string) http.Handler) *shop {
	t.Helper()
	s := &shop{asked: map[string]int{}}
	c := config(guest.Cookie{})
	c.Hooks.Created = func(context.Context) { s.created.Add(1) }
	guests, err := guest.New(c)
	if err != nil {
		t.Fatal(err)
	}
	s.guests = guests
	var together sync.WaitGroup
	together.Add(4)
	var seen atomic.Int64
	var served http.Handler
	s.Server = httptest.NewUnstartedServer(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			host, _, _ := strings.Cut(r.Host, ":")
			s.asked[host+r.URL.Path]++
			s.mu.Unlock()
			if r.Method == "POST" && strings.HasPrefix(r.URL.Path, "/api/seen/") &&
				seen.Add(1) <= 4 {
				together.Done()
				together.Wait()
			}
			served.ServeHTTP(w, r)
		}))
	_, port, _ := strings.Cut(s.Listener.Addr().String(), ":")
	served = app(guests, port)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *shop) url(host string) string {
	_, port, _ := strings.Cut(s.Listener.Addr().String(), ":")
	return "https://" + host + ":" + port
}

func (s *shop) has(t *testing.T, account string, kind *guest.Counters, want string) {
	t.Helper()
	items, err := kind.All(s.guests.As(t.Context(), account))
	if got := fmt.Sprint(items); got != want || err != nil {
		t.Errorf("%s of %s: %s, %v; want %s", kind.Name(), account, got, err, want)
	}
}

const allSeen = "map[aloe:1 cactus:1 fern:1 monstera:1]"

func TestOneOrigin(t *testing.T) {
	s := newShop(t, func(m *guest.Manager, _ string) http.Handler { return site(m) })
	b := newBrowser(t)
	url := s.url("one.shop.test")
	b.open(url)
	b.sees("seen", "1 aloe, 1 cactus, 1 fern, 1 monstera")
	b.sees("cart", "nothing")
	if n := s.created.Load(); n != 4 {
		t.Errorf("%d guests for four calls at once", n)
	}
	if got := b.cookies(url); !slices.Equal(got, []string{"__Host-Http-guest"}) {
		t.Errorf("cookies %v", got)
	}

	b.click("#add")
	b.sees("cart", "1 tea")
	b.open(url)
	b.sees("seen", "2 aloe, 2 cactus, 2 fern, 2 monstera")
	b.sees("cart", "1 tea")
	if n := s.created.Load(); n != 4 {
		t.Errorf("%d guests, %d of them after the first calls", n, n-4)
	}
	s.mu.Lock()
	if n := s.asked["one.shop.test/app.js"]; n != 1 {
		t.Errorf("the browser asked for app.js %d times", n)
	}
	s.mu.Unlock()

	b.signsIn("ann", "rose")
	b.sees("said", "401 wrong password")
	b.signsIn("ann", "tulip")
	b.sees("said", "What you chose came along.")
	b.sees("cart", "1 tea")
	s.has(t, "ann", Cart, "map[tea:1]")
	s.has(t, "ann", Seen, "map[aloe:2 cactus:2 fern:2 monstera:2]")
	if got := b.cookies(url); !slices.Equal(got, []string{"session"}) {
		t.Errorf("cookies after the claim: %v", got)
	}
	b.click("#add")
	b.sees("cart", "2 tea")
	s.has(t, "ann", Cart, "map[tea:2]")
}

func twoOrigins(m *guest.Manager, port string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("www.shop.test/", static())
	mux.Handle("api.shop.test/", subdomain(m, "https://www.shop.test:"+port))
	return mux
}

func TestSubdomains(t *testing.T) {
	s := newShop(t, twoOrigins)
	b := newBrowser(t)
	www, api := s.url("www.shop.test"), s.url("api.shop.test")
	b.open(www)
	b.sees("seen", "1 aloe, 1 cactus, 1 fern, 1 monstera")
	b.click("#add")
	b.sees("cart", "1 tea")
	if n := s.created.Load(); n != 1 {
		t.Errorf("%d guests", n)
	}
	if got := b.cookies(www); len(got) != 0 {
		t.Errorf("cookies of the page's host: %v", got)
	}
	if got := b.cookies(api); !slices.Equal(got, []string{"__Host-Http-guest"}) {
		t.Errorf("cookies %v", got)
	}
	b.signsIn("ann", "tulip")
	b.sees("said", "Hello.")
	b.sees("cart", "1 tea")
	if got := b.cookies(api); !slices.Equal(got, []string{"session"}) {
		t.Errorf("cookies after the claim: %v", got)
	}
	s.has(t, "ann", Cart, "map[tea:1]")
	s.has(t, "ann", Seen, allSeen)
}

// From another origin a POST creates no guest and claims none, even if CORS allows it.
func TestFromAnotherOriginOnlyAGETBegins(t *testing.T) {
	s := newShop(t, twoOrigins)
	ask := func(method, path, origin string) *http.Response {
		r := httptest.NewRequest(method, s.url("api.shop.test")+path, nil)
		r.Header.Set("Origin", origin)
		r.Header.Set("Sec-Fetch-Site", "same-site")
		w := httptest.NewRecorder()
		s.Config.Handler.ServeHTTP(w, r)
		return w.Result()
	}
	for _, tt := range []struct {
		method, path  string
		status, lines int
	}{
		{"POST", "/api/cart/tea", 503, 0},
		{"POST", "/api/claim", 403, 0},
		{"GET", "/api/cart", 200, 1},
	} {
		res := ask(tt.method, tt.path, s.url("www.shop.test"))
		if res.StatusCode != tt.status || len(res.Header["Set-Cookie"]) != tt.lines {
			t.Errorf("%s %s: %d, %q", tt.method, tt.path, res.StatusCode, res.Header["Set-Cookie"])
		}
		if got := res.Header.Get("Access-Control-Allow-Origin"); got != s.url("www.shop.test") {
			t.Errorf("%s %s: allowed origin %q", tt.method, tt.path, got)
		}
	}
	if got := ask("GET", "/api/cart", "https://www.evil.test").Header.Get(
		"Access-Control-Allow-Origin"); got != "" {
		t.Errorf("allowed origin %q", got)
	}
}

// The files are the same for all visitors, whether the middleware is around the API or around
// everything. Around everything they vary by Cookie: a shared cache keeps one copy for each
// visitor.
func TestStaticFilesStayCacheable(t *testing.T) {
	guests, err := guest.New(config(guest.Cookie{}))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		app  http.Handler
		vary string
	}{
		"around the API":    {site(guests), ""},
		"around everything": {guests.Middleware(site(guests)), "Cookie"},
	} {
		for _, path := range []string{"/", "/app.js", "/missing"} {
			w := httptest.NewRecorder()
			tt.app.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			if w.Result().Header["Set-Cookie"] != nil && path != "/missing" {
				t.Errorf("%s, %s: %q", name, path, w.Result().Header["Set-Cookie"])
			}
			if got := w.Header().Get("Cache-Control"); got != "public, max-age=3600" &&
				path != "/missing" {
				t.Errorf("%s, %s: Cache-Control %q", name, path, got)
			}
			if got := w.Header().Get("Vary"); got != tt.vary {
				t.Errorf("%s, %s: Vary %q", name, path, got)
			}
		}
	}
}

// One Chromium for all tests. It resolves each name under shop.test to this computer, and accepts
// our certificate for it.
var chromium = sync.OnceValues(func() (context.Context, error) {
	program, err := exec.LookPath("chromium")
	if err != nil {
		return nil, fmt.Errorf("apt-get install chromium, or run scripts/test, which does: %w", err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program),
		chromedp.NoSandbox, // root cannot use it; this browser opens only the shop
		chromedp.DisableGPU,
		chromedp.Flag("disable-component-update", true),
		// Each window has an address bar whose popups are pages, too. They take half of the CPU time.
		chromedp.Flag("disable-features", "Translate,WebUIOmniboxPopup,WebUIOmniboxAimPopup"),
		chromedp.Flag("host-resolver-rules", "MAP *.shop.test 127.0.0.1"),
		chromedp.Flag("ignore-certificate-errors", true),
	)
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	atExit = append(atExit, cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	atExit = append(atExit, cancel)
	return ctx, chromedp.Do(ctx)
})

var atExit []func()

func TestMain(m *testing.M) {
	status := m.Run()
	for _, f := range slices.Backward(atExit) {
		f()
	}
	os.Exit(status)
}

type browser struct {
	*testing.T
	ctx context.Context
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	parent, err := chromium()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := chromedp.NewContext(parent, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return &browser{t, ctx}
}

// do runs an action with a deadline. A failure prints what the page says.
func do[T any](b *browser, what string, action chromedp.Action[T]) T {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 15*time.Second)
	defer cancel()
	value, err := chromedp.Run(ctx, action)
	if err != nil {
		ctx, cancel := context.WithTimeout(b.ctx, time.Second)
		defer cancel()
		text, _ := chromedp.Run(ctx, chromedp.Text(chromedp.CSS("body")))
		b.Fatalf("%s: %v\nthe page says:\n%s", what, err, text)
	}
	return value
}

func (b *browser) open(url string) {
	b.Helper()
	do(b, "open "+url, chromedp.NavigateResponse(url))
}

func (b *browser) click(selector string) {
	b.Helper()
	do(b, "click "+selector, chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

func (b *browser) signsIn(user, password string) {
	b.Helper()
	for id, text := range map[string]string{"user": user, "password": password} {
		do(b, "fill "+id, chromedp.SendKeys(chromedp.ID(id), text))
	}
	b.click("#login button")
}

// sees waits until the element of this ID says exactly that.
func (b *browser) sees(id, text string) {
	b.Helper()
	do(b, fmt.Sprintf("waiting for #%s to say %q", id, text),
		chromedp.WaitReady(chromedp.Search(fmt.Sprintf(`//*[@id=%q][normalize-space()=%q]`, id, text))))
}

// cookies are the names of the cookies that the browser keeps for that address.
func (b *browser) cookies(url string) (names []string) {
	b.Helper()
	get := func(ctx context.Context, target *chromedp.Target) (network.GetCookiesResult, error) {
		return cdp.Call(ctx, target, network.GetCookies,
			network.GetCookiesParams{URLs: []string{url}})
	}
	for _, c := range do(b, "reading cookies", get).Cookies {
		names = append(names, c.Name)
	}
	slices.Sort(names)
	return names
}
