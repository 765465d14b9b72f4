package ginguest_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/gin-contrib/gzip"
	"github.com/gin-gonic/gin"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/adapters/ginguest"
	"github.com/guestkit/guest/adaptertest"
)

var Cart = adaptertest.Cart

const public = "public, max-age=60"

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	gin.DefaultErrorWriter = io.Discard // of panics on purpose
	os.Exit(m.Run())
}

func TestGin(t *testing.T) {
	mount := adaptertest.Mount{
		Name: "Gin",
		How:  "engine.Use(ginguest.Middleware(guests))",
		App: func(m *guest.Manager) http.Handler {
			if m == nil {
				return engine(m)
			}
			return engine(m, ginguest.Middleware(m))
		},
	}
	adaptertest.InTable(t, "../../README.md", mount, adaptertest.Run(t, mount))
}

func TestGinFromOutside(t *testing.T) {
	mount := adaptertest.Mount{
		Name: "Gin, from outside",
		How:  "guests.Middleware(engine)",
		App: func(m *guest.Manager) http.Handler {
			if m == nil {
				return engine(m)
			}
			return m.Middleware(engine(m))
		},
		Lacks: map[string]string{
			"gzip, 404": "gin-contrib/gzip deletes Vary from errors; the adapter restores it",
		},
	}
	adaptertest.InTable(t, "../../README.md", mount, adaptertest.Run(t, mount))
}

// The scenario that TestGinFromOutside lacks fails without guest, too.
func TestGzipDeletesVary(t *testing.T) {
	e := gin.New()
	e.Use(func(c *gin.Context) { c.Header("Vary", "Origin") }, gzip.Gzip(gzip.DefaultCompression))
	e.GET("/", func(c *gin.Context) { c.String(http.StatusNotFound, "not here") })
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Accept-Encoding", "gzip")
	e.ServeHTTP(w, r)
	if vary := w.Result().Header["Vary"]; len(vary) > 0 {
		t.Errorf("it is kept now: %q; take the scenario out of Lacks", vary)
	}
}

// engine has the suite's routes, written for Gin, inside Gin's recovery and this middleware.
func engine(m *guest.Manager, middleware ...gin.HandlerFunc) *gin.Engine {
	e := gin.New()
	e.Use(gin.Recovery(), answerErrors)
	e.Use(middleware...)
	own := map[string]gin.HandlerFunc{
		"/json":          func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"hello": "world"}) },
		"/redirect":      func(c *gin.Context) { c.Redirect(http.StatusSeeOther, "/json") },
		"/error":         func(c *gin.Context) { c.Error(errTeapot) },
		"/panic/outside": func(c *gin.Context) { panic("on purpose") },
		"/empty":         func(c *gin.Context) {},
		"/flush": func(c *gin.Context) {
			c.Writer.Flush()
			c.Writer.WriteString("flushed")
		},
		"/cached": func(c *gin.Context) { c.Header("ETag", `"1"`); c.Status(http.StatusNotModified) },
		"/readfrom": func(c *gin.Context) {
			c.DataFromReader(http.StatusOK, int64(len(adaptertest.Text)), "text/plain",
				strings.NewReader(adaptertest.Text), nil)
		},
		"/public": func(c *gin.Context) {
			c.Header("Cache-Control", public)
			c.String(http.StatusOK, "the same for all")
		},
		"/public/string": func(c *gin.Context) {
			c.Header("Cache-Control", public)
			c.Writer.WriteString("the same for all")
		},
		"/public/flush": func(c *gin.Context) {
			c.Header("Cache-Control", public)
			c.Writer.Flush()
			c.Writer.WriteString("flushed")
		},
		"/public/empty": func(c *gin.Context) { c.Header("Cache-Control", public) },
		"/sse": func(c *gin.Context) {
			c.Header("Content-Type", "text/event-stream")
			event := "first"
			c.Stream(func(w io.Writer) bool {
				io.WriteString(w, "data: "+event+"\n\n")
				if event == "second" {
					return false
				}
				c.Writer.Flush()
				event = "second"
				return adaptertest.Wait(c.Request.Context(), c.Query("id")) == nil
			})
		},
		"/gone": func(c *gin.Context) {
			c.String(http.StatusOK, "begun")
			c.Writer.Flush()
			<-c.Request.Context().Done()
			_, err := Cart.Add(c.Request.Context(), "gone", 1)
			adaptertest.Tell(c.Query("id"), err)
		},
		"/whoami": func(c *gin.Context) {
			c.String(http.StatusOK, guest.FromContext(c.Request.Context()).GuestID())
		},
		"/add": func(c *gin.Context) {
			n, err := Cart.Add(c.Request.Context(), c.Query("item"), 1)
			answer(c, n, err)
		},
		"/cart": func(c *gin.Context) {
			all, err := Cart.All(c.Request.Context())
			sum := int64(0)
			for _, n := range all {
				sum += n
			}
			answer(c, sum, err)
		},
		"/claim": func(c *gin.Context) {
			receipt, err := m.Claim(c.Writer, c.Request, c.Query("user"))
			answer(c, receipt.Claimed, err)
		},
		"/claim/context": func(c *gin.Context) {
			receipt, err := m.ClaimContext(c.Request.Context(), c.Query("user"))
			answer(c, receipt.Claimed, err)
		},
	}
	for path, plain := range adaptertest.Routes(m) {
		if h := own[path]; h != nil {
			e.Any(path, h)
		} else if path != "/static/" && path != "/panic/inside" &&
			!strings.HasPrefix(path, "/gzip/") {
			e.Any(path, gin.WrapF(plain)) // over c.Writer
		}
	}
	e.StaticFS("/static", http.FS(adaptertest.Files))
	e.GET("/panic/inside", gin.Recovery(), func(c *gin.Context) { panic("on purpose") })
	zipped := e.Group("/gzip", gzip.Gzip(gzip.DefaultCompression))
	zipped.GET("/json", func(c *gin.Context) { c.JSON(http.StatusOK, adaptertest.Text) })
	zipped.GET("/missing", func(c *gin.Context) { c.String(http.StatusNotFound, "not here") })
	return e
}

var errTeapot = errors.New("no")

// answerErrors answers what handlers leave in c.Errors, after they and all middleware returned.
func answerErrors(c *gin.Context) {
	c.Next()
	if err := c.Errors.Last(); err != nil && !c.Writer.Written() {
		status := http.StatusServiceUnavailable
		if err.Err == errTeapot {
			status = http.StatusTeapot
		}
		c.JSON(status, gin.H{"error": err.Error()})
	}
}

func answer(c *gin.Context, v any, err error) {
	if err != nil {
		c.Error(err)
		return
	}
	c.String(http.StatusOK, "%v", v)
}
