package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Claim binds the guest of the request to an account and makes the visitor a member for the rest of the request.
// Call it once the app knows who signed in. It is done exactly once: repeat it as you like.
//
// Of several guests, as parallel first requests of one browser make them, the receipt is the main one's. A request
// claims eight of them at most; the account's next requests claim the others.
//
// It is never a reason to fail a login. If Receipt.Pending is set, the guest and its cookie are kept and the claim
// goes on by itself. The error is [ErrClaimed] if another account has the guest, [ErrCrossOrigin] or
// [ErrAmbiguous] if the cookie proves too little, [ErrInvalid] if the account ID is empty or over 512 bytes, or
// wraps [ErrUnavailable] or what OnClaim returned. Without a guest the receipt says so and there is no error.
func (m *Manager) Claim(w http.ResponseWriter, r *http.Request, accountID string, opts ...ClaimOption) (Receipt, error) {
	return m.claimHeld(r.Context(), m.visitorOf(r), w.Header(), accountID, opts)
}

// ClaimContext is [Manager.Claim] for code that has only the context of a request: a resolver, an RPC or a handler of
// a framework that is not net/http. Call it before the response begins, and not where the response may begin meanwhile,
// as in a handler that http.TimeoutHandler has given up. The error is also [ErrNoVisitor], if the
// context is not of a request behind the middleware.
func (m *Manager) ClaimContext(ctx context.Context, accountID string, opts ...ClaimOption) (Receipt, error) {
	v := m.visitorOfRequest(ctx)
	if v == nil {
		return noReceipt(accountID), ErrNoVisitor
	}
	return m.claimHeld(ctx, v, v.header, accountID, opts)
}

func (m *Manager) claimHeld(ctx context.Context, v *Visitor, header http.Header, accountID string, opts []ClaimOption) (Receipt, error) {
	if err := checkAccountID(accountID); err != nil {
		return noReceipt(accountID), err
	}
	defer v.finishClaim(header, accountID)
	held, err := v.claimable()
	if err != nil {
		m.refusedUnproven(ctx, err)
		return noReceipt(accountID), err
	}
	return m.claimAll(ctx, v, held, accountID, rulesOf(opts))
}

// A ClaimOption changes one claim; see [With].
type ClaimOption struct {
	kind *kind
	rule mergeFunc
}

// With uses another merge rule for this kind in this claim: at a checkout the guest's choice may win. Should the
// claim be interrupted and finished by another process, that one uses the declared rule.
func With[T any](kind KindOf[T], rule Merge[T]) ClaimOption {
	return ClaimOption{kind.define(), kind.mergeWith(rule)}
}

func rulesOf(opts []ClaimOption) map[*kind]mergeFunc {
	rules := map[*kind]mergeFunc{}
	for _, o := range opts {
		rules[o.kind] = o.rule
	}
	return rules
}

// ClaimHandler serves POST requests that claim: account tells who is signed in. The answers are 200 with the receipt
// as JSON; 401 if account returns an error or ""; 403 if the request comes from another site; 405 for other methods;
// 409 if the guest is another account's, or ambiguous; 503 with Retry-After and the receipt if the claim is Pending.
func (m *Manager) ClaimHandler(account func(*http.Request) (string, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "claims are POST requests", http.StatusMethodNotAllowed)
			return
		}
		if m.foreign(r) {
			m.refused(r.Context(), RefusedCrossOrigin)
			http.Error(w, "a claim must come from the same site", http.StatusForbidden)
			return
		}
		id, err := account(r)
		if err != nil || id == "" {
			http.Error(w, "sign in first", http.StatusUnauthorized)
			return
		}
		receipt, err := m.Claim(w, r, id)
		switch {
		case err == nil:
			writeReceipt(w, http.StatusOK, receipt)
		case errors.Is(err, ErrClaimed), errors.Is(err, ErrAmbiguous):
			http.Error(w, "this guest cannot be claimed by this account", http.StatusConflict)
		case errors.Is(err, ErrCrossOrigin):
			http.Error(w, "a claim must come from the same site", http.StatusForbidden)
		case errors.Is(err, ErrInvalid):
			http.Error(w, "the account cannot be used", http.StatusUnauthorized)
		default:
			w.Header().Set("Retry-After", "1")
			writeReceipt(w, http.StatusServiceUnavailable, receipt)
		}
	})
}

