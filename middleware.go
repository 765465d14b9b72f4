package guest

import (
	"net/http"

	"github.com/guestkit/guest/internal/headerwriter"
)

// Middleware gives each request its visitor: see [FromContext]. Mount it outside the handlers that
// read guest data, and inside the middleware that Config.Account relies on.
func (m *Manager) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := m.Begin(w.Header(), r)
		next.ServeHTTP(x.Writer(w), x.Request)
		if x.Watched() {
			x.End()
		}
	})
}

// Identify is Middleware for a caller that cannot run code between the handler and the header of
// the response. It decides who the visitor is, writes the response's header, and returns the
// request with the visitor in its context.
//
// A new guest's record is stored at once, and the response is not watched. So a handler that makes
// the response cacheable for others would share the visitor's identity, and a guest that turns out
// to be claimed during the handler cannot be replaced. Adapters use [Manager.Begin].
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
// does not fit. The handler runs between Begin and End. Commit is called just before the header is
// sent, and Inform around a 1xx response, both by Writer or by the adapter.
//
//	x := guests.Begin(w.Header(), r)
//	serve(x.Writer(w), x.Request)
//	x.End()
type Exchange struct {
	Request *http.Request // with the visitor in its context
	v       *Visitor      // nil: a Middleware of this Manager further out handles the request
	watched bool
}

// Begin decides who sent the request and writes the response's header. The Exchange keeps the
// header, so the map must be the one that is sent.
func (m *Manager) Begin(header http.Header, r *http.Request) Exchange {
	if v := FromContext(r.Context()); v != nil && v.site == m.site { // mounted twice
		return Exchange{Request: r}
	}
	v := m.site.recognise(r, m.account)
	v.renderLines()
	watched := v.mayNeedHeader()
	v.header.begin(header, watched)
	v.ctx = visitorContext{r.Context(), v}
	return Exchange{r.WithContext(&v.ctx), v, watched}
}

// Watched reports whether the header may still have to change before it is sent. If not, a writer
// need not be wrapped, and Commit only restores our lines and Vary if others have changed them.
func (x Exchange) Watched() bool { return x.watched }

// Writer returns a writer that calls Commit and Inform, for frameworks that write to an
// [http.ResponseWriter]. It has the optional methods of w (http.Flusher, http.Hijacker,
// io.ReaderFrom, http.Pusher) in every combination that a server has. If nothing is watched, it
// returns w itself.
func (x Exchange) Writer(w http.ResponseWriter) http.ResponseWriter {
	if !x.Watched() {
		return w
	}
	return headerwriter.Wrap(w, x.Commit, x.Inform)
}

// Commit settles the header for good. Call it just before the header is sent, whether by a status,
// a body, a flush or a hijack. status is the one that is sent: 200 if the handler has set none, 101
// for a hijack. Only the first call has an effect. An informational response (1xx, but not 101)
// does not send the header, so its status has no effect either: see Inform.
//
// The token of a guest that this request created is sent, unless caches may keep the response for
// others, or the response is a 304, whose cookie a cache may drop. Then the guest is given up, and
// the visitor's next request gets another one. But once guest data were written, the token is sent
// in any case.
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
// out of it: they belong to the final response, which may turn out to be public. Afterwards the
// header is as it was before.
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

// End is called when the handler has returned, also with an error, but not after a panic. It
// settles the header as it is now, and stores the record of a new guest for which nothing was
// written yet. Commit may follow, if the response is written later, as some frameworks do with that
// of an error.
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
