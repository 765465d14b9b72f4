package guest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// bytesOf returns how many bytes the header takes in a response.
func bytesOf(h http.Header) (n int) {
	for name, lines := range h {
		for _, line := range lines {
			n += len(name) + len(": ") + len(line) + len("\r\n")
		}
	}
	return n
}

// cleared returns the names of the cookies that the lines clear.
func cleared(lines []string) (names []string) {
	for _, line := range lines {
		if name, rest, _ := strings.Cut(line, "="); strings.HasPrefix(rest, ";") {
			names = append(names, name)
		}
	}
	return names
}

// nginx answers 502 to a header of more than 4 KiB, with its defaults. Our lines are a part of
// that, whatever a request brings.
func TestOurHeaderIsUnderThreeKilobytes(t *testing.T) {
	t.Parallel()
	deep := guest.Cookie{ // the longest lines there are
		Name: strings.Repeat("n", 64), Domain: strings.Repeat(strings.Repeat("d", 62)+".", 4) + "d",
		Path:     "/" + strings.Repeat("p", 511),
		SameSite: http.SameSiteStrictMode, Partitioned: true,
	}
	usual := guest.Cookie{Domain: "shop.example", Path: "/shop", SameSite: http.SameSiteNoneMode,
		Partitioned: true}
	former := []guest.Cookie{{Domain: "www.shop.example", Path: "/shop"}, {Path: "/shop"},
		{Domain: "shop.example"}}
	var made []string
	for i := range 100 {
		made = append(made, fmt.Sprintf("%06d=made-up", i))
	}
	tests := []struct {
		name    string
		cookie  guest.Cookie
		former  []guest.Cookie
		header  string
		invalid []string // after the name of a provisional cookie
		bytes   int
		clears  int
	}{
		{"default", guest.Cookie{}, nil, "", nil, 617, 4},
		{"with all there is", usual, nil, "Guest-Token", nil, 951, 4},
		{"with former scopes", usual, former, "Guest-Token", nil, 870, 4},
		{"the longest lines", deep, nil, strings.Repeat("H", 64), nil, 2297, 1},
		{"made-up names", guest.Cookie{}, nil, "", made, 617, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newManager(t, guest.Config{
				Store: newStore(), Cookie: tt.cookie, FormerCookies: tt.former, Header: tt.header,
				Account: func(r *http.Request) string { return r.Header.Get("User") },
			})
			request := func(method string, cookies []string, user string) *http.Request {
				r := httptest.NewRequest(method, "/shop", nil)
				r.Header.Set("Cookie", strings.Join(cookies, "; "))
				r.Header.Set("User", user)
				if tt.header != "" {
					r.Header.Set(tt.header, "") // this client uses it
				}
				return r
			}
			answer := func(r *http.Request, handle func(x guest.Exchange, h http.Header)) http.Header {
				h := http.Header{}
				x := m.Begin(h, r)
				handle(x, h)
				x.Commit(http.StatusOK)
				x.End()
				return h
			}
			add := func(x guest.Exchange, _ http.Header) {
				if _, err := Cart.Add(x.Request.Context(), "tea", 1); err != nil {
					t.Error(err)
				}
			}
			var cookies []string
			for range 64 {
				h := answer(request("POST", nil, ""), add)
				cookie, _, _ := strings.Cut(h["Set-Cookie"][0], ";")
				cookies = append(cookies, cookie)
			}
			name, _, _ := strings.Cut(cookies[0], ".")
			for _, made := range tt.invalid {
				cookies = slices.Insert(cookies, 0, name+"."+made)
			}
			login := func(x guest.Exchange, h http.Header) {
				rec := httptest.NewRecorder()
				if _, err := m.Claim(rec, x.Request, "ann"); err != nil {
					t.Error(err)
				}
			}
			for who, h := range map[string]http.Header{
				"a page":    answer(request("GET", cookies, ""), func(guest.Exchange, http.Header) {}),
				"a write":   answer(request("POST", cookies, ""), add),
				"a login":   answer(request("POST", cookies, ""), login),
				"signed in": answer(request("GET", cookies, "bob"), func(guest.Exchange, http.Header) {}),
			} {
				lines, n := h["Set-Cookie"], bytesOf(h)
				if n > 3<<10 {
					t.Errorf("%s: %d bytes: %.60q", who, n, lines)
				}
				if names := cleared(lines); len(names) > 4 || tt.invalid == nil && len(names) == 0 {
					t.Errorf("%s: clears %d cookies: %q", who, len(names), names)
				}
				if who == "a page" && tt.bytes > 0 && (n != tt.bytes || len(cleared(lines)) != tt.clears) {
					t.Errorf("%s: %d bytes, want %d; %d clears, want %d", who, n, tt.bytes, len(cleared(lines)),
						tt.clears)
				}
			}
		})
	}
}

