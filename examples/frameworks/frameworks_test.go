package frameworks

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

func newGuests(t *testing.T) *guest.Manager {
	t.Helper()
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("a secret of the tests, 32 bytes+")},
		Data:    []guest.Kind{Cart},
		Cookie:  guest.Cookie{Insecure: true},
		Header:  "Guest-Token",
	})
	if err != nil {
		t.Fatal(err)
	}
	return guests
}

// A browser keeps the cookies of one server.
type browser struct {
	*testing.T
	*http.Client
	url string
}

func newBrowser(t *testing.T, app http.Handler) *browser {
	server := httptest.NewServer(app)
	t.Cleanup(server.Close)
	jar, _ := cookiejar.New(nil) // the error is always nil
	return &browser{t, &http.Client{Jar: jar}, server.URL}
}

// says sends a request and checks the status and the body.
func (b *browser) says(method, path string, status int, want string) *http.Response {
	b.Helper()
	return b.answers(method, path, "", "", status, want)
}

func (b *browser) answers(method, path, contentType, body string, status int,
	want string) *http.Response {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), method, b.url+path, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := b.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		b.Fatal(err)
	}
	says := strings.ReplaceAll(strings.TrimSpace(string(got)), b.url, "URL")
	if res.StatusCode != status || says != want {
		b.Errorf("%s %s: %d %s, want %d %s", method, path, res.StatusCode, says, status, want)
	}
	return res
}

// cookies are the names of the guest cookies that the browser has.
func (b *browser) cookies() (names []string) {
	u, err := url.Parse(b.url)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range b.Jar.Cookies(u) {
		names = append(names, c.Name)
	}
	return names
}

// hasCart checks the contents of an account's cart.
func hasCart(t *testing.T, guests *guest.Manager, account, sku string, want int64) {
	t.Helper()
	if n, err := Cart.Get(guests.As(t.Context(), account), sku); n != want || err != nil {
		t.Errorf("%s has %d of %s, %v; want %d", account, n, sku, err, want)
	}
}

// A visitor fills a cart, mistypes the password, signs in, has the cart there, and is a new guest
// afterwards.
func TestRouters(t *testing.T) {
	for name, tt := range map[string]struct {
		app          func(*guest.Manager) http.Handler
		wrong, hello string
	}{
		"chi":         {Chi, "wrong password", "hello ann"},
		"httprouter":  {HTTPRouter, "wrong password", "hello ann"},
		"gorilla/mux": {GorillaMux, "wrong password", "hello ann"},
		"Huma":        {Huma, `{"$schema":"URL/schemas/ErrorModel.json","title":"Unauthorized","status":401,"detail":"wrong password"}`, `"hello ann"`},
	} {
		t.Run(name, func(t *testing.T) {
			guests := newGuests(t)
			b := newBrowser(t, tt.app(guests))
			b.says("POST", "/cart/tea", 200, "1")
			b.says("POST", "/cart/tea", 200, "2")
			b.says("POST", "/login?user=ann&password=rose", 401, tt.wrong)
			b.says("POST", "/cart/tea", 200, "3")
			b.says("POST", "/login?user=ann&password=tulip", 200, tt.hello)
			if left := b.cookies(); len(left) != 0 {
				t.Errorf("cookies after the login: %v", left)
			}
			hasCart(t, guests, "ann", "tea", 3)
			b.says("POST", "/cart/tea", 200, "1")
			if now := b.cookies(); len(now) != 1 {
				t.Errorf("cookies of the next guest: %v", now)
			}
		})
	}
}

func TestHumaReads(t *testing.T) {
	b := newBrowser(t, Huma(newGuests(t)))
	b.says("GET", "/cart/tea", 200, "0")
	b.says("POST", "/cart/tea", 200, "1")
	b.says("GET", "/cart/tea", 200, "1")
}
