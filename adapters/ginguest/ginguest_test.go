package ginguest_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/adapters/ginguest"
	"github.com/guestkit/guest/adaptertest"
	"github.com/guestkit/guest/memstore"
)

func newGuests(t *testing.T, cookie string) *guest.Manager {
	t.Helper()
	m, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("a secret that only tests know, 32+")},
		Data:    []guest.Kind{Cart},
		Cookie:  guest.Cookie{Name: cookie, Insecure: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func serve(t *testing.T, app http.Handler) *httptest.Server {
	s := httptest.NewServer(app)
	t.Cleanup(s.Close)
	return s
}

// A browser has a cookie jar, and stays where it is when redirected.
type browser struct {
	*http.Client
	url string
}

func newBrowser(s *httptest.Server) browser {
	jar, _ := cookiejar.New(nil) // the error is always nil
	return browser{&http.Client{
		Jar: jar,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}, s.URL}
}

type result struct {
	status int
	header http.Header
	body   string
}

func (b browser) do(t *testing.T, method, path string) result {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, b.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := b.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return result{res.StatusCode, res.Header, string(body)}
}

// known returns the browser of a visitor whose cookie has come back. app must have /whoami.
func known(t *testing.T, s *httptest.Server) browser {
	t.Helper()
	b := newBrowser(s)
	for range 2 {
		if r := b.do(t, "GET", "/whoami"); r.body == "" {
			t.Fatalf("no guest: %+v", r)
		}
	}
	return b
}

func whoami(c *gin.Context) { c.String(http.StatusOK, ginguest.Visitor(c).GuestID()) }

// However a response is sent, its header is complete before that: a public page has no cookie, a
// public page that wrote guest data is made private, and a Vary that was overwritten has its Cookie
// again.
func TestEveryWayToAnswer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hello.txt")
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := newGuests(t, "")
	e := gin.New()
	e.HandleMethodNotAllowed = true
	e.Use(gin.Recovery(), answerErrors, ginguest.Middleware(m), func(c *gin.Context) {
		switch c.Query("page") {
		case "public":
			c.Header("Cache-Control", public)
		case "written":
			if _, err := Cart.Add(c.Request.Context(), "tea", 1); err != nil {
				t.Error(err)
			}
			c.Header("Cache-Control", public)
		case "vary":
			c.Header("Vary", "Accept")
		}
	})
	e.GET("/whoami", whoami)
	e.POST("/405", whoami)
	ways := map[string]gin.HandlerFunc{
		"/string":      func(c *gin.Context) { c.String(http.StatusOK, "hello") },
		"/json":        func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"hello": "world"}) },
		"/write":       func(c *gin.Context) { c.Writer.Write([]byte("hello")) },
		"/writestring": func(c *gin.Context) { c.Writer.WriteString("hello") },
		"/empty":       func(c *gin.Context) {},
		"/status":      func(c *gin.Context) { c.Status(http.StatusAccepted) },
		"/204":         func(c *gin.Context) { c.JSON(http.StatusNoContent, nil) },
		"/writeheadernow": func(c *gin.Context) {
			c.Writer.WriteHeaderNow()
			c.Header("Cache-Control", "no-cache")
		},
		"/abort": func(c *gin.Context) { c.AbortWithStatus(http.StatusForbidden) },
		"/abort/json": func(c *gin.Context) {
			c.AbortWithStatusJSON(http.StatusForbidden, gin.H{})
		},
		"/abort/error": func(c *gin.Context) {
			c.AbortWithError(http.StatusForbidden, errors.New("no"))
		},
		"/error": func(c *gin.Context) { c.Error(errTeapot) },
		"/panic": func(c *gin.Context) { panic("on purpose") },
		"/flush": func(c *gin.Context) {
			c.Writer.Flush()
			c.Header("Cache-Control", "no-cache")
		},
		"/controller": func(c *gin.Context) { http.NewResponseController(c.Writer).Flush() },
		"/stream":     func(c *gin.Context) { c.Stream(func(io.Writer) bool { return false }) },
		"/redirect":   func(c *gin.Context) { c.Redirect(http.StatusSeeOther, "/string") },
		"/file":       func(c *gin.Context) { c.File(file) },
		"/attachment": func(c *gin.Context) { c.FileAttachment(file, "hi.txt") },
		"/fs": func(c *gin.Context) {
			c.FileFromFS("hello.txt", http.FS(adaptertest.Files))
		},
		"/reader": func(c *gin.Context) {
			c.DataFromReader(http.StatusOK, 5, "text/plain", strings.NewReader("hello"), nil)
		},
		"/copy": func(c *gin.Context) {
			io.Copy(c.Writer, strings.NewReader("hello"))
		},
		"/early":       func(c *gin.Context) { early(c); c.String(http.StatusOK, "hello") },
		"/early/empty": func(c *gin.Context) { early(c) },
		"/handlecontext": func(c *gin.Context) {
			c.Request.URL.Path = "/string"
			e.HandleContext(c)
		},
		"/handlecontext/204": func(c *gin.Context) {
			c.Request.URL.Path = "/204"
			e.HandleContext(c)
		},
		"/handlecontext/404": func(c *gin.Context) {
			c.Request.URL.Path = "/404"
			e.HandleContext(c)
		},
		"/101": func(c *gin.Context) {
			c.Status(http.StatusSwitchingProtocols)
			c.Writer.WriteHeaderNow()
		},
		"/hijack": func(c *gin.Context) {
			conn, _, err := c.Writer.Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\n")
			c.Writer.Header().Write(conn)
			fmt.Fprint(conn, "\r\n")
		},
	}
	for path, h := range ways {
		e.GET(path, h)
	}
	s := serve(t, e)
	ways["/404"], ways["/405"] = nil, nil
	old := known(t, s)
	for path := range ways {
		t.Run(path, func(t *testing.T) {
			for _, tt := range []struct {
				page    string
				cookies int
				cache   string
			}{
				{"plain", 1, "private, no-store"},
				{"public", 0, public},
				{"written", 1, "private, no-store"},
			} {
				r := newBrowser(s).do(t, "GET", path+"?page="+tt.page)
				cookies, cache, vary := r.header["Set-Cookie"], r.header["Cache-Control"],
					r.header["Vary"]
				if len(cookies) != tt.cookies || !slices.Equal(cache, []string{tt.cache}) ||
					!slices.Equal(vary, []string{"Cookie"}) {
					t.Errorf("%s: %d, cookies %q, Cache-Control %q, Vary %q", tt.page, r.status,
						cookies, cache, vary)
				}
			}
			r := old.do(t, "GET", path+"?page=vary")
			if vary := r.header["Vary"]; !slices.Equal(vary, []string{"Accept", "Cookie"}) ||
				r.header["Set-Cookie"] != nil {
				t.Errorf("a known visitor: %d, Vary %q, cookies %q", r.status, vary,
					r.header["Set-Cookie"])
			}
		})
	}
}

