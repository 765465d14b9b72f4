package ginguest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/gin-contrib/gzip"
	"github.com/gin-gonic/gin"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/adapters/ginguest"
	"github.com/guestkit/guest/adaptertest"
	"github.com/guestkit/guest/guesttest"
)

var Cart = adaptertest.Cart

func init() {
	gin.SetMode(gin.ReleaseMode)
	gin.DefaultErrorWriter = io.Discard // of panics on purpose
}

func TestMount(t *testing.T) {
	mount := adaptertest.Mount{
		Name: "Gin",
		How:  "engine.Use(ginguest.Middleware(guests))",
		App: func(m *guest.Manager) http.Handler {
			engine := gin.New()
			engine.Use(gin.Recovery())
			if m != nil {
				engine.Use(ginguest.Middleware(m))
			}
			routes(engine, m)
			return engine
		},
	}
	adaptertest.InTable(t, "../../README.md", mount, adaptertest.Run(t, mount))
}

// Without the adapter: only the request's context has the visitor.
func TestMountAroundTheEngine(t *testing.T) {
	mount := adaptertest.Mount{
		Name: "Gin, from outside",
		How:  "guests.Middleware(engine)",
		Lacks: map[string]string{
			"gzip, 404": "gin-contrib/gzip deletes Vary from errors; the adapter restores it",
		},
		App: func(m *guest.Manager) http.Handler {
			engine := gin.New()
			engine.Use(gin.Recovery())
			routes(engine, m)
			if m == nil {
				return engine
			}
			return m.Middleware(engine)
		},
	}
	adaptertest.InTable(t, "../../README.md", mount, adaptertest.Run(t, mount))
}

// routes are the suite's, in Gin's manner.
func routes(engine *gin.Engine, m *guest.Manager) {
	plain := adaptertest.Routes(m)
	mine := map[string]gin.HandlerFunc{
		"/json":          func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"hello": "world"}) },
		"/redirect":      func(c *gin.Context) { c.Redirect(http.StatusSeeOther, "/json") },
		"/error":         func(c *gin.Context) { c.AbortWithError(http.StatusTeapot, errors.New("no")) },
		"/panic/outside": func(c *gin.Context) { panic("on purpose") },
		"/empty":         func(c *gin.Context) {},
		"/cached":        func(c *gin.Context) { c.Header("ETag", `"1"`); c.Status(http.StatusNotModified) },
		"/sse": func(c *gin.Context) {
			first := true
			c.Header("Content-Type", "text/event-stream")
			c.Stream(func(w io.Writer) bool {
				if first {
					first = false
					io.WriteString(w, "data: first\n\n")
					return true
				}
				adaptertest.Wait(c.Request.Context(), c.Query("id"))
				io.WriteString(w, "data: second\n\n")
				return false
			})
		},
		"/public": func(c *gin.Context) {
			c.Header("Cache-Control", "public, max-age=60")
			c.String(http.StatusOK, "the same for all")
		},
		"/whoami": func(c *gin.Context) { c.String(http.StatusOK, "%s", ginguest.Visitor(c).GuestID()) },
		"/add": func(c *gin.Context) {
			n, err := Cart.Add(c.Request.Context(), c.Query("item"), 1)
			if err != nil {
				c.AbortWithError(http.StatusServiceUnavailable, err)
				return
			}
			c.String(http.StatusOK, "%d", n)
		},
		"/claim": func(c *gin.Context) {
			receipt, err := m.Claim(c.Writer, c.Request, c.Query("user"))
			if err != nil {
				c.Error(err)
			}
			c.String(http.StatusOK, "%v", receipt.Claimed)
		},
	}
	for path, h := range plain {
		switch own := mine[path]; {
		case own != nil:
			engine.Any(path, own)
		case path == "/static/":
			engine.StaticFS("/static", http.FS(adaptertest.Files))
		case path == "/panic/inside":
			engine.Any(path, gin.Recovery(), func(c *gin.Context) { panic("on purpose") })
		case strings.HasPrefix(path, "/gzip/"):
		default:
			engine.Any(path, gin.WrapF(h))
		}
	}
	zipped := engine.Group("/gzip", gzip.Gzip(gzip.DefaultCompression))
	zipped.GET("/json", func(c *gin.Context) { c.String(http.StatusOK, adaptertest.Text) })
	zipped.GET("/missing", func(c *gin.Context) { c.String(http.StatusNotFound, "not here") })
}

// tab is a browser's.
func tab(t *testing.T, s *httptest.Server) func(method, path string) (int, string, http.Header) {
	jar, _ := cookiejar.New(nil)
	client := &http.Client{Jar: jar, Transport: s.Client().Transport}
	return func(method, path string) (int, string, http.Header) {
		t.Helper()
		req, _ := http.NewRequest(method, s.URL+path, nil)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(body), res.Header
	}
}

