package guest

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// A response is the writer of a watched response: it commits the header just before it is sent. Handlers ask a writer
// by type assertion what it can do, so there is one type for each set of abilities: see Writer.
type response struct {
	http.ResponseWriter
	x Exchange
}

func (w *response) WriteHeader(status int) {
	if informational(status) {
		w.x.Inform(func() { w.ResponseWriter.WriteHeader(status) })
		return
	}
	w.x.Commit(status)
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	w.x.Commit(http.StatusOK)
	return w.ResponseWriter.Write(b)
}

func (w *response) WriteString(s string) (int, error) {
	w.x.Commit(http.StatusOK)
	return io.WriteString(w.ResponseWriter, s)
}

// FlushError is for http.ResponseController.
func (w *response) FlushError() error {
	w.x.Commit(http.StatusOK)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// CloseNotify is for Gin, which takes it for granted. Without the server's there is nothing to tell.
func (w *response) CloseNotify() <-chan bool {
	if n, ok := w.ResponseWriter.(interface{ CloseNotify() <-chan bool }); ok {
		return n.CloseNotify()
	}
	return nil
}

type (
	flushes struct{ *response }
	hijacks struct{ flushes } // as the writers of frameworks do
	reads   struct{ hijacks } // as HTTP/1 does
	pushes  struct{ *response }
	streams struct{ pushes } // as HTTP/2 does
)

func (w flushes) Flush() { w.FlushError() }
func (w streams) Flush() { w.FlushError() }

func (w hijacks) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.x.Commit(http.StatusSwitchingProtocols)
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

func (w reads) ReadFrom(src io.Reader) (int64, error) {
	w.x.Commit(http.StatusOK)
	return io.Copy(w.ResponseWriter, src)
}

func (w pushes) Push(target string, opts *http.PushOptions) error {
	return w.ResponseWriter.(http.Pusher).Push(target, opts)
}

// Writer returns a writer that calls Commit and Inform when they are due, for frameworks that write to an
// [http.ResponseWriter]. It has the abilities of w; of a set that no server has, those that have a type. If nothing is
// watched it is w itself.
func (x Exchange) Writer(w http.ResponseWriter) http.ResponseWriter {
	if !x.Watched() {
		return w
	}
	res := &response{w, x}
	_, flush := w.(http.Flusher)
	_, hijack := w.(http.Hijacker)
	_, read := w.(io.ReaderFrom)
	_, push := w.(http.Pusher)
	switch {
	case flush && hijack && read:
		return reads{hijacks{flushes{res}}}
	case flush && hijack:
		return hijacks{flushes{res}}
	case flush && push:
		return streams{pushes{res}}
	case flush:
		return flushes{res}
	case push:
		return pushes{res}
	}
	return res
}
