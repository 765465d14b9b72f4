package guest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/guestkit/guest/internal/lru"
	"github.com/guestkit/guest/internal/record"
	"github.com/guestkit/guest/internal/token"
)

// A claimer runs the claim protocol against the store, and remembers which guests are claimed.
type claimer struct {
	records   *records
	report    *reporter
	merger    merger // under the declared merge rules
	lifetimes lifetimes
	timeout   time.Duration // Config.ClaimTimeout
	onClaim   onClaim

	claimedGuests lru.Cache[token.ID, claimedGuest]
	retryAfter    lru.Cache[token.ID, retry] // claims that failed
}

const mostHops = 8 // from a claimed guest to where its data are

var errMoving = fmt.Errorf("%w: the guest's data are being moved", ErrUnavailable)

func newClaimer(
	records *records, report *reporter, kinds *kinds, quota Quota, lives lifetimes,
	timeout time.Duration, app func(context.Context, Receipt) error,
) *claimer {
	return &claimer{
		records: records, report: report, lifetimes: lives, timeout: timeout,
		merger:  merger{kinds: kinds, quota: Quota{2 * quota.Fields, 2 * quota.Bytes}},
		onClaim: onClaim{app: app},
	}
}

// A claimedGuest says what became of a guest that is claimed or forgotten.
type claimedGuest struct {
	sibling   token.Token // that absorbed it; zero: an account has claimed it, or it was forgotten
	at        int64       // when it was claimed, Unix milliseconds by the store's clock; 0: not known
	forgotten bool
}

func (g *claimedGuest) isAbsorbed() bool { return g.sibling.ID != token.ID{} }

// why is what data calls of a visitor answer whose guest this was.
func (g *claimedGuest) why() error {
	if g.forgotten {
		return ErrGone
	}
	return ErrClaimed
}

// claimedGuestOf reads the record of a guest that is claimed.
func claimedGuestOf(fields Fields) (g claimedGuest) {
	state := fields[record.State]
	if sibling, absorbed := record.HolderOf(state).Sibling(); absorbed {
		g.sibling = sibling
	}
	g.forgotten = state == record.Forgotten
	g.at, _ = strconv.ParseInt(fields[record.ClaimedAt], 10, 64)
	return g
}

// isOver reports whether this process knows that a guest has nothing left, so that its cookie can
// be cleared without asking the store: an account has claimed it, it was forgotten, or a sibling
// has absorbed it that the request names too.
func (c *claimer) isOver(id token.ID, isNamed func(token.ID) bool) bool {
	g, known := c.claimedGuests.Get(id)
	return known && (!g.isAbsorbed() || isNamed(g.sibling.ID))
}

// newClaim prepares a run of the protocol under the declared merge rules.
func (c *claimer) newClaim(guest string, o record.Owner) claim {
	ttl := c.lifetimes.account
	if !o.IsAccount() {
		ttl = c.lifetimes.guest
	}
	return claim{
		guest:           guest,
		owner:           o,
		newIncarnation:  record.NewIncarnation(),
		now:             time.Now().UnixMilli(),
		tombstoneTTL:    c.lifetimes.tombstone,
		targetTTL:       ttl,
		accountTTL:      c.lifetimes.account,
		firstGeneration: record.FirstGeneration(),
		mostMarkers:     mostMarkers,
		merge:           mergeOf(guest, c.merger),
	}
}

// newClaimToErase prepares a run for an account that is about to be erased: what this process
// cannot read need not wait for another process.
func (c *claimer) newClaimToErase(guest string, o record.Owner) claim {
	run, merger := c.newClaim(guest, o), c.merger
	merger.erase = true
	run.merge = mergeOf(guest, merger)
	return run
}

// mergeOf returns the step of a claim that merges this guest's data.
func mergeOf(guest string, m merger) mergeStep {
	return func(data Fields, target string, fields Fields) (Update, []KindReceipt, error) {
		return m.merge(guest, data, target, fields)
	}
}

// run runs the protocol against the store. A caller that goes away does not stop it half way;
// Config.ClaimTimeout does, and the next one that meets the claim finishes it.
func (c *claimer) run(ctx context.Context, b *requestBudget, run claim) claim {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
	defer cancel()
	for run.phase != done {
		var r reply
		var err error
		switch cmd := run.command(); cmd.do {
		case doGet:
			r.fields, err = c.records.get(ctx, b, cmd.key, cmd.names...)
		case doUpdate:
			r.result, err = c.records.update(ctx, b, cmd.key, cmd.update)
		case doHook:
			r.err = c.callOnClaim(ctx, run)
		}
		if err != nil && run.phase != removeEntry { // an entry that stays is removed by Recover
			run = run.fail(err)
			break
		}
		run = run.next(r)
	}
	if run.leftTombstone && run.owner.IsAccount() { // of all that finish a claim, one does
		c.report.claimed(ctx, run.receipt())
	}
	return run
}

