// Quickstart is the README's program: a cart for every visitor, which becomes the account's at
// sign-in.
package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

var Cart = guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))

func main() {
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("change me: 32 random bytes or more")},
		Data:    []guest.Kind{Cart},
		Account: func(r *http.Request) string { return r.Header.Get("Demo-User") }, // your own sessions here
		Cookie:  guest.Cookie{Insecure: true},                                      // plain http, for this demo only
	})
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/cart/{sku}", func(w http.ResponseWriter, r *http.Request) {
		change := map[string]int64{"POST": 1}[r.Method] // GET: none
		n, err := Cart.Add(r.Context(), r.PathValue("sku"), change)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, "%s: %d\n", r.PathValue("sku"), n)
	})
	http.Handle("POST /login", guests.ClaimHandler(func(r *http.Request) (string, error) { return r.FormValue("user"), nil }))
	log.Fatal(http.ListenAndServe("localhost:8080", guests.Middleware(http.DefaultServeMux)))
}
