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

// A claimer runs the claim protocol against the store. It owns what this process remembers about
// claims: which guests are claimed, and when a failed claim may be tried again. It does not know
// visitors, cookies or headers; which guest is claimed for which account is decided in signin.go
// and recognise.go.
type claimer struct {
	records   *records
	report    *reporter
	merger    merger // under the declared merge rules
	lifetimes lifetimes
	timeout   time.Duration // Config.ClaimTimeout
	onClaim   onClaim

	claimedGuests lru.Cache[token.ID, claimedGuest]
	retryAfter    lru.Cache[token.ID, retry] // of guests whose claim failed
}

// mostHops is how often a call follows a claimed guest to the record that has its data now.
const mostHops = 8

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

// A claimedGuest says what became of a guest that was claimed or forgotten.
type claimedGuest struct {
	sibling   token.Token // the one that absorbed it; zero: there is none
	at        int64       // when it was claimed (Unix milliseconds, store's clock); 0: not known
	forgotten bool
}

func (g *claimedGuest) isAbsorbed() bool { return g.sibling.ID != token.ID{} }

// why is the error of data calls of a visitor whose guest this was.
func (g *claimedGuest) why() error {
	if g.forgotten {
		return ErrGone
	}
	return ErrClaimed
}

// claimedGuestOf reads the record of a claimed or forgotten guest.
func claimedGuestOf(fields Fields) (g claimedGuest) {
	state := fields[record.State]
	g.sibling, _ = record.HolderOf(state).Sibling()
	g.forgotten = state == record.Forgotten
	g.at, _ = strconv.ParseInt(fields[record.ClaimedAt], 10, 64)
	return g
}

// isOver reports whether this process knows that a guest has nothing left, so that its cookie can
// be cleared without asking the store: an account has claimed it, it was forgotten, or it was
// absorbed by a sibling that the request names too.
func (c *claimer) isOver(id token.ID, isNamed func(token.ID) bool) bool {
	g, known := c.claimedGuests.Get(id)
	return known && (!g.isAbsorbed() || isNamed(g.sibling.ID))
}

// newClaim returns a claim that has not begun, under the declared merge rules.
func (c *claimer) newClaim(guest string, o record.Owner) claim {
	return claim{
		guest:           guest,
		owner:           o,
		newIncarnation:  record.NewIncarnation(),
		now:             time.Now().UnixMilli(),
		tombstoneTTL:    c.lifetimes.tombstone,
		guestTTL:        c.lifetimes.guest,
		accountTTL:      c.lifetimes.account,
		firstGeneration: record.FirstGeneration(),
		mostMarkers:     mostMarkers,
		merge:           mergeOf(guest, c.merger),
	}
}

// newClaimToErase returns a claim for an account that is about to be erased. It drops data that
// this process cannot read, and does not wait for a process that can.
func (c *claimer) newClaimToErase(guest string, o record.Owner) claim {
	run, merger := c.newClaim(guest, o), c.merger
	merger.erase = true
	run.merge = mergeOf(guest, merger)
	return run
}

// mergeOf returns the merge step of this guest's claim.
func mergeOf(guest string, m merger) mergeStep {
	return func(data Fields, target string, fields Fields) (Update, []KindReceipt, error) {
		return m.merge(guest, data, target, fields)
	}
}

// run runs a claim until it is done. It goes on when the caller goes away. It stops after
// Config.ClaimTimeout; then the next caller that meets the claim finishes it.
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
		if err != nil && run.phase != removeEntry { // Recover removes an entry that stays
			run = run.fail(err)
			break
		}
		run = run.next(r)
	}
	// Several processes may finish one claim. Only one of them leaves the tombstone.
	if run.leftTombstone && run.owner.IsAccount() {
		c.report.claimed(ctx, run.receipt())
	}
	return run
}

// callOnClaim lets the app move its rows to the account. The app knows nothing of siblings.
func (c *claimer) callOnClaim(ctx context.Context, run claim) error {
	if !run.owner.IsAccount() {
		return nil
	}
	return c.onClaim.call(ctx, run.receipt(), c.timeout)
}

// claim claims a guest for an account. If a sibling has absorbed the guest, it claims the sibling,
// which has the data. With mustExist the error is [ErrGone] if the guest has no record.
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
			if !run.leftTombstone { // otherwise run has reported it
				again := receipt
				again.Replayed = true
				c.report.claimed(ctx, again)
			}
			return receipt, nil

		case guestGone:
			if mustExist {
				return noReceipt(accountID), ErrGone
			}
			return noReceipt(accountID), nil // a forgotten guest counts as none

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
			id, mustExist = sibling.ID, false // the sibling has its data

		default:
			return c.pending(ctx, id, run, accountID)
		}
	}
	c.report.refused(ctx, RefusedClaimed)
	return noReceipt(accountID), ErrClaimed
}

// pending reports a claim that failed, and when it may be tried again. Its receipt is Pending.
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
	return receipt, fmt.Errorf("guest: the claim is pending (it will be tried again): %w", run.err)
}

