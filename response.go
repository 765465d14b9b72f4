package guest

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
)

// Two visitors must never share an identity through a cache. So the response that carries a guest's token is
// watched for one thing: a handler that makes it cacheable by others. The response of a known visitor is not
// watched, unless its request may write (then its guest may turn out claimed, and the visitor needs a fresh one).

const private = "private, no-store"

// mayNeedHeader reports whether the response carries one of our lines, or may have to.
func (v *Visitor) mayNeedHeader(r *http.Request) bool {
	switch {
	case len(v.lines) > 0:
		return true
	case v.key == "" || v.account != "":
		return false
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return false
	}
	return true
}

// stamp brings the header in line with what the visitor needs. The caller holds v.mu or is alone.
func (v *Visitor) stamp(h http.Header) {
	addVary(h)
	v.wipe(h)
	if len(v.lines) == 0 {
		return
	}
	for _, l := range v.lines {
		h.Add(l.header, l.value)
	}
	if !directive(h, "Cache-Control", "no-store") {
		h.Set("Cache-Control", private)
	}
}

// wipe removes our lines from the header.
func (v *Visitor) wipe(h http.Header) {
	name := v.m.cfg.Cookie.Name
	lines := slices.DeleteFunc(h["Set-Cookie"], func(line string) bool {
		rest, ours := strings.CutPrefix(line, name)
		return ours && (strings.HasPrefix(rest, "=") || strings.HasPrefix(rest, "."))
	})
	if len(lines) > 0 {
		h["Set-Cookie"] = lines
	} else {
		delete(h, "Set-Cookie")
	}
	if v.m.cfg.Header != "" {
		h.Del(v.m.cfg.Header)
	}
}

func addVary(h http.Header) {
	for _, line := range h["Vary"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); name == "*" || strings.EqualFold(name, "Cookie") {
				return
			}
		}
	}
	h.Add("Vary", "Cookie")
}

// response is the writer of a watched response.
type response struct {
	http.ResponseWriter
	v         *Visitor
	committed bool
}

// commit settles the header, just before it is sent.
func (w *response) commit() {
	if w.committed {
		return
	}
	w.committed = true
	v, h := w.v, w.Header()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.open = false
	if shared(h) {
		if !v.wrote {
			v.lines = nil // the page stays public, and the visitor is asked again next time
			v.wipe(h)
			if v.isNew {
				v.key, v.isNew = "", false
			}
			if h.Get("Cache-Control") == private {
				h.Del("Cache-Control")
			}
		} else {
			unshare(h)
		}
	}
	v.stamp(h)
}

// shared reports whether the handler allows caches that serve others to keep the response.
func shared(h http.Header) bool {
	if !directive(h, "Cache-Control", "no-store") && !directive(h, "Cache-Control", "private") &&
		(directive(h, "Cache-Control", "public") || directive(h, "Cache-Control", "s-maxage")) {
		return true
	}
	for name := range h {
		if forShared(name) && !directive(h, name, "no-store") && !directive(h, name, "private") {
			return true
		}
	}
	return false
}

// forShared: RFC 9213 targeted fields and their elder relatives, which tell shared caches alone.
func forShared(name string) bool {
	return name == "Surrogate-Control" || name == "X-Accel-Expires" || name == "Edge-Control" ||
		strings.HasSuffix(name, "Cdn-Cache-Control")
}

func unshare(h http.Header) {
	for name := range h {
		if forShared(name) {
			delete(h, name)
		}
	}
	h.Set("Cache-Control", private)
}

// directive reports whether a header with the syntax of Cache-Control has this directive.
func directive(h http.Header, header, name string) bool {
	for _, line := range h[header] {
		for part := range strings.SplitSeq(line, ",") {
			part, _, _ = strings.Cut(part, "=")
			if strings.EqualFold(strings.TrimSpace(part), name) {
				return true
			}
		}
	}
	return false
}

func (w *response) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols { // others of the 1xx are followed by the real one
		w.commit()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	w.commit()
	return w.ResponseWriter.Write(b)
}

func (w *response) WriteString(s string) (int, error) {
	w.commit()
	return io.WriteString(w.ResponseWriter, s)
}

func (w *response) ReadFrom(src io.Reader) (int64, error) {
	w.commit()
	return io.Copy(w.ResponseWriter, src)
}

func (w *response) Flush() { w.FlushError() }

func (w *response) FlushError() error {
	w.commit()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.commit()
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
