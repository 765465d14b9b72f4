package proofs

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// cacheKinds are sets of caching headers that apps send.
var cacheKinds = []struct {
	name   string
	public bool // it lets shared caches store the page
	header []string
}{
	{"nothing", false, nil},
	{"public", true, []string{"Cache-Control", "public"}},
	{"public, max-age", true, []string{"Cache-Control", "public, max-age=60"}},
	{"upper case", true, []string{"Cache-Control", "PUBLIC, MAX-AGE=60"}},
	{"several lines", true, []string{"Cache-Control", "max-age=60", "Cache-Control", "public"}},
	{"s-maxage", true, []string{"Cache-Control", "s-maxage=60"}},
	{"private", false, []string{"Cache-Control", "private, max-age=60"}},
	{"no-store", false, []string{"Cache-Control", "no-store"}},
	{"no-cache", false, []string{"Cache-Control", "no-cache"}},
	{"max-age", false, []string{"Cache-Control", "max-age=60"}},
	{"max-age, must-revalidate", false, []string{"Cache-Control", "max-age=60, must-revalidate"}},
	{"CDN-Cache-Control", true, []string{"CDN-Cache-Control", "max-age=60"}},
	{"CDN-Cache-Control, not for browsers", true,
		[]string{"Cache-Control", "private, no-store", "CDN-Cache-Control", "max-age=60"}},
	{"Cloudflare-CDN-Cache-Control", true, []string{"Cloudflare-CDN-Cache-Control", "max-age=60"}},
	{"ExampleCDN-Cache-Control", true, []string{"ExampleCDN-Cache-Control", "max-age=60"}},
	{"X-LiteSpeed-Cache-Control", true,
		[]string{"X-LiteSpeed-Cache-Control", "public, max-age=60"}},
	{"Akamai-Cache-Control", true, []string{"Akamai-Cache-Control", "max-age=60"}},
	{"Surrogate-Control", true, []string{"Surrogate-Control", "max-age=60"}},
	{"Edge-Control", true, []string{"Edge-Control", "max-age=60"}},
	{"X-Accel-Expires", true, []string{"X-Accel-Expires", "60"}},
	{"X-Accel-Expires: 0", false, []string{"X-Accel-Expires", "0"}},
	{"Expires", false, []string{"Expires", "Thu, 01 Jan 2099 00:00:00 GMT"}},
	{"Last-Modified", false, []string{"Last-Modified", "Thu, 01 Jan 2015 00:00:00 GMT"}},
	{"Vary: *", false, []string{"Vary", "*"}},
	{"public and no-store", false,
		[]string{"Cache-Control", "public", "Cache-Control", "no-store"}},
	{"must-understand", false, []string{"Cache-Control", "must-understand, no-store, max-age=60"}},
	{"quoted", false, []string{"Cache-Control", `max-age=60, ext="a, no-store, b"`}},
	{"a private field", false, []string{"CDN-Cache-Control", `max-age=60, private="X-Field"`}},
}

// said are the headers that an app uses for caching.
func said(h http.Header) map[string][]string {
	said := maps.Clone(h)
	for _, other := range []string{"Date", "Content-Length", "Content-Type", "Set-Cookie",
		tokenHeader, "Vary"} {
		delete(said, other)
	}
	return said
}

const tokenHeader = "Guest-Token"

// cacheSite serves pages that do what their query says, with guests and without.
type cacheSite struct {
	guests, plain *httptest.Server
}

func newCacheSite(t *testing.T, http2 bool) *cacheSite {
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("a secret of the tests, 32 bytes+")},
		Data:    []guest.Kind{basket}, Header: tokenHeader, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	speak := func(w http.ResponseWriter, r *http.Request, where string) {
		if r.FormValue("where") != where {
			return
		}
		kind, _ := strconv.Atoi(r.FormValue("kind"))
		header := cacheKinds[kind].header
		if where == "early" { // replace what is there
			for i := 0; i < len(header); i += 2 {
				w.Header().Del(header[i])
			}
		}
		for i := 0; i < len(header); i += 2 {
			w.Header().Add(header[i], header[i+1])
		}
	}
	outside := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			speak(w, r, "outside")
			next.ServeHTTP(w, r)
		})
	}
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		speak(w, r, "early")
		if guest.FromContext(r.Context()) != nil {
			if r.FormValue("write") != "" {
				if _, err := basket.Add(r.Context(), "tea", 1); err != nil {
					t.Error(err)
				}
			}
			if account := r.FormValue("claim"); account != "" {
				if _, err := guests.Claim(w, r, account); err != nil {
					t.Error(err)
				}
			}
		}
		speak(w, r, "late")
		status, _ := strconv.Atoi(r.FormValue("status"))
		w.WriteHeader(status)
		io.WriteString(w, "the page")
	})
	start := func(h http.Handler) *httptest.Server {
		s := httptest.NewUnstartedServer(h)
		if s.EnableHTTP2 = http2; !http2 {
			s.TLS = &tls.Config{NextProtos: []string{"http/1.1"}}
		}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s
	}
	return &cacheSite{start(outside(guests.Middleware(page))), start(outside(page))}
}

