package guest

import (
	"context"
	"net/http"

	"github.com/guestkit/guest/internal/headerwriter"
	"github.com/guestkit/guest/internal/token"
)

// A Manager gives visitors their identity. Make one with [New]; it is safe for concurrent use.
type Manager struct {
	site    *site
	account func(*http.Request) string // Config.Account
	create  Create
}

// New returns a Manager, or all faults of the Config at once, joined; each is a [*ConfigError].
// errors.As finds the first; the error has Unwrap() []error for all.
func New(cfg Config) (*Manager, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	keyring := token.NewKeyring(cfg.Secrets, cfg.App, cfg.TTL)
	lives := lifetimes{cfg.TTL, cfg.ProvisionalTTL, cfg.TombstoneTTL, cfg.AccountTTL}
	report := &reporter{hooks: cfg.Hooks, logger: cfg.Logger}
	records := &records{store: cfg.Store, report: report, budget: cfg.StoreBudget}
	kinds := newKinds(cfg.Data, keyring)
	return &Manager{
		account: cfg.Account,
		create:  cfg.Create,
		site: &site{
			records:   records,
			cookies:   newCookies(&cfg, keyring, lives),
			kinds:     kinds,
			report:    report,
			lifetimes: lives,
			quota:     cfg.Quota,
			admit:     cfg.Admit,
			autoClaim: cfg.AutoClaim,
			claimer: &claimer{
				records:   records,
				report:    report,
				kinds:     kinds,
				quota:     Quota{2 * cfg.Quota.Fields, 2 * cfg.Quota.Bytes},
				lifetimes: lives,
				timeout:   cfg.ClaimTimeout,
				onClaim:   onClaim{app: cfg.OnClaim},
			},
		},
	}, nil
}

// Middleware gives each request its visitor: see [FromContext]. Mount it outside what reads guest data,
// and inside what the app's Account needs.
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
// decides who the visitor is, writes the response's header, and returns the request with the visitor
// in its context. A new guest's record is stored at once, and the response is not watched: a handler
// that makes it cacheable by others would share the visitor's identity, and a guest that turns out
// claimed during the handler cannot be replaced. Adapters use [Manager.Begin].
func (m *Manager) Identify(w http.ResponseWriter, r *http.Request) *http.Request {
	x := m.Begin(w.Header(), r)
	if x.v != nil {
		x.v.header.phase = fixed
		x.v.reportCreated(x.Request.Context())
		x.saveNew()
	}
	return x.Request
}

// As returns a context whose data calls act on this account: for jobs, and for apps without
// Config.Account. Data calls answer [ErrInvalid] if the ID is empty or over 512 bytes.
func (m *Manager) As(ctx context.Context, accountID string) context.Context {
	v := &Visitor{site: m.site}
	if v.who.missing = checkAccountID(accountID); v.who.missing == nil {
		v.who.account = accountID
	}
	return v.in(ctx)
}

// AsGuest returns a context whose data calls act on this guest: for jobs and tools. Never take the ID
// from a request: its sender would become that guest. Data calls, also those that read, answer
// [ErrClaimed] if an account has claimed the guest, [ErrGone] if it was forgotten, and [ErrInvalid] if
// guestID has not the form of an ID.
func (m *Manager) AsGuest(ctx context.Context, guestID string) context.Context {
	v := &Visitor{site: m.site}
	id, err := checkGuestID(guestID)
	if v.who.missing = err; err == nil {
		v.who.adopt(token.Token{ID: id}) // issued long ago: writes extend the record's life
	}
	return v.in(ctx)
}

// An Exchange is a request with its response, for adapters of frameworks that [Manager.Middleware]
// does not fit. Between Begin and End comes the handler; Commit comes just before the header is sent,
// and Inform around a 1xx, both by Writer or by the adapter.
//
//	x := guests.Begin(w.Header(), r)
//	serve(x.Writer(w), x.Request)
//	x.End()
type Exchange struct {
	Request *http.Request // with the visitor in its context
	v       *Visitor      // nil if another Middleware of this Manager has the request in hand
	create  Create
}

// Begin decides who sent the request and writes the response's header, which the Exchange keeps: the
// map must be the one that is sent.
func (m *Manager) Begin(header http.Header, r *http.Request) Exchange {
	if m.site.visitorIn(r.Context()) != nil { // mounted twice
		return Exchange{Request: r}
	}
	v := m.site.recognise(r, m.account)
	v.renderLines()
	v.header.begin(header, v.mayNeedHeader())
	v.ctx = visitorContext{r.Context(), v}
	return Exchange{r.WithContext(&v.ctx), v, m.create}
}

// mayNeedHeader reports whether the response carries one of our lines, or may have to: if its request
// may write, then its guest may turn out claimed, and the visitor needs a new one.
func (v *Visitor) mayNeedHeader() bool {
	if v.who.tell.any() {
		return true
	}
	if v.who.state == noGuest || v.who.account != "" {
		return false
	}
	switch v.request.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return false
	}
	return true
}

// Watched reports whether Commit may have to change what the visitor's cookie says. If not, a writer
// need not be wrapped, and Commit only undoes what others did to our lines and to Vary.
func (x Exchange) Watched() bool { return x.v != nil && x.v.header.isWatched() }

// Writer returns a writer that calls Commit and Inform when they are due, for frameworks that write to
// an [http.ResponseWriter]. It has the abilities of w; of a set that no server has, those that have a
// type. If nothing is watched it is w itself.
func (x Exchange) Writer(w http.ResponseWriter) http.ResponseWriter {
	if !x.Watched() {
		return w
	}
	return headerwriter.Wrap(w, x.Commit, x.Inform)
}

// Commit settles the header for good. Call it just before the header is sent, whether by a status, a
// body, a flush or a hijack, with the status that is sent: 200 if the handler has set none, 101 for a
// hijack. Only the first call counts. An informational response (1xx, but not 101) is not the header,
// and changes nothing here: see Inform.
//
// A guest that this request created goes out with its cookie, unless caches may keep the response for
// others, or it is a 304, whose cookie they lose; then the visitor has no guest, and is asked again
// next time. Once guest data were written, the cookie goes out in any case.
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

// Inform calls send, which sends an informational response (1xx, but not 101), and keeps our lines out
// of that: they are the final response's, which may turn out public. Afterwards the header is as it
// was.
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

// End is called when the handler has returned, also with an error, but not after a panic: it settles
// the header as it is now and stores the record of a new guest that kept nothing. If the response is
// still to be written, as some frameworks write that of an error later, Commit may follow.
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
	x.saveNew()
}

func (x Exchange) saveNew() {
	if x.create == OnFirstVisit {
		x.v.saveNew(x.Request.Context())
	}
}

// settleHeader brings the header in line with what the handler made of the response; a status of 0 is
// not known yet. The caller holds v.mu.
func (v *Visitor) settleHeader(status int) {
	v.renderLines()
	if v.header.settle(status, v.who.isNew(), v.who.use == written) {
		v.who.takeBack()
	}
}
