package guest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Visitor is whoever sent a request: a guest, a member, or somebody who was not admitted. Its methods may be
// called on a nil Visitor, which is nobody, and are safe for concurrent use.
type Visitor struct {
	m       *Manager
	ctx     visitorContext // of the request
	version atomic.Uint64  // counts writes, so that prefetched data are not served after one

	patience patience // with a store that does not answer

	mu        sync.Mutex
	account   string // the signed-in account's ID
	guest     token  // valid if key is a guest's
	key       string // of the guest's record; "" without a guest
	isNew     bool   // minted by this request
	unsaid    bool   // Hooks.Created has not heard of it
	replaced  bool
	lost      error         // why there is no record: the guest turned out claimed and no fresh one could be given, or see As
	request   *http.Request // by which Admit decides on a fresh one; nil outside a request
	held      []presented   // the guests that the request named, but for absorbed siblings
	ambiguous bool          // two different cookies
	foreign   bool          // another site's page sent the request, with an unsafe method
	keepMain  bool          // the cookie under the main name may be a newer process's: see maybeNewer
	stored    bool          // the guest's record exists, as far as we know
	wrote     bool          // this request wrote guest data
	told      bool          // this request asked for the guest's ID, and may have kept something under it
	lines     []headerLine
	room      [1]presented // for held
	work      int          // how many more guests this request may ask the store about

	header  http.Header // of the response; nil outside a request
	watched bool        // somebody calls Commit just before it is sent
	open    bool        // a token can still be sent with it
	sent    bool
	mark    []string // our line of Cache-Control
	theirs  []string // what stood in its place
}

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

// FromContext returns the visitor of a request behind [Manager.Middleware], or of [Manager.As]; else nil.
func FromContext(ctx context.Context) *Visitor {
	v, _ := ctx.Value(visitorKey{}).(*Visitor)
	return v
}

func (v *Visitor) in(ctx context.Context) context.Context {
	return &visitorContext{ctx, v}
}

