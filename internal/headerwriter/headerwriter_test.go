package headerwriter

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// abilities are what a handler can ask a writer for by type assertion.
type abilities struct{ Flush, Hijack, ReadFrom, Push, WriteString bool }

func abilitiesOf(w http.ResponseWriter) (a abilities) {
	_, a.Flush = w.(http.Flusher)
	_, a.Hijack = w.(http.Hijacker)
	_, a.ReadFrom = w.(io.ReaderFrom)
	_, a.Push = w.(http.Pusher)
	_, a.WriteString = w.(io.StringWriter)
	return a
}

// overHTTP serves one request by a real server, on HTTP/1.1 or HTTP/2.
func overHTTP(
	t *testing.T, http2 bool, h http.HandlerFunc,
) (infos []http.Header, res *http.Response, body string) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = http2
	s.StartTLS()
	defer s.Close()
	trace := &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		infos = append(infos, http.Header(h))
		return nil
	}}
	ctx := httptrace.WithClientTrace(t.Context(), trace)
	r, err := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err = s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if want := map[bool]int{false: 1, true: 2}[http2]; res.ProtoMajor != want {
		t.Errorf("the server speaks %s", res.Proto)
	}
	all, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return infos, res, string(all)
}

func onBoth(t *testing.T, f func(t *testing.T, http2 bool)) {
	t.Run("HTTP/1.1", func(t *testing.T) { f(t, false) })
	t.Run("HTTP/2", func(t *testing.T) { f(t, true) })
}

func nothing(int) {}

// The writers of servers keep their abilities. The result always has WriteString, as io.WriteString
// works on every writer.
func TestWrap_AbilitiesOfServers(t *testing.T) {
	var plain, wrapped abilities
	ask := func(w http.ResponseWriter, r *http.Request) {
		plain, wrapped = abilitiesOf(w), abilitiesOf(Wrap(w, nothing, nil))
	}
	for name, serve := range map[string]func(){
		"HTTP/1.1":   func() { overHTTP(t, false, ask) },
		"HTTP/2":     func() { overHTTP(t, true, ask) },
		"a recorder": func() { ask(httptest.NewRecorder(), nil) },
		"TimeoutHandler": func() {
			r := httptest.NewRequest("GET", "/", nil)
			h := http.TimeoutHandler(http.HandlerFunc(ask), time.Hour, "")
			h.ServeHTTP(httptest.NewRecorder(), r)
		},
	} {
		serve()
		want := plain
		want.WriteString = true
		if wrapped != want {
			t.Errorf("%s: %+v, want %+v", name, wrapped, want)
		}
	}
}

// able has every ability.
type able struct {
	http.ResponseWriter
	pushed string
}

func (w *able) Flush()                                {}
func (w *able) ReadFrom(src io.Reader) (int64, error) { return io.Copy(w.ResponseWriter, src) }

func (w *able) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, nil }

func (w *able) Push(target string, _ *http.PushOptions) error {
	w.pushed = target
	return nil
}

// Of each set of abilities the result has what one of its types has, and never one that w lacks,
// which would fail when it is used.
func TestWrap_Abilities(t *testing.T) {
	type (
		W = http.ResponseWriter
		F = http.Flusher
		H = http.Hijacker
		R = io.ReaderFrom
		P = http.Pusher
	)
	rec := httptest.NewRecorder()
	a := &able{ResponseWriter: rec}
	for _, tt := range []struct {
		w    http.ResponseWriter
		want string
	}{
		{struct{ W }{rec}, ""},
		{struct {
			W
			F
		}{rec, a}, "F"},
		{struct {
			W
			F
			H
		}{rec, a, a}, "FH"},
		{struct {
			W
			F
			H
			R
		}{rec, a, a, a}, "FHR"},
		{struct {
			W
			F
			H
			R
			P
		}{rec, a, a, a, a}, "FHR"},
		{struct {
			W
			F
			H
			P
		}{rec, a, a, a}, "FH"},
		{struct {
			W
			F
			P
		}{rec, a, a}, "FP"},
		{struct {
			W
			P
		}{rec, a}, "P"},
		{struct {
			W
			F
			R
		}{rec, a, a}, "F"},
		{struct {
			W
			F
			R
			P
		}{rec, a, a, a}, "FP"},
		{struct {
			W
			R
			P
		}{rec, a, a}, "P"},
		{struct {
			W
			H
			P
		}{rec, a, a}, "P"},
		{struct {
			W
			H
			R
			P
		}{rec, a, a, a}, "P"},
		{struct {
			W
			H
		}{rec, a}, ""},
		{struct {
			W
			R
		}{rec, a}, ""},
		{struct {
			W
			H
			R
		}{rec, a, a}, ""},
	} {
		has := func(letter string) bool { return strings.Contains(tt.want, letter) }
		want := abilities{has("F"), has("H"), has("R"), has("P"), true}
		if got := abilitiesOf(Wrap(tt.w, nothing, nil)); got != want {
			t.Errorf("of %T: %+v, want %+v", tt.w, got, want)
		}
	}
}

