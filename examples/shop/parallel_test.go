package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// A page from a CDN, which sets no cookie, whose script sends six requests at once before the
// browser has a guest.
const firstRequests = `<!doctype html><p id="state">loading</p><script>
Promise.all([1, 2, 3, 4, 5, 6].map(n => fetch("/add/plant-" + n, {method: "POST"})))
	.then(() => fetch("/cart")).then(r => r.text()).then(t => document.getElementById("state").textContent = t)
</script>`

func TestParallelFirstRequestsInABrowser(t *testing.T) {
	guests, err := newGuests(memstore.New(memstore.Config{}), [][]byte{[]byte("a secret of the tests, 32 bytes+")}, true, guest.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	var together sync.WaitGroup // the six requests of one page: none is answered before all have come
	together.Add(6)
	app := http.NewServeMux()
	app.HandleFunc("POST /add/{sku}", func(w http.ResponseWriter, r *http.Request) {
		together.Done()
		together.Wait()
		if _, err := Cart.Add(r.Context(), r.PathValue("sku"), 1); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	app.HandleFunc("GET /cart", func(w http.ResponseWriter, r *http.Request) {
		cart, err := Cart.All(r.Context())
		fmt.Fprint(w, len(cart), " plants, ", err)
	})
	site := http.NewServeMux()
	site.HandleFunc("GET /static", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, firstRequests)
	})
	site.Handle("/", guests.Middleware(app))
	server := httptest.NewServer(site)
	defer server.Close()

	b := newBrowser(t, server.URL)
	b.open("/static")
	b.sees("state", "6 plants, <nil>")
	for range 2 { // a response clears four cookies
		b.open("/cart")
	}
	if cookies := b.guestCookies(); len(cookies) != 1 || cookies["guest"] == "" {
		t.Errorf("cookies %v", cookies)
	}
}
