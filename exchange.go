package guest

import (
	"net/http"
	"slices"
	"strings"
)

// An Exchange is a request with its response, for adapters of frameworks whose responses [Manager.Middleware] cannot
// watch. Between Begin and End comes the handler; Commit comes just before the header is sent.
//
//	x := guests.Begin(w.Header(), r)
//	serve(w, x.Request) // in which x.Commit() precedes the first byte
//	x.End()
type Exchange struct {
	Request *http.Request // with the visitor in its context
	v       *Visitor      // nil if another Middleware of this Manager has the request in hand
}

// Begin decides who sent the request and writes the response's header, which the Exchange keeps: the map must be the
// one that is sent.
func (m *Manager) Begin(header http.Header, r *http.Request) Exchange {
	if m.visitorIn(r.Context()) != nil { // mounted twice
		return Exchange{Request: r}
	}
	v := m.visit(r)
	v.header = header
	v.stamp(header)
	v.watched = v.mayNeedHeader(r)
	v.open = v.watched
	return Exchange{r.WithContext(v.in(r.Context())), v}
}

// Watched reports whether Commit may have to change what the visitor's cookie says. If not, a writer need not be
// wrapped, and Commit only restores Vary.
func (x Exchange) Watched() bool { return x.v != nil && x.v.watched }

// Commit settles the header for good. Call it just before the header is sent, whether by a status, a body, a flush
// or a hijack; only the first call counts. Informational responses (1xx) but 101 do not count as the header.
func (x Exchange) Commit() {
	if x.v == nil {
		return
	}
	x.v.mu.Lock()
	defer x.v.mu.Unlock()
	if !x.v.sent {
		x.v.sent = true
		x.v.settleHeader()
	}
}

// End is called when the handler has returned, also with an error, but not after a panic: it settles the header as
// it is now and stores the record of a new guest that kept nothing. If the response is still to be written, as some
// frameworks write that of an error later, Commit may follow.
func (x Exchange) End() {
	if x.v == nil {
		return
	}
	x.v.mu.Lock()
	if !x.v.sent {
		x.v.settleHeader()
	}
	x.v.mu.Unlock()
	x.v.settleNew(x.Request.Context())
}

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

// settleHeader brings the header in line with what the handler made of the response. The caller holds v.mu.
func (v *Visitor) settleHeader() {
	if !v.watched {
		addVary(v.header)
		return
	}
	v.open = false
	if h := v.header; shared(h) {
		if !v.wrote {
			v.lines = nil // the page stays public, and the visitor is asked again next time
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
	v.stamp(v.header)
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