// callOnClaim lets the app move its rows to the account.
func (c *claimer) callOnClaim(ctx context.Context, run claim) error {
	if !run.owner.IsAccount() {
		return nil
	}
	return c.onClaim.call(ctx, run.receipt(), c.timeout)
}

// claim claims a guest for an account, or if a sibling has absorbed it that one. With mustExist the
// error is [ErrGone] if the guest has no record.
func (c *claimer) claim(
	ctx context.Context, b *requestBudget, id token.ID, mustExist bool,
	accountID string, rules mergeRules,
) (receipt Receipt, err error) {
	for range mostHops {
		run := c.newClaim(record.GuestKey(id), record.AccountOwner(accountID))
		run.merge = mergeOf(run.guest, c.merger.with(rules))
		run.mustExist = mustExist
		run = c.run(ctx, b, run)
		switch run.outcome {
		case claimed:
			c.retryAfter.Delete(id)
			receipt := run.receipt()
			if !run.leftTombstone { // else run has reported it
				again := receipt
				again.Replayed = true
				c.report.claimed(ctx, again)
			}
			return receipt, nil

		case guestGone:
			if mustExist {
				return noReceipt(accountID), ErrGone
			}
			return noReceipt(accountID), nil // a forgotten guest is none

		case lost:
			sibling, absorbed := run.holder.Sibling()
			if !absorbed {
				c.report.refused(ctx, RefusedClaimed)
				return noReceipt(accountID), ErrClaimed
			}
			if run.holder.Frozen {
				finish := c.run(ctx, b, c.newClaim(run.guest, run.holder.Owner).finish())
				if finish.outcome == failed {
					return c.pending(ctx, id, finish, accountID)
				}
			}
			id, mustExist = sibling.ID, false // its data are the sibling's

		default:
			return c.pending(ctx, id, run, accountID)
		}
	}
	c.report.refused(ctx, RefusedClaimed)
	return noReceipt(accountID), ErrClaimed
}

func (c *claimer) pending(
	ctx context.Context, id token.ID, run claim, accountID string,
) (Receipt, error) {
	again, _ := c.retryAfter.Get(id)
	c.retryAfter.Put(id, again.next(run.err))
	receipt := run.receipt()
	receipt.AccountID = accountID
	receipt.Pending = true
	c.report.warn("a claim is pending", run.err)
	c.report.claimed(ctx, receipt)
	return receipt, fmt.Errorf("guest: the claim is pending and will be tried again: %w", run.err)
}

// absorb claims a guest for its sibling. It reports whether the guest has nothing left; else its
// cookie stays, and the next request goes on with it.
func (c *claimer) absorb(
	ctx context.Context, b *requestBudget, id token.ID, sibling token.Token,
) (done bool) {
	run := c.run(ctx, b, c.newClaim(record.GuestKey(id), record.GuestOwner(sibling)))
	g := claimedGuest{sibling: sibling}
	switch run.outcome {
	case failed:
		c.report.warn("a sibling guest was not absorbed", run.err)
		return false
	case stillOpen:
		return false
	case lost: // it was claimed before
		g.sibling, _ = run.holder.Sibling()
	case guestGone:
		g = claimedGuest{forgotten: true}
	}
	c.claimedGuests.Put(id, g)
	return true
}

// finish finishes the claim of a guest that was met frozen, if its data are about to be read or
// written where they go: what is written now comes after them.
func (c *claimer) finish(
	ctx context.Context, b *requestBudget, key, state string, writing bool,
) error {
	h := record.HolderOf(state)
	if _, absorbed := h.Sibling(); !h.Frozen || !writing && !absorbed {
		return nil
	}
	run := c.run(ctx, b, c.newClaim(key, h.Owner).finish())
	if !run.merged && run.outcome == failed {
		return fmt.Errorf("%w: a claim of this guest is under way: %w", ErrUnavailable, run.err)
	}
	return nil
}

// follow says what became of a guest that was met frozen or claimed.
func (c *claimer) follow(
	ctx context.Context, b *requestBudget, key, state string, writing bool,
) (claimedGuest, error) {
	if err := c.finish(ctx, b, key, state, writing); err != nil {
		return claimedGuest{}, err
	}
	g := claimedGuestOf(Fields{record.State: state})
	// A guest that is frozen for an account is not remembered as claimed: the account's next
	// request with this cookie goes on with the claim.
	if g.isAbsorbed() || !record.HolderOf(state).Frozen {
		if id, ok := token.ParseID(record.GuestID(key)); ok {
			c.claimedGuests.Put(id, g)
		}
	}
	return g, nil
}

// renew extends the life of a guest that came with a request. If it is claimed, claimed says what
// became of it. first: this is the first time that its cookie has come back; it is only asked for
// where Hooks.Returned is set.
func (c *claimer) renew(
	ctx context.Context, b *requestBudget, t token.Token, askFirst bool,
) (claimed *claimedGuest, first bool, err error) {
	u := renewal(c.lifetimes.guest)
	u.Return = []string{record.ClaimedAt}
	if askFirst && c.report.hooks.Returned != nil {
		u.markFirst(record.Returned)
	}
	key := record.GuestKey(t.ID)
	res, err := c.records.update(ctx, b, key, u)
	if err == nil && !res.Applied {
		err = c.finish(ctx, b, key, res.Fields[record.State], true)
	}
	if err != nil || res.Applied {
		return nil, res.isFirst(&u, record.Returned), err
	}
	g := claimedGuestOf(res.Fields)
	c.claimedGuests.Put(t.ID, g)
	return &g, false, nil
}