func writeReceipt(w http.ResponseWriter, status int, receipt Receipt) {
	body, err := json.Marshal(receipt)
	if err != nil {
		http.Error(w, "the receipt cannot be shown", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}

// Preview tells what a claim of the visitor's guest by this account would do, without doing it. It refuses what
// [Manager.Claim] refuses; the error is also [ErrNoVisitor] if the context has no visitor of this Manager.
func (m *Manager) Preview(ctx context.Context, accountID string) (Receipt, error) {
	receipt := noReceipt(accountID)
	if err := checkAccountID(accountID); err != nil {
		return receipt, err
	}
	v := m.visitorIn(ctx)
	if v == nil {
		return receipt, ErrNoVisitor
	}
	v.mu.Lock()
	key, id, err := v.key, v.guest.id, v.unproven()
	v.mu.Unlock()
	if err != nil || key == "" {
		return receipt, err
	}
	receipt.GuestID = id.String()
	guest, err := m.get(ctx, key)
	if err != nil {
		return receipt, err
	}
	switch guest[fieldState] {
	case "":
	case forgotten:
		return noReceipt(accountID), nil
	default:
		return receipt, ErrClaimed
	}
	account, err := m.get(ctx, accountKey(accountID))
	if err != nil {
		return receipt, err
	}
	_, receipt.Kinds, err = m.merger(nil).merge(key, dataOf(guest), accountKey(accountID), account)
	return receipt, err
}

const longestAccountID = 512

func checkAccountID(id string) error {
	if id == "" || len(id) > longestAccountID {
		return fmt.Errorf("%w: an account ID has 1 to %d bytes, not %d: use the account's primary key", ErrInvalid, longestAccountID, len(id))
	}
	return nil
}

// visitorOf returns the visitor of a request, also of one that is not behind Middleware.
func (m *Manager) visitorOf(r *http.Request) *Visitor {
	if v := m.visitorOfRequest(r.Context()); v != nil {
		return v
	}
	v := &Visitor{m: m, request: r, open: true, foreign: m.foreign(r), work: mostWorked}
	if held := m.held(r, time.Now(), v.room[:0]); len(held.tokens) > 0 {
		v.become(held.tokens[0].token)
		v.stored = true
		v.held, v.ambiguous, v.keepMain = held.tokens, held.ambiguous, held.newer
	}
	return v
}

// visitorOfRequest returns this Manager's visitor of the context if it came with a request, and not by As; else nil.
func (m *Manager) visitorOfRequest(ctx context.Context) *Visitor {
	if v := m.visitorIn(ctx); v != nil && v.request != nil {
		return v
	}
	return nil
}

// visitorIn returns this Manager's visitor of the context, or nil.
func (m *Manager) visitorIn(ctx context.Context) *Visitor {
	if v := FromContext(ctx); v != nil && v.m == m {
		return v
	}
	return nil
}

// guests returns those that a claim or Forget is about: the one that this request made and kept something under,
// else those that it named, claimed ones too, as a claim may be repeated. The caller holds v.mu.
func (v *Visitor) guests() []presented {
	if v.isNew && v.used() {
		return []presented{{token: v.guest}}
	}
	return v.held
}

// used reports whether something was kept under the guest that this request made. That its ID was asked for counts if the
// request named no other guest, whose claim may be repeated here. The caller holds v.mu.
func (v *Visitor) used() bool { return v.wrote || v.told && len(v.held) == 0 }

// unproven says why the request does not prove that the guests it names are its sender's: then they can be served, but not
// claimed, forgotten or put into a ticket. nil: it does. The caller holds v.mu.
func (v *Visitor) unproven() error {
	named := slices.ContainsFunc(v.held, func(p presented) bool { return p.name != "" })
	switch {
	case v.ambiguous:
		return ErrAmbiguous
	case named && v.foreign:
		return ErrCrossOrigin
	}
	return nil
}

// refusedUnproven tells of what unproven has said.
func (m *Manager) refusedUnproven(ctx context.Context, err error) {
	reason := RefusedCrossOrigin
	if err == ErrAmbiguous {
		reason = RefusedAmbiguous
	}
	m.refused(ctx, reason)
}

// claimable returns the guests that the request proves to be its own.
func (v *Visitor) claimable() ([]presented, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.unproven(); err != nil {
		return nil, err
	}
	guests := v.guests()
	if v.isNew && !v.used() { // it was made in vain
		v.unmint()
	}
	return guests, nil
}

// finishClaim ends the visitor's time as a guest: from now on it is a member.
func (v *Visitor) finishClaim(header http.Header, accountID string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.account = strings.Clone(accountID) // fasthttp's strings change when the request is over; a context may outlive it
	v.version.Add(1)
	if header != nil && !v.sent {
		v.stamp(header)
	}
}

// claimAtSignIn claims what a signed-in request holds, unless it proves too little or failed just before.
func (m *Manager) claimAtSignIn(r *http.Request, v *Visitor) {
	if checkAccountID(v.account) != nil || m.cfg.AutoClaim != nil && !m.cfg.AutoClaim(r) {
		return
	}
	held, err := v.claimable()
	if err != nil {
		return
	}
	var due []presented
	for _, p := range held {
		if m.isOver(p, held) {
			v.release(p)
		} else if again, failed := m.later.get(p.id); !failed || time.Now().After(again.at) {
			due = append(due, p)
		}
	}
	if _, err := m.claimAll(v.undecided(r.Context()), v, due, v.account, nil); errors.Is(err, ErrClaimed) {
		v.replaced = true
	}
}

// claimAll claims the first of these guests, and others while the request may work, and clears the cookies of those that
// are done with; later requests go on with the others. The receipt is the first one's.
func (m *Manager) claimAll(ctx context.Context, v *Visitor, held []presented, accountID string, rules map[*kind]mergeFunc) (receipt Receipt, err error) {
	receipt = noReceipt(accountID)
	for i, p := range held {
		switch {
		case i > 0 && m.isOver(p, held):
			v.release(p)
			continue
		case !v.mayWork() && i > 0:
			continue
		}
		r, e := m.claimGuest(ctx, p, accountID, rules, mostHops)
		if i == 0 {
			receipt = r
		}
		err = errors.Join(err, e)
		if e == nil || errors.Is(e, ErrClaimed) { // of one that is gone the cookie says the same, or knows better
			gone := departure{}
			if !r.At.IsZero() {
				gone.at = r.At.UnixMilli()
			}
			m.moved.put(p.id, gone)
			v.release(p)
		}
	}
	return receipt, err
}

// release takes the guest's token back from the client: it is worth nothing any more.
func (v *Visitor) release(p presented) {
	v.mu.Lock()
	defer v.mu.Unlock()
	mine := p.id == v.guest.id
	if mine && v.isNew {
		v.unmint()
		v.held = []presented{p} // a claim that is repeated finds it
		return
	}
	if mine {
		v.unline(v.m.cfg.Header, "")
		if v.unline("Set-Cookie", v.m.cfg.Cookie.Name) && !p.header { // this response has confirmed it
			v.drop(v.m.cfg.Cookie.Name)
		}
	}
	for _, name := range []string{p.name, p.spare} {
		if name != "" {
			v.drop(name)
		}
	}
	if p.header { // an empty one says that it is over
		v.line(headerLine{v.m.cfg.Header, "", ""})
	}
	if mine {
		v.key = ""
	}
}

// unmint takes back a guest whose token was not sent yet. The caller holds v.mu.
func (v *Visitor) unmint() {
	v.unline("Set-Cookie", spareName(v.m.cfg.Cookie.Name, v.guest.id))
	v.unline(v.m.cfg.Header, "")
	v.key, v.isNew = "", false
}

// claimGuest runs the protocol for one guest and one account.
func (m *Manager) claimGuest(ctx context.Context, p presented, accountID string, rules map[*kind]mergeFunc, hops int) (Receipt, error) {
	t := p.token
	key := guestKey(t.id)
	c := m.newClaim(key, ownerAccount(accountID))
	c.merge = m.mergeWith(key, rules)
	c.mustExist = p.ticket
	c = m.drive(ctx, c)
	switch c.outcome {
	case claimed:
		m.later.delete(t.id)
		receipt := c.receipt()
		if !c.buried { // else drive has told
			again := receipt
			again.Replayed = true
			m.claimed(ctx, again)
		}
		return receipt, nil

	case lost:
		if sibling, ok := c.holder.owner.guest(); ok && hops > 0 { // absorbed: its data are the sibling's
			if c.holder.sealed {
				if f := m.drive(ctx, m.newClaim(key, c.holder.owner).finish()); f.outcome == failed {
					return m.pending(ctx, t.id, f, accountID)
				}
			}
			return m.claimGuest(ctx, presented{token: sibling}, accountID, rules, hops-1)
		}
		m.refused(ctx, RefusedClaimed)
		return noReceipt(accountID), ErrClaimed

	case noGuest:
		if p.ticket {
			return noReceipt(accountID), ErrGone
		}
		return noReceipt(accountID), nil // a forgotten guest is none
	}
	return m.pending(ctx, t.id, c, accountID)
}

func (m *Manager) pending(ctx context.Context, id guestID, c claim, accountID string) (Receipt, error) {
	again, _ := m.later.get(id)
	m.later.put(id, again.next(c.err))
	receipt := c.receipt()
	receipt.AccountID = accountID
	receipt.Pending = true
	m.warn("a claim is pending", c.err)
	m.claimed(ctx, receipt)
	return receipt, fmt.Errorf("guest: the claim is pending and will be tried again: %w", c.err)
}

func (c claim) receipt() Receipt {
	milli, _ := strconv.ParseInt(c.at, 10, 64)
	r := Receipt{
		ID:        c.incarnation,
		GuestID:   strings.TrimPrefix(c.guest, "g:"),
		AccountID: c.owner.account(),
		Kinds:     append([]KindReceipt{}, c.kinds...),
		Claimed:   c.merged,
		Replayed:  c.replayed,
	}
	if milli > 0 {
		r.At = time.UnixMilli(milli).UTC()
	}
	return r
}

// newClaim prepares a run of the protocol under the declared merge rules.
func (m *Manager) newClaim(guest string, o owner) claim {
	ttl := m.cfg.AccountTTL
	if !o.isAccount() {
		ttl = m.cfg.TTL
	}
	return claim{
		guest:        guest,
		owner:        o,
		fresh:        newIncarnation(),
		now:          time.Now().UnixMilli(),
		tombstoneTTL: m.cfg.TombstoneTTL,
		targetTTL:    ttl,
		accountTTL:   m.cfg.AccountTTL,
		first:        firstGeneration(),
		mostMarkers:  mostMarkers,
		merge:        m.mergeWith(guest, nil),
	}
}

func (c claim) finish() claim {
	c.finishOnly = true
	return c
}

func (m *Manager) merger(rules map[*kind]mergeFunc) *merger {
	return &merger{ring: m.ring, kinds: m.declared, rules: rules, quota: Quota{2 * m.cfg.Quota.Fields, 2 * m.cfg.Quota.Bytes}}
}

func (m *Manager) mergeWith(guest string, rules map[*kind]mergeFunc) func(Fields, string, Fields) (Update, []KindReceipt, error) {
	return func(data Fields, target string, fields Fields) (Update, []KindReceipt, error) {
		return m.merger(rules).merge(guest, data, target, fields)
	}
}

// mergeToErase is for an account that is about to be erased: what this process cannot read need not wait for another.
func (m *Manager) mergeToErase(guest string) func(Fields, string, Fields) (Update, []KindReceipt, error) {
	return func(data Fields, target string, fields Fields) (Update, []KindReceipt, error) {
		mg := m.merger(nil)
		mg.erase = true
		return mg.merge(guest, data, target, fields)
	}
}

// drive runs the protocol against the store. A caller that goes away does not stop it half way; ClaimTimeout does,
// and whoever comes next finishes it.
func (m *Manager) drive(ctx context.Context, c claim) claim {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.ClaimTimeout)
	defer cancel()
	defer func() {
		if c.buried && c.owner.isAccount() { // of all who finish a claim, one buries
			m.claimed(ctx, c.receipt())
		}
	}()
	for c.phase != done {
		var r reply
		var err error
		switch cmd := c.command(); cmd.do {
		case doGet:
			r.fields, err = m.get(ctx, cmd.key, cmd.names...)
		case doUpdate:
			r.result, err = m.update(ctx, cmd.key, cmd.update)
		case doHook:
			r.err = m.callOnClaim(ctx, c)
		}
		if err != nil && c.phase != strike { // a note that stays is struck by Recover
			return c.fail(err)
		}
		c = c.next(r)
	}
	return c
}