// Whichever way a handler sends the header, commit is called before, with the status that is sent:
// the client sees what commit adds.
func TestWrap_CommitComesBeforeTheHeader(t *testing.T) {
	for _, tt := range []struct {
		name    string
		handler func(w http.ResponseWriter) error
		status  int
		body    string
		commits []int
	}{
		{"WriteHeader", func(w http.ResponseWriter) error {
			w.WriteHeader(404)
			return nil
		}, 404, "", []int{404}},
		{"WriteHeader and Write", func(w http.ResponseWriter) error {
			w.WriteHeader(201)
			_, err := w.Write([]byte("hello"))
			return err
		}, 201, "hello", []int{201, 200}},
		{"Write", func(w http.ResponseWriter) error {
			_, err := w.Write([]byte("hello"))
			return err
		}, 200, "hello", []int{200}},
		{"WriteString", func(w http.ResponseWriter) error {
			_, err := io.WriteString(w, "hello")
			return err
		}, 200, "hello", []int{200}},
		{"ReadFrom", func(w http.ResponseWriter) error { // HTTP/2 has none: io.Copy uses Write
			_, err := io.Copy(w, io.LimitReader(strings.NewReader("hello"), 5))
			return err
		}, 200, "hello", []int{200}},
		{"Flush", func(w http.ResponseWriter) error {
			w.(http.Flusher).Flush()
			return nil
		}, 200, "", []int{200}},
		{"ResponseController.Flush", func(w http.ResponseWriter) error {
			return http.NewResponseController(w).Flush()
		}, 200, "", []int{200}},
		{"nothing", func(http.ResponseWriter) error { return nil }, 200, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, http2 bool) {
				var commits []int
				_, res, body := overHTTP(t, http2, func(w http.ResponseWriter, r *http.Request) {
					commit := func(status int) {
						commits = append(commits, status)
						w.Header().Add("Committed", strconv.Itoa(status))
					}
					if err := tt.handler(Wrap(w, commit, nil)); err != nil {
						t.Error(err)
					}
				})
				if res.StatusCode != tt.status || body != tt.body {
					t.Errorf("%s: %q, want %d: %q", res.Status, body, tt.status, tt.body)
				}
				if !slices.Equal(commits, tt.commits) {
					t.Errorf("commits %v, want %v", commits, tt.commits)
				}
				var sent []string // only the first call is before the header
				if len(tt.commits) > 0 {
					sent = []string{strconv.Itoa(tt.status)}
				}
				if got := res.Header["Committed"]; !slices.Equal(got, sent) {
					t.Errorf("committed before the header: %q, want %q", got, sent)
				}
			})
		})
	}
}

// ReadFrom is the server's own, which may send a file without copying it.
func TestWrap_ReadFromIsTheServers(t *testing.T) {
	var used bool
	rec := httptest.NewRecorder()
	w := Wrap(struct {
		http.ResponseWriter
		http.Flusher
		http.Hijacker
		io.ReaderFrom
	}{rec, rec, &able{}, readerFunc(func(src io.Reader) (int64, error) {
		used = true
		return io.Copy(rec, src)
	})}, nothing, nil)
	n, err := w.(io.ReaderFrom).ReadFrom(io.LimitReader(strings.NewReader("hello"), 4))
	if n != 4 || err != nil || !used || rec.Body.String() != "hell" {
		t.Errorf("%d, %v, %q; used: %v", n, err, rec.Body, used)
	}
}

type readerFunc func(src io.Reader) (int64, error)

func (f readerFunc) ReadFrom(src io.Reader) (int64, error) { return f(src) }