// Gin takes its contexts back: what outlives the handler has the request's.
func TestAGoroutineThatOutlivesItsRequest(t *testing.T) {
	engine, m := gin.New(), guesttest.New(t, Cart)
	engine.Use(ginguest.Middleware(m))
	goOn := make(chan struct{})
	var late sync.WaitGroup
	engine.POST("/later", func(c *gin.Context) {
		ctx := context.WithoutCancel(c.Request.Context())
		c.String(http.StatusOK, ginguest.Visitor(c).GuestID())
		late.Go(func() {
			<-goOn
			if _, err := Cart.Add(ctx, "late", 1); err != nil {
				t.Error(err)
			}
		})
	})
	s := httptest.NewTLSServer(engine)
	defer s.Close()
	var ids []string
	for range 50 { // Gin's pool hands the same context out again
		_, id, _ := tab(t, s)("POST", "/later")
		ids = append(ids, id)
	}
	close(goOn)
	late.Wait()
	for _, id := range ids {
		if n, err := Cart.Get(m.AsGuest(t.Context(), id), "late"); n != 1 || err != nil {
			t.Errorf("guest %s has %d, %v", id, n, err)
		}
	}
}

// A rewritten request goes through the handlers again, with a writer reset.
func TestHandleContext(t *testing.T) {
	engine, m := gin.New(), guesttest.New(t, Cart)
	engine.Use(ginguest.Middleware(m))
	engine.GET("/old", func(c *gin.Context) { c.Request.URL.Path = "/new"; engine.HandleContext(c) })
	engine.GET("/new", func(c *gin.Context) {
		c.Header("Cache-Control", "public, max-age=60")
		c.String(http.StatusOK, "hello")
	})
	s := httptest.NewTLSServer(engine)
	defer s.Close()
	if _, body, h := tab(t, s)("GET", "/old"); body != "hello" || h.Get("Set-Cookie") != "" || h.Get("Cache-Control") != "public, max-age=60" {
		t.Errorf("%q, %v", body, h)
	}
}

// A middleware that writes the answer to c.Errors, and what no route matches.
func TestErrorsOfOthers(t *testing.T) {
	engine, m := gin.New(), guesttest.New(t, Cart)
	engine.HandleMethodNotAllowed = true
	engine.Use(func(c *gin.Context) {
		c.Next()
		if err := c.Errors.Last(); err != nil && !c.Writer.Written() {
			c.JSON(http.StatusConflict, gin.H{"error": err.Error()})
		}
	}, ginguest.Middleware(m))
	engine.NoRoute(func(c *gin.Context) { c.String(http.StatusNotFound, "nothing here") })
	engine.POST("/fails", func(c *gin.Context) { c.Error(errors.New("no")) })
	s := httptest.NewTLSServer(engine)
	defer s.Close()
	for _, tt := range []struct {
		method, path string
		status       int
	}{{"POST", "/fails", 409}, {"GET", "/nowhere", 404}, {"GET", "/fails", 405}} {
		status, _, h := tab(t, s)(tt.method, tt.path)
		if status != tt.status || len(h["Set-Cookie"]) != 1 || h.Get("Cache-Control") != "private, no-store" || h.Get("Vary") != "Cookie" {
			t.Errorf("%s %s: %d, %v", tt.method, tt.path, status, h)
		}
	}
}

// AbortWithStatus sends the header at once.
func TestAbortOfAPublicPage(t *testing.T) {
	engine, m := gin.New(), guesttest.New(t, Cart)
	engine.Use(ginguest.Middleware(m))
	engine.GET("/", func(c *gin.Context) {
		c.Header("Cache-Control", "public, max-age=60")
		c.AbortWithStatus(http.StatusGone)
	})
	s := httptest.NewTLSServer(engine)
	defer s.Close()
	if status, _, h := tab(t, s)("GET", "/"); status != http.StatusGone || h.Get("Set-Cookie") != "" || h.Get("Cache-Control") != "public, max-age=60" {
		t.Errorf("%d, %v", status, h)
	}
}

func TestWithoutTheMiddleware(t *testing.T) {
	engine := gin.New()
	engine.GET("/", func(c *gin.Context) {
		_, err := Cart.Get(c.Request.Context(), "tea")
		c.String(http.StatusOK, "%q %v", ginguest.Visitor(c).GuestID(), errors.Is(err, guest.ErrNoVisitor))
	})
	w := httptest.NewRecorder()
	engine.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Body.String() != `"" true` {
		t.Error(w.Body)
	}
}

func Example() {
	t := &testing.T{}
	guests := guesttest.New(t, Cart) // your guest.New

	engine := gin.New()
	engine.Use(gin.Recovery(), ginguest.Middleware(guests))
	engine.POST("/cart/:sku", func(c *gin.Context) {
		n, err := Cart.Add(c.Request.Context(), c.Param("sku"), 1)
		if err != nil {
			c.AbortWithError(http.StatusServiceUnavailable, err)
			return
		}
		c.JSON(http.StatusOK, gin.H{"amount": n, "guest": ginguest.Visitor(c).IsGuest()})
	})
	engine.POST("/login", func(c *gin.Context) {
		user := struct{ ID string }{"ann"}                         // checked by your app
		receipt, err := guests.Claim(c.Writer, c.Request, user.ID) // never a reason to fail the login
		if err != nil {
			c.Error(err)
		}
		c.JSON(http.StatusOK, receipt.Kinds)
	})

	w := httptest.NewRecorder()
	engine.ServeHTTP(w, httptest.NewRequest("POST", "/cart/tea", nil))
	fmt.Println(w.Body)
	// Output: {"amount":1,"guest":true}
}