// In whatever order the lines are made, a token comes first and is never left out, then the line
// that clears the main cookie. Provisional cookies are cleared by a later response if they must
// wait.
func TestTheUrgentLinesComeFirst(t *testing.T) {
	t.Parallel()
	const others = 8 // as many as one request works on
	s := newSite(t, func(c *guest.Config) { c.AutoClaim = func(*http.Request) bool { return false } })
	s.mux.HandleFunc("/login-and-on/{user}", func(w http.ResponseWriter, r *http.Request) {
		if _, err := s.guests.Claim(w, r, r.PathValue("user")); err != nil {
			t.Error(err)
		}
	})
	b := s.browser()
	jar := b.Jar
	for range others {
		b.Jar = nil // each is a first request
		res, _ := b.request("POST", "/add/tea")
		jar.SetCookies(mustParse(s.url), res.Cookies())
	}
	b.Jar = jar

	res, _ := b.request("GET", "/static")
	lines := res.Header["Set-Cookie"]
	if names := cleared(lines); len(lines) != 5 || !strings.HasPrefix(lines[0], "guest=") ||
		len(names) != 4 || slices.Contains(names, "guest") {
		t.Fatalf("the first return: %q", lines)
	}
	res, _ = b.request("POST", "/login-and-on/ann")
	if names := cleared(res.Header["Set-Cookie"]); len(names) != 4 || names[0] != "guest" {
		t.Errorf("a claim with %d provisional cookies left clears %q", others-4, names)
	}
	for n := 0; len(b.cookies()) > 1; n++ { // a fresh guest's
		if b.request("GET", "/static"); n > 8 {
			t.Fatalf("cookies %q are left after %d responses", b.cookies(), n)
		}
	}
	if got := s.account("ann"); got["tea"] != others {
		t.Errorf("the account holds %v, want %d", got, others)
	}
}

// A header that was sent is not changed any more: the server may be reading it.
func TestTheHeaderIsLeftAloneOnceSent(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 1)
		w.WriteHeader(200)
		before := w.Header().Clone()
		s.guests.ClaimContext(r.Context(), "ann")
		s.guests.ForgetContext(r.Context())
		if got := w.Header(); !slices.Equal(got["Set-Cookie"], before["Set-Cookie"]) {
			t.Errorf("%v, sent %v", got, before)
		}
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil))
}

// newTLSSite serves one handler over https, on HTTP/1.1 or HTTP/2, with the default cookie.
func newTLSSite(t *testing.T, http2 bool, h http.HandlerFunc) (*httptest.Server, *guest.Manager) {
	m, err := guest.New(guest.Config{
		Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Data: []guest.Kind{Cart},
		Account: func(r *http.Request) string { return r.Header.Get("User") },
	})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(m.Middleware(h))
	s.EnableHTTP2 = http2
	s.Config.ErrorLog = nil
	if !http2 {
		s.TLS = &tls.Config{NextProtos: []string{"http/1.1"}}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, m
}

func jarClient(t *testing.T, s *httptest.Server) *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, Transport: s.Client().Transport}
}

func onBoth(t *testing.T, f func(t *testing.T, http2 bool)) {
	t.Run("HTTP/1.1", func(t *testing.T) { f(t, false) })
	t.Run("HTTP/2", func(t *testing.T) { f(t, true) })
}

