// Package ginguest mounts the guest middleware in Gin:
//
//	engine.Use(ginguest.Middleware(guests))
//
// Data calls and claims take the request's context, as in net/http: Cart.Add(c.Request.Context(), sku, 1) and
// guests.Claim(c.Writer, c.Request, user.ID). Gin reuses a *gin.Context for the next request, so give goroutines that
// outlive the handler c.Request.Context(), never c.
package ginguest

import (
	"bufio"
	"context"
	"net"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/guestkit/guest"
)

// Middleware gives each request its visitor. Mount it after gin.Recovery and what Config.Account needs, and before
// gzip and all that reads guest data.
func Middleware(m *guest.Manager) gin.HandlerFunc {
	return func(c *gin.Context) {
		key := exchangeKey{m, c}
		x, again := c.Request.Context().Value(key).(guest.Exchange)
		if !again {
			x = m.Begin(c.Writer.Header(), c.Request)
			c.Request = x.Request.WithContext(context.WithValue(x.Request.Context(), key, x))
		}
		c.Writer = &writer{c.Writer, x}
		c.Next()
		if !again {
			x.End()
		}
	}
}

// Visitor returns the request's visitor, or nil without Middleware; methods of a nil Visitor are safe.
func Visitor(c *gin.Context) *guest.Visitor {
	return guest.FromContext(c.Request.Context())
}

// An exchangeKey finds the exchange again when Engine.HandleContext has taken the writer away and runs the handlers
// once more. Another Manager has its own, and so has a request within the request, made with its context.
type exchangeKey struct {
	m *guest.Manager
	c *gin.Context
}

// A writer commits the exchange just before Gin sends the header. WriteHeader only makes Gin remember the status.
type writer struct {
	gin.ResponseWriter
	x guest.Exchange
}

func (w *writer) WriteHeaderNow() {
	if status := w.Status(); status >= 200 || status == http.StatusSwitchingProtocols { // other 1xx precede the header
		w.x.Commit()
	}
	w.ResponseWriter.WriteHeaderNow()
}

func (w *writer) Write(b []byte) (int, error) {
	w.x.Commit()
	return w.ResponseWriter.Write(b)
}

func (w *writer) WriteString(s string) (int, error) {
	w.x.Commit()
	return w.ResponseWriter.WriteString(s)
}

func (w *writer) Flush() {
	w.x.Commit()
	w.ResponseWriter.Flush()
}

func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.x.Commit()
	return w.ResponseWriter.Hijack()
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
