package fiberguest_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/fasthttp/websocket"
	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	"github.com/gofiber/fiber/v3/middleware/compress"
	"github.com/gofiber/fiber/v3/middleware/recover"
	"github.com/gofiber/fiber/v3/middleware/static"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/adapters/fiberguest"
	"github.com/guestkit/guest/adaptertest"
)

var Cart = adaptertest.Cart

func TestMount(t *testing.T) {
	mount := adaptertest.Mount{
		Name: "Fiber",
		How:  "app.Use(fiberguest.Middleware(guests))",
		Serve: func(m *guest.Manager, ln net.Listener) (stop func()) {
			// for the cookies of 32 parallel requests
			app := fiber.New(fiber.Config{ReadBufferSize: 16 << 10})
			app.Use(tellAnswered, recover.New())
			if m != nil {
				app.Use(fiberguest.Middleware(m))
			}
			routes(app, m)
			return serve(app, ln)
		},
	}
	adaptertest.InTable(t, "../../README.md", mount, adaptertest.Run(t, mount))
}

// serve serves the app until it is stopped.
func serve(app *fiber.App, ln net.Listener) (stop func()) {
	done := make(chan error, 1)
	go func() { done <- app.Listener(ln, fiber.ListenConfig{DisableStartupMessage: true}) }()
	return func() {
		app.Shutdown()
		<-done
	}
}

