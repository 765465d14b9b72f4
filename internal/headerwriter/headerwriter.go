// Package headerwriter wraps an [http.ResponseWriter] so that a function is called just before the
// header is sent.
package headerwriter

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// Informational reports whether this is the status of a response that precedes the final one (RFC
// 9110, section 15.2). 101 is final, because another protocol follows it.
func Informational(status int) bool {
	return 100 <= status && status < 200 && status != http.StatusSwitchingProtocols
}

// Wrap returns a writer that calls commit before the final header is sent, with its status: 200 if
// the handler has set none, 101 for a hijack. It may call commit again later. Around an
// informational response (1xx) it calls inform, with the function that sends it.
//
// Handlers find out by type assertion which optional methods a writer has. So there is one type for
// each set of optional methods that a writer of a server has. For any other set, the result has the
// methods that one of the types has.
func Wrap(
	w http.ResponseWriter, commit func(status int), inform func(send func()),
) http.ResponseWriter {
	res := &response{w, commit, inform}
	_, flush := w.(http.Flusher)
	_, hijack := w.(http.Hijacker)
	_, read := w.(io.ReaderFrom)
	_, push := w.(http.Pusher)
	switch {
	case flush && hijack && read:
		return readerFrom{hijacker{flusher{res}}}
	case flush && hijack:
		return hijacker{flusher{res}}
	case flush && push:
		return flushPusher{pusher{res}}
	case flush:
		return flusher{res}
	case push:
		return pusher{res}
	}
	return res
}

type response struct {
	http.ResponseWriter
	commit func(status int)
	inform func(send func())
}

func (w *response) WriteHeader(status int) {
	if Informational(status) {
		w.inform(func() { w.ResponseWriter.WriteHeader(status) })
		return
	}
	w.commit(status)
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	w.commit(http.StatusOK)
	return w.ResponseWriter.Write(b)
}

func (w *response) WriteString(s string) (int, error) {
	w.commit(http.StatusOK)
	return io.WriteString(w.ResponseWriter, s)
}

// FlushError is for http.ResponseController.
func (w *response) FlushError() error {
	w.commit(http.StatusOK)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// CloseNotify is for Gin, which calls it on every writer. It returns nil if the server's writer has
// none.
func (w *response) CloseNotify() <-chan bool {
	if n, ok := w.ResponseWriter.(interface{ CloseNotify() <-chan bool }); ok {
		return n.CloseNotify()
	}
	return nil
}

type (
	flusher     struct{ *response }
	hijacker    struct{ flusher }  // as writers of frameworks have it
	readerFrom  struct{ hijacker } // as the writer of HTTP/1 has it
	pusher      struct{ *response }
	flushPusher struct{ pusher } // as the writer of HTTP/2 has it
)

func (w flusher) Flush()     { w.FlushError() }
func (w flushPusher) Flush() { w.FlushError() }

func (w hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.commit(http.StatusSwitchingProtocols)
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

func (w readerFrom) ReadFrom(src io.Reader) (int64, error) {
	w.commit(http.StatusOK)
	return io.Copy(w.ResponseWriter, src)
}

func (w pusher) Push(target string, opts *http.PushOptions) error {
	return w.ResponseWriter.(http.Pusher).Push(target, opts)
}