// An outer middleware may make the page public before the handler runs, and after it as long as Gin
// has a body to write.
func TestMadePublicFromOutside(t *testing.T) {
	m, e := newGuests(t, ""), gin.New()
	e.Use(func(c *gin.Context) {
		if c.Query("when") == "before" {
			c.Header("Cache-Control", public)
			c.Next()
			return
		}
		c.Next()
		c.Header("Cache-Control", public)
		c.String(http.StatusOK, "hello")
	}, ginguest.Middleware(m))
	e.GET("/", func(c *gin.Context) {})
	s := serve(t, e)
	for _, when := range []string{"before", "after"} {
		r := newBrowser(s).do(t, "GET", "/?when="+when)
		if r.header["Set-Cookie"] != nil || r.header.Get("Cache-Control") != public ||
			r.header.Get("Vary") != "Cookie" {
			t.Errorf("%s: %v", when, r.header)
		}
	}
}

// The app's own page for requests that no route matches.
func TestNoRoute(t *testing.T) {
	m, e := newGuests(t, ""), gin.New()
	e.Use(ginguest.Middleware(m))
	e.NoRoute(func(c *gin.Context) {
		_, err := Cart.Add(c.Request.Context(), "tea", 1)
		c.Header("Cache-Control", public)
		c.String(http.StatusNotFound, "nothing here: %v", err)
	})
	r := newBrowser(serve(t, e)).do(t, "GET", "/nowhere")
	if r.status != http.StatusNotFound || r.body != "nothing here: <nil>" ||
		len(r.header["Set-Cookie"]) != 1 || r.header.Get("Cache-Control") != "private, no-store" {
		t.Errorf("%+v", r)
	}
}