func fetch(t *testing.T, c *http.Client, url string, header ...string) (*http.Response, string) {
	t.Helper()
	req, _ := http.NewRequest("GET", url, nil)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// No shared cache may keep a response with a guest's token; what the app made public stays public
// otherwise. What makes a response public is tested in internal/cachecontrol.
func TestNoTokenInASharedCache(t *testing.T) {
	tests := []struct {
		name, header, value string
		public              bool
	}{
		{"nothing said", "", "", false},
		{"public", "Cache-Control", "public, max-age=60", true},
		{"s-maxage", "Cache-Control", "s-maxage=60", true},
		{"private", "Cache-Control", "private, max-age=60", false},
		{"no-store", "Cache-Control", "no-store", false},
		{"public and no-store", "Cache-Control", "public, no-store", false},
		{"CDN-Cache-Control", "CDN-Cache-Control", "max-age=60", true},
		{"Surrogate-Control", "Surrogate-Control", "max-age=60", true},
		{"X-Accel-Expires", "X-Accel-Expires", "60", true},
	}
	onBoth(t, func(t *testing.T, http2 bool) {
		for _, tt := range tests {
			for _, write := range []bool{false, true} {
				s, _ := newTLSSite(t, http2, func(w http.ResponseWriter, r *http.Request) {
					if write {
						if _, err := Cart.Add(r.Context(), "tea", 1); err != nil {
							t.Error(err)
						}
					}
					if tt.header != "" {
						w.Header().Set(tt.header, tt.value)
					}
					io.WriteString(w, "page")
				})
				c := jarClient(t, s)
				for _, visit := range []string{"new", "returning", "known", "claiming"} {
					var header []string
					if visit == "claiming" {
						header = []string{"User", "ann"}
					}
					res, _ := fetch(t, c, s.URL, header...)
					name := fmt.Sprintf("%s, %s, writes %v", tt.name, visit, write)
					h := res.Header
					cookies, cc := len(h.Values("Set-Cookie")), h.Get("Cache-Control")
					public := strings.Contains(strings.ToLower(cc), "public") || strings.Contains(cc, "s-maxage") ||
						h.Get("CDN-Cache-Control") == "max-age=60" || h.Get("Surrogate-Control") != "" ||
						h.Get("X-Accel-Expires") != ""
					if strings.Contains(cc, "no-store") && tt.header == "Cache-Control" {
						public = false
					}
					if cookies > 0 && (public || !strings.Contains(cc, "no-store")) {
						t.Errorf("%s: a token in a response that caches keep: %v", name, h)
					}
					if tt.public && !write && (!public || cookies > 0) {
						t.Errorf("%s: the page is not public any more: %v", name, h)
					}
					if visit == "new" && (!tt.public || write) && cookies != 1 {
						t.Errorf("%s: no token: %v", name, h)
					}
					if h.Get("Vary") != "Cookie" {
						t.Errorf("%s: Vary: %q", name, h.Get("Vary"))
					}
				}
			}
		}
	})
}

// The visitor of a page that went out public has no cookie, so there is nowhere to write any more.
func TestAWriteAfterAPublicPage(t *testing.T) {
	s, _ := newTLSSite(t, false, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		w.(http.Flusher).Flush()
		_, err := Cart.Add(r.Context(), "tea", 1)
		fmt.Fprint(w, errors.Is(err, guest.ErrNotAdmitted))
	})
	if _, body := fetch(t, jarClient(t, s), s.URL); body != "true" {
		t.Errorf("%s", body)
	}
}