// routes are the suite's, written for Fiber; those about an http.ResponseWriter use Fiber's
// adaptor.
func routes(app *fiber.App, m *guest.Manager) {
	forAll := func(c fiber.Ctx) { c.Set("Cache-Control", "public, max-age=60") }
	flushFirst := func(c fiber.Ctx) error {
		return c.SendStreamWriter(func(w *bufio.Writer) {
			w.Flush()
			w.WriteString("flushed")
		})
	}
	cached := func(c fiber.Ctx) error {
		c.Set("ETag", `"1"`)
		return c.SendStatus(fiber.StatusNotModified)
	}
	mine := map[string]fiber.Handler{
		"/json":     func(c fiber.Ctx) error { return c.JSON(fiber.Map{"hello": "world"}) },
		"/redirect": func(c fiber.Ctx) error { return c.Redirect().To("/json") },
		"/error": func(c fiber.Ctx) error {
			return fiber.NewError(fiber.StatusTeapot, "no")
		},
		"/panic/outside": func(c fiber.Ctx) error { panic("on purpose") },
		"/empty":         func(c fiber.Ctx) error { return nil },
		"/flush":         flushFirst,
		"/sse": func(c fiber.Ctx) error {
			ctx, id := fiberguest.Context(c), fiber.Query[string](c, "id")
			c.Set("Content-Type", "text/event-stream")
			return c.SendStreamWriter(func(w *bufio.Writer) {
				w.WriteString("data: first\n\n")
				w.Flush()
				adaptertest.Wait(ctx, id)
				w.WriteString("data: second\n\n")
			})
		},
		"/early": func(c fiber.Ctx) error {
			if err := c.SendEarlyHints(
				[]string{"</style.css>; rel=preload; as=style"}); err != nil {
				return err
			}
			return c.SendString("hello")
		},
		"/early/public": func(c fiber.Ctx) error {
			forAll(c)
			if err := c.SendEarlyHints(
				[]string{"</style.css>; rel=preload; as=style"}); err != nil {
				return err
			}
			return c.SendString("the same for all")
		},
		"/cached": cached,
		"/cached/add": func(c fiber.Ctx) error {
			Cart.Add(fiberguest.Context(c), "cached", 1)
			return cached(c)
		},
		"/gorilla": echo,
		"/coder":   echo,
		"/public": func(c fiber.Ctx) error {
			forAll(c)
			return c.Send(
				[]byte("the same for all"))
		},
		"/public/string": func(c fiber.Ctx) error { forAll(c); return c.SendString("the same for all") },
		"/public/flush":  func(c fiber.Ctx) error { forAll(c); return flushFirst(c) },
		"/public/empty":  func(c fiber.Ctx) error { forAll(c); return nil },
		"/gone": func(c fiber.Ctx) error {
			ctx, id := fiberguest.Context(c), fiber.Query[string](c, "id")
			return c.SendStreamWriter(func(w *bufio.Writer) {
				w.WriteString("begun")
				for w.Flush() == nil { // only a write shows that the client is gone
					w.WriteString(".")
				}
				_, err := Cart.Add(ctx, "gone", 1)
				adaptertest.Tell(id, err)
			})
		},
		"/whoami": func(c fiber.Ctx) error { return c.SendString(fiberguest.Visitor(c).GuestID()) },
		"/add":    add,
		"/add/flushed": func(c fiber.Ctx) error {
			ctx, answered := fiberguest.Context(c), make(chan struct{})
			c.Locals("answered", answered)
			return c.SendStreamWriter(func(w *bufio.Writer) {
				// Fiber runs the stream beside the handlers, and sends the header when they are
				// done
				<-answered
				_, err := Cart.Add(ctx, "flushed", 1)
				w.WriteString(adaptertest.Late(err))
			})
		},
		"/add/hijacked": func(c fiber.Ctx) error {
			ctx := fiberguest.Context(c)
			c.RequestCtx().HijackSetNoResponse(true)
			c.RequestCtx().Hijack(func(conn net.Conn) {
				_, err := Cart.Add(ctx, "hijacked", 1)
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s",
					adaptertest.Late(err))
			})
			return nil
		},
		"/cart": func(c fiber.Ctx) error {
			all, err := Cart.All(fiberguest.Context(c))
			if err != nil {
				return err
			}
			var sum int64
			for _, n := range all {
				sum += n
			}
			return c.SendString(fmt.Sprint(sum))
		},
		"/claim":         claim(m),
		"/claim/context": claim(m),
	}
	for path, h := range adaptertest.Routes(m) {
		switch own := mine[path]; {
		case own != nil:
			app.All(path, own)
		case path == "/static/":
			app.Use("/static", static.New("", static.Config{FS: adaptertest.Files}))
		case path == "/panic/inside":
			app.All(path, recover.New(), func(c fiber.Ctx) error { panic("on purpose") })
		case path == "/gzip/json":
			app.All(path, compress.New(), func(c fiber.Ctx) error {
				return c.SendString(adaptertest.Text)
			})
		case path == "/gzip/missing":
			app.All(path, compress.New(), func(c fiber.Ctx) error {
				return c.Status(fiber.StatusNotFound).SendString(adaptertest.Text)
			})
		default:
			app.All(path, adaptor.HTTPHandlerFunc(h))
		}
	}
}

// tellAnswered signals a stream that the handlers are done.
func tellAnswered(c fiber.Ctx) error {
	err := c.Next()
	if answered, ok := c.Locals("answered").(chan struct{}); ok {
		close(answered)
	}
	return err
}

// echo takes a WebSocket as Fiber's contrib/websocket does.
func echo(c fiber.Ctx) error {
	var u websocket.FastHTTPUpgrader
	return u.Upgrade(c.RequestCtx(), func(conn *websocket.Conn) {
		if kind, msg, err := conn.ReadMessage(); err == nil {
			conn.WriteMessage(kind, msg)
		}
	})
}

func add(c fiber.Ctx) error {
	n, err := Cart.Add(fiberguest.Context(c), c.Query("item"), 1)
	if errors.Is(err, guest.ErrUnavailable) {
		return fiber.ErrServiceUnavailable
	}
	if err != nil {
		return err
	}
	return c.SendString(fmt.Sprint(n))
}

func claim(m *guest.Manager) fiber.Handler {
	return func(c fiber.Ctx) error {
		receipt, err := m.ClaimContext(fiberguest.Context(c), c.Query("user"))
		if err != nil {
			return err
		}
		return c.SendString(fmt.Sprint(receipt.Claimed))
	}
}
