package echoguest_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/adapters/echoguest"
	"github.com/guestkit/guest/adaptertest"
	"github.com/guestkit/guest/memstore"
)

// The tests of echoguest and echo4guest are one text: see TestOneText.

func TestSuite(t *testing.T) {
	mount := adaptertest.Mount{
		Name: "Echo v5",
		How:  "e.Use(echoguest.Middleware(guests))",
		App: func(m *guest.Manager) http.Handler {
			if m == nil {
				return app(m, middleware.Recover())
			}
			return app(m, middleware.Recover(), echoguest.Middleware(m))
		},
	}
	adaptertest.InTable(t, "../../README.md", mount, adaptertest.Run(t, mount))
}

// app has the suite's routes in Echo's manner, or in that of net/http where Echo has none.
func app(m *guest.Manager, mw ...echo.MiddlewareFunc) *echo.Echo {
	e := newEcho(func(*echo.Context) {})
	e.Use(mw...)
	routes := adaptertest.Routes(m)
	for _, path := range []string{"/controller", "/flush", "/early", "/early/public", "/cached/add",
		"/gorilla", "/coder", "/abilities", "/gone", "/public/string", "/public/flush",
		"/add/flushed", "/add/hijacked"} {
		e.Any(path, echo.WrapHandler(routes[path]))
	}
	boom := func(*echo.Context) error { panic("on purpose") }
	e.Any("/json", func(c *echo.Context) error {
		return c.JSON(http.StatusOK, map[string]string{"hello": "world"})
	})
	e.Any("/redirect", func(c *echo.Context) error {
		return c.Redirect(http.StatusSeeOther, "/json")
	})
	e.Any("/error", func(c *echo.Context) error {
		return echo.NewHTTPError(http.StatusTeapot, "no")
	})
	e.Any("/panic/outside", boom)
	e.Any("/panic/inside", boom, middleware.Recover())
	e.Any("/empty", func(c *echo.Context) error { return nil })
	e.StaticFS("/static", adaptertest.Files)
	e.Any("/cached", func(c *echo.Context) error {
		c.Response().Header().Set("ETag", `"1"`)
		return c.NoContent(http.StatusNotModified)
	})
	e.Any("/gzip/json", func(c *echo.Context) error {
		return c.String(http.StatusOK,
			adaptertest.Text)
	}, middleware.Gzip())
	e.Any("/gzip/missing", func(c *echo.Context) error { return echo.ErrNotFound },
		middleware.Gzip())
	e.Any("/readfrom", func(c *echo.Context) error {
		return c.Stream(http.StatusOK, "text/plain", strings.NewReader(adaptertest.Text))
	})
	e.Any("/public", func(c *echo.Context) error {
		c.Response().Header().Set("Cache-Control", "public, max-age=60")
		return c.String(http.StatusOK, "the same for all")
	})
	e.Any("/public/empty", func(c *echo.Context) error {
		c.Response().Header().Set("Cache-Control", "public, max-age=60")
		return nil
	})
	e.Any("/sse", func(c *echo.Context) error {
		w := c.Response()
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		io.WriteString(w, "data: first\n\n")
		http.NewResponseController(w).Flush()
		adaptertest.Wait(c.Request().Context(), c.QueryParam("id"))
		io.WriteString(w, "data: second\n\n")
		return nil
	})
	e.Any("/whoami", func(c *echo.Context) error {
		return c.String(http.StatusOK, echoguest.Visitor(c).GuestID())
	})
	e.Any("/add", func(c *echo.Context) error {
		n, err := adaptertest.Cart.Add(c.Request().Context(), c.QueryParam("item"), 1)
		return say(c, n, err)
	})
	e.Any("/cart", func(c *echo.Context) error {
		cart, err := adaptertest.Cart.All(c.Request().Context())
		var sum int64
		for _, n := range cart {
			sum += n
		}
		return say(c, sum, err)
	})
	e.Any("/claim", func(c *echo.Context) error {
		receipt, err := m.Claim(c.Response(), c.Request(), c.QueryParam("user"))
		return say(c, receipt.Claimed, err)
	})
	e.Any("/claim/context", func(c *echo.Context) error {
		receipt, err := m.ClaimContext(c.Request().Context(), c.QueryParam("user"))
		return say(c, receipt.Claimed, err)
	})
	return e
}

