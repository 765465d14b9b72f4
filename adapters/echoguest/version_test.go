package echoguest_test

import (
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/labstack/echo/v5"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/adapters/echoguest"
	"github.com/guestkit/guest/adaptertest"
)

// What is different in the tests of the two versions.

// newEcho returns an Echo that calls before when an error is about to be written.
func newEcho(before func(c *echo.Context)) *echo.Echo {
	e := echo.NewWithConfig(echo.Config{Logger: slog.New(slog.DiscardHandler)})
	byDefault := e.HTTPErrorHandler
	e.HTTPErrorHandler = func(c *echo.Context, err error) {
		before(c)
		byDefault(c, err)
	}
	return e
}

func committed(c *echo.Context) bool {
	res, err := echo.UnwrapResponse(c.Response())
	return err == nil && res.Committed
}

func TestWrapped(t *testing.T) {
	mount := adaptertest.Mount{
		Name: "Echo v5, wrapped",
		How:  "guests.Middleware(e)",
		App: func(m *guest.Manager) http.Handler {
			var h http.Handler = app(m)
			if m != nil {
				h = m.Middleware(h)
			}
			return adaptertest.Recover(h)
		},
	}
	adaptertest.InTable(t, "../../README.md", mount, adaptertest.Run(t, mount))
}

// Echo does not send the header of a HEAD until the handler of the GET route has returned.
func TestAutoHandleHEAD(t *testing.T) {
	guests := newGuests(t)
	e := echo.NewWithConfig(echo.Config{
		Logger: slog.New(slog.DiscardHandler),
		Router: echo.NewRouter(echo.RouterConfig{AutoHandleHEAD: true}),
	})
	e.Use(echoguest.Middleware(guests))
	e.GET("/page", func(c *echo.Context) error { return c.String(http.StatusOK, "page") })
	e.GET("/empty", func(c *echo.Context) error { return nil })
	e.GET("/error", func(c *echo.Context) error { return echo.ErrForbidden })
	e.GET("/public", func(c *echo.Context) error {
		c.Response().Header().Set("Cache-Control", "public, max-age=60")
		return c.String(http.StatusOK, "page")
	})
	s := serve(t, e)
	for _, path := range []string{"/page", "/empty", "/error", "/public"} {
		if res := s.browser().get("HEAD", path); len(res.Header["Set-Cookie"]) != 0 {
			t.Errorf("HEAD %s creates a guest: %v", path, res.Header)
		}
		created := s.browser().get("GET", "/page").Cookies()[0]
		cookie := created.Name + "=" + created.Value
		// The same returning visitor, whose cookie this response confirms, unless the page is
		// public.
		head, get := s.browser().get("HEAD", path, "Cookie", cookie),
			s.browser().get("GET", path, "Cookie", cookie)
		lines := 2
		if path == "/public" {
			lines = 0
		}
		if len(head.Header["Set-Cookie"]) != lines || len(get.Header["Set-Cookie"]) != lines {
			t.Errorf("%s: cookies of HEAD %q, of GET %q, want %d", path, head.Header["Set-Cookie"],
				get.Header["Set-Cookie"], lines)
		}
		if path == "/page" && head.ContentLength != int64(len("page")) {
			t.Errorf("HEAD %s: Content-Length %d", path, head.ContentLength)
		}
		for _, name := range []string{"Cache-Control", "Vary"} {
			if h, g := strings.Join(head.Header[name], ","),
				strings.Join(get.Header[name], ","); h != g || head.StatusCode != get.StatusCode {
				t.Errorf("%s: HEAD %d %s %q, GET %d %q", path, head.StatusCode, name, h,
					get.StatusCode, g)
			}
		}
	}
}

// A response that cannot be unwrapped to Echo's cannot be checked before it is sent, so it carries
// no cookie.
func TestForeignResponse(t *testing.T) {
	e := newEcho(func(*echo.Context) {})
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			c.SetResponse(struct{ http.ResponseWriter }{c.Response()})
			return next(c)
		}
	}, echoguest.Middleware(newGuests(t)))
	e.GET("/", func(c *echo.Context) error {
		_, err := io.WriteString(c.Response(), "served")
		return err
	})
	res := serve(t, e).browser().get("GET", "/")
	if res.StatusCode != http.StatusInternalServerError || len(res.Header["Set-Cookie"]) != 0 {
		t.Errorf("%s, header %v", res.Status, res.Header)
	}
}
