// Package fiberguest mounts the guest middleware in Fiber:
//
//	app := fiber.New(fiber.Config{ReadBufferSize: 16 << 10})
//	app.Use(recover.New(), fiberguest.Middleware(guests))
//
// Data calls and claims take the request's context:
//
//	n, err := Cart.Add(fiberguest.Context(c), c.Params("sku"), 1)
//	receipt, err := guests.ClaimContext(fiberguest.Context(c), user.ID)
//
// Take the context while the handler runs, and give it to streams, hijacked connections and
// goroutines: Fiber reuses c for other requests. c is a context, too, but has no visitor. A
// net/http handler behind Fiber's adaptor.HTTPHandlerWithContext gets the visitor's context by
// adaptor.LocalContextFromHTTPRequest.
//
// ReadBufferSize bounds a request's header; Fiber's default is 4 KiB. Each of a new browser's
// parallel first requests gets a provisional cookie of some 150 bytes; each later request clears
// four of them. If there are too many, Fiber answers 431.
//
// # Config.Account
//
// Account, Admit and the hooks get a copy of the request, without its body. The locals set before
// Middleware are in its context, under the same keys, so that functions of Fiber's own middleware
// that take a context work:
//
//	Account: func(r *http.Request) string {
//		user, _ := r.Context().Value("user").(string) // c.Locals("user", id)
//		return user
//	}
//
// # Errors and panics
//
// The ErrorHandler may change the header, so it must run before a cookie is added. So Middleware
// itself passes an error that a handler returns to the ErrorHandler, as Fiber's logger does: an
// outer middleware sees the response, and no error. A panic passes through. If an outer middleware
// recovers it, the header is complete before the ErrorHandler runs: if the ErrorHandler makes such
// responses public, mount recover inside as well.
//
// # Not by the adaptor
//
// Do not mount guests.Middleware with adaptor.HTTPMiddleware, which ends net/http middleware before
// the handler begins. Then no code checks the response: a page that the handler makes public
// reaches the cache with its visitor's cookie, and a claimed guest cannot be replaced. c.Context()
// has no visitor, and only the last of repeated request headers is left.
package fiberguest

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v3"
	"github.com/valyala/fasthttp"

	"github.com/guestkit/guest"
)

// Middleware gives each request its visitor. Mount it after recover and what Config.Account needs,
// and before everything else that responds: the logger, compress, cache, timeout, and what reads
// guest data.
func Middleware(m *guest.Manager) fiber.Handler {
	return func(c fiber.Ctx) error {
		_, bounded := c.Context().Deadline()
		// Our headers are added at the end only. Fiber sends nothing before that, and no cache,
		// timeout or idempotency middleware inside can keep a copy of them.
		header := http.Header{}
		x := m.Begin(header, request(c))
		c.SetContext(x.Request.Context())

		panicked := true
		defer func() {
			res := response(c, bounded)
			merge(header, res)
			switch {
			case panicked: // the middleware that recovers it will respond
				x.Commit(fiber.StatusInternalServerError)
			case res != nil:
				x.Commit(res.StatusCode())
			}
			if !panicked {
				x.End()
			}
			replace(res, header)
		}()
		if err := c.Next(); err != nil && c.App().ErrorHandler(c, err) != nil {
			c.SendStatus(fiber.StatusInternalServerError) // as Fiber does; its error is always nil
		}
		panicked = false
		return nil
	}
}

// Context returns the context for data calls, claims and all other functions of guest that take
// one. It is c.Context(); if you replace that with c.SetContext, derive the new one from it. It
// stays valid when Fiber reuses c.
func Context(c fiber.Ctx) context.Context { return c.Context() }

// Visitor returns the request's visitor, or nil without Middleware; methods of a nil Visitor are
// safe.
func Visitor(c fiber.Ctx) *guest.Visitor { return guest.FromContext(c.Context()) }