// early sends 103, after which the handler may still change the header: here the other way round.
func early(c *gin.Context) {
	cache := c.Writer.Header()["Cache-Control"]
	c.Writer.Header().Del("Cache-Control")
	c.Status(http.StatusEarlyHints)
	c.Writer.WriteHeaderNow()
	if cache != nil {
		c.Writer.Header()["Cache-Control"] = cache
	}
}

// Gin reuses its contexts for other requests. A goroutine that outlives its request keeps that
// request's visitor.
func TestAGoroutineThatOutlivesItsRequest(t *testing.T) {
	m, e := newGuests(t, ""), gin.New()
	e.Use(ginguest.Middleware(m))
	e.GET("/whoami", whoami)
	e.POST("/login", func(c *gin.Context) { m.Claim(c.Writer, c.Request, c.Query("user")) })

	var first *gin.Context
	var goOn chan struct{}
	var written chan error
	e.POST("/start", func(c *gin.Context) {
		first, goOn, written = c, make(chan struct{}), make(chan error)
		goOn, written := goOn, written
		ctx, mine := context.WithoutCancel(c.Request.Context()), c.Copy()
		go func() {
			if _, ok := <-goOn; ok {
				_, err1 := Cart.Add(ctx, ginguest.Visitor(mine).GuestID(), 1)
				_, err2 := Cart.Add(context.WithoutCancel(mine.Request.Context()), "copied", 1)
				written <- errors.Join(err1, err2)
			}
		}()
		c.String(http.StatusOK, ginguest.Visitor(c).GuestID())
	})
	e.POST("/reuse", func(c *gin.Context) {
		if c != first {
			c.Status(http.StatusNoContent)
			return
		}
		goOn <- struct{}{}
		c.Header("While", "the goroutine writes")
		_, mine := Cart.Add(c.Request.Context(), "mine", 1)
		if mine != nil {
			t.Error(mine)
		}
		c.String(http.StatusOK, "%v", <-written)
	})
	s := serve(t, e)
	bob := known(t, s)

	// outlive has Ann start the goroutine, which writes while Bob's request has the context of
	// hers.
	outlive := func(between func(ann browser)) (id string, bobs result) {
		for range 1000 { // the pool may drop it
			ann := known(t, s)
			id = ann.do(t, "POST", "/start").body
			between(ann)
			for range 4 {
				if bobs = bob.do(t, "POST", "/reuse"); bobs.status == http.StatusOK {
					return id, bobs
				}
			}
			close(goOn)
		}
		t.Fatal("Gin never used a context again")
		return id, bobs
	}

	id, bobs := outlive(func(browser) {})
	if bobs.body != "<nil>" {
		t.Errorf("%+v", bobs)
	}
	if cart, err := Cart.All(m.AsGuest(t.Context(), id)); err != nil || len(cart) != 2 ||
		cart[id] != 1 || cart["copied"] != 1 {
		t.Errorf("the goroutine's guest has %v, %v", cart, err)
	}

	// A guest that was claimed meanwhile cannot get a new cookie any more, least of all with
	// another visitor's response.
	user := rand.Text()
	_, bobs = outlive(func(ann browser) { ann.do(t, "POST", "/login?user="+user) })
	if !strings.Contains(bobs.body, guest.ErrClaimed.Error()) || bobs.header["Set-Cookie"] != nil {
		t.Errorf("after the claim: %+v", bobs)
	}
	if cart, err := Cart.All(m.As(t.Context(), user)); err != nil || len(cart) != 0 {
		t.Errorf("the account has %v, %v", cart, err)
	}
	bobsID := bob.do(t, "GET", "/whoami").body
	if cart, err := Cart.All(m.AsGuest(t.Context(), bobsID)); err != nil || len(cart) != 1 ||
		cart["mine"] != 2 {
		t.Errorf("the other guest has %v, %v", cart, err)
	}
}

