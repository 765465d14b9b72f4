package guest

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// response is the writer of a watched response: it commits the header just before it is sent.
type response struct {
	http.ResponseWriter
	x Exchange
}

func (w *response) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols { // others of the 1xx are followed by the real one
		w.x.Commit()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	w.x.Commit()
	return w.ResponseWriter.Write(b)
}

func (w *response) WriteString(s string) (int, error) {
	w.x.Commit()
	return io.WriteString(w.ResponseWriter, s)
}

func (w *response) ReadFrom(src io.Reader) (int64, error) {
	w.x.Commit()
	return io.Copy(w.ResponseWriter, src)
}

func (w *response) Flush() { w.FlushError() }

func (w *response) FlushError() error {
	w.x.Commit()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.x.Commit()
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

func (w *response) Push(target string, opts *http.PushOptions) error {
	if p, ok := w.ResponseWriter.(http.Pusher); ok {
		return p.Push(target, opts)
	}
	return http.ErrNotSupported
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