func say(c *echo.Context, v any, err error) error {
	if err != nil {
		return err
	}
	return c.String(http.StatusOK, fmt.Sprint(v))
}

// Echo writes an error after all middleware has returned, to the writer that it has then. A new
// visitor gets one cookie with it, or none if the app's HTTPErrorHandler makes it public.
func TestErrorsAreWrittenLater(t *testing.T) {
	netHTTP := echo.WrapMiddleware(func(h http.Handler) http.Handler {
		return http.MaxBytesHandler(h, 1<<20)
	})
	recovers, gzips := middleware.Recover(), middleware.Gzip()
	for name, around := range map[string]func(ours echo.MiddlewareFunc) []echo.MiddlewareFunc{
		"Recover outside": func(ours echo.MiddlewareFunc) []echo.MiddlewareFunc {
			return []echo.MiddlewareFunc{recovers, ours}
		},
		"Recover inside": func(ours echo.MiddlewareFunc) []echo.MiddlewareFunc {
			return []echo.MiddlewareFunc{ours, recovers}
		},
		"Gzip inside": func(ours echo.MiddlewareFunc) []echo.MiddlewareFunc {
			return []echo.MiddlewareFunc{recovers, ours, gzips}
		},
		"Gzip outside": func(ours echo.MiddlewareFunc) []echo.MiddlewareFunc {
			return []echo.MiddlewareFunc{gzips, ours, recovers}
		},
		"net/http inside": func(ours echo.MiddlewareFunc) []echo.MiddlewareFunc {
			return []echo.MiddlewareFunc{recovers, ours, netHTTP}
		},
		"net/http outside": func(ours echo.MiddlewareFunc) []echo.MiddlewareFunc {
			return []echo.MiddlewareFunc{recovers, netHTTP, ours}
		},
		"twice": func(ours echo.MiddlewareFunc) []echo.MiddlewareFunc {
			return []echo.MiddlewareFunc{recovers, ours, ours}
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEcho(func(c *echo.Context) {
				h := c.Response().Header()
				h.Set("Visitor", echoguest.Visitor(c).GuestID())
				h.Del("Vary")
				if c.Request().URL.Path == "/public" {
					h.Set("Cache-Control", "public, max-age=60")
				}
			})
			e.Use(around(echoguest.Middleware(newGuests(t)))...)
			e.GET("/400", func(c *echo.Context) error {
				return echo.NewHTTPError(http.StatusBadRequest, "no")
			})
			e.GET("/500", func(c *echo.Context) error { return errors.New("no") })
			e.GET("/panic", func(c *echo.Context) error { panic("on purpose") })
			e.GET("/public", func(c *echo.Context) error { return echo.ErrNotFound })
			s := serve(t, e)
			for path, status := range map[string]int{"/400": 400, "/500": 500, "/panic": 500,
				"/missing": 404, "/public": 404} {
				cookies, cacheControl := 1, "private, no-store"
				if path == "/public" {
					cookies, cacheControl = 0, "public, max-age=60"
				}
				b := s.browser()
				res := b.get("GET", path)
				if h := res.Header; res.StatusCode != status || len(h["Set-Cookie"]) != cookies ||
					strings.Join(h["Cache-Control"], "; ") != cacheControl ||
					!strings.Contains(strings.Join(h["Vary"], ","), "Cookie") {
					t.Errorf("%s, new: %s %v; want %d cookies, %s", path, res.Status, h, cookies,
						cacheControl)
				}
				if cookies == 0 {
					continue
				}
				returning := b.get("GET", path)
				if id := res.Header.Get("Visitor"); id == "" ||
					returning.Header.Get("Visitor") != id {
					t.Errorf("%s: %q returns as %q", path, id, returning.Header.Get("Visitor"))
				}
				if res := b.get("GET", path); res.StatusCode != status ||
					len(res.Header["Set-Cookie"]) != 0 || res.Header["Cache-Control"] != nil {
					t.Errorf("%s, known: %s %v", path, res.Status, res.Header)
				}
			}
		})
	}
}

