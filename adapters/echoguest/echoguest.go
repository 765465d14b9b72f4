// Package echoguest is the guest middleware for Echo v5. Handlers are given their visitor by
// [Visitor], keep data with the request's context, and claim with the response and the request:
//
//	e.Use(middleware.Recover(), echoguest.Middleware(guests))
//	e.POST("/cart/:sku", func(c *echo.Context) error {
//		n, err := Cart.Add(c.Request().Context(), c.Param("sku"), 1)
//		...
//	})
//	e.POST("/login", func(c *echo.Context) error {
//		receipt, err := guests.Claim(c.Response(), c.Request(), user.ID)
//		...
//	})
//
// The response may be compressed, flushed first, hijacked, or written by the HTTPErrorHandler: the
// middleware returns the handler's error unchanged.
package echoguest

import (
	"errors"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"

	"github.com/guestkit/guest"
)

var _ echo.MiddlewareConfigurator = Config{}

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
		return nil, errors.New("echoguest: no Manager")
	}
	if config.Skipper == nil {
		config.Skipper = middleware.DefaultSkipper
	}
	return config.middleware, nil
}

// middleware puts its writer under Echo's Response. So everything that is sent passes it, whatever
// the order of middleware, and errors too. Echo gives the Response the next request's writer before
// it reuses it.
func (config Config) middleware(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c *echo.Context) error {
		if config.Skipper(c) {
			return next(c)
		}
		res, err := echo.UnwrapResponse(c.Response())
		if err != nil { // a middleware outside set a response that has no Unwrap
			return err
		}
		x := config.Manager.Begin(res.Header(), c.Request())
		c.SetRequest(x.Request)
		res.ResponseWriter = x.Writer(res.ResponseWriter)
		err = next(c)
		x.End()
		return err
	}
}

// Visitor returns the visitor who sent the request, or nil outside the middleware. All methods of a
// nil Visitor are safe.
func Visitor(c *echo.Context) *guest.Visitor { return guest.FromContext(c.Request().Context()) }
