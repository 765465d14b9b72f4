package main

import (
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
	"github.com/boj/redistore"
	ginsessions "github.com/gin-contrib/sessions"
	ginredis "github.com/gin-contrib/sessions/redis"
	"github.com/gin-gonic/gin"
	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/extractors"
	fibersession "github.com/gofiber/fiber/v3/middleware/session"
	fiberredis "github.com/gofiber/storage/redis/v3"
	"github.com/gorilla/sessions"
	"github.com/valyala/fasthttp"
)

// The peers, set up as their documentation says, with the same cookie: Secure, HttpOnly,
// SameSite=Lax, 30 days.

const sessionName = "session"

// scs

var scsRedis = Contender{
	Name:  "scs on Redis",
	Setup: "alexedwards/scs v2, `goredisstore` on go-redis, `LoadAndSave`, gob, no idle timeout",
	Open: func(addr string) (App, error) {
		rdb := newClient(addr)
		return newSCS(goredisstore.New(rdb), func() { rdb.Close() }), nil
	},
}

var scsMemory = Contender{
	Name:  "scs in memory",
	Setup: "the same on its `memstore`",
	Open: func(string) (App, error) {
		// its clean-up goroutine cannot be stopped without a race
		store := memstore.NewWithCleanupInterval(0)
		return newSCS(store, func() {}), nil
	},
}

func newSCS(store scs.Store, close func()) App {
	sm := scs.New()
	sm.Store = store
	sm.Lifetime = cookieLife
	sm.Cookie.Name = sessionName
	sm.Cookie.Secure = true
	sm.Cookie.SameSite = http.SameSiteLaxMode
	return pages{sm.LoadAndSave(routes{
		Visit: ok,
		None:  ok,
		First: func(w http.ResponseWriter, r *http.Request) { sm.Put(r.Context(), "theme", theme) },
		Many: func(w http.ResponseWriter, r *http.Request) {
			for item, n := range items {
				sm.Put(r.Context(), "cart/"+item, int(n))
			}
		},
		Blob: func(w http.ResponseWriter, r *http.Request) { sm.Put(r.Context(), "blob", blob) },
		ID: func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, sm.Token(r.Context()))
		},
		Read: func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, sm.GetString(r.Context(), "theme"))
		},
		Add: func(w http.ResponseWriter, r *http.Request) {
			n := sm.GetInt(r.Context(), "cart/tea") + 1
			sm.Put(r.Context(), "cart/tea", n)
			io.WriteString(w, strconv.Itoa(n))
		},
	}), close}
}

// gorilla/sessions

var gorillaRedis = Contender{
	Name:  "gorilla/sessions on Redis",
	Setup: "boj/redistore v1.4.1 on redigo, `NewRediStore` (it sends `PING` each time it takes a connection), gob, `SetMaxLength(0)` for the large record",
	Open: func(addr string) (App, error) {
		store, err := redistore.NewRediStore(*poolSize, "tcp", addr, "", "", secret)
		if err != nil {
			return nil, err
		}
		store.SetMaxLength(0)
		store.Options.Secure, store.Options.HttpOnly, store.Options.SameSite = true, true,
			http.SameSiteLaxMode
		return newGorilla(store, func(s *sessions.Session) string { return s.ID },
			func() { store.Close() }), nil
	},
}

var gorillaCookie = Contender{
	Name:  "gorilla/sessions in a cookie",
	Setup: "`NewCookieStore`, signed; all data are in the cookie, so it has no server and no more than 4 KiB; the ID is a value of ours",
	Open: func(string) (App, error) {
		store := sessions.NewCookieStore(secret)
		store.Options.Secure, store.Options.HttpOnly, store.Options.SameSite = true, true,
			http.SameSiteLaxMode
		id := func(s *sessions.Session) string { id, _ := s.Values["id"].(string); return id }
		return newGorilla(store, id, func() {}), nil
	},
	Holds: func(w Work, r Record) bool { return r == Small },
}

func newGorilla(store sessions.Store, id func(*sessions.Session) string, close func()) App {
	session := func(f func(w http.ResponseWriter, r *http.Request, s *sessions.Session) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			s, err := store.Get(r, sessionName)
			if err == nil {
				err = f(w, r, s)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		}
	}
	return pages{routes{
		Visit: ok,
		None:  ok, // the library does no work
		First: session(func(w http.ResponseWriter, r *http.Request, s *sessions.Session) error {
			if _, isCookie := store.(*sessions.CookieStore); isCookie {
				s.Values["id"] = rand.Text()
			}
			s.Values["theme"] = theme
			return s.Save(r, w)
		}),
		Many: session(func(w http.ResponseWriter, r *http.Request, s *sessions.Session) error {
			for item, n := range items {
				s.Values["cart/"+item] = int(n)
			}
			return s.Save(r, w)
		}),
		Blob: session(func(w http.ResponseWriter, r *http.Request, s *sessions.Session) error {
			s.Values["blob"] = blob
			return s.Save(r, w)
		}),
		ID: session(func(w http.ResponseWriter, r *http.Request, s *sessions.Session) error {
			io.WriteString(w, id(s))
			return nil
		}),
		Read: session(func(w http.ResponseWriter, r *http.Request, s *sessions.Session) error {
			value, _ := s.Values["theme"].(string)
			io.WriteString(w, value)
			return nil
		}),
		Add: session(func(w http.ResponseWriter, r *http.Request, s *sessions.Session) error {
			n, _ := s.Values["cart/tea"].(int)
			s.Values["cart/tea"] = n + 1
			err := s.Save(r, w)
			if err == nil {
				io.WriteString(w, strconv.Itoa(n+1))
			}
			return err
		}),
	}, close}
}

// gin-contrib/sessions