// GuestID returns the guest's ID; "" for a member and for a visitor who was not admitted, so keep nothing under it
// then. It is no secret and no proof: nothing in this package accepts it from a request. The ID of a guest that
// this request made is nobody's if the page turns out to be cacheable by others, or is a 304, as the visitor then
// gets no cookie. A claim in that request is one of a guest only if its ID was asked for, or data were written.
func (v *Visitor) GuestID() string {
	if v == nil {
		return ""
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.account != "" || v.key == "" {
		return ""
	}
	v.told = true
	return v.guest.id.String()
}

// AccountID returns the ID of the signed-in account; "" for a guest.
func (v *Visitor) AccountID() string {
	if v == nil {
		return ""
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.account
}

// IsGuest reports whether the visitor is a guest.
func (v *Visitor) IsGuest() bool {
	if v == nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.account == "" && v.key != ""
}

// IsNew reports whether this request made the guest.
func (v *Visitor) IsNew() bool {
	if v == nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.isNew && v.account == ""
}

// Replaced reports whether the guest that the request named was valid once, but is claimed or expired now, so that
// the visitor begins anew. That a guest was claimed elsewhere may only show when data are read: ask after reading.
func (v *Visitor) Replaced() bool {
	if v == nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.replaced
}

// As returns a context whose data calls act on this account: for jobs, and for apps without Config.Account. Data calls
// answer [ErrInvalid] if the ID is empty or over 512 bytes.
func (m *Manager) As(ctx context.Context, accountID string) context.Context {
	v := &Visitor{m: m}
	if v.lost = checkAccountID(accountID); v.lost == nil {
		v.account = accountID
	}
	return v.in(ctx)
}

// AsGuest returns a context whose data calls act on this guest: for jobs and tools. Never take the ID from a
// request: whoever names a guest would become it. Data calls, also those that read, answer [ErrClaimed] if an account
// has claimed the guest, [ErrGone] if it was forgotten, and [ErrInvalid] if guestID has not the form of an ID.
func (m *Manager) AsGuest(ctx context.Context, guestID string) context.Context {
	v := &Visitor{m: m, stored: true}
	id, err := checkGuestID(guestID)
	if v.lost = err; err == nil {
		v.become(token{id: id}) // issued long ago: writes lengthen the record's life
	}
	return v.in(ctx)
}

// become makes the visitor this guest. The caller holds v.mu or is alone.
func (v *Visitor) become(t token) {
	v.guest = t
	v.key = guestKey(t.id)
}

// mint makes the visitor a new guest, under a cookie name of its own. It is born after that time (Unix
// milliseconds by the store's clock), at which the guest before it was claimed: else it would be taken for one of
// its siblings. The caller holds v.mu or is alone.
func (v *Visitor) mint(after int64) {
	now := time.Now()
	born := max(now.UnixMilli(), after+1)
	v.become(token{id: newGuestID(), born: born, issued: now.Unix(), provisional: true, heir: v.replaced})
	v.isNew, v.unsaid, v.stored, v.lost, v.told = true, true, false, nil, false
	v.carry()
}

// replace gives the visitor of a guest that was claimed at that time (0: not known) a fresh one, if its cookie can
// still be sent and the request is admitted: a dead cookie is worth no more than none. It is not cleared: should
// this response be late, it would clear what another one has put in its place. The caller holds v.mu or is alone.
func (v *Visitor) replace(after int64) {
	v.replaced = true
	v.lines = slices.DeleteFunc(v.lines, func(l headerLine) bool { // of a sibling that had absorbed it: it is claimed, too
		return l.header == "Set-Cookie" && l.name == v.m.cfg.Cookie.Name && v.rank(l) == rankToken
	})
	if v.open && v.m.admits(v.request) {
		v.mint(after)
		return
	}
	v.key = ""
	if !v.open {
		v.lost = ErrClaimed
	}
}

// A target is the record that a data call acts on.
type target struct {
	key     string
	guest   bool
	ttl     time.Duration
	keep    bool // the record's life was lengthened together with the cookie's, not long ago
	unborn  bool // a new guest whose record is not stored yet: there is nothing to read
	missing error
}

func (v *Visitor) target() target {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.account != "":
		return target{key: accountKey(v.account), ttl: v.m.cfg.AccountTTL}
	case v.lost != nil:
		return target{missing: v.lost}
	case v.key == "":
		return target{missing: ErrNotAdmitted}
	}
	t := target{key: v.key, guest: true, ttl: v.m.cfg.ProvisionalTTL, unborn: v.isNew && !v.stored}
	if !v.guest.provisional {
		t.ttl, t.keep = v.m.cfg.TTL, !v.m.dueToSlide(v.guest, time.Now())
	}
	return t
}

const mostHops = 8 // from a claimed guest to where its data are

// get reads these fields of the visitor's record, or all, and says which record that was. Somebody without a record
// has no fields.
func (v *Visitor) get(ctx context.Context, names ...string) (key string, fields Fields, err error) {
	for range mostHops {
		t := v.target()
		if t.missing != nil && v.request == nil { // of As or AsGuest: a page reads nothing, a job must know why
			return "", nil, t.missing
		}
		if t.missing != nil || t.unborn {
			return t.key, nil, nil
		}
		if p, _ := ctx.Value(prefetchKey{}).(*prefetched); p.holds(v, t.key, names) {
			return p.key, p.fields, nil
		}
		ask := names
		if t.guest && len(names) > 0 {
			ask = append([]string{fieldState}, names...)
		}
		fields, err := v.m.get(ctx, t.key, ask...)
		if err != nil {
			return t.key, nil, err
		}
		state := fields[fieldState]
		if !t.guest || state == "" {
			return t.key, fields, nil
		}
		if err := v.follow(ctx, t.key, state, false); err != nil {
			return t.key, nil, err
		}
	}
	return "", nil, fmt.Errorf("%w: the guest's data are being moved", ErrUnavailable)
}

// update changes the visitor's record; build makes the update for the record of that key.
func (v *Visitor) update(ctx context.Context, build func(key string) Update) (key string, res Result, err error) {
	ctx = context.WithoutCancel(ctx) // a client that hangs up does not leave it undecided
	for range mostHops {
		t := v.target()
		if t.missing != nil {
			return "", res, t.missing
		}
		u := build(t.key)
		u.Once, u.New = true, t.unborn
		u.TTL, u.KeepTTL = t.ttl, t.keep
		u.Quota = v.m.cfg.Quota
		if t.guest {
			if u.If == nil {
				u.If = whileOpen
			} else {
				u.If[fieldState] = ""
			}
			u.Default = Fields{fieldIncarnation: newIncarnation()} // it may have expired: see lateIncarnation in the model
			if v.m.cfg.Hooks.FirstWrite != nil && len(u.Set)+len(u.Add) > 0 {
				u.markFirst(fieldFilled)
			}
		}
		if t.guest && !v.keeps(t.key) {
			continue
		}
		res, err := v.m.update(ctx, t.key, u)
		v.version.Add(1)
		if err != nil {
			return t.key, res, err
		}
		if state := res.Fields[fieldState]; !res.Applied && t.guest && state != "" {
			if err := v.follow(ctx, t.key, state, true); err != nil {
				return t.key, res, err
			}
			continue
		}
		if res.Applied && t.guest {
			v.mu.Lock()
			v.stored = true
			v.mu.Unlock()
			v.announce(ctx)
			if res.first(u, fieldFilled) {
				v.m.cfg.Hooks.FirstWrite(ctx)
			}
		}
		return t.key, res, nil
	}
	return "", res, fmt.Errorf("%w: the guest's data are being moved", ErrUnavailable)
}

// keeps notes that guest data are about to be written, before they are, so that no other call of the request takes a
// new guest back meanwhile. It reports whether the visitor still is the guest of that record.
func (v *Visitor) keeps(key string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	same := v.key == key
	v.wrote = v.wrote || same
	return same
}

// follow turns the visitor from a guest that was claimed to who it is now: the sibling that absorbed it, the account
// if this request is signed in as that, or a fresh guest.
func (v *Visitor) follow(ctx context.Context, key, state string, writing bool) error {
	if err := v.m.resolve(ctx, key, state, writing); err != nil {
		return err
	}
	sibling, isSibling := holderOf(state).owner.guest()
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.key != key || v.account != "": // another call was quicker
	case isSibling:
		v.m.moved.put(v.guest.id, departure{sibling: sibling})
		v.adopt(sibling)
		if v.open {
			v.carry()
		}
	default:
		if !holderOf(state).sealed { // else the owner's next request with this cookie goes on with the claim
			v.m.moved.put(v.guest.id, departure{nobody: state == forgotten})
		}
		v.replace(0)
		if state == forgotten && v.lost != nil {
			v.lost = ErrGone
		}
	}
	return nil
}

// resolve finishes the claim of a guest that was met sealed, if somebody is going to read or write where its data go:
// what is written now comes after them.
func (m *Manager) resolve(ctx context.Context, key, state string, writing bool) error {
	h := holderOf(state)
	if _, isSibling := h.owner.guest(); !h.sealed || !writing && !isSibling {
		return nil
	}
	if c := m.drive(ctx, m.newClaim(key, h.owner).finish()); !c.merged && c.outcome == failed {
		return fmt.Errorf("%w: a claim of this guest is under way: %w", ErrUnavailable, c.err)
	}
	return nil
}

// adopt makes the visitor the sibling that absorbed its guest. The caller holds v.mu or is alone.
func (v *Visitor) adopt(sibling token) {
	sibling.issued = time.Now().Add(-v.m.slideAfter()).Unix() // its record's life is due to be lengthened
	sibling.provisional, sibling.heir = false, false
	v.become(sibling)
	v.stored, v.isNew = true, false
}
