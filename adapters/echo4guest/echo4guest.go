// Package echo4guest is the guest middleware for Echo v4. Handlers are given their visitor by
// [Visitor], keep data with the request's context, and claim with the response and the request:
//
//	e.Use(middleware.Recover(), echo4guest.Middleware(guests))
//	e.POST("/cart/:sku", func(c echo.Context) error {
//		n, err := Cart.Add(c.Request().Context(), c.Param("sku"), 1)
//		...
//	})
//	e.POST("/login", func(c echo.Context) error {
//		receipt, err := guests.Claim(c.Response(), c.Request(), user.ID)
//		...
//	})
//
// The response may be compressed, flushed first, hijacked, or written by the HTTPErrorHandler: the
// middleware returns the handler's error unchanged. Mount the middleware outside Echo's deprecated
// Timeout: inside it the middleware does not see the header of errors, which an HTTPErrorHandler
// might make public.
package echo4guest

import (
	"errors"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/guestkit/guest"
)

// Config configures the middleware.
type Config struct {
	// Manager is required.
	Manager *guest.Manager

	// Skipper selects the requests that get no visitor: for them Visitor returns nil and data calls
	// return [guest.ErrNoVisitor]. nil: none.
	Skipper middleware.Skipper
}

// Middleware gives each request its visitor. Mount it outside the code that reads guest data, and
// inside what Config.Account needs. Like Echo's own it panics on an invalid configuration, which is
// a nil Manager; [Config.ToMiddleware] does not.
func Middleware(m *guest.Manager) echo.MiddlewareFunc {
	mw, err := Config{Manager: m}.ToMiddleware()
	if err != nil {
		panic(err)
	}
	return mw
}

// ToMiddleware returns the middleware, or an error if the Manager is nil.
func (config Config) ToMiddleware() (echo.MiddlewareFunc, error) {
	if config.Manager == nil {
		return nil, errors.New("echo4guest: no Manager")
	}
	if config.Skipper == nil {
		config.Skipper = middleware.DefaultSkipper
	}
	return config.middleware, nil
}

// middleware puts its writer under Echo's Response, so everything that is sent passes it, errors
// too. Echo gives the Response the next request's writer before it reuses it.
func (config Config) middleware(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if config.Skipper(c) {
			return next(c)
		}
		res := c.Response()
		x := config.Manager.Begin(res.Header(), c.Request())
		c.SetRequest(x.Request)
		res.Writer = x.Writer(res.Writer)
		err := next(c)
		x.End()
		if err != nil { // an outer Gzip removes the writer before the error is written
			res.Before(func() { x.Commit(res.Status) })
		}
		return err
	}
}

// Visitor returns the visitor who sent the request, or nil outside the middleware. All methods of a
// nil Visitor are safe.
func Visitor(c echo.Context) *guest.Visitor { return guest.FromContext(c.Request().Context()) }