// A claim takes Gin's writer and request, the request's context, or c.
func TestClaim(t *testing.T) {
	m, e := newGuests(t, ""), gin.New()
	e.ContextWithFallback = true
	e.Use(ginguest.Middleware(m))
	e.GET("/whoami", whoami)
	e.POST("/add", func(c *gin.Context) {
		n, err := Cart.Add(c, "tea", 1)
		answer(c, n, err)
	})
	e.POST("/claim", func(c *gin.Context) {
		receipt, err := m.Claim(c.Writer, c.Request, c.Query("user"))
		answer(c, receipt.Claimed, err)
	})
	e.POST("/claim/context", func(c *gin.Context) {
		receipt, err := m.ClaimContext(c.Request.Context(), c.Query("user"))
		answer(c, receipt.Claimed, err)
	})
	e.POST("/claim/c", func(c *gin.Context) {
		receipt, err := m.ClaimContext(c, c.Query("user"))
		answer(c, receipt.Claimed, err)
	})
	s := serve(t, e)
	for _, path := range []string{"/claim", "/claim/context", "/claim/c"} {
		b, user := known(t, s), rand.Text()
		if r := b.do(t, "POST", "/add"); r.body != "1" {
			t.Errorf("%s: %+v", path, r)
		}
		r := b.do(t, "POST", path+"?user="+user)
		if r.body != "true" || len(r.header["Set-Cookie"]) != 1 ||
			!strings.Contains(r.header.Get("Set-Cookie"), "Max-Age=0") {
			t.Errorf("%s: %+v", path, r)
		}
		if n, err := Cart.Get(m.As(t.Context(), user), "tea"); n != 1 || err != nil {
			t.Errorf("%s: the account has %d, %v", path, n, err)
		}
	}
}

// Middleware between ours and the handler may replace our request and our writer by its own.
func TestMiddlewareThatReplaces(t *testing.T) {
	m, e := newGuests(t, ""), gin.New()
	type key struct{}
	e.Use(ginguest.Middleware(m), func(c *gin.Context) {
		c.Request = c.Request.WithContext(context.WithValue(c.Request.Context(), key{}, "theirs"))
		b := &buffer{ResponseWriter: c.Writer}
		c.Writer = b
		c.Next()
		c.Writer = b.ResponseWriter
		c.Header("Content-Length", fmt.Sprint(b.Len()))
		c.Writer.WriteString(b.String())
	})
	e.POST("/add", func(c *gin.Context) {
		_, err := Cart.Add(c.Request.Context(), "tea", 1)
		c.Header("Cache-Control", public)
		answer(c, c.Request.Context().Value(key{}), err)
	})
	r := newBrowser(serve(t, e)).do(t, "POST", "/add")
	if r.body != "theirs" || len(r.header["Set-Cookie"]) != 1 ||
		r.header.Get("Cache-Control") != "private, no-store" {
		t.Errorf("%+v", r)
	}
}

// A buffer holds back the body.
type buffer struct {
	gin.ResponseWriter
	strings.Builder
}

func (b *buffer) Write(p []byte) (int, error)       { return b.Builder.Write(p) }
func (b *buffer) WriteString(s string) (int, error) { return b.Builder.WriteString(s) }

func TestServerSentEvents(t *testing.T) {
	m, e := newGuests(t, ""), gin.New()
	e.Use(ginguest.Middleware(m))
	e.GET("/events", func(c *gin.Context) {
		c.SSEvent("cart", gin.H{"tea": 1})
		c.Writer.Flush()
		adaptertest.Wait(c.Request.Context(), c.Query("id"))
		c.SSEvent("cart", gin.H{"tea": 2})
	})
	s, id := serve(t, e), rand.Text()
	r, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/events?id="+id, nil)
	res, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	const one, two = "event:cart\ndata:{\"tea\":1}\n\n", "event:cart\ndata:{\"tea\":2}\n\n"
	first := make([]byte, len(one))
	if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != one {
		t.Fatalf("%q, %v", first, err)
	}
	adaptertest.Tell(id, nil)
	if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != two {
		t.Errorf("%q, %v", rest, err)
	}
	if len(res.Header["Set-Cookie"]) != 1 {
		t.Errorf("%v", res.Header)
	}
}

