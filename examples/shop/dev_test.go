package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/guestkit/guest/memstore"
)

func openPublicShop(t *testing.T) *shop {
	t.Helper()
	db, err := openDatabase("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s, err := newShop(t.Context(), db, memstore.New(memstore.Config{}), [][]byte{newSecret()}, false)
	if err != nil {
		t.Fatal(err)
	}
	s.url, s.clientHeader = "https://shop.example", "X-Real-IP"
	return s
}

// No sign-in guards the outbox and the counts. A shop that visitors reach has none, also if it
// listens on loopback.
func TestWithoutDevNobodyReadsTheOutbox(t *testing.T) {
	s := openPublicShop(t)
	server := httptest.NewServer(s.handler()) // on 127.0.0.1, as behind nginx
	defer server.Close()
	for path, want := range map[string]int{"/": 200, "/login": 200, "/admin": 404, "/outbox": 404, "/code": 404, "/link": 404, "/signup": 303} {
		method, form := "GET", url.Values{}
		if want == http.StatusSeeOther {
			method, form = "POST", url.Values{"email": {ada}, "password": {password}}
		}
		r := httptest.NewRequest(method, server.URL+path, strings.NewReader(form.Encode()))
		r.RequestURI, r.Host = "", "shop.example"
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != want || strings.Contains(string(body), "/outbox") {
			t.Errorf("%s: status %d, want %d and no word of the outbox", path, res.StatusCode, want)
		}
		if (path == "/" || path == "/signup") && len(res.Cookies()) == 0 {
			t.Errorf("%s: no cookie", path)
		}
		for _, cookie := range res.Cookies() {
			if !cookie.Secure || !strings.HasPrefix(cookie.Name, "__Host-") {
				t.Errorf("%s: a cookie %q that is not Secure", path, cookie.Name)
			}
		}
	}
}

func TestSettingsThatMakeNoSense(t *testing.T) {
	for _, test := range []struct {
		flags settings
		want  string // "": it opens
	}{
		{settings{}, "-dev"},
		{settings{url: "https://shop.example"}, "-client-header X-Real-IP"},
		{settings{clientHeader: "X-Real-IP"}, "-url https://shop.example"},
		{settings{url: "http://shop.example", clientHeader: "X-Real-IP"}, "http only with -dev"},
		{settings{url: "shop.example", clientHeader: "X-Real-IP"}, "a scheme and a host"},
		{settings{url: "https://shop.example/plants", clientHeader: "X-Real-IP"}, "a scheme and a host"},
		{settings{url: "https://ada@shop.example", clientHeader: "X-Real-IP"}, "a scheme and a host"},
		{settings{url: "https://", clientHeader: "X-Real-IP"}, "a scheme and a host"},
		{settings{url: "https://shop.example", clientHeader: "X-Real-IP"}, ""},
		{settings{dev: true, url: "ftp://localhost"}, "a scheme and a host"},
		{settings{dev: true, url: "http://shop.test:8080"}, ""},
		{settings{dev: true}, ""},
	} {
		err := test.flags.check()
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%+v: %v, want %q", test.flags, err, test.want)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel() // a shop that opens all the same ends at once
	if err := run(gone, settings{addr: "127.0.0.1:0"}); err == nil || !strings.Contains(err.Error(), "-dev") {
		t.Errorf("it opens without a word on what it is for: %v", err)
	}
}

// A page of another site can make its own name lead here, and is then of one origin with what it
// gets (DNS rebinding).
func TestOtherHostsAreNotServed(t *testing.T) {
	dev, public := newTrouble(t), openPublicShop(t)
	dev.shop.url = "http://shop.test:8080"
	for _, test := range []struct {
		shop *shop
		host string
		want int
	}{
		{dev.shop, "127.0.0.1:8080", 200},
		{dev.shop, "localhost", 200},
		{dev.shop, "LOCALHOST:1", 200},
		{dev.shop, "[::1]:8080", 200},
		{dev.shop, "shop.test:8080", 200},
		{dev.shop, "evil.example", 421},
		{dev.shop, "evil.example:8080", 421},
		{dev.shop, "127.0.0.1.evil.example", 421},
		{dev.shop, "localhost.evil.example", 421},
		{dev.shop, "192.0.2.1", 421},
		{dev.shop, "", 421},
		{public, "shop.example", 200},
		{public, "Shop.Example:443", 200},
		{public, "127.0.0.1:8080", 421},
		{public, "localhost", 421},
		{public, "shop.example.evil.example", 421},
		{public, "evil.example", 421},
		{public, "", 421},
	} {
		for path := range strings.FieldsSeq("GET/ GET/cart GET/admin GET/outbox GET/static/shop.css POST/cart/fern/more POST/login") {
			method, path, _ := strings.Cut(path, "/")
			r := httptest.NewRequest(method, "/"+path, nil)
			r.Host = test.host
			r.Header.Set("Origin", "http://"+test.host) // what a rebound page's own requests say
			w := httptest.NewRecorder()
			test.shop.handler().ServeHTTP(w, r)
			if test.want == 200 {
				if w.Code == 421 {
					t.Errorf("%s /%s of %q: not served", method, path, test.host)
				}
				continue
			}
			if h := w.Header(); w.Code != test.want || h.Get("Content-Type") != "text/plain; charset=utf-8" || h.Get("Set-Cookie") != "" {
				t.Errorf("%s /%s of %q: status %d, headers %v; want %d, plain text and no cookie", method, path, test.host, w.Code, h, test.want)
			}
		}
	}
}