// A hijacked connection is committed with 101, and then the handler's.
func TestWrap_Hijack(t *testing.T) {
	type hijack func(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error)
	for name, hijack := range map[string]hijack{
		"Hijacker": func(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) {
			return w.(http.Hijacker).Hijack()
		},
		"ResponseController": func(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) {
			return http.NewResponseController(w).Hijack()
		},
	} {
		t.Run(name, func(t *testing.T) {
			var commits []int
			_, _, body := overHTTP(t, false, func(w http.ResponseWriter, r *http.Request) {
				commit := func(status int) { commits = append(commits, status) }
				conn, rw, err := hijack(Wrap(w, commit, nil))
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				rw.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
				rw.Flush()
			})
			if body != "hello" || !slices.Equal(commits, []int{http.StatusSwitchingProtocols}) {
				t.Errorf("%q, commits %v", body, commits)
			}
		})
	}
}

// A 1xx goes through inform, which can keep a line of the header out of it, and commits nothing.
// 101 is final.
func TestWrap_Informational(t *testing.T) {
	onBoth(t, func(t *testing.T, http2 bool) {
		var commits []int
		infos, res, _ := overHTTP(t, http2, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Ours", "1")
			inform := func(send func()) {
				w.Header().Del("Ours")
				send()
				w.Header().Set("Ours", "2")
			}
			w = Wrap(w, func(status int) { commits = append(commits, status) }, inform)
			for _, status := range []int{102, 103} {
				w.Header().Set("Link", "</style.css>; rel=preload")
				w.WriteHeader(status)
			}
			if len(commits) > 0 {
				t.Errorf("a 1xx commits %v", commits)
			}
			w.WriteHeader(204)
		})
		if len(infos) != 2 || !slices.Equal(commits, []int{204}) || res.Header.Get("Ours") != "2" {
			t.Errorf("%d informational responses, commits %v, %v", len(infos), commits, res.Header)
		}
		for _, h := range infos {
			if h.Get("Link") == "" || h["Ours"] != nil {
				t.Errorf("a 1xx has %v", h)
			}
		}
	})
	for status, want := range map[int]bool{
		99: false, 100: true, 101: false, 102: true, 103: true, 199: true, 200: false, 304: false,
	} {
		if Informational(status) != want {
			t.Errorf("%d is informational: %v", status, !want)
		}
	}
	var commits []int
	w := Wrap(httptest.NewRecorder(), func(status int) { commits = append(commits, status) }, nil)
	if w.WriteHeader(101); !slices.Equal(commits, []int{101}) {
		t.Errorf("101 commits %v", commits)
	}
}

// http.ResponseController finds what else the server's writer can do, and says what it cannot.
func TestWrap_ResponseController(t *testing.T) {
	onBoth(t, func(t *testing.T, http2 bool) {
		overHTTP(t, http2, func(w http.ResponseWriter, r *http.Request) {
			c := http.NewResponseController(Wrap(w, nothing, nil))
			if err := c.SetWriteDeadline(time.Now().Add(time.Hour)); err != nil {
				t.Error(err)
			}
			if err := c.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
				t.Error(err)
			}
			err := c.EnableFullDuplex()
			if err != nil && !(http2 && errors.Is(err, http.ErrNotSupported)) {
				t.Error(err)
			}
		})
	})
	w := struct{ http.ResponseWriter }{httptest.NewRecorder()}
	bare := http.NewResponseController(Wrap(w, nothing, nil))
	if err := bare.Flush(); !errors.Is(err, http.ErrNotSupported) {
		t.Errorf("Flush of a writer without it: %v", err)
	}
	if _, _, err := bare.Hijack(); !errors.Is(err, http.ErrNotSupported) {
		t.Errorf("Hijack of a writer without it: %v", err)
	}
}

func TestWrap_Push(t *testing.T) {
	a := &able{}
	w := Wrap(struct {
		http.ResponseWriter
		http.Pusher
	}{httptest.NewRecorder(), a}, func(int) { t.Error("a push commits the header") }, nil)
	if err := w.(http.Pusher).Push("/style.css", nil); err != nil || a.pushed != "/style.css" {
		t.Errorf("%v, pushed %q", err, a.pushed)
	}
}

// Gin calls CloseNotify on every writer.
func TestWrap_CloseNotify(t *testing.T) {
	type closeNotifier interface{ CloseNotify() <-chan bool }
	overHTTP(t, false, func(w http.ResponseWriter, r *http.Request) {
		if Wrap(w, nothing, nil).(closeNotifier).CloseNotify() == nil {
			t.Error("the server's is not found")
		}
	})
	if c := Wrap(httptest.NewRecorder(), nothing, nil).(closeNotifier).CloseNotify(); c != nil {
		t.Errorf("of a writer without one: %v", c)
	}
}
