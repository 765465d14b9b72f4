package adaptertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing/fstest"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
	"github.com/klauspost/compress/gzhttp"

	"github.com/guestkit/guest"
)

// Routes are the app's routes, written for net/http: a path that ends in / is a whole subtree. An
// app in a framework has the same, and uses the framework's own way where there is one: to respond
// with JSON, to return an error, to stream, to serve files, to compress. A path without a route is
// not found.
func Routes(m *guest.Manager) map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/json": func(w http.ResponseWriter, r *http.Request) {
			answerJSON(w, map[string]string{"hello": "world"})
		},
		"/redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/json", http.StatusSeeOther)
		},
		"/error": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "no", http.StatusTeapot)
		},
		"/panic/outside": func(w http.ResponseWriter, r *http.Request) { panic("on purpose") },
		"/panic/inside": Recover(
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { panic("on purpose") })).ServeHTTP,
		"/empty":        func(w http.ResponseWriter, r *http.Request) {},
		"/flush":        flushFirst,
		"/controller":   flushByController,
		"/sse":          events,
		"/static/":      http.StripPrefix("/static", http.FileServerFS(Files)).ServeHTTP,
		"/early":        earlyHints,
		"/early/public": func(w http.ResponseWriter, r *http.Request) { hint(w); public(w, r) },
		"/cached":       notModified,
		"/cached/add": func(w http.ResponseWriter, r *http.Request) {
			Cart.Add(r.Context(), "cached", 1)
			notModified(w, r)
		},
		"/gzip/json":    gzhttp.GzipHandler(http.HandlerFunc(long)),
		"/gzip/missing": gzhttp.GzipHandler(http.HandlerFunc(http.NotFound)),
		"/gorilla":      gorillaEcho,
		"/coder":        coderEcho,
		"/readfrom": func(w http.ResponseWriter, r *http.Request) {
			io.Copy(w, strings.NewReader(Text))
		},
		"/abilities": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, Abilities(w))
		},
		"/public":        public,
		"/public/string": func(w http.ResponseWriter, r *http.Request) { forAll(w); io.WriteString(w, "the same for all") },
		"/public/flush": func(w http.ResponseWriter, r *http.Request) {
			forAll(w)
			flushFirst(w, r)
		},
		"/public/empty": func(w http.ResponseWriter, r *http.Request) { forAll(w) },
		"/gone":         gone,
		"/whoami": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, guest.FromContext(r.Context()).GuestID())
		},
		"/add": func(w http.ResponseWriter, r *http.Request) {
			n, err := Cart.Add(r.Context(), r.URL.Query().Get("item"), 1)
			answer1(w, n, err)
		},
		"/add/flushed":  addFlushed,
		"/add/hijacked": addHijacked,
		"/cart": func(w http.ResponseWriter, r *http.Request) {
			all, err := Cart.All(r.Context())
			answer1(w, total(all), err)
		},
		"/claim": func(w http.ResponseWriter, r *http.Request) {
			receipt, err := m.Claim(w, r, r.URL.Query().Get("user"))
			answer1(w, receipt.Claimed, err)
		},
		"/claim/context": func(w http.ResponseWriter, r *http.Request) {
			receipt, err := m.ClaimContext(r.Context(), r.URL.Query().Get("user"))
			answer1(w, receipt.Claimed, err)
		},
	}
}

// Mux serves [Routes] with net/http, without any middleware.
func Mux(m *guest.Manager) *http.ServeMux {
	mux := http.NewServeMux()
	for path, h := range Routes(m) {
		mux.Handle(path, h)
	}
	return mux
}