// request copies the request without its body, because fasthttp reuses its buffers.
func request(c fiber.Ctx) *http.Request {
	in := c.Request()
	uri := string(in.Header.RequestURI())
	u, err := url.ParseRequestURI(uri)
	if err != nil { // fasthttp accepts some requests that net/http refuses
		u = &url.URL{Path: string(in.URI().Path()), RawQuery: string(in.URI().QueryString())}
	}
	header := http.Header{}
	for name, value := range in.Header.All() {
		header.Add(string(name), string(value))
	}
	header.Del("Host")
	header.Del("Cookie")
	// All writes the nameless cookie "=__Host-Http-guest=x", which any subdomain may set, without
	// its first "=": as the guest's own.
	var cookies []string
	for name, value := range in.Header.Cookies() {
		if len(name) > 0 {
			cookies = append(cookies, string(name)+"="+string(value))
		}
	}
	if len(cookies) > 0 {
		header.Set("Cookie", strings.Join(cookies, "; "))
	}
	r := &http.Request{
		Method:     string(in.Header.Method()),
		URL:        u,
		RequestURI: uri,
		Proto:      string(in.Header.Protocol()),
		Header:     header,
		Body:       http.NoBody,
		Host:       strings.Clone(c.Host()), // of X-Forwarded-Host, if the app trusts the proxy
		RemoteAddr: c.RequestCtx().RemoteAddr().String(),
		TLS:        c.RequestCtx().TLSConnectionState(),
	}
	r.ProtoMajor, r.ProtoMinor, _ = http.ParseHTTPVersion(r.Proto)
	return r.WithContext(withLocals(c))
}

// A locals is a context with a copy of the locals.
type locals struct {
	context.Context
	values []local
}

type local struct{ key, value any }

func withLocals(c fiber.Ctx) context.Context {
	var l locals
	c.RequestCtx().VisitUserValuesAll(func(key, value any) {
		// it may be part of a buffer, such as an account's ID from a header
		if s, ok := value.(string); ok {
			value = strings.Clone(s)
		}
		l.values = append(l.values, local{key, value})
	})
	l.Context = c.Context()
	return &l
}

func (l *locals) Value(key any) any {
	for _, v := range l.values {
		if v.key == key {
			return v.value
		}
	}
	return l.Context.Value(key)
}

// response returns the header that is going to be sent, or nil if we cannot change it any more.
func response(c fiber.Ctx, bounded bool) *fasthttp.ResponseHeader {
	switch {
	case !c.IsAbandoned():
		return &c.Response().Header
	case bounded: // for example by an outer timeout, which may be sending it
		return nil
	}
	// of an inner timeout, whose handler still runs
	if late := c.RequestCtx().LastTimeoutErrorResponse(); late != nil {
		return &late.Header
	}
	return nil
}

// merge copies the response's header into the net/http header that the exchange reads.
func merge(header http.Header, res *fasthttp.ResponseHeader) {
	theirs := lines(res)
	theirs["Set-Cookie"] = append(theirs["Set-Cookie"], header["Set-Cookie"]...)
	for name, values := range theirs {
		header[name] = values
	}
}

// replace sets the lines of the response to those of the header, and does not touch lines that are
// the same.
func replace(res *fasthttp.ResponseHeader, header http.Header) {
	if res == nil {
		return
	}
	old := lines(res)
	for name := range old {
		if len(header[name]) == 0 {
			remove(res, name)
		}
	}
	for name, values := range header {
		if slices.Equal(values, old[name]) {
			continue
		}
		remove(res, name)
		for _, value := range values {
			res.Add(name, value)
		}
	}
}

func remove(res *fasthttp.ResponseHeader, name string) {
	var spelt []string // in several spellings, if the app does not normalize headers
	for key := range res.All() {
		if strings.EqualFold(string(key), name) {
			spelt = append(spelt, string(key))
		}
	}
	for _, key := range spelt {
		res.Del(key)
	}
}

func lines(res *fasthttp.ResponseHeader) http.Header {
	h := http.Header{}
	if res != nil {
		for name, value := range res.All() {
			h.Add(string(name), string(value))
		}
	}
	return h
}