// The handler's own ways with the response work as without us, and a new visitor gets exactly one
// cookie.
func TestResponsesAsWithoutUs(t *testing.T) {
	tests := []struct {
		name    string
		h       http.HandlerFunc
		status  int
		body    string
		cookies int
	}{
		{"nothing written", func(w http.ResponseWriter, r *http.Request) {}, 200, "", 1},
		{"write", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }, 200, "hello", 1},
		{"status", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404) }, 404, "", 1},
		{"error", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", 500) }, 500, "no\n", 1},
		{"redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/next", http.StatusSeeOther) }, 303, "", 1},
		{"early hints", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(103)
			io.WriteString(w, "hello")
		}, 200, "hello", 1},
		{"flush first", func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			io.WriteString(w, "hello")
		}, 200, "hello", 1},
		{"ResponseController flush", func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).Flush(); err != nil {
				panic(err)
			}
			io.WriteString(w, "hello")
		}, 200, "hello", 1},
		{"io.Copy", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, strings.NewReader("hello")) }, 200, "hello", 1},
		{"ReadFrom", func(w http.ResponseWriter, r *http.Request) {
			if rf, ok := w.(io.ReaderFrom); ok { // HTTP/1.1, and ours
				rf.ReadFrom(strings.NewReader("hello"))
			} else {
				io.WriteString(w, "hello")
			}
		}, 200, "hello", 1},
		{"the app's own cookies", func(w http.ResponseWriter, r *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "session", Value: "1"})
			http.SetCookie(w, &http.Cookie{Name: "other", Value: "2"})
		}, 200, "", 3},
		{"a file server's 404", http.FileServer(http.Dir(t.TempDir())).ServeHTTP, 404, "404 page not found\n", 1},
		{"a handler that clears the header", func(w http.ResponseWriter, r *http.Request) {
			clear(w.Header())
			io.WriteString(w, "hello")
		}, 200, "hello", 1},
		{"deadlines", func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
				panic(err)
			}
		}, 200, "", 1},
	}
	onBoth(t, func(t *testing.T, http2 bool) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				s, _ := newTLSSite(t, http2, tt.h)
				c := jarClient(t, s)
				c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
				path := "/missing"
				res, body := fetch(t, c, s.URL+path)
				if res.StatusCode != tt.status || tt.body != "" && body != tt.body {
					t.Errorf("%s: %q; want %d: %q", res.Status, body, tt.status, tt.body)
				}
				if got := res.Header.Values("Set-Cookie"); len(got) != tt.cookies {
					t.Errorf("Set-Cookie: %q, want %d", got, tt.cookies)
				}
				if cc := res.Header.Get("Cache-Control"); cc != "private, no-store" {
					t.Errorf("Cache-Control: %q", cc)
				}
				if res, _ = fetch(t, c, s.URL+path); len(res.Header.Values("Set-Cookie")) != tt.cookies+1 { // confirmed: one more to clear the provisional one
					t.Errorf("returning: Set-Cookie: %q", res.Header.Values("Set-Cookie"))
				}
				if res, _ = fetch(t, c, s.URL+path); len(res.Header.Values("Set-Cookie")) != tt.cookies-1 {
					t.Errorf("known: Set-Cookie: %q", res.Header.Values("Set-Cookie"))
				}
			})
		}
	})
}

func TestHijack(t *testing.T) {
	s, _ := newTLSSite(t, false, func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		rw.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
		rw.Flush()
	})
	if _, body := fetch(t, jarClient(t, s), s.URL); body != "hello" {
		t.Errorf("%q", body)
	}
}

func TestNoGuestIsCreatedOnAnUpgrade(t *testing.T) {
	var got http.ResponseWriter
	m, _ := guest.New(guest.Config{Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}})
	rec := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = w })).ServeHTTP(rec, r)
	if got != http.ResponseWriter(rec) || len(rec.Header().Values("Set-Cookie")) != 0 {
		t.Errorf("the handler got a %T, header %v", got, rec.Header())
	}
}

func TestAPanicGoesThrough(t *testing.T) {
	h := func(w http.ResponseWriter, r *http.Request) { panic("a bug of the app") }
	m, _ := guest.New(guest.Config{Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}})
	recovering := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != "a bug of the app" {
				t.Errorf("recovered %v", p)
			}
			w.WriteHeader(500)
		}()
		m.Middleware(http.HandlerFunc(h)).ServeHTTP(w, r)
	})
	w := httptest.NewRecorder()
	recovering.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 500 || len(w.Result().Header.Values("Set-Cookie")) != 1 {
		t.Errorf("%d, Set-Cookie %q", w.Code, w.Result().Header.Values("Set-Cookie"))
	}
}