// Recover responds to a panic of next with status 500.
func Recover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil && v != http.ErrAbortHandler {
				http.Error(w, "recovered", http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// Files are under /static/.
var Files = fstest.MapFS{"hello.txt": {Data: []byte("hello"), ModTime: time.Unix(1_800_000_000, 0)}}

// Text is long enough to be worth compressing and streaming.
var Text = strings.Repeat("a guest is a visitor without an account\n", 20_000)

// Abilities lists what a handler can do with a writer, by type assertion and by trying.
func Abilities(w http.ResponseWriter) string {
	_, flusher := w.(http.Flusher)
	_, hijacker := w.(http.Hijacker)
	_, readerFrom := w.(io.ReaderFrom)
	_, pusher := w.(http.Pusher)
	rc := http.NewResponseController(w)
	duplex := rc.EnableFullDuplex() == nil
	deadlines := rc.SetWriteDeadline(time.Time{}) == nil && rc.SetReadDeadline(time.Time{}) == nil
	return fmt.Sprintf("Flusher %v, Hijacker %v, ReaderFrom %v, Pusher %v, full duplex %v, deadlines %v, flush %v",
		flusher, hijacker, readerFrom, pusher, duplex, deadlines, rc.Flush() == nil)
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func answer1(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprint(w, v)
}

func total(cart map[string]int64) (sum int64) {
	for _, n := range cart {
		sum += n
	}
	return sum
}

func flushFirst(w http.ResponseWriter, r *http.Request) {
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	io.WriteString(w, "flushed")
}

func flushByController(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "flushed: %v", http.NewResponseController(w).Flush())
}

func hint(w http.ResponseWriter) {
	w.Header().Set("Link", "</style.css>; rel=preload; as=style")
	w.WriteHeader(http.StatusEarlyHints)
}

func earlyHints(w http.ResponseWriter, r *http.Request) {
	hint(w)
	w.Header().Set("Content-Type", "text/plain")
	io.WriteString(w, "hello")
}

func notModified(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", `"1"`)
	w.WriteHeader(http.StatusNotModified)
}

func long(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	io.WriteString(w, Text)
}

func forAll(w http.ResponseWriter) { w.Header().Set("Cache-Control", "public, max-age=60") }

func public(w http.ResponseWriter, r *http.Request) {
	forAll(w)
	w.Write([]byte("the same for all"))
}

// addFlushed writes after the header was sent.
func addFlushed(w http.ResponseWriter, r *http.Request) {
	http.NewResponseController(w).Flush()
	_, err := Cart.Add(r.Context(), "flushed", 1)
	fmt.Fprint(w, Late(err))
}

// addHijacked writes after it took over the connection.
func addHijacked(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, err = Cart.Add(r.Context(), "hijacked", 1)
	fmt.Fprintf(rw, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s", Late(err))
	rw.Flush()
}

// Late is the handler's response after a write that came when no cookie could be sent any more.
func Late(err error) string {
	if errors.Is(err, guest.ErrClaimed) {
		return "ErrClaimed"
	}
	return fmt.Sprint(err)
}

// events sends an event, and another one when the client has seen the first.
func events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	io.WriteString(w, "data: first\n\n")
	http.NewResponseController(w).Flush()
	Wait(r.Context(), r.URL.Query().Get("id"))
	io.WriteString(w, "data: second\n\n")
}

// gone begins to respond, and adds to the cart when the client has gone.
func gone(w http.ResponseWriter, r *http.Request) {
	io.WriteString(w, "begun")
	http.NewResponseController(w).Flush()
	<-r.Context().Done()
	_, err := Cart.Add(r.Context(), "gone", 1)
	Tell(r.URL.Query().Get("id"), err)
}

func gorillaEcho(w http.ResponseWriter, r *http.Request) {
	var u gorilla.Upgrader
	conn, err := u.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	kind, msg, err := conn.ReadMessage()
	if err == nil {
		conn.WriteMessage(kind, msg)
	}
}

func coderEcho(w http.ResponseWriter, r *http.Request) {
	conn, err := coder.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	kind, msg, err := conn.Read(r.Context())
	if err == nil {
		conn.Write(r.Context(), kind, msg)
	}
}

// Signals between a client and a handler of this process, by an ID that the client chooses.
var meetings sync.Map

func meeting(id string) chan error {
	c, _ := meetings.LoadOrStore(id, make(chan error, 1))
	return c.(chan error)
}

// Wait waits in a handler until the client calls Tell.
func Wait(ctx context.Context, id string) error {
	select {
	case err := <-meeting(id):
		return err
	case <-ctx.Done():
		return errors.New("no client called Tell:  " + ctx.Err().Error())
	}
}

// Tell ends the Wait of the same ID.
func Tell(id string, err error) { meeting(id) <- err }
