// Package ginguest mounts the guest middleware in Gin:
//
//	engine.Use(gin.Recovery(), ginguest.Middleware(guests))
//
// Data calls and claims are those of net/http: Cart.Add(c.Request.Context(), sku, 1) and
// guests.Claim(c.Writer, c.Request, user.ID). With Engine.ContextWithFallback the context may be c
// itself; without it, c has no visitor, and data calls return [guest.ErrNoVisitor]. Gin reuses c
// for the next request, so a goroutine that runs longer than the handler takes
// context.WithoutCancel(c.Request.Context()), never c.
package ginguest

import (
	"bufio"
	"context"
	"net"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/guestkit/guest"
)

// Middleware gives each request its visitor. Mount it inside gin.Recovery and what Config.Account
// needs, and outside gzip and what reads guest data. An outer middleware that makes a response
// without a body cacheable must do so before it calls c.Next, as Gin sends that response without
// calling any writer. Middleware panics if m is nil.
func Middleware(m *guest.Manager) gin.HandlerFunc {
	if m == nil {
		panic("ginguest: the Manager is nil: see the error of guest.New")
	}
	return func(c *gin.Context) {
		key := exchangeKey{m, c}
		x, again := c.Request.Context().Value(key).(guest.Exchange)
		if !again {
			x = m.Begin(c.Writer.Header(), c.Request)
			c.Request = x.Request.WithContext(context.WithValue(x.Request.Context(), key, x))
		}
		c.Writer = &writer{c.Writer, x}
		c.Next()
		if again {
			return
		}
		// Gin sends it without calling any writer
		if status := c.Writer.Status(); status == http.StatusNotModified {
			x.Commit(status)
		}
		x.End()
	}
}

// Visitor returns the visitor of c or of a copy of it, or nil if the request did not pass
// Middleware; methods of a nil Visitor are safe.
func Visitor(c *gin.Context) *guest.Visitor {
	if c.Request == nil {
		return nil
	}
	return guest.FromContext(c.Request.Context())
}

// An exchangeKey finds the exchange again when Engine.HandleContext has removed the writer and runs
// the handlers once more. Another Manager has its own exchange, and so has a request that the app
// makes with this request's context.
type exchangeKey struct {
	m *guest.Manager
	c *gin.Context
}

// A writer commits the exchange just before Gin sends the header. WriteHeader only makes Gin
// remember the status.
type writer struct {
	gin.ResponseWriter
	x guest.Exchange
}

func (w *writer) WriteHeaderNow() {
	if w.informational() {
		w.x.Inform(w.ResponseWriter.WriteHeaderNow)
		return
	}
	w.x.Commit(w.Status())
	w.ResponseWriter.WriteHeaderNow()
}

// informational reports whether Gin's status is a 1xx, which precedes the final one (RFC 9110,
// section 15.2). Gin treats it as the final one, and sends it when a body begins, at the latest.
// net/http then sends 200.
func (w *writer) informational() bool {
	return w.Status() < 200 && w.Status() != http.StatusSwitchingProtocols
}

// begin sends the header before a body, as Gin does.
func (w *writer) begin() {
	w.WriteHeaderNow()
	w.x.Commit(http.StatusOK) // after a 1xx
}

func (w *writer) Write(b []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(b)
}

func (w *writer) WriteString(s string) (int, error) {
	w.begin()
	return w.ResponseWriter.WriteString(s)
}

func (w *writer) Flush() {
	w.begin()
	w.ResponseWriter.Flush()
}

func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.x.Commit(http.StatusSwitchingProtocols)
	return w.ResponseWriter.Hijack()
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