func TestALineOfTheHandlerIsNotDoubled(t *testing.T) {
	// The handler renders an error page through the outermost writer after the inner one was used,
	// as Echo does.
	m, _ := guest.New(guest.Config{Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}})
	outer := httptest.NewRecorder()
	m.Middleware(m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Accept-Encoding")
		w.WriteHeader(400)
	}))).ServeHTTP(outer, httptest.NewRequest("GET", "/", nil))
	if got := outer.Result().Header; len(got.Values("Set-Cookie")) != 1 || strings.Join(got.Values("Vary"), ",") != "Cookie,Accept-Encoding" {
		t.Errorf("%v", got)
	}
}

// What caches obey beside Cache-Control's plain words, and what the app said before or beside us.
func TestWhatElseCachesObey(t *testing.T) {
	const cc = "Cache-Control"
	tests := []struct {
		name    string
		outside bool     // said by who wraps the middleware
		said    []string // added to the header
		token   bool
		left    http.Header // what is left of said; nil: all of it
	}{
		{"another CDN's", false, []string{"Examplecdn-Cache-Control", "max-age=60"}, false, nil},
		{"only one field of it", false, []string{"Cdn-Cache-Control", `max-age=60, private="X-Field"`}, true, http.Header{cc: {"private, no-store"}}},
		{"must-understand", false, []string{cc, "must-understand, no-store, max-age=60"}, true, http.Header{cc: {"private, no-store"}}},
		{"nginx must not", false, []string{"X-Accel-Expires", "0"}, true, http.Header{cc: {"private, no-store"}}},
		{"added", false, []string{cc, "public", cc, "max-age=60"}, false, nil},
		{"outside", true, []string{cc, "public, max-age=60"}, false, nil},
		{"outside, for a CDN", true, []string{"Cdn-Cache-Control", "max-age=60"}, false, nil},
		{"for a CDN alone", true, []string{cc, "private, no-store", "Cdn-Cache-Control", "max-age=60"}, false, nil},
	}
	m, _ := guest.New(guest.Config{Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Header: "Guest-Token"})
	for _, tt := range tests {
		rec, want := httptest.NewRecorder(), tt.left
		say := func(w http.ResponseWriter) {
			for i := 0; i < len(tt.said); i += 2 {
				w.Header().Add(tt.said[i], tt.said[i+1])
			}
		}
		if want == nil {
			plain := httptest.NewRecorder()
			say(plain)
			want = plain.Header()
		}
		if tt.outside {
			say(rec)
		}
		m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !tt.outside {
				say(w)
			}
			io.WriteString(w, "page")
		})).ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
		got := rec.Result().Header
		if vary := strings.Join(got["Vary"], ", "); vary != "Cookie, Guest-Token" {
			t.Errorf("%s: Vary: %s", tt.name, vary)
		}
		if token := len(got["Set-Cookie"])+len(got["Guest-Token"]) > 0; token != tt.token {
			t.Errorf("%s: a token: %v, want %v", tt.name, token, tt.token)
		}
		for _, other := range []string{"Set-Cookie", "Guest-Token", "Vary", "Content-Type"} {
			delete(got, other)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", tt.name, got, want)
		}
	}
}

// A claim in a response that is not watched, of what was to be public.
func TestAClaimIsNotPublic(t *testing.T) {
	var s *httptest.Server
	var m *guest.Manager
	s, m = newTLSSite(t, false, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("CDN-Cache-Control", r.Header.Get("CDN"))
		if r.Header.Get("CDN") == "max-age=60" {
			m.Claim(w, r, "ann")
		}
	})
	c := jarClient(t, s)
	for range 2 {
		fetch(t, c, s.URL, "CDN", "no-store")
	}
	res, _ := fetch(t, c, s.URL, "CDN", "max-age=60")
	if h := res.Header; len(h["Set-Cookie"]) == 0 || h.Get("CDN-Cache-Control") != "" || h.Get("Cache-Control") != "private, no-store" {
		t.Errorf("%v", h)
	}
}

