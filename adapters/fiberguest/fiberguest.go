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
// Take the context while the handler runs, and give it to streams, hijacked connections and goroutines: Fiber uses c
// again for other requests. c is a context too, but has no visitor. A net/http handler behind Fiber's
// adaptor.HTTPHandlerWithContext gets the visitor's context by adaptor.LocalContextFromHTTPRequest.
//
// ReadBufferSize bounds a request's header; Fiber's default is 4 KiB. Each of a new browser's parallel first requests
// gets a cookie of some 150 bytes; later requests make one of them, and clear four each. Too many, and Fiber answers 431.
//
// # Config.Account
//
// Account, Admit and the hooks get a copy of the request, without its body. The locals set before Middleware are in
// its context, under the same keys, so that the functions of Fiber's own middleware that take a context work too:
//
//	Account: func(r *http.Request) string {
//		user, _ := r.Context().Value("user").(string) // c.Locals("user", id)
//		return user
//	}
//
// # Errors and panics
//
// What an ErrorHandler does to the header must be known before a cookie goes with it. So Middleware gives an error that
// a handler returns to the ErrorHandler itself, as Fiber's logger does: whoever is mounted before sees the answer, and
// no error. A panic passes. If it is recovered outside, its answer comes when the header is settled: should the
// ErrorHandler make such answers cacheable by others, mount recover inside as well.
//
// # Not by the adaptor
//
// Do not mount guests.Middleware by adaptor.HTTPMiddleware, which runs net/http middleware to its end before the
// handler begins. Nobody would watch the response: a page that the handler makes public goes to the cache with its
// visitor's cookie, and a claimed guest cannot be replaced. c.Context() would have no visitor, and of repeated request
// headers only the last would be left.
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

// Middleware gives each request its visitor. Mount it after recover and what Config.Account needs, and before all
// else that answers: the logger, compress, cache, timeout, and what reads guest data.
func Middleware(m *guest.Manager) fiber.Handler {
	return func(c fiber.Ctx) error {
		_, bounded := c.Context().Deadline()
		// What we say goes into the response at the end only. Fiber sends nothing before, and no cache, timeout or
		// idempotency middleware inside can keep a copy of it.
		header := http.Header{}
		x := m.Begin(header, request(c))
		c.SetContext(x.Request.Context())

		panicked := true
		defer func() {
			res := response(c, bounded)
			merge(header, res)
			switch {
			case panicked: // who recovers it will answer
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

// Context returns the context for data calls, claims and all else in guest that asks for one. It is c.Context(): who
// replaces that by c.SetContext derives the new one from it. It stays good when Fiber uses c again.
func Context(c fiber.Ctx) context.Context { return c.Context() }

// Visitor returns the request's visitor, or nil without Middleware; methods of a nil Visitor are safe.
func Visitor(c fiber.Ctx) *guest.Visitor { return guest.FromContext(c.Context()) }

// request copies the request, but for its body: fasthttp uses its buffers again.
func request(c fiber.Ctx) *http.Request {
	in := c.Request()
	uri := string(in.Header.RequestURI())
	u, err := url.ParseRequestURI(uri)
	if err != nil { // fasthttp takes what net/http refuses
		u = &url.URL{Path: string(in.URI().Path()), RawQuery: string(in.URI().QueryString())}
	}
	header := http.Header{}
	for name, value := range in.Header.All() {
		header.Add(string(name), string(value))
	}
	header.Del("Host")
	header.Del("Cookie")
	// All writes the nameless cookie "=__Host-Http-guest=x", which any subdomain may set, without its first "=":
	// as the guest's own.
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
		if s, ok := value.(string); ok { // it may be of a buffer: an account's ID, from a header
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

// response returns the header that is going to be sent; nil if it is out of our hands.
func response(c fiber.Ctx, bounded bool) *fasthttp.ResponseHeader {
	switch {
	case !c.IsAbandoned():
		return &c.Response().Header
	case bounded: // by a timeout outside, perhaps, which may be sending
		return nil
	}
	if late := c.RequestCtx().LastTimeoutErrorResponse(); late != nil { // of a timeout inside: its handler still runs
		return &late.Header
	}
	return nil
}

// merge sees the response through our header, in which a handler of net/http would have written.
func merge(header http.Header, res *fasthttp.ResponseHeader) {
	theirs := lines(res)
	theirs["Set-Cookie"] = append(theirs["Set-Cookie"], header["Set-Cookie"]...)
	for name, values := range theirs {
		header[name] = values
	}
}

// replace makes the lines of the response those of the header, and leaves alone what is the same.
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
	var spelt []string // in several ways, if the app does not normalize headers
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
