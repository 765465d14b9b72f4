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
// methods may be called on a nil Visitor, which is no visitor, and are safe for concurrent use.
type Visitor struct {
	site    *site
	ctx     visitorContext // of the request
	request *http.Request  // nil outside a request
	budget  requestBudget
	writes  atomic.Uint64 // counts writes, so that prefetched data are not served after one

	mu      sync.Mutex
	brought credentials // by the request, but for siblings that were absorbed
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
		records:   records,
		cookies:   newCookies(cfg.Cookie, cfg.FormerCookies, cfg.Header, keyring, lives),
		claimer:   newClaimer(records, report, kinds, cfg.Quota, lives, cfg.ClaimTimeout, cfg.OnClaim),
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

// newMember returns a visitor of no request that is this account.
func (s *site) newMember(accountID string) *Visitor {
	v := &Visitor{site: s}
	if v.who.missing = checkAccountID(accountID); v.who.missing == nil {
		v.who.account = accountID
	}
	return v
}

// newGuest returns a visitor of no request that is this guest.
func (s *site) newGuest(guestID string) *Visitor {
	v := &Visitor{site: s}
	id, err := checkGuestID(guestID)
	if v.who.missing = err; err == nil {
		v.who.adopt(token.Token{ID: id}) // issued long ago: writes extend the record's life
	}
	return v
}

// newVisitor returns the visitor of a request with what the request brings, and decides nothing
// yet.
func (s *site) newVisitor(r *http.Request, now time.Time) *Visitor {
	v := &Visitor{site: s, request: r, header: responseHeader{phase: pending, cookies: s.cookies}}
	s.cookies.read(r, now, &v.brought)
	for _, reason := range v.brought.refused {
		s.report.refused(r.Context(), reason)
	}
	return v
}

// Why a request is no proof.
var (
	// ErrNoVisitor: the context does not come from a request behind [Manager.Middleware], nor from
	// [Manager.As].
	ErrNoVisitor = errors.New("guest: no visitor in this context (wrap the handler in " +
		"Manager.Middleware and pass r.Context(), or use Manager.As outside a request)")

	// ErrCrossOrigin: another origin's page sent the request with an unsafe method, so it does not
	// prove that the guest of its cookie is the sender's: that guest is not claimed, not forgotten,
	// and put into no ticket.
	ErrCrossOrigin = errors.New("guest: a page of another origin sent this request, so the guest of " +
		"its cookie is left alone (send it from your own origin, or claim with a ticket)")

	// ErrAmbiguous: the request carried two different guest cookies of one name. Another site may
	// have set one of them, so neither is claimed, forgotten or put into a ticket.
	ErrAmbiguous = errors.New("guest: the request carries two different guest cookies of one name, " +
		"so neither is used (see Config.FormerCookies)")

	// ErrTicket: the ticket was tampered with, has expired, or was issued to another audience.
	ErrTicket = errors.New("guest: this ticket is not valid here (ask the visitor to start again)")
)

// warn logs what no caller is told of.
func (s *site) warn(msg string, err error) { s.report.warn(msg, err) }

type visitorKey struct{}

// A visitorContext is context.WithValue, with room for it in the visitor.
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

// FromContext returns the visitor of a request behind [Manager.Middleware], or of [Manager.As];
// else nil.
func FromContext(ctx context.Context) *Visitor {
	v, _ := ctx.Value(visitorKey{}).(*Visitor)
	return v
}

func (v *Visitor) in(ctx context.Context) context.Context { return &visitorContext{ctx, v} }

// GuestID returns the guest's ID; "" for a member and for a visitor that was not admitted, so keep
// nothing under it then. It is no secret and no proof: nothing in this package accepts it from a
// request. A guest that this request created is given up, and its ID with it, if the page turns out
// to be cacheable by others, or is a 304, as the visitor then gets no cookie. A claim in the
// request that created the guest finds one only if its ID was asked for, or data were written.
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

// Replaced reports whether the guest that the request named was valid once, but is claimed or
// expired now, so that the visitor begins anew. That a guest was claimed elsewhere may only show
// when data are read: ask after reading.
func (v *Visitor) Replaced() bool { return v.identity().replaced }

// identity returns a copy.
func (v *Visitor) identity() identity {
	if v == nil {
		return identity{}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.who
}

// change changes the identity.
func (v *Visitor) change(transition func(*identity)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	transition(&v.who)
}

// mayAsk reports whether the request may ask the store about one more guest, which it then has
// done.
func (v *Visitor) mayAsk() bool { return v.budget.mayAsk() }

// responseHeader returns the header of the response; nil outside the middleware.
func (v *Visitor) responseHeader() http.Header { return v.header.header }

// storeBudget returns the budget for calls of the store; a job has none.
func (v *Visitor) storeBudget() *requestBudget {
	if v.request == nil {
		return nil
	}
	return &v.budget
}

// createGuest makes the visitor a new guest. It is created after that time (Unix milliseconds by
// the store's clock), at which the guest before it was claimed: else it would be taken for a
// sibling of that one. The caller holds v.mu or is alone.
func (v *Visitor) createGuest(after int64) {
	now := time.Now()
	v.who.create(token.Token{
		ID: token.NewID(), CreatedAt: max(now.UnixMilli(), after+1), IssuedAt: now.Unix(),
	})
}

// replaceGuest gives the visitor of a guest that is claimed a new one, if the response can still
// carry its token and the request is admitted. The caller holds v.mu or is alone.
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

func (v *Visitor) target() (target, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.who.target(v.site.lifetimes, time.Now())
}

// recordKey returns the key of the record that data calls act on now, or "".
func (v *Visitor) recordKey() string {
	t, _ := v.target()
	return t.key
}

// get reads these fields of the visitor's record, or all, and says which record that was. A visitor
// without a record has no fields.
func (v *Visitor) get(
	ctx context.Context, names ...string,
) (key string, fields Fields, err error) {
	for range mostHops {
		t, err := v.target()
		switch {
		case err != nil && v.request == nil: // of As or AsGuest: a job must know why
			return "", nil, err
		case err != nil, t.isNew:
			return t.key, nil, nil
		}
		ask := names
		if t.isGuest && len(names) > 0 {
			ask = append([]string{record.State}, names...)
		}
		fields, err := v.site.records.get(ctx, v.storeBudget(), t.key, ask...)
		if err != nil {
			return t.key, nil, err
		}
		state := fields[record.State]
		if !t.isGuest || state == "" {
			return t.key, fields, nil
		}
		if err := v.follow(ctx, t.key, state, false); err != nil {
			return t.key, nil, err
		}
	}
	return "", nil, errMoving
}

// update changes the visitor's record; build makes the update for the record of that key.
func (v *Visitor) update(
	ctx context.Context, build func(key string) Update,
) (key string, res Result, err error) {
	ctx = context.WithoutCancel(ctx) // a client that hangs up does not leave it undecided
	for range mostHops {
		t, err := v.target()
		if err != nil {
			return "", res, err
		}
		u := build(t.key)
		u.Once, u.New = true, t.isNew
		u.TTL, u.KeepTTL = t.ttl, t.keepTTL
		u.Quota = v.site.quota
		if t.isGuest {
			v.site.openGuestOnly(&u)
			if !v.willWrite(t.key) {
				continue
			}
		}
		res, err := v.site.records.update(ctx, v.storeBudget(), t.key, u)
		v.writes.Add(1)
		if err != nil {
			return t.key, res, err
		}
		if state := res.Fields[record.State]; !res.Applied && t.isGuest && state != "" {
			if err := v.follow(ctx, t.key, state, true); err != nil {
				return t.key, res, err
			}
			continue
		}
		if res.Applied && t.isGuest {
			v.saved(t.key)
			v.reportCreated(ctx)
			if res.isFirst(&u, record.FirstWrite) {
				v.site.report.hooks.FirstWrite(ctx)
			}
		}
		return t.key, res, nil
	}
	return "", res, errMoving
}

// openGuestOnly makes an update of a guest's record apply only while no account has claimed it.
func (s *site) openGuestOnly(u *Update) {
	if u.If == nil {
		u.If = whileOpen
	} else {
		u.If[record.State] = ""
	}
	// The record may have expired meanwhile: see lateIncarnation in the model.
	u.Default = Fields{record.Incarnation: record.NewIncarnation()}
	if s.report.hooks.FirstWrite != nil && len(u.Set)+len(u.Add) > 0 {
		u.markFirst(record.FirstWrite)
	}
}

// willWrite notes that guest data are about to be written, before they are, so that no other call
// of the request discards a new guest meanwhile. It reports whether the visitor still is the guest
// of that record.
func (v *Visitor) willWrite(key string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.who.guestKey() != key {
		return false
	}
	v.who.use = written
	return true
}

// saved notes that the record of that key is stored.
func (v *Visitor) saved(key string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.who.guestKey() == key {
		v.who.saved()
	}
}

// follow turns the visitor from a guest that was claimed to who it is now: the sibling that
// absorbed it, the account if this request is signed in as that, or a new guest.
func (v *Visitor) follow(ctx context.Context, key, state string, writing bool) error {
	claimed, err := v.site.claimer.follow(ctx, v.storeBudget(), key, state, writing)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.who.guestKey() != key || v.who.account != "": // another call was quicker
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

// extend makes the guest's record live at least that long, if the store can be reached, and returns
// the guest's ID.
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
			v.site.report.warn("a guest's life was not extended to its ticket's", err)
			break
		}
		saved = res.Applied
		if saved || who.account != "" { // a member's guest that is frozen goes into the ticket as it is
			break
		}
		if err := v.follow(ctx, who.guestKey(), res.Fields[record.State], false); err != nil {
			break
		}
	}
	v.change(func(who *identity) {
		if saved {
			who.saved()
		}
		// The page may hold the ticket, so it is as private as one that wrote data; and the guest
		// is kept.
		who.use = written
	})
	return id, nil
}