// What a handler does to our lines by itself leaves no other of them behind.
func TestNothingOfOursIsLeftBehind(t *testing.T) {
	var m *guest.Manager
	tests := []struct {
		name    string
		handler http.HandlerFunc
		left    http.Header
	}{
		{"the cookie deleted, the page public", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Del("Set-Cookie")
			w.Header().Set("Cache-Control", "public")
		}, http.Header{"Cache-Control": {"public"}}},
		{"the guest forgotten, the page public", func(w http.ResponseWriter, r *http.Request) {
			if err := m.Forget(w, r); err != nil {
				t.Error(err)
			}
			w.Header().Add("Cache-Control", "public")
		}, http.Header{"Cache-Control": {"public"}}},
	}
	m, _ = guest.New(guest.Config{Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Header: "Guest-Token"})
	for _, tt := range tests {
		rec := httptest.NewRecorder()
		m.Middleware(tt.handler).ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
		got := rec.Result().Header
		delete(got, "Vary")
		if fmt.Sprint(got) != fmt.Sprint(tt.left) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.left)
		}
	}
}

// informed fetches a page, and returns the informational responses before it too.
func informed(t *testing.T, c *http.Client, method, url string, header ...string) (infos []http.Header, res *http.Response) {
	t.Helper()
	got := func(status int, h textproto.MIMEHeader) error {
		infos = append(infos, http.Header(h))
		return nil
	}
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: got})
	req, _ := http.NewRequestWithContext(ctx, method, url, nil)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return infos, res
}

// A 1xx goes out before the handler has said whether the final response is public. Browsers take
// its cookies all the same, and what a cache does with it is not known: none of our lines is in it,
// and all are in the final response.
func TestOurLinesAreInNo1xx(t *testing.T) {
	const public = "public, max-age=60"
	info := func(statuses ...int) func(w http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			for _, status := range statuses {
				w.WriteHeader(status)
			}
		}
	}
	tests := []struct {
		name   string
		infos  int
		h      http.HandlerFunc
		public bool
	}{
		{"102", 1, func(w http.ResponseWriter, r *http.Request) { info(102)(w); io.WriteString(w, "page") }, false},
		{"103", 1, func(w http.ResponseWriter, r *http.Request) { info(103)(w); io.WriteString(w, "page") }, false},
		{"103 alone", 1, func(w http.ResponseWriter, r *http.Request) { info(103)(w) }, false},
		{"several", 4, func(w http.ResponseWriter, r *http.Request) { info(102, 103, 103, 103)(w); w.WriteHeader(404) }, false},
		{"103, then a public page", 1, func(w http.ResponseWriter, r *http.Request) {
			info(103)(w)
			w.Header().Set("Cache-Control", public)
			io.WriteString(w, "page")
		}, true},
		{"103, then Cache-Control is added to", 1, func(w http.ResponseWriter, r *http.Request) {
			info(103)(w)
			w.Header().Add("Cache-Control", public)
			w.WriteHeader(200)
		}, true},
		{"a public page says 103", 1, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Add("Cache-Control", public)
			info(103)(w)
			io.WriteString(w, "page")
		}, true},
		{"103, then guest data on a public page", 1, func(w http.ResponseWriter, r *http.Request) {
			info(103)(w)
			if _, err := Cart.Add(r.Context(), "tea", 1); err != nil {
				t.Error(err)
			}
			w.Header().Set("Cache-Control", public)
			io.WriteString(w, "page")
		}, false},
		{"guest data, then 103", 1, func(w http.ResponseWriter, r *http.Request) {
			if _, err := Cart.Add(r.Context(), "tea", 1); err != nil {
				t.Error(err)
			}
			info(103)(w)
			io.WriteString(w, "page")
		}, false},
		{"103, then the header cleared, as a proxy does", 1, func(w http.ResponseWriter, r *http.Request) {
			info(103)(w)
			clear(w.Header())
			w.WriteHeader(200)
		}, false},
	}
	onBoth(t, func(t *testing.T, http2 bool) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				s, _ := newTLSSite(t, http2, tt.h)
				c := jarClient(t, s)
				for _, who := range []string{"new", "returning"} {
					infos, res := informed(t, c, "POST", s.URL)
					if len(infos) != tt.infos {
						t.Errorf("%s: %d informational responses, want %d", who, len(infos), tt.infos)
					}
					for _, h := range infos {
						var theirs []string
						for name := range h {
							if name != "Link" && (name != "Cache-Control" || h.Get(name) != public) {
								theirs = append(theirs, name)
							}
						}
						if len(theirs) > 0 {
							t.Errorf("%s: the 1xx has %v: %v", who, theirs, h)
						}
					}
					h := res.Header
					cookies, cc := 1, "private, no-store"
					if who == "returning" && !tt.public {
						cookies = 2 // the provisional one is cleared
					}
					if tt.public {
						cookies, cc = 0, public
					}
					if n := len(h["Set-Cookie"]); n != cookies || !slices.Equal(h["Cache-Control"], []string{cc}) || !slices.Equal(h["Vary"], []string{"Cookie"}) {
						t.Errorf("%s: the final response has %d cookies, want %d: %v", who, n, cookies, h)
					}
				}
			})
		}
	})
}

