package echo4guest_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/adapters/echo4guest"
	"github.com/guestkit/guest/memstore"
)

var Cart = guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))

func Example() {
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Data:    []guest.Kind{Cart},
	})
	if err != nil {
		log.Fatal(err)
	}

	e := echo.New()
	e.Use(middleware.Recover(), echo4guest.Middleware(guests))
	e.POST("/cart/:sku", func(c echo.Context) error {
		n, err := Cart.Add(c.Request().Context(), c.Param("sku"), 1) // the same line for guests and members
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, n)
	})
	e.POST("/login", func(c echo.Context) error {
		user := "ann" // the app has checked the password
		receipt, err := guests.Claim(c.Response(), c.Request(), user)
		if err != nil { // never a reason to fail the login
			slog.Warn("claim", "error", err)
		}
		return c.JSON(http.StatusOK, receipt.Claimed)
	})

	server := httptest.NewTLSServer(e)
	defer server.Close()
	browser := server.Client()
	browser.Jar, _ = cookiejar.New(nil)
	for _, path := range []string{"/cart/tea", "/cart/tea", "/login"} {
		res, err := browser.Post(server.URL+path, "", nil)
		if err != nil {
			log.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		fmt.Print(path, " ", string(body))
	}
	cart, err := Cart.All(guests.As(context.Background(), "ann"))
	fmt.Println(cart, err)

	// Output:
	// /cart/tea 1
	// /cart/tea 2
	// /login true
	// map[tea:2] <nil>
}