// retry says when a request may try a failed claim again: after 1 s, 2 s, 4 s … up to 10 s while
// the store is down, up to an hour if it is OnClaim or a merge rule that fails.
type retry struct {
	at    time.Time
	pause time.Duration
}

func (r retry) next(cause error) retry {
	longest := time.Hour
	if errors.Is(cause, ErrUnavailable) {
		longest = 10 * time.Second
	}
	pause := max(time.Second, min(2*r.pause, longest))
	return retry{time.Now().Add(pause), pause}
}

// isClaimed reads whether a guest is frozen, claimed or forgotten.
func (c *claimer) isClaimed(ctx context.Context, b *requestBudget, id token.ID) (bool, error) {
	fields, err := c.records.get(ctx, b, record.GuestKey(id), record.State, record.ClaimedAt)
	state := fields[record.State]
	if err != nil || state == "" {
		return false, err
	}
	if !record.HolderOf(state).Frozen { // else its claim goes on
		c.claimedGuests.Put(id, claimedGuestOf(fields))
	}
	return true, nil
}

// preview says what a claim of the guest by this account would do.
func (c *claimer) preview(
	ctx context.Context, b *requestBudget, id token.ID, accountID string,
) (Receipt, error) {
	receipt := noReceipt(accountID)
	receipt.GuestID = id.String()
	guestKey, accountKey := record.GuestKey(id), record.AccountKey(accountID)
	guest, err := c.records.get(ctx, b, guestKey)
	if err != nil {
		return receipt, err
	}
	switch guest[record.State] {
	case "":
	case record.Forgotten:
		return noReceipt(accountID), nil
	default:
		return receipt, ErrClaimed
	}
	account, err := c.records.get(ctx, b, accountKey)
	if err != nil {
		return receipt, err
	}
	_, receipt.Kinds, err = c.merger.merge(guestKey, record.DataOf(guest), accountKey, account)
	return receipt, err
}

// erase replaces the guest's record by a tombstone without an owner. A record that is frozen or
// claimed is left alone: it is the claim's, and expires by itself. Then the error is [ErrClaimed].
func (c *claimer) erase(ctx context.Context, b *requestBudget, id token.ID) error {
	key := record.GuestKey(id)
	for range mostRounds {
		fields, err := c.records.get(ctx, b, key)
		if err != nil {
			return err
		}
		state, incarnation := fields[record.State], fields[record.Incarnation]
		if state != "" && state != record.Forgotten {
			return ErrClaimed
		}
		u := Update{
			If: Fields{record.State: state, record.Incarnation: incarnation},
			// A record of one field would count as empty.
			Default:   Fields{record.Incarnation: record.NewIncarnation()},
			Set:       Fields{record.State: record.Forgotten},
			TTL:       c.lifetimes.tombstone,
			Reserve:   true,
			ReturnAll: true,
		}
		for field := range fields {
			if field != record.State && field != record.Incarnation {
				u.Unset = append(u.Unset, field)
			}
		}
		res, err := c.records.update(ctx, b, key, u)
		switch {
		case err != nil:
			return err
		case res.Applied && len(res.Fields) == 2: // else a write came between: erase that in the next round
			return nil
		}
	}
	return fmt.Errorf("%w: the guest kept changing", ErrUnavailable)
}

// eraseFollowing erases the guest, or the sibling that absorbed it. Of one that an account has
// claimed nothing is left to erase.
func (c *claimer) eraseFollowing(
	ctx context.Context, b *requestBudget, id token.ID,
) error {
	ctx = context.WithoutCancel(ctx)
	for range mostHops {
		if err := c.erase(ctx, b, id); err != ErrClaimed {
			return err
		}
		key := record.GuestKey(id)
		fields, err := c.records.get(ctx, b, key, record.State)
		if err != nil {
			return err
		}
		state := fields[record.State]
		sibling, absorbed := record.HolderOf(state).Sibling()
		if !absorbed {
			return nil
		}
		if err := c.finish(ctx, b, key, state, false); err != nil {
			return err
		}
		id = sibling.ID
	}
	return errMoving
}

const stuckAfter = 24 * time.Hour

// reportStuck calls Hooks.Stuck for a claim that failed and was frozen long ago.
func (c *claimer) reportStuck(ctx context.Context, run claim, now time.Time) {
	at := record.Time(run.at)
	if c.report.hooks.Stuck == nil || at.IsZero() || now.Sub(at) <= stuckAfter {
		return
	}
	receipt := run.receipt()
	receipt.Pending = true
	c.report.hooks.Stuck(ctx, receipt, run.err)
}