// A panic after a 1xx is answered by who recovers it outside, with the header as it was.
func TestAPanicAfterA1xxKeepsTheCookie(t *testing.T) {
	m, _ := guest.New(guest.Config{Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Data: []guest.Kind{Cart}})
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			recover()
			w.WriteHeader(500)
		}()
		m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(103)
			Cart.Add(r.Context(), "tea", 1)
			panic("a bug of the app")
		})).ServeHTTP(w, r)
	}))
	defer s.Close()
	infos, res := informed(t, s.Client(), "GET", s.URL)
	if h := res.Header; len(infos) != 1 || len(infos[0]) != 0 || len(h["Set-Cookie"]) != 1 || h.Get("Vary") != "Cookie" || h.Get("Cache-Control") != "private, no-store" {
		t.Errorf("informational %v, then %s %v", infos, res.Status, h)
	}
}

// ReverseProxy clears the header after each 1xx that it forwards. What we watch is put right when
// the header is sent. A known visitor's page is the server's own, so there the proxy says Vary
// itself, as docs/caching.md says.
func TestVaryBehindAReverseProxyThatForwards1xx(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(103)
		w.WriteHeader(103)
		io.WriteString(w, "page")
	}))
	defer backend.Close()
	target, _ := url.Parse(backend.URL)
	plain := httputil.NewSingleHostReverseProxy(target)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(res *http.Response) error { res.Header.Add("Vary", "Cookie"); return nil }
	onBoth(t, func(t *testing.T, http2 bool) {
		for _, tt := range []struct {
			name  string
			proxy *httputil.ReverseProxy
			known int // lines of Vary that a known visitor gets
		}{{"as it comes", plain, 0}, {"with ModifyResponse", proxy, 1}} {
			s, _ := newTLSSite(t, http2, tt.proxy.ServeHTTP)
			c := jarClient(t, s)
			for _, who := range []string{"new", "returning", "known"} {
				infos, res := informed(t, c, "GET", s.URL)
				if len(infos) != 2 {
					t.Errorf("%s, %s: %d informational responses, want 2", tt.name, who, len(infos))
				}
				for _, h := range infos {
					if h.Get("Link") == "" || h["Set-Cookie"] != nil || h["Cache-Control"] != nil || h["Vary"] != nil && who != "known" {
						t.Errorf("%s, %s: the 1xx has %v", tt.name, who, h)
					}
				}
				lines := 1
				if who == "known" {
					lines = tt.known
				}
				if h := res.Header; len(h["Vary"]) != lines || lines > 0 && h.Get("Vary") != "Cookie" || len(h["Set-Cookie"]) > 0 != (who != "known") {
					t.Errorf("%s, %s: Vary %q, want %d; cookies %q", tt.name, who, h["Vary"], lines, h["Set-Cookie"])
				}
			}
		}
	})
}

