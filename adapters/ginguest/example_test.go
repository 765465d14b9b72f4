package ginguest_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/gin-gonic/gin"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/adapters/ginguest"
	"github.com/guestkit/guest/memstore"
)

func Example() {
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Data:    []guest.Kind{Cart},
	})
	if err != nil {
		log.Fatal(err)
	}

	engine := gin.New()
	engine.Use(gin.Recovery(), ginguest.Middleware(guests))
	engine.POST("/cart/:sku", func(c *gin.Context) {
		n, err := Cart.Add(c.Request.Context(), c.Param("sku"), 1)
		if err != nil {
			c.AbortWithError(http.StatusServiceUnavailable, err)
			return
		}
		c.JSON(http.StatusOK, gin.H{"amount": n, "guest": ginguest.Visitor(c).IsGuest()})
	})
	engine.POST("/login", func(c *gin.Context) {
		user := struct{ ID string }{"ann"}                         // your app has checked the password
		receipt, err := guests.Claim(c.Writer, c.Request, user.ID) // never a reason to fail the login
		if err != nil {
			c.Error(err)
		}
		c.JSON(http.StatusOK, receipt.Kinds)
	})

	w := httptest.NewRecorder()
	engine.ServeHTTP(w, httptest.NewRequest("POST", "/cart/tea", nil))
	fmt.Println(w.Body)
	// Output: {"amount":1,"guest":true}
}
