package otelguest_test

import (
	"log"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/adapters/otelguest"
)

func ExampleNew() {
	var store guest.Store // redisstore.New(…)
	hooks, err := otelguest.New(otelguest.Config{System: "redis"})
	if err != nil {
		log.Fatal(err)
	}
	guests, err := guest.New(guest.Config{
		Store:   store,
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Hooks:   hooks,
	})
	if err != nil {
		log.Fatal(err)
	}
	_ = guests
}
