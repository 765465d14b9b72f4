package guest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/guestkit/guest"
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
