package guest

import "net/http"

// An Exchange is a request with its response, for adapters of frameworks that [Manager.Middleware] does not fit.
// Between Begin and End comes the handler; Commit comes just before the header is sent, and Inform around a 1xx, both
// by Writer or by the adapter.
//
//	x := guests.Begin(w.Header(), r)
//	serve(x.Writer(w), x.Request)
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
	v.watched = v.mayNeedHeader(r)
	v.open = v.watched
	if v.watched && shared(header) { // who wraps us made everything public: the end of the handler decides
		v.addVary(header)
	} else {
		v.stamp(header)
	}
	v.ctx = visitorContext{r.Context(), v}
	return Exchange{r.WithContext(&v.ctx), v}
}

// Watched reports whether Commit may have to change what the visitor's cookie says. If not, a writer need not be
// wrapped, and Commit only undoes what others did to our lines and to Vary.
func (x Exchange) Watched() bool { return x.v != nil && x.v.watched }

// Commit settles the header for good. Call it just before the header is sent, whether by a status, a body, a flush
// or a hijack, with the status that is sent: 200 if the handler has set none, 101 for a hijack. Only the first call
// counts. An informational response (1xx, but not 101) is not the header, and changes nothing here: see Inform.
//
// A guest that this request made goes out with its cookie, unless the response is one that caches may keep for others,
// or a 304, whose cookie they lose; then the visitor is nobody, and is asked again next time. Once guest data were
// written, the cookie goes out in any case.
func (x Exchange) Commit(status int) {
	if x.v == nil || informational(status) {
		return
	}
	x.v.mu.Lock()
	first := !x.v.sent
	if first {
		x.v.sent = true
		x.v.settleHeader(status)
	}
	x.v.mu.Unlock()
	if first {
		x.v.announce(x.Request.Context())
	}
}

// informational reports whether the final response follows one with this status (RFC 9110, section 15.2).
func informational(status int) bool {
	return 100 <= status && status < 200 && status != http.StatusSwitchingProtocols
}

// Inform calls send, which sends an informational response (1xx, but not 101), and keeps our lines out of that: they
// are the final response's, which may turn out public. Afterwards the header is as it was.
func (x Exchange) Inform(send func()) {
	if x.v == nil {
		send()
		return
	}
	x.v.mu.Lock()
	putBack := x.v.withhold()
	x.v.mu.Unlock()
	send() // without the lock: the client may be slow
	x.v.mu.Lock()
	putBack()
	x.v.mu.Unlock()
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
		x.v.settleHeader(0)
	}
	x.v.mu.Unlock()
	x.v.announce(x.Request.Context())
	x.v.settleNew(x.Request.Context())
}
