package frameworks

import (
	"fmt"
	"net/http"

	"github.com/coder/websocket"

	"github.com/guestkit/guest"
)

// WebSocket adds the item that each message names. The visitor is that of the handshake, as long as
// the connection lasts.
func WebSocket(guests *guest.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "the page that opens the socket") // and brings the cookie
	})
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
		if v := guest.FromContext(r.Context()); !v.IsGuest() && v.AccountID() == "" {
			http.Error(w, "load the page first", http.StatusForbidden)
			return
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		for {
			_, sku, err := conn.Read(r.Context())
			if err != nil {
				return
			}
			n, err := Cart.Add(r.Context(), string(sku), 1)
			if err != nil {
				conn.Close(websocket.StatusTryAgainLater, "connect anew") // the guest was claimed meanwhile
				return
			}
			if conn.Write(r.Context(), websocket.MessageText, fmt.Append(nil, n)) != nil {
				return
			}
		}
	})
	return guests.Middleware(mux)
}
