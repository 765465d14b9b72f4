package main

import (
	"flag"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/guestkit/guest/memstore"
)

var screenshot = flag.Bool("screenshot", false, "write docs/admin.png")

// A walker is a browser without pages: it has cookies and follows redirects.
type walker struct {
	*testing.T
	client *http.Client
	s      *testShop
}

func (s *testShop) walker(t *testing.T) walker {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return walker{t, &http.Client{Jar: jar}, s}
}

// same is another walker with these cookies.
func (w walker) same() walker {
	other := w.s.walker(w.T)
	u, _ := url.Parse(w.s.url)
	other.client.Jar.SetCookies(u, w.client.Jar.Cookies(u))
	return other
}

func (w walker) get(path string) { w.Helper(); w.check(w.client.Get(w.s.url + path)) }
func (w walker) post(path string, form ...string) {
	w.Helper()
	w.check(w.client.PostForm(w.s.url+path, values(form)))
}

func (w walker) check(res *http.Response, err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		w.Fatalf("%s: %s", res.Request.URL, res.Status)
	}
}

// A morning at the shop, and the page that tells of it.
func TestAdmin(t *testing.T) {
	store := &outage{Store: memstore.New(memstore.Config{})}
	s := openShop(t, store, newSecret())
	b := newBrowser(t, s.url)
	b.disableScripts()
	b.open("/admin")
	for _, id := range []string{"minted", "returned", "filled", "moved", "claimed", "get", "update"} {
		b.sees(id, "0")
	}

	var visitors []walker
	for range 24 {
		w := s.walker(t)
		w.get("/")
		visitors = append(visitors, w)
	}
	for _, w := range visitors[:17] {
		w.get("/")
	}
	for _, w := range visitors[:11] {
		w.post("/cart/fern/more")
	}
	email := func(i int) string { return fmt.Sprintf("visitor-%d@example.com", i) }
	before := visitors[0].same()
	thief := visitors[0].same()
	for i, w := range visitors[:6] {
		w.post("/signup", "email", email(i), "password", password)
	}
	before.post("/login", "email", email(0), "password", password)
	thief.post("/login", "email", email(1), "password", password)
	for range 2 {
		forger := s.walker(t)
		u, _ := url.Parse(s.url)
		forger.client.Jar.SetCookies(u, []*http.Cookie{{Name: "guest", Value: "forged"}})
		forger.get("/")
	}
	store.down.Store(true)
	visitors[6].post("/signup", "email", email(6), "password", password)
	store.down.Store(false)
	visitors[6].post("/login", "email", email(6), "password", password)

	for id, want := range map[string]string{
		"minted": "26", "returned": "17", "filled": "11", "moved": "7",
		"claimed": "7", "replayed": "1", "pending": "1", "refused": "1",
		"token": "2", "cookies": "0", "foreign": "0", "others": "1", "ticket": "0",
	} {
		b.sees(id, want) // the page comes by itself, without scripts
	}
	if *screenshot {
		shot(b, "/admin", "../../docs/admin.png")
	}

	// Who looks is not counted, and is not a guest.
	res, err := http.Get(s.url + "/admin")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if len(res.Cookies()) != 0 || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", res.Header)
	}
	b.open("/admin")
	b.sees("minted", "26")
}

func shot(b *tab, path, file string) {
	b.open(path)
	do(b, "window", chromedp.EmulateViewport(1280, 776))
	png := do(b, "screenshot", chromedp.CaptureScreenshot())
	if err := os.WriteFile(file, png, 0o644); err != nil {
		b.Fatal(err)
	}
}
