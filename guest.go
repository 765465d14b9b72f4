package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/guestkit/guest/internal/record"
	"github.com/guestkit/guest/internal/token"
)

// A Visitor is the sender of a request: a guest, a member, or a visitor that was not admitted. Its
// methods are safe for concurrent use, and may be called on a nil Visitor, which stands for no
// visitor.
type Visitor struct {
	site    *site
	ctx     visitorContext // of the request
	request *http.Request  // nil outside a request
	budget  requestBudget
	writes  atomic.Uint64 // counts writes, so that prefetched data are not served after one

	mu      sync.Mutex
	brought credentials // by the request, without the siblings that were absorbed
	who     identity
	header  responseHeader
}

// site is what all visitors of a Manager share.
type site struct {
	records   *records
	cookies   *cookies
	claimer   *claimer
	kinds     *kinds
	keyring   *token.Keyring
	report    *reporter
	lifetimes lifetimes
	quota     Quota
	admit     func(*http.Request) bool
	create    Create
	autoClaim func(*http.Request) bool
}

func newSite(cfg *Config) *site {
	keyring := token.NewKeyring(cfg.Secrets, cfg.App, cfg.TTL)
	lives := lifetimes{
		guest: cfg.TTL, provisional: cfg.ProvisionalTTL, tombstone: cfg.TombstoneTTL,
		account: cfg.AccountTTL, renewal: min(24*time.Hour, cfg.TTL/2),
	}
	report := &reporter{hooks: cfg.Hooks, logger: cfg.Logger}
	records := &records{store: cfg.Store, report: report, budget: cfg.StoreBudget}
	kinds := newKinds(cfg.Data, keyring)
	return &site{
		records: records,
		cookies: newCookies(cfg.Cookie, cfg.FormerCookies, cfg.Header, keyring, lives),
		claimer: newClaimer(
			records, report, kinds, cfg.Quota, lives, cfg.ClaimTimeout, cfg.OnClaim,
		),
		kinds:     kinds,
		keyring:   keyring,
		report:    report,
		lifetimes: lives,
		quota:     cfg.Quota,
		admit:     cfg.Admit,
		create:    cfg.Create,
		autoClaim: cfg.AutoClaim,
	}
}

// newMember returns the visitor of Manager.As: this account, without a request.
func (s *site) newMember(accountID string) *Visitor {
	v := &Visitor{site: s}
	if v.who.missing = checkAccountID(accountID); v.who.missing == nil {
		v.who.account = accountID
	}
	return v
}

// newGuest returns the visitor of Manager.AsGuest: this guest, without a request.
func (s *site) newGuest(guestID string) *Visitor {
	v := &Visitor{site: s}
	id, err := checkGuestID(guestID)
	if v.who.missing = err; err == nil {
		v.who.adopt(token.Token{ID: id}) // IssuedAt is zero, so writes extend the record's life
	}
	return v
}

// newVisitor returns the visitor of a request with the credentials that the request brings. Who the
// visitor is, is not decided yet.
func (s *site) newVisitor(r *http.Request, now time.Time) *Visitor {
	v := &Visitor{site: s, request: r, header: responseHeader{phase: pending, cookies: s.cookies}}
	s.cookies.read(r, now, &v.brought)
	for _, reason := range v.brought.refused {
		s.report.refused(r.Context(), reason)
	}
	return v
}

// Why a call does not know which guest it is about, or does not trust the request about it.
var (
	// ErrNoVisitor: the context has no visitor: it is neither of a request behind
	// [Manager.Middleware] nor from [Manager.As] or [Manager.AsGuest].
	ErrNoVisitor = errors.New("guest: no visitor in this context (wrap the handler in " +
		"Manager.Middleware and pass r.Context(), or use Manager.As outside a request)")

	// ErrCrossOrigin: a page of another origin sent the request with an unsafe method. Such a
	// request does not prove that the guest of its cookie belongs to the sender, so that guest is
	// not claimed, not forgotten, and put into no ticket.
	ErrCrossOrigin = errors.New("guest: a page of another origin sent this request, so the guest " +
		"of its cookie is left alone (send it from your own origin, or claim with a ticket)")

	// ErrAmbiguous: the request carried two different guest cookies of one name. Another site may
	// have set one of them, so neither is claimed, forgotten or put into a ticket.
	ErrAmbiguous = errors.New("guest: the request carries two different guest cookies of one " +
		"name, so neither is claimed or forgotten (see Config.FormerCookies)")

	// ErrTicket: the ticket was tampered with, has expired, or was issued to another audience.
	ErrTicket = errors.New("guest: this ticket is not valid here (ask the visitor to start again)")
)