var ginRedis = Contender{
	Name:  "gin-contrib/sessions on Redis",
	Setup: "`sessions.Sessions` with its `redis.NewStore`, which is boj/redistore, on `gin.New()`",
	Open: func(addr string) (App, error) {
		store, err := ginredis.NewStore(*poolSize, "tcp", addr, "", "", secret)
		if err != nil {
			return nil, err
		}
		raw, err := ginredis.GetRedisStore(store)
		if err != nil {
			return nil, err
		}
		raw.SetMaxLength(0)
		raw.SetKeyPrefix("gin_") // so that its keys differ from gorilla's
		store.Options(ginsessions.Options{Path: "/", MaxAge: int(cookieLife / time.Second),
			Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
		return pages{newGin(store), func() { raw.Close() }}, nil
	},
}

func newGin(store ginsessions.Store) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.Use(ginsessions.Sessions(sessionName, store))
	okay := func(c *gin.Context) { c.String(http.StatusOK, "ok") }
	saved := func(c *gin.Context, s ginsessions.Session, text string) {
		if err := s.Save(); err != nil {
			c.String(http.StatusInternalServerError, err.Error())
			return
		}
		c.String(http.StatusOK, text)
	}
	set := func(key, value string) gin.HandlerFunc {
		return func(c *gin.Context) {
			s := ginsessions.Default(c)
			s.Set(key, value)
			saved(c, s, "")
		}
	}
	for work, handler := range map[Work]gin.HandlerFunc{
		Visit: okay,
		None:  okay, // the library does no work
		First: set("theme", theme),
		Many: func(c *gin.Context) {
			s := ginsessions.Default(c)
			for item, n := range items {
				s.Set("cart/"+item, int(n))
			}
			saved(c, s, "")
		},
		Blob: set("blob", blob),
		ID:   func(c *gin.Context) { c.String(http.StatusOK, ginsessions.Default(c).ID()) },
		Read: func(c *gin.Context) {
			value, _ := ginsessions.Default(c).Get("theme").(string)
			c.String(http.StatusOK, value)
		},
		Add: func(c *gin.Context) {
			s := ginsessions.Default(c)
			n, _ := s.Get("cart/tea").(int)
			s.Set("cart/tea", n+1)
			saved(c, s, strconv.Itoa(n+1))
		},
	} {
		e.Handle(work.method(), string(work), handler)
	}
	return e
}

// Fiber

var fiberRedis = Contender{
	Name:  "Fiber's session on Redis",
	Setup: "Fiber v3, `session.New` with gofiber/storage/redis on go-redis; fasthttp instead of net/http",
	Open: func(addr string) (App, error) {
		rdb := newClient(addr)
		return fiberApp{newFiber(fiberredis.NewFromConnection(rdb)), func() { rdb.Close() }}, nil
	},
}

func newFiber(storage fiber.Storage) *fiber.App {
	app := fiber.New()
	app.Use(fibersession.New(fibersession.Config{
		Storage: storage, IdleTimeout: cookieLife, Extractor: extractors.FromCookie(sessionName),
		CookieSecure: true, CookieHTTPOnly: true, CookieSameSite: "Lax",
		ErrorHandler: func(c fiber.Ctx, err error) {
			slog.Error("fiber session", "err", err)
			c.Status(http.StatusInternalServerError)
		},
	}))
	okay := func(c fiber.Ctx) error { return c.SendString("ok") }
	set := func(key, value string) fiber.Handler {
		return func(c fiber.Ctx) error {
			fibersession.FromContext(c).Set(key, value)
			return nil
		}
	}
	for work, handler := range map[Work]fiber.Handler{
		Visit: okay,
		None:  okay,
		First: set("theme", theme),
		Many: func(c fiber.Ctx) error {
			for item, n := range items {
				fibersession.FromContext(c).Set("cart/"+item, int(n))
			}
			return nil
		},
		Blob: set("blob", blob),
		ID:   func(c fiber.Ctx) error { return c.SendString(fibersession.FromContext(c).ID()) },
		Read: func(c fiber.Ctx) error {
			value, _ := fibersession.FromContext(c).Get("theme").(string)
			return c.SendString(value)
		},
		Add: func(c fiber.Ctx) error {
			s := fibersession.FromContext(c)
			n, _ := s.Get("cart/tea").(int)
			s.Set("cart/tea", n+1)
			return c.SendString(strconv.Itoa(n + 1))
		},
	} {
		app.Add([]string{work.method()}, string(work), handler)
	}
	return app
}

type fiberApp struct {
	app   *fiber.App
	close func()
}

func (a fiberApp) Close() { a.close() }

func (a fiberApp) Serve(l net.Listener) error {
	return a.app.Listener(l, fiber.ListenConfig{DisableStartupMessage: true})
}

func (a fiberApp) Prepare(w Work, query, cookies string) Call {
	c := &fiberCall{handler: a.app.Handler()}
	c.base.Header.SetMethod(w.method())
	c.base.SetRequestURI(string(w) + "?" + query)
	c.base.Header.SetHost("shop.example")
	if cookies != "" {
		c.base.Header.Set("Cookie", cookies)
	}
	return c
}

type fiberCall struct {
	handler fasthttp.RequestHandler
	base    fasthttp.Request
	ctx     fasthttp.RequestCtx
}

func (c *fiberCall) Do() (int, []string, []byte) {
	c.ctx.ResetUserValues()
	c.ctx.Response.Reset()
	c.ctx.Init(&c.base, nil, nil)
	c.handler(&c.ctx)
	var lines []string
	for _, line := range c.ctx.Response.Header.Cookies() {
		lines = append(lines, string(line))
	}
	return c.ctx.Response.StatusCode(), lines, c.ctx.Response.Body()
}
