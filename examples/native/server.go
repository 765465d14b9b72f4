package main

import (
	"fmt"
	"net/http"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

var Cart = guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))

// config is like that of any server, with one more line.
func config(secret string) guest.Config {
	return guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte(secret)},
		Data:    []guest.Kind{Cart},
		Header:  "Guest-Token",
		Account: account,
		Cookie:  guest.Cookie{Insecure: true}, // plain http, for this demo only
	}
}

// account stands for the server's own sessions or access tokens.
func account(r *http.Request) string { return r.Header.Get("Demo-User") }

func app(guests *guest.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/cart/{sku}", func(w http.ResponseWriter, r *http.Request) {
		change := map[string]int64{"POST": 1}[r.Method] // GET: none
		n, err := Cart.Add(r.Context(), r.PathValue("sku"), change)
		if err != nil {
			http.Error(w, "the cart is away", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, n)
	})
	mux.Handle("POST /claim", guests.ClaimHandler(func(r *http.Request) (string, error) { return account(r), nil }))
	return guests.Middleware(mux)
}