// saveNew stores the record of a new guest that kept nothing, so that its return is recognised as
// one.
func (v *Visitor) saveNew(ctx context.Context) {
	who := v.identity()
	if v.site.create != OnFirstVisit || who.state != newGuest || who.account != "" || !who.tell.send {
		return
	}
	u := renewal(v.site.lifetimes.provisional)
	u.New = true
	ctx = context.WithoutCancel(ctx)
	if _, err := v.site.records.update(ctx, v.storeBudget(), who.guestKey(), u); err != nil {
		v.site.report.warn("a new guest was not stored", err) // its first write stores it
	}
}

// reportReturned calls Hooks.Returned, which is set.
func (v *Visitor) reportReturned(ctx context.Context) { v.site.report.hooks.Returned(v.in(ctx)) }

// reportCreated calls Hooks.Created for a new guest, unless it was discarded or reported.
func (v *Visitor) reportCreated(ctx context.Context) {
	if v.site.report.hooks.Created == nil {
		return
	}
	v.mu.Lock()
	due := v.who.isNew() && !v.who.reported
	v.who.reported = v.who.reported || due
	v.mu.Unlock()
	if due {
		v.site.report.created(ctx)
	}
}

// mayNeedHeader reports whether the response carries one of our lines, or may have to: if its
// request may write, then its guest may turn out claimed, and the visitor needs a new one.
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