// However a page is sent, the handler's caching headers count: a public page carries no cookie.
func TestPublicPages(t *testing.T) {
	public := func(c *echo.Context) {
		c.Response().Header().Set("Cache-Control", "public, max-age=60")
	}
	for name, h := range map[string]echo.HandlerFunc{
		"body": func(c *echo.Context) error {
			public(c)
			return c.String(http.StatusOK, "page")
		},
		"status": func(c *echo.Context) error {
			public(c)
			return c.NoContent(http.StatusNoContent)
		},
		"nothing": func(c *echo.Context) error {
			public(c)
			return nil
		},
		"flush": func(c *echo.Context) error {
			public(c)
			var w http.ResponseWriter = c.Response()
			w.(http.Flusher).Flush()
			return c.String(http.StatusOK, "page")
		},
		"early hints": func(c *echo.Context) error {
			c.Response().WriteHeader(http.StatusEarlyHints)
			public(c)
			_, err := c.Response().Write([]byte("page"))
			return err
		},
	} {
		ours := echoguest.Middleware(newGuests(t))
		for _, mw := range [][]echo.MiddlewareFunc{{ours}, {ours, middleware.Gzip()},
			{middleware.Gzip(), ours}} {
			e := newEcho(func(*echo.Context) {})
			e.Use(mw...)
			e.GET("/", h)
			res := serve(t, e).browser().get("GET", "/")
			if len(res.Header["Set-Cookie"]) != 0 ||
				strings.Join(res.Header["Cache-Control"], "; ") != "public, max-age=60" {
				t.Errorf("%s: %s %v", name, res.Status, res.Header)
			}
		}
	}
}

// An outer middleware may handle the error.
func TestTheErrorIsTheHandlers(t *testing.T) {
	mine := errors.New("mine")
	e := newEcho(func(*echo.Context) {})
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			if err := next(c); err != mine || committed(c) {
				t.Errorf("error %v, committed %v", err, committed(c))
			}
			return c.String(http.StatusConflict, "handled outside")
		}
	}, echoguest.Middleware(newGuests(t)))
	e.GET("/", func(c *echo.Context) error { return mine })
	if res := serve(t, e).browser().get("GET", "/"); res.StatusCode != http.StatusConflict ||
		len(res.Header["Set-Cookie"]) != 1 {
		t.Errorf("%s %v", res.Status, res.Header)
	}
}

func TestSkipper(t *testing.T) {
	mw, err := echoguest.Config{
		Manager: newGuests(t),
		Skipper: func(c *echo.Context) bool { return c.Request().URL.Path == "/skipped" },
	}.ToMiddleware()
	if err != nil {
		t.Fatal(err)
	}
	e := newEcho(func(*echo.Context) {})
	e.Use(mw)
	h := func(c *echo.Context) error {
		_, err := adaptertest.Cart.Add(c.Request().Context(), "tea", 1)
		return c.String(http.StatusOK,
			fmt.Sprint(echoguest.Visitor(c) != nil, errors.Is(err, guest.ErrNoVisitor)))
	}
	e.GET("/skipped", h)
	e.GET("/", h)
	b := serve(t, e).browser()
	if res := b.get("GET", "/skipped"); res.body != "false true" ||
		res.Header["Set-Cookie"] != nil || res.Header["Vary"] != nil {
		t.Errorf("skipped: %q %v", res.body, res.Header)
	}
	if res := b.get("GET", "/"); res.body != "true false" || len(res.Header["Set-Cookie"]) != 1 {
		t.Errorf("not skipped: %q %v", res.body, res.Header)
	}
}

