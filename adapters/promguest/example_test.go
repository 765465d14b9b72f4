package promguest_test

import (
	"log"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/adapters/promguest"
	"github.com/guestkit/guest/memstore"
)

func ExampleNew() {
	registry := prometheus.NewRegistry()
	hooks, err := promguest.New(registry)
	if err != nil {
		log.Fatal(err)
	}
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Hooks:   hooks,
	})
	if err != nil {
		log.Fatal(err)
	}
	pages := http.NewServeMux()
	http.Handle("/", guests.Middleware(pages))
	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{})) // not for visitors
}

// A store in memory counts lost carts.
func ExampleLost() {
	store := memstore.New(memstore.Config{})
	if err := promguest.Lost(prometheus.NewRegistry(), store.Lost); err != nil {
		log.Fatal(err)
	}
	_ = guest.Config{Store: store}
}