// Caches on the way drop the Set-Cookie of a 304, or keep it with the page: a guest whose cookie
// came in one would be created anew at every visit, or be shared with a stranger.
func TestA304CreatesNoGuest(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "page.html")
	if err := os.WriteFile(file, []byte("page"), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := os.Chtimes(file, old, old); err != nil {
		t.Fatal(err)
	}
	etag := []string{"If-None-Match", `"1"`}
	since := []string{"If-Modified-Since", old.Format(http.TimeFormat)}
	content := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		http.ServeContent(w, r, "page.html", old, strings.NewReader("page"))
	}
	tests := []struct {
		name, method string
		header       []string
		h            http.HandlerFunc
		cache        []string // Cache-Control as the app says it
		cookies      int
	}{
		{"status", "GET", etag, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(304) }, nil, 0},
		{"status, for private caches", "GET", etag, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "no-cache")
			w.WriteHeader(304)
		}, []string{"no-cache"}, 0},
		{"ServeContent", "GET", etag, content, nil, 0},
		{"ServeContent, HEAD", "HEAD", etag, content, nil, 0},
		{"FileServer", "GET", since, http.FileServer(http.Dir(dir)).ServeHTTP, nil, 0},
		{"FileServer, HEAD", "HEAD", since, http.FileServer(http.Dir(dir)).ServeHTTP, nil, 0},
		{"the ID was asked for", "GET", etag, func(w http.ResponseWriter, r *http.Request) {
			guest.FromContext(r.Context()).GuestID()
			w.WriteHeader(304)
		}, nil, 0},
		{"after a 103", "GET", etag, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(103); w.WriteHeader(304) }, nil, 0},
		{"guest data were written", "GET", etag, func(w http.ResponseWriter, r *http.Request) {
			if _, err := Cart.Add(r.Context(), "tea", 1); err != nil {
				t.Error(err)
			}
			w.WriteHeader(304)
		}, []string{"private, no-store"}, 1},
		{"a page", "GET", nil, content, []string{"private, no-store"}, 1},
	}
	onBoth(t, func(t *testing.T, http2 bool) {
		for _, tt := range tests {
			for _, outside := range []string{"", "no-cache, max-age=0"} { // said by who wraps the middleware
				store, created := &spy{Store: newStore()}, 0
				m, err := guest.New(guest.Config{
					Store: store, Secrets: [][]byte{secret}, Data: []guest.Kind{Cart},
					Admit: func(*http.Request) bool { return true }, // HEAD too
					Hooks: guest.Hooks{Created: func(context.Context) { created++ }},
				})
				if err != nil {
					t.Fatal(err)
				}
				s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if outside != "" {
						w.Header().Set("Cache-Control", outside)
					}
					m.Middleware(tt.h).ServeHTTP(w, r)
				}))
				s.EnableHTTP2 = http2
				s.StartTLS()
				defer s.Close()
				_, res := informed(t, s.Client(), tt.method, s.URL+"/page.html", tt.header...)
				cache := tt.cache
				if cache == nil && outside != "" {
					cache = []string{outside}
				}
				h, records := res.Header, len(store.keys(t, "g:"))
				if len(h["Set-Cookie"]) != tt.cookies || records != tt.cookies || created != tt.cookies {
					t.Errorf("%s: %s, %d cookies, %d records, %d created; want %d", tt.name, res.Status, len(h["Set-Cookie"]), records, created, tt.cookies)
				}
				if want := tt.name != "a page"; (res.StatusCode == 304) != want {
					t.Errorf("%s: %s", tt.name, res.Status)
				}
				if !slices.Equal(h["Cache-Control"], cache) || !slices.Equal(h["Vary"], []string{"Cookie"}) {
					t.Errorf("%s: Cache-Control %q, want %q; Vary %q", tt.name, h["Cache-Control"], cache, h["Vary"])
				}
			}
		}
	})
}
