package echo4guest_test

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/guestkit/guest/adapters/echo4guest"
)

// What is different in the tests of the two versions.

// newEcho returns an Echo that calls before when an error is about to be written.
func newEcho(before func(c echo.Context)) *echo.Echo {
	e := echo.New()
	e.Logger.SetOutput(io.Discard)
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		before(c)
		e.DefaultHTTPErrorHandler(err, c)
	}
	return e
}

func committed(c echo.Context) bool { return c.Response().Committed }

// Timeout gives what is inside it a header of its own, but not the HTTPErrorHandler.
func TestTimeoutInside(t *testing.T) {
	e := newEcho(func(c echo.Context) {
		if c.Request().URL.Path == "/public" {
			c.Response().Header().Set("Cache-Control", "public, max-age=60")
		}
	})
	//lint:ignore SA1019 apps still have it
	timeout := middleware.TimeoutWithConfig(middleware.TimeoutConfig{Timeout: time.Hour})
	e.Use(echo4guest.Middleware(newGuests(t)), timeout)
	e.GET("/", func(c echo.Context) error { return c.String(http.StatusOK, echo4guest.Visitor(c).GuestID()) })
	s := serve(t, e)
	for path, cookies := range map[string]int{"/": 1, "/missing": 1, "/public": 0} {
		if res := s.browser().get("GET", path); len(res.Header["Set-Cookie"]) != cookies {
			t.Errorf("%s: %s %v, want %d cookies", path, res.Status, res.Header, cookies)
		}
	}
}

// The other test files are those of echoguest, except for these words. With UPDATE=1 in the
// environment, the test writes them.
func TestOneText(t *testing.T) {
	words := strings.NewReplacer("v5", "v4", "echoguest.", "echo4guest.", "echoguest_test", "echo4guest_test",
		"adapters/echoguest", "adapters/echo4guest", "*echo.Context", "echo.Context")
	for _, file := range []string{"echo_test.go", "example_test.go"} {
		theirs, err := os.ReadFile("../echoguest/" + file)
		if err != nil {
			t.Fatal(err)
		}
		want := words.Replace(string(theirs))
		if got, err := os.ReadFile(file); err == nil && string(got) == want {
			continue
		}
		if os.Getenv("UPDATE") == "" {
			t.Errorf("%s is not ../echoguest/%[1]s; run the test with UPDATE=1", file)
		} else if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