// No shared cache may store a response that carries a guest's identity. The app's headers of a
// public page stay exactly as they are, unless the request wrote data or claimed.
func TestNoIdentityInASharedCache(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			s := newCacheSite(t, protocol == "HTTP/2.0")
			cells := 0
			for k := range cacheKinds {
				for _, where := range []string{"early", "late", "outside"} {
					for _, write := range []string{"", "yes"} {
						for _, visitor := range []string{"browser", "native app"} {
							n := cells / 7
							// both can be stored without caching headers
							status := []int{200, 404}[(n^n>>1)&1]
							cells += s.visits(t, k, where, write, visitor, status, protocol)
						}
					}
				}
			}
			t.Logf("%d responses", cells)
		})
	}
}

var accounts int

// visits are the requests of one visitor, who is new, returning, known and claiming; and of one who
// claims at once.
func (s *cacheSite) visits(t *testing.T, k int, where, write, visitor string, status int,
	protocol string) (responses int) {
	kind := cacheKinds[k]
	var jar http.CookieJar
	if visitor == "browser" {
		jar, _ = cookiejar.New(nil)
	}
	client := &http.Client{Jar: jar, Transport: s.guests.Client().Transport}
	token := ""
	for _, visit := range []string{"new", "returning", "known", "POST", "claiming", "after",
		"claiming when new"} {
		query := url.Values{"kind": {strconv.Itoa(k)}, "where": {where}, "write": {write},
			"status": {strconv.Itoa(status)}}
		method := "GET"
		if visit == "POST" {
			method = "POST"
		}
		claims := strings.HasPrefix(visit, "claiming")
		if claims {
			accounts++
			query.Set("claim", fmt.Sprint("account ", accounts))
			if where == "late" && visit == "claiming" {
				// the response to a known visitor's GET is not wrapped: it must not be made public
				// after the claim
				method = "POST"
			}
		}
		if visit == "claiming when new" {
			token = ""
			if visitor == "browser" {
				client.Jar, _ = cookiejar.New(nil)
			}
		}
		ask := func(client *http.Client, base string) (*http.Request, *http.Response, string) {
			req, _ := http.NewRequest(method, base+"/?"+query.Encode(), nil)
			if token != "" {
				req.Header.Set(tokenHeader, token)
			}
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			return req, res, string(body)
		}
		bare, plain, want := ask(s.plain.Client(), s.plain.URL)
		req, res, body := ask(client, s.guests.URL)
		responses++
		h := res.Header
		tokens := guestTokens(h, "__Host-Http-guest", tokenHeader)
		fault := func(format string, args ...any) {
			t.Helper()
			t.Errorf("%s, said %s, %s %s, writes %q, %d: %s\n%v", kind.name, where, visitor, visit,
				write, status,
				fmt.Sprintf(format, args...), h)
		}

		if caches := storedBy(req, res); len(tokens) > 0 && len(caches) > 0 {
			fault("an identity that these caches give to others: %q", caches)
		}
		if marked := said(plain.Header); kind.public && write == "" && !claims {
			if len(tokens) > 0 || !maps.EqualFunc(said(h), marked, slices.Equal) {
				fault("the app said %v", marked)
			}
			if got, want := storedBy(req, res), storedBy(bare, plain); len(got) != len(want) {
				fault("stored by %q, without us by %q", got, want)
			}
		}
		if visit == "new" && (!kind.public || write != "") && len(tokens) == 0 {
			fault("no identity")
		}
		if vary := strings.Join(h.Values("Vary"), ", "); vary != "*" &&
			(!strings.Contains(vary, "Cookie") || !strings.Contains(vary, tokenHeader)) {
			fault("Vary: %q", vary)
		}
		if res.Proto != protocol || res.StatusCode != plain.StatusCode || body != want {
			fault("%s, %s, %q; want %s, %q", res.Proto, res.Status, body, plain.Status, want)
		}
		if fresh := h.Get(tokenHeader); fresh != "" && visitor == "native app" {
			token = fresh
		}
	}
	return responses
}