// absorb claims a guest for its sibling. It reports whether the guest has nothing left; otherwise
// its cookie stays, and the next request goes on.
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
	case lost: // another owner has claimed it before
		g.sibling, _ = run.holder.Sibling()
	case guestGone:
		g = claimedGuest{forgotten: true}
	}
	c.claimedGuests.Put(id, g)
	return true
}

// finish is called when a guest was met frozen. It finishes the claim if the caller is about to
// read or write the record that gets the data, because a write must come after the merge.
func (c *claimer) finish(
	ctx context.Context, b *requestBudget, id token.ID, state string, writing bool,
) error {
	h := record.HolderOf(state)
	if _, absorbed := h.Sibling(); !h.Frozen || !writing && !absorbed {
		return nil
	}
	run := c.run(ctx, b, c.newClaim(record.GuestKey(id), h.Owner).finish())
	if !run.merged && run.outcome == failed {
		return fmt.Errorf("%w: this guest's claim is not finished: %w", ErrUnavailable, run.err)
	}
	return nil
}

// follow returns what became of a guest that was met frozen or claimed, and finishes its claim if
// need be.
func (c *claimer) follow(
	ctx context.Context, b *requestBudget, id token.ID, state string, writing bool,
) (claimedGuest, error) {
	if err := c.finish(ctx, b, id, state, writing); err != nil {
		return claimedGuest{}, err
	}
	g := claimedGuestOf(Fields{record.State: state})
	// A guest that is frozen for an account is not remembered as claimed, because the account's
	// next request with this cookie must go on with the claim.
	if g.isAbsorbed() || !record.HolderOf(state).Frozen {
		c.claimedGuests.Put(id, g)
	}
	return g, nil
}

// renew extends the life of a guest that came with a request. claimed is nil, or says what became
// of a claimed guest. first reports that the guest's cookie has come back for the first time; it is
// found out only if askFirst and Hooks.Returned are set.
func (c *claimer) renew(
	ctx context.Context, b *requestBudget, t token.Token, askFirst bool,
) (claimed *claimedGuest, first bool, err error) {
	u := renewal(c.lifetimes.guest)
	u.Return = []string{record.ClaimedAt}
	if askFirst && c.report.hooks.Returned != nil {
		u.markFirst(record.Returned)
	}
	res, err := c.records.update(ctx, b, record.GuestKey(t.ID), u)
	if err == nil && !res.Applied {
		err = c.finish(ctx, b, t.ID, res.Fields[record.State], true)
	}
	if err != nil || res.Applied {
		return nil, res.isFirst(&u, record.Returned), err
	}
	g := claimedGuestOf(res.Fields)
	c.claimedGuests.Put(t.ID, g)
	return &g, false, nil
}

// A retry says when a request may try a failed claim again: after 1 s, 2 s, 4 s and so on, up to 10
// s if the store is unavailable, and up to an hour if OnClaim or a merge rule fails.
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

// isClaimed reads from the store whether a guest is frozen, claimed or forgotten.
func (c *claimer) isClaimed(ctx context.Context, b *requestBudget, id token.ID) (bool, error) {
	fields, err := c.records.get(ctx, b, record.GuestKey(id), record.State, record.ClaimedAt)
	state := fields[record.State]
	if err != nil || state == "" {
		return false, err
	}
	if !record.HolderOf(state).Frozen { // the claim of a frozen guest must go on
		c.claimedGuests.Put(id, claimedGuestOf(fields))
	}
	return true, nil
}

// preview returns the receipt that a claim of the guest by this account would have.
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

// erase replaces the guest's record by a tombstone without an owner. It leaves a frozen or claimed
// record alone, because that record is part of a claim and expires by itself; the error is then
// [ErrClaimed].
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
			// A guest without a record gets a tombstone too; each tombstone has these two fields.
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
		case res.Applied && len(res.Fields) == 2: // otherwise another write came before: once more
			return nil
		}
	}
	return fmt.Errorf("%w: the guest's data kept changing", ErrUnavailable)
}

// eraseFollowing erases the guest, or the sibling that absorbed it. If an account has claimed the
// guest, nothing is left to erase.
func (c *claimer) eraseFollowing(ctx context.Context, b *requestBudget, id token.ID) error {
	ctx = context.WithoutCancel(ctx)
	for range mostHops {
		if err := c.erase(ctx, b, id); err != ErrClaimed {
			return err
		}
		fields, err := c.records.get(ctx, b, record.GuestKey(id), record.State)
		if err != nil {
			return err
		}
		state := fields[record.State]
		sibling, absorbed := record.HolderOf(state).Sibling()
		if !absorbed {
			return nil
		}
		if err := c.finish(ctx, b, id, state, false); err != nil {
			return err
		}
		id = sibling.ID
	}
	return errMoving
}

const stuckAfter = 24 * time.Hour

// reportStuck calls Hooks.Stuck for a failed claim whose guest was frozen more than stuckAfter ago.
func (c *claimer) reportStuck(ctx context.Context, run claim, now time.Time) {
	at := record.Time(run.at)
	if c.report.hooks.Stuck == nil || at.IsZero() || now.Sub(at) <= stuckAfter {
		return
	}
	receipt := run.receipt()
	receipt.Pending = true
	c.report.hooks.Stuck(ctx, receipt, run.err)
}
