package frameworks

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func (b *browser) dial() (*websocket.Conn, *http.Response, error) {
	return websocket.Dial(b.Context(), b.url+"/ws", &websocket.DialOptions{HTTPClient: b.Client})
}

// send sends a message and checks the answer.
func (b *browser) send(conn *websocket.Conn, sku, want string) {
	b.Helper()
	if got, err := b.exchange(conn, sku); err != nil || got != want {
		b.Fatalf("%s, %v; want %s", got, err, want)
	}
}

func (b *browser) exchange(conn *websocket.Conn, sku string) (string, error) {
	// for an answer that comes at once
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
	defer cancel()
	if err := conn.Write(ctx, websocket.MessageText, []byte(sku)); err != nil {
		return "", err
	}
	_, answer, err := conn.Read(ctx)
	return string(answer), err
}

func TestWebSocket(t *testing.T) {
	guests := newGuests(t)
	mux := http.NewServeMux()
	mux.Handle("/", WebSocket(guests))
	mux.Handle("POST /", Chi(guests))
	b := newBrowser(t, mux)
	if _, res, err := b.dial(); err == nil || res.StatusCode != 403 || len(b.cookies()) != 0 {
		t.Errorf("a handshake without a guest: %v, %v; cookies %v", res, err, b.cookies())
	}

	b.says("GET", "/", 200, "the page that opens the socket")
	conn, _, err := b.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	b.send(conn, "tea", "1")
	b.says("POST", "/cart/tea", 200, "2") // the same guest's
	b.send(conn, "tea", "3")

	b.says("POST", "/login?user=ann&password=tulip", 200, "hello ann")
	if _, err := b.exchange(conn,
		"tea"); websocket.CloseStatus(err) != websocket.StatusTryAgainLater {
		t.Errorf("a message after the claim: %v", err)
	}
	hasCart(t, guests, "ann", "tea", 3)

	b.says("GET", "/", 200, "the page that opens the socket")
	conn, _, err = b.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	b.send(conn, "tea", "1")
}
