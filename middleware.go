package guest

import (
	"net/http"

	"github.com/guestkit/guest/internal/headerwriter"
)

// Middleware gives each request its visitor: see [FromContext]. Mount it outside what reads guest
// data, and inside what the app's Account needs.
func (m *Manager) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := m.Begin(w.Header(), r)
		next.ServeHTTP(x.Writer(w), x.Request)
		if x.Watched() {
			x.End()
		}
	})
}

// Identify is Middleware's plain step for a caller that cannot come between handler and header: it
// decides who the visitor is, writes the response's header, and returns the request with the
// visitor in its context. A new guest's record is stored at once, and the response is not watched:
// a handler that makes it cacheable by others would share the visitor's identity, and a guest that
// turns out claimed during the handler cannot be replaced. Adapters use [Manager.Begin].
func (m *Manager) Identify(w http.ResponseWriter, r *http.Request) *http.Request {
	x := m.Begin(w.Header(), r)
	if x.v != nil {
		x.v.header.phase = fixed
		x.v.reportCreated(x.Request.Context())
		x.v.saveNew(x.Request.Context())
	}
	return x.Request
}

// An Exchange is a request with its response, for adapters of frameworks that [Manager.Middleware]
// does not fit. Between Begin and End comes the handler; Commit comes just before the header is
// sent, and Inform around a 1xx, both by Writer or by the adapter.
//
//	x := guests.Begin(w.Header(), r)
//	serve(x.Writer(w), x.Request)
//	x.End()
type Exchange struct {
	Request *http.Request // with the visitor in its context
	v       *Visitor      // nil if another Middleware of this Manager has the request in hand
}

// Begin decides who sent the request and writes the response's header, which the Exchange keeps:
// the map must be the one that is sent.
func (m *Manager) Begin(header http.Header, r *http.Request) Exchange {
	if v := FromContext(r.Context()); v != nil && v.site == m.site { // mounted twice
		return Exchange{Request: r}
	}
	v := m.site.recognise(r, m.account)
	v.renderLines()
	v.header.begin(header, v.mayNeedHeader())
	v.ctx = visitorContext{r.Context(), v}
	return Exchange{r.WithContext(&v.ctx), v}
}

// Watched reports whether Commit may have to change what the visitor's cookie says. If not, a
// writer need not be wrapped, and Commit only undoes what others did to our lines and to Vary.
func (x Exchange) Watched() bool { return x.v != nil && x.v.header.phase != fixed }

// Writer returns a writer that calls Commit and Inform when they are due, for frameworks that write
// to an [http.ResponseWriter]. It has the abilities of w; of a set that no server has, those that
// have a type. If nothing is watched it is w itself.
func (x Exchange) Writer(w http.ResponseWriter) http.ResponseWriter {
	if !x.Watched() {
		return w
	}
	return headerwriter.Wrap(w, x.Commit, x.Inform)
}

// Commit settles the header for good. Call it just before the header is sent, whether by a status,
// a body, a flush or a hijack, with the status that is sent: 200 if the handler has set none, 101
// for a hijack. Only the first call counts. An informational response (1xx, but not 101) is not the
// header, and changes nothing here: see Inform.
//
// A guest that this request created goes out with its cookie, unless caches may keep the response
// for others, or it is a 304, whose cookie they lose; then the visitor has no guest, and is asked
// again next time. Once guest data were written, the cookie goes out in any case.
func (x Exchange) Commit(status int) {
	if x.v == nil || headerwriter.Informational(status) {
		return
	}
	x.v.mu.Lock()
	first := x.v.header.phase != sent
	if first {
		x.v.settleHeader(status)
		x.v.header.phase = sent
	}
	x.v.mu.Unlock()
	if first {
		x.v.reportCreated(x.Request.Context())
	}
}

// Inform calls send, which sends an informational response (1xx, but not 101), and keeps our lines
// out of that: they are the final response's, which may turn out public. Afterwards the header is
// as it was.
func (x Exchange) Inform(send func()) {
	if x.v == nil {
		send()
		return
	}
	x.v.mu.Lock()
	putBack := x.v.header.withhold()
	x.v.mu.Unlock()
	send() // without the lock: the client may be slow
	x.v.mu.Lock()
	putBack()
	x.v.mu.Unlock()
}

// End is called when the handler has returned, also with an error, but not after a panic: it
// settles the header as it is now and stores the record of a new guest that kept nothing. If the
// response is still to be written, as some frameworks write that of an error later, Commit may
// follow.
func (x Exchange) End() {
	if x.v == nil {
		return
	}
	x.v.mu.Lock()
	if x.v.header.phase != sent {
		x.v.settleHeader(0)
	}
	if x.v.header.phase == pending {
		x.v.header.phase = settled
	}
	x.v.mu.Unlock()
	x.v.reportCreated(x.Request.Context())
	x.v.saveNew(x.Request.Context())
}