// warn logs an error that no call returns.
func (s *site) warn(msg string, err error) { s.report.warn(msg, err) }

type visitorKey struct{}

// A visitorContext is what context.WithValue would return, as a part of the Visitor, which saves an
// allocation per request.
type visitorContext struct {
	context.Context
	v *Visitor
}

func (c *visitorContext) Value(key any) any {
	if key == (visitorKey{}) {
		return c.v
	}
	return c.Context.Value(key)
}

// FromContext returns the visitor of a request behind [Manager.Middleware], or of [Manager.As] or
// [Manager.AsGuest]. nil: the context has no visitor.
func FromContext(ctx context.Context) *Visitor {
	v, _ := ctx.Value(visitorKey{}).(*Visitor)
	return v
}

func (v *Visitor) in(ctx context.Context) context.Context { return &visitorContext{ctx, v} }

// GuestID returns the guest's ID, 22 characters. It is "" for a member and for a visitor that was
// not admitted, so keep nothing under the ID then. The ID is neither a secret nor a proof: nothing
// in this package accepts it from a request.
//
// A guest that this request created is given up, and its ID with it, if the response turns out to
// be cacheable for others, or is a 304, because the visitor then gets no cookie. A claim in the
// request that created the guest claims it only if its ID was asked for or data were written.
func (v *Visitor) GuestID() string {
	if v == nil {
		return ""
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.who.account != "" || v.who.state == noGuest {
		return ""
	}
	v.who.use = max(v.who.use, idRead)
	return v.who.guest.ID.String()
}

// AccountID returns the ID of the signed-in account; "" for a guest.
func (v *Visitor) AccountID() string { return v.identity().account }

// IsGuest reports whether the visitor is a guest.
func (v *Visitor) IsGuest() bool {
	who := v.identity()
	return who.account == "" && who.state != noGuest
}

// IsNew reports whether this request created the guest.
func (v *Visitor) IsNew() bool {
	who := v.identity()
	return who.account == "" && who.isNew()
}

// Replaced reports whether the request named a guest that was valid once but is claimed or expired
// now, so that the visitor begins anew. If another process claimed the guest, this may show only
// when data are read: ask after reading.
func (v *Visitor) Replaced() bool { return v.identity().replaced }

// identity returns a copy of who the visitor is.
func (v *Visitor) identity() identity {
	if v == nil {
		return identity{}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.who
}

// change applies a transition to who the visitor is.
func (v *Visitor) change(transition func(*identity)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	transition(&v.who)
}

// mayAsk is requestBudget.mayAsk for the visitor's request.
func (v *Visitor) mayAsk() bool { return v.budget.mayAsk() }

// responseHeader returns the header of the response; nil outside the middleware.
func (v *Visitor) responseHeader() http.Header { return v.header.header }

// storeBudget returns the request's budget for store calls. It is nil, which means no limit,
// outside a request.
func (v *Visitor) storeBudget() *requestBudget {
	if v.request == nil {
		return nil
	}
	return &v.budget
}

// createGuest makes the visitor a new guest. after is when the visitor's previous guest was claimed
// (Unix milliseconds by the store's clock); 0: there was none. The new guest counts as created
// later than that, because otherwise it would be taken for a sibling of the claimed one. The caller
// holds v.mu, or the visitor is not in use yet.
func (v *Visitor) createGuest(after int64) {
	now := time.Now()
	v.who.create(token.Token{
		ID: token.NewID(), CreatedAt: max(now.UnixMilli(), after+1), IssuedAt: now.Unix(),
	})
}

// replaceGuest gives the visitor a new guest in place of the claimed one, if the response can still
// carry a token and the request is admitted. The caller holds v.mu, or the visitor is not in use
// yet.
func (v *Visitor) replaceGuest(claimed claimedGuest) {
	if !v.header.canAddToken() {
		v.who.lose(claimed.why())
		return
	}
	v.who.lose(nil)
	if v.site.admits(v.request) {
		v.createGuest(claimed.at)
	}
}

// admits asks Config.Admit whether the request gets a new guest.
func (s *site) admits(r *http.Request) bool { return s.admit(s.cookies.forAdmit(r)) }

// target returns the record that data calls act on now, or why there is none.
func (v *Visitor) target() (target, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.who.target(v.site.lifetimes, time.Now())
}

// recordKey returns the key of the record that data calls act on now; "" if there is none.
func (v *Visitor) recordKey() string {
	t, _ := v.target()
	return t.key
}

// get reads the named fields of the visitor's record (without names: all fields) and returns the
// key of that record. A visitor without a record has no fields.
func (v *Visitor) get(
	ctx context.Context, names ...string,
) (key string, fields Fields, err error) {
	for range mostHops {
		t, err := v.target()
		switch {
		case err != nil && v.request == nil: // a job (As, AsGuest) must learn why
			return "", nil, err
		case err != nil, t.isNew:
			return t.key, nil, nil
		}
		ask := names
		if t.isGuest() && len(names) > 0 {
			ask = append([]string{record.State}, names...)
		}
		fields, err := v.site.records.get(ctx, v.storeBudget(), t.key, ask...)
		if err != nil {
			return t.key, nil, err
		}
		state := fields[record.State]
		if !t.isGuest() || state == "" {
			return t.key, fields, nil
		}
		if err := v.follow(ctx, t.guest, state, false); err != nil {
			return t.key, nil, err
		}
	}
	return "", nil, errMoving
}

// update changes the visitor's record. build makes the update for the record of that key; it is
// called again if the visitor turns out to have another record.
func (v *Visitor) update(
	ctx context.Context, build func(key string) Update,
) (key string, res Result, err error) {
	ctx = context.WithoutCancel(ctx) // a write is completed also if the client goes away
	for range mostHops {
		t, err := v.target()
		if err != nil {
			return "", res, err
		}
		u := build(t.key)
		u.Once, u.New = true, t.isNew
		u.TTL, u.KeepTTL = t.ttl, t.keepTTL
		u.Quota = v.site.quota
		if t.isGuest() {
			v.site.openGuestOnly(&u)
			if !v.willWrite(t.guest) {
				continue
			}
		}
		res, err := v.site.records.update(ctx, v.storeBudget(), t.key, u)
		v.writes.Add(1)
		if err != nil {
			return t.key, res, err
		}
		if state := res.Fields[record.State]; !res.Applied && t.isGuest() && state != "" {
			if err := v.follow(ctx, t.guest, state, true); err != nil {
				return t.key, res, err
			}
			continue
		}
		if res.Applied && t.isGuest() {
			v.saved(t.guest)
			v.reportCreated(ctx)
			if res.isFirst(&u, record.FirstWrite) {
				v.site.report.hooks.FirstWrite(ctx)
			}
		}
		return t.key, res, nil
	}
	return "", res, errMoving
}

// openGuestOnly makes an update of a guest's record apply only while the guest is open: neither
// frozen nor claimed.
func (s *site) openGuestOnly(u *Update) {
	if u.If == nil {
		u.If = whileOpen
	} else {
		u.If[record.State] = ""
	}
	// The record may have expired meanwhile, and then this write creates it again. A record without
	// an incarnation would break the claim (variant lateIncarnation of the model).
	u.Default = Fields{record.Incarnation: record.NewIncarnation()}
	if s.report.hooks.FirstWrite != nil && len(u.Set)+len(u.Add) > 0 {
		u.markFirst(record.FirstWrite)
	}
}

// willWrite is called before a write of guest data, so that no other call of the request discards a
// new guest meanwhile. It reports whether the visitor still is that guest.
func (v *Visitor) willWrite(guest token.ID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.who.isGuest(guest) {
		return false
	}
	v.who.use = written
	return true
}

// saved is called when the record of that guest was stored.
func (v *Visitor) saved(guest token.ID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.who.isGuest(guest) {
		v.who.saved()
	}
}

// follow is called when the visitor's guest turns out to be frozen or claimed. The visitor becomes
// the sibling that absorbed the guest, or a new guest; a visitor who has signed in meanwhile stays
// a member.
func (v *Visitor) follow(
	ctx context.Context, guest token.ID, state string, writing bool,
) error {
	claimed, err := v.site.claimer.follow(ctx, v.storeBudget(), guest, state, writing)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case !v.who.isGuest(guest) || v.who.account != "": // another call has changed it meanwhile
	case claimed.isAbsorbed():
		v.who.adoptSibling(claimed.sibling, v.site.lifetimes, time.Now())
		if v.header.canAddToken() {
			v.who.sendToken()
		}
	default:
		v.replaceGuest(claimed)
	}
	return nil
}

// extend makes the guest's record live for at least ttl from now, if the store can be reached, and
// returns the guest's ID.
func (v *Visitor) extend(ctx context.Context, ttl time.Duration) (id token.ID, err error) {
	saved := false
	for range mostHops {
		who := v.identity()
		id = who.guest.ID
		if who.state == noGuest {
			return token.ID{}, cmp.Or(who.missing, ErrNotAdmitted)
		}
		res, err := v.site.records.update(ctx, v.storeBudget(), who.guestKey(), renewal(ttl))
		if err != nil {
			v.site.warn("a guest's life was not extended to its ticket's", err)
			break
		}
		saved = res.Applied
		if saved || who.account != "" { // the guest of a member may be frozen: the ticket names it
			break
		}
		if err := v.follow(ctx, id, res.Fields[record.State], false); err != nil {
			break
		}
	}
	v.change(func(who *identity) {
		if saved {
			who.saved()
		}
		// The page may contain the ticket, so it is as private as one that wrote data, and the
		// guest is kept.
		who.use = written
	})
	return id, nil
}

// saveNew stores the record of a new guest for which the handler wrote nothing, if Config.Create
// asks for that.
func (v *Visitor) saveNew(ctx context.Context) {
	who := v.identity()
	if v.site.create != OnFirstVisit ||
		who.state != newGuest || who.account != "" || !who.changes.send {
		return
	}
	u := renewal(v.site.lifetimes.provisional)
	u.New = true
	ctx = context.WithoutCancel(ctx)
	if _, err := v.site.records.update(ctx, v.storeBudget(), who.guestKey(), u); err != nil {
		v.site.warn("a new guest was not stored", err) // its first write stores it
	}
}

// reportReturned calls Hooks.Returned. The caller has checked that it is set.
func (v *Visitor) reportReturned(ctx context.Context) { v.site.report.hooks.Returned(v.in(ctx)) }

// reportCreated calls Hooks.Created for a new guest, once, unless the guest was discarded.
func (v *Visitor) reportCreated(ctx context.Context) {
	if v.site.report.hooks.Created == nil {
		return
	}
	v.mu.Lock()
	unreported := v.who.isNew() && !v.who.reported
	v.who.reported = v.who.reported || unreported
	v.mu.Unlock()
	if unreported {
		v.site.report.hooks.Created(ctx)
	}
}

// mayNeedHeader reports whether the response carries one of our lines, or may have to: a request
// whose method may write can find its guest claimed, and then the response carries the token of a
// new guest.
func (v *Visitor) mayNeedHeader() bool {
	if len(v.header.lines) > 0 {
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

// settleHeader settles the header for this status (see responseHeader.settle), and takes back the
// changes of tokens if the response may not carry them. The caller holds v.mu.
func (v *Visitor) settleHeader(status int) {
	v.renderLines()
	if v.header.settle(status, v.who.isNew(), v.who.use == written) {
		v.who.takeBack()
	}
}

// writeHeader adapts the header of the response to who the visitor is now. header is nil if there
// is no response. The caller holds v.mu.
func (v *Visitor) writeHeader(header http.Header) {
	v.renderLines()
	if header != nil && v.header.phase != sent {
		v.header.write(header)
	}
}

// renderLines makes our lines of the header from the token changes, if these have changed since.
// The caller holds v.mu, or the visitor is not in use yet.
func (v *Visitor) renderLines() {
	if v.who.changes.unrendered {
		v.who.changes.unrendered = false
		path := "/"
		if u := v.request.URL; u != nil { // a request that was made by hand may have none
			path = u.Path
		}
		if err := v.header.setLines(&v.who, &v.brought, path); err != nil {
			v.site.warn("a guest token was not signed", err)
		}
	}
}

const longestAccountID = 512

func checkAccountID(id string) error {
	if id == "" || len(id) > longestAccountID {
		return fmt.Errorf("%w: an account ID has 1 to %d bytes, not %d (use the account's "+
			"primary key)", ErrInvalid, longestAccountID, len(id))
	}
	return nil
}

func checkGuestID(s string) (token.ID, error) {
	id, ok := token.ParseID(s)
	if !ok {
		return id, fmt.Errorf("%w: this is not the ID of a guest (Visitor.GuestID returns one)",
			ErrInvalid)
	}
	return id, nil
}