// settleHeader brings the header in line with what the handler made of the response; a status of 0
// is not known yet. The caller holds v.mu.
func (v *Visitor) settleHeader(status int) {
	v.renderLines()
	if v.header.settle(status, v.who.isNew(), v.who.use == written) {
		v.who.takeBack()
	}
}

// writeHeader brings the header of the response in line with who the visitor is. header is nil if
// there is none. The caller holds v.mu.
func (v *Visitor) writeHeader(header http.Header) {
	v.renderLines()
	if header != nil && v.header.phase != sent {
		v.header.write(header)
	}
}

// renderLines makes the lines of the header if they have changed. The caller holds v.mu or is
// alone.
func (v *Visitor) renderLines() {
	if v.who.tell.changed {
		v.who.tell.changed = false
		err := v.header.setLines(&v.who, &v.brought, v.request.URL.Path)
		if err != nil {
			v.site.warn("a guest token was not signed", err)
		}
	}
}

const longestAccountID = 512

func checkAccountID(id string) error {
	if id == "" || len(id) > longestAccountID {
		return fmt.Errorf("%w: an account ID has 1 to %d bytes, not %d (use the account's primary key)",
			ErrInvalid, longestAccountID, len(id))
	}
	return nil
}

func checkGuestID(s string) (token.ID, error) {
	id, ok := token.ParseID(s)
	if !ok {
		return id, fmt.Errorf("%w: a guest ID has 22 characters, as Visitor.GuestID returns it", ErrInvalid)
	}
	return id, nil
}