// An app may answer requests of its own making, with the context of the one it serves: they are the
// same visitor's, and their headers affect no other response.
func TestARequestWithinTheRequest(t *testing.T) {
	m, e := newGuests(t, ""), gin.New()
	e.Use(ginguest.Middleware(m))
	e.GET("/whoami", whoami)
	e.GET("/batch", func(c *gin.Context) {
		w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(c.Request.Context(), "GET",
			"/whoami", nil)
		e.ServeHTTP(w, r)
		if id := ginguest.Visitor(c).GuestID(); id == "" || w.Body.String() != id ||
			w.Header()["Set-Cookie"] != nil {
			t.Errorf("within the request of %q: %q, %v", id, w.Body, w.Header())
		}
		c.Header("Cache-Control", public)
		c.String(http.StatusOK, "the same for all")
	})
	r := newBrowser(serve(t, e)).do(t, "GET", "/batch")
	if r.header["Set-Cookie"] != nil || r.header.Get("Cache-Control") != public {
		t.Errorf("%v", r.header)
	}
}

// Mounting it twice has the effect of mounting it once, also with guests.Middleware around the
// engine. Two Managers do not affect each other.
func TestMountedMoreThanOnce(t *testing.T) {
	m, other := newGuests(t, ""), newGuests(t, "other")
	e := gin.New()
	e.Use(ginguest.Middleware(m))
	group := e.Group("/group", ginguest.Middleware(m), ginguest.Middleware(other))
	group.GET("/public", func(c *gin.Context) {
		c.Header("Cache-Control", public)
		c.String(http.StatusOK, "the same for all")
	})
	group.GET("/whoami", whoami)
	for name, app := range map[string]http.Handler{"alone": e, "wrapped": m.Middleware(e)} {
		s := serve(t, app)
		b := newBrowser(s)
		r := b.do(t, "GET", "/group/whoami")
		var names []string
		for _, line := range r.header["Set-Cookie"] {
			before, _, _ := strings.Cut(line, ".")
			names = append(names, before)
		}
		slices.Sort(names)
		if !slices.Equal(names, []string{"guest", "other"}) {
			t.Errorf("%s: %q", name, r.header["Set-Cookie"])
		}
		if again := b.do(t, "GET", "/group/whoami"); again.body != r.body {
			t.Errorf("%s: %q, then %q", name, r.body, again.body)
		}
		if r := newBrowser(s).do(t, "GET", "/group/public"); r.header["Set-Cookie"] != nil ||
			r.header.Get("Cache-Control") != public {
			t.Errorf("%s: %v", name, r.header)
		}
	}
}

// A new guest without data is stored, too, so that it gets its main cookie when it returns.
func TestANewGuestIsStored(t *testing.T) {
	store, e := memstore.New(memstore.Config{}), gin.New()
	m, err := guest.New(guest.Config{
		Store:   store,
		Secrets: [][]byte{[]byte("a secret that only tests know, 32+")},
		Cookie:  guest.Cookie{Insecure: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Use(ginguest.Middleware(m))
	e.GET("/whoami", whoami)
	id := newBrowser(serve(t, e)).do(t, "GET", "/whoami").body
	if fields, err := store.Get(t.Context(), "g:"+id); err != nil || len(fields) == 0 {
		t.Errorf("the record is %v, %v", fields, err)
	}
}

func TestWithoutMiddleware(t *testing.T) {
	c, e := gin.CreateTestContext(httptest.NewRecorder())
	if v := ginguest.Visitor(c); v != nil || v.GuestID() != "" {
		t.Errorf("a context without a request: %v", v)
	}
	c.Request = httptest.NewRequest("GET", "/", nil)
	if v := ginguest.Visitor(c); v != nil {
		t.Errorf("a request without the middleware: %v", v)
	}
	defer func() {
		if recover() == nil || len(e.Handlers) != 0 {
			t.Error("a nil Manager was mounted")
		}
	}()
	e.Use(ginguest.Middleware(nil))
}