func TestNoManager(t *testing.T) {
	mw, err := echoguest.Config{}.ToMiddleware()
	if mw != nil || err == nil {
		t.Errorf("%v", err)
	}
	defer func() {
		if p, ok := recover().(error); !ok || p.Error() != err.Error() {
			t.Errorf("panic with %v, want %v", p, err)
		}
	}()
	echoguest.Middleware(nil)
}

// Echo reuses its contexts and responses. Here requests of known visitors, of new ones and of none
// share one connection.
func TestNothingIsLeftForTheNextRequest(t *testing.T) {
	guests := newGuests(t)
	mw, err := echoguest.Config{Manager: guests,
		Skipper: func(c *echo.Context) bool { return c.Path() == "/skipped" }}.ToMiddleware()
	if err != nil {
		t.Fatal(err)
	}
	e := app(guests, mw)
	e.GET("/skipped", func(c *echo.Context) error {
		return c.String(http.StatusOK, fmt.Sprint(echoguest.Visitor(c) == nil))
	})
	s := serve(t, e)
	known := func(b browser, id string, amount int) {
		for path, want := range map[string]string{"/whoami": id,
			"/add?item=tea": fmt.Sprint(amount), "/empty": "", "/flush": "flushed"} {
			if res := b.get("GET", path); res.body != want || res.Header["Set-Cookie"] != nil {
				t.Errorf("%s: %q %v, want %q", path, res.body, res.Header, want)
			}
		}
		if res := b.get("GET", "/missing"); res.StatusCode != http.StatusNotFound ||
			res.Header["Set-Cookie"] != nil {
			t.Errorf("/missing: %s %v", res.Status, res.Header)
		}
	}
	var ids sync.Map
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			b := s.browser()
			b.get("GET", "/whoami")
			id := b.get("GET", "/whoami").body
			if _, taken := ids.LoadOrStore(id, true); taken {
				t.Errorf("two visitors are %s", id)
			}
			for i := range 10 {
				known(b, id, i+1)
				for _, path := range []string{"/whoami", "/missing", "/empty"} {
					res := s.browser().get("GET", path)
					if len(res.Header["Set-Cookie"]) != 1 {
						t.Errorf("%s of a new visitor: %v", path, res.Header)
					}
					if _, taken := ids.LoadOrStore(res.body, true); taken && path == "/whoami" {
						t.Errorf("a new visitor is %s", res.body)
					}
				}
				if res := b.get("GET", "/skipped"); res.body != "true" ||
					res.Header["Set-Cookie"] != nil || res.Header["Vary"] != nil {
					t.Errorf("skipped: %q %v", res.body, res.Header)
				}
			}
		})
	}
	wg.Wait()
	if n := s.connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func newGuests(t *testing.T) *guest.Manager {
	m, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte(rand.Text() + rand.Text())},
		Data:    []guest.Kind{adaptertest.Cart},
		Cookie:  guest.Cookie{Insecure: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A site is a server whose clients share one connection.
type site struct {
	t           *testing.T
	url         string
	transport   *http.Transport
	connections *atomic.Int64
}

func serve(t *testing.T, h http.Handler) site {
	s := site{t: t, transport: &http.Transport{MaxConnsPerHost: 1}, connections: new(atomic.Int64)}
	server := httptest.NewUnstartedServer(h)
	// Echo sends the status of a response that was flushed first again
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.connections.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	t.Cleanup(s.transport.CloseIdleConnections)
	s.url = server.URL
	return s
}

type browser struct {
	site
	http.Client
}

func (s site) browser() browser {
	jar, _ := cookiejar.New(nil) // the error is always nil
	return browser{s, http.Client{Jar: jar, Transport: s.transport}}
}

type answer struct {
	*http.Response
	body string
}

func (b browser) get(method, path string, header ...string) answer {
	req, err := http.NewRequest(method, b.url+path, nil)
	if err != nil {
		b.t.Error(err)
		return answer{Response: &http.Response{}}
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := b.Do(req)
	if err != nil {
		b.t.Error(err)
		return answer{Response: &http.Response{}}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Error(err)
	}
	return answer{res, string(body)}
}
