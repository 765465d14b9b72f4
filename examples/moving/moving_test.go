package moving

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/alexedwards/scs/v2"
	"github.com/gorilla/sessions"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// store can be down.
type store struct {
	guest.Store
	down atomic.Bool
}

func (s *store) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	if s.down.Load() {
		return guest.Result{}, errors.New("down")
	}
	return s.Store.Update(ctx, key, u)
}

// A visitor filled a cart in the old app, and comes back to the new one.
func TestMoving(t *testing.T) {
	old := map[string]int64{"tea": 2, "cup": 1}

	scsSessions := scs.New()
	scsSessions.Cookie.Secure = false
	gorillaStore := sessions.NewCookieStore(make([]byte, 32))
	gorillaStore.Options.Secure = false
	gorillaStore.Options.SameSite = http.SameSiteLaxMode
	nothing := func(h http.Handler) http.Handler { return h }

	for name, tt := range map[string]struct {
		fill   http.HandlerFunc // the old app
		outer  func(http.Handler) http.Handler
		moving func(http.Handler) http.Handler
	}{
		"a cookie made by hand": {
			func(w http.ResponseWriter, r *http.Request) {
				text, _ := json.Marshal(old)
				http.SetCookie(w, &http.Cookie{Name: "cart", Path: "/",
					Value: url.QueryEscape(string(text))})
			},
			nothing,
			FromCookie,
		},
		"scs": {
			func(w http.ResponseWriter, r *http.Request) {
				scsSessions.Put(r.Context(), "cart", maps.Clone(old))
				scsSessions.Put(r.Context(), "language", "en")
			},
			scsSessions.LoadAndSave,
			func(h http.Handler) http.Handler { return FromSCS(scsSessions, h) },
		},
		"gorilla": {
			func(w http.ResponseWriter, r *http.Request) {
				s, _ := gorillaStore.Get(r, "shop")
				s.Values["cart"] = maps.Clone(old)
				s.Values["language"] = "en"
				if err := s.Save(r, w); err != nil {
					panic(err)
				}
			},
			nothing,
			func(h http.Handler) http.Handler { return FromGorilla(gorillaStore, "shop", h) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			data := &store{Store: memstore.New(memstore.Config{})}
			m, err := guest.New(guest.Config{
				Store: data, Secrets: [][]byte{make([]byte, 32)}, Data: []guest.Kind{Cart},
				Cookie: guest.Cookie{Insecure: true},
			})
			if err != nil {
				t.Fatal(err)
			}
			mux := http.NewServeMux()
			mux.HandleFunc("GET /cart", func(w http.ResponseWriter, r *http.Request) {
				cart, err := Cart.All(r.Context())
				if err != nil {
					http.Error(w, err.Error(), http.StatusServiceUnavailable)
					return
				}
				json.NewEncoder(w).Encode(cart)
			})
			mux.HandleFunc("POST /less/{sku}", func(w http.ResponseWriter, r *http.Request) {
				Cart.Add(r.Context(), r.PathValue("sku"), -1)
			})
			app := http.NewServeMux()
			app.Handle("/old", tt.outer(tt.fill))
			app.Handle("/", tt.outer(m.Middleware(tt.moving(mux))))
			s := httptest.NewServer(app)
			defer s.Close()

			jar, _ := cookiejar.New(nil)
			browser := &http.Client{Jar: jar}
			do := func(method, path string) string {
				t.Helper()
				req, _ := http.NewRequest(method, s.URL+path, nil)
				res, err := browser.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				body, _ := io.ReadAll(res.Body)
				return string(body)
			}
			cart := func() map[string]int64 {
				t.Helper()
				var c map[string]int64
				if body := do("GET", "/cart"); json.Unmarshal([]byte(body), &c) != nil {
					t.Fatal(body)
				}
				return c
			}

			do("POST", "/old")
			u, _ := url.Parse(s.URL)
			before := jar.Cookies(u)

			data.down.Store(true) // while Redis is down nothing is moved, and nothing is lost
			cart()
			data.down.Store(false)
			if got := cart(); !maps.Equal(got, old) {
				t.Errorf("moved: %v, want %v", got, old)
			}
			do("POST", "/less/cup")
			if got := cart(); !maps.Equal(got, map[string]int64{"tea": 2}) {
				t.Errorf("after taking a cup out: %v", got)
			}
			if name != "scs" { // scs keeps its session on the server
				jar.SetCookies(u, before) // as if the response had come too late
				do("POST", "/less/tea")
				if got := cart(); got["tea"] != 1 {
					t.Errorf("an old cookie again: %v", got)
				}
			}
			if name == "a cookie made by hand" {
				for _, c := range jar.Cookies(u) {
					if c.Name == "cart" {
						t.Error("the old cookie is still there")
					}
				}
			}
		})
	}
}

// The page is served with any content of the old cookie.
func TestOldCookieOfAnyKind(t *testing.T) {
	m, err := guest.New(guest.Config{Store: memstore.New(memstore.Config{}),
		Secrets: [][]byte{make([]byte, 32)}, Data: []guest.Kind{Cart}})
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"", "%", "null", "[]", `{"tea":-1}`, `{"tea":1e99}`, `{"":1}`} {
		r := httptest.NewRequest("GET", "/", nil)
		r.AddCookie(&http.Cookie{Name: "cart", Value: url.QueryEscape(value)})
		w := httptest.NewRecorder()
		m.Middleware(FromCookie(
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w,
					"a page")
			}))).ServeHTTP(w, r)
		if w.Code != 200 || w.Body.String() != "a page" {
			t.Errorf("%q: %d %q", value, w.Code, w.Body)
		}
	}
}
