package guest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/guestkit/guest/internal/record"
)

// Recover finishes the claims that a crash, an outage or a failing OnClaim left half done, and
// returns how many. Any process may run it at any time, several at once too. What fails is joined
// in the error and is tried again by the next Recover.
func (m *Manager) Recover(ctx context.Context) (finished int, err error) {
	claimer := m.site.claimer
	err = claimer.eachEntry(ctx, func(e entryInOutbox) error {
		done, err := claimer.settle(ctx, claimer.newClaim(e.Guest, e.Owner).finish(), e)
		if done {
			finished++
		}
		return err
	})
	return finished, err
}

// RecoverClaim is [Manager.Recover] for one claim of [Inspector.Pending]. It reports whether the
// claim is finished.
func (m *Manager) RecoverClaim(ctx context.Context, p PendingClaim) (finished bool, err error) {
	claimer, e := m.site.claimer, p.entry
	return claimer.settle(ctx, claimer.newClaim(e.Guest, e.Owner).finish(), e)
}

// Run calls Recover every so often (0: every minute) until ctx ends. The app starts it, in a
// goroutine of its own, and stops it: go guests.Run(ctx, 0). One process is enough, any number is
// safe.
func (m *Manager) Run(ctx context.Context, every time.Duration) {
	if every <= 0 {
		every = time.Minute
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if _, err := m.Recover(ctx); err != nil && ctx.Err() == nil {
			m.site.warn("Recover left claims unfinished", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// The outbox has an entry for each claim under way, so that a claim whose process dies is not
// forgotten.

// An entryInOutbox is an entry as it was read, with its age by the store's clock.
type entryInOutbox struct {
	record.OutboxEntry
	added string // when it was added, as stored
	age   time.Duration
}

// A PendingClaim is a claim under way, or one that a crash, an outage or a failing OnClaim left
// half done.
type PendingClaim struct {
	ID        string        `json:"id"`
	GuestID   string        `json:"guest_id"`
	AccountID string        `json:"account_id,omitempty"` // that claims it
	SiblingID string        `json:"sibling_id,omitempty"` // or the guest that absorbs it
	State     string        `json:"state"`                // see ClaimStarted and the others
	Started   time.Time     `json:"started"`              // by the store's clock
	Age       time.Duration `json:"-"`                    // since then, by the same clock

	entry entryInOutbox
}

// How far a claim is whose outbox entry is there.
const (
	ClaimStarted  = "started"  // its guest is open: it is about to be frozen, or its process died
	ClaimFrozen   = "frozen"   // its guest is frozen, the data are not the owner's yet
	ClaimMerged   = "merged"   // the data are the owner's; OnClaim is due, or the tombstone
	ClaimFinished = "finished" // only the outbox entry is left
	ClaimLost     = "lost"     // its guest is another owner's, or of another incarnation
)

// eachEntry calls f for every entry in the outbox. It goes on after an error of f, but not when the
// store cannot be asked.
func (c *claimer) eachEntry(ctx context.Context, f func(entryInOutbox) error) (err error) {
	for shard := range record.OutboxShards {
		if ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		key := record.OutboxKey(shard)
		entries, e := c.records.get(ctx, nil, key)
		if e != nil {
			return errors.Join(err, fmt.Errorf("guest: the outbox was not read: %w", e))
		}
		if len(entries) == 0 {
			continue
		}
		clock, e := c.records.update(ctx, nil, key, Update{NotAfter: time.Now().Add(24 * time.Hour)}) // changes nothing
		if e != nil {
			return errors.Join(err, fmt.Errorf("guest: the outbox was not read: %w", e))
		}
		for field, added := range entries {
			if entry, ok := record.ParseOutboxEntry(field); ok {
				age := clock.Now.Sub(time.UnixMilli(0))
				if at := record.Time(added); !at.IsZero() {
					age = clock.Now.Sub(at)
				}
				err = errors.Join(err, f(entryInOutbox{entry, added, age}))
			}
		}
	}
	return err
}

// settle runs the claim of an entry. An entry whose guest is not frozen for it is removed once its
// process cannot freeze it any more.
func (c *claimer) settle(ctx context.Context, run claim, e entryInOutbox) (finished bool, err error) {
	run = c.run(ctx, nil, run)
	if run.outcome == failed {
		c.reportStuck(ctx, run, record.Time(e.added).Add(e.age))
		return false, run.err
	}
	if run.outcome == claimed && run.incarnation == e.Incarnation { // the claim has removed the entry
		return true, nil
	}
	if e.age < entryLife {
		return run.outcome == claimed, nil
	}
	_, err = c.records.update(ctx, nil, record.OutboxOf(e.Guest), Update{
		If: Fields{e.Field(): e.added}, Unset: []string{e.Field()}, Reserve: true,
	})
	return run.outcome == claimed, err
}

// eraseAccount finishes the claims for the account, so that nothing comes back, and drops its
// record.
func (c *claimer) eraseAccount(ctx context.Context, accountID string) error {
	owner := record.AccountOwner(accountID)
	pending := c.eachEntry(ctx, func(e entryInOutbox) error {
		if e.Owner != owner {
			return nil
		}
		run := c.newClaimToErase(e.Guest, e.Owner)
		run.only, run.newIncarnation = e.Incarnation, e.Incarnation
		run.finishOnly = e.age > freezeWithin // its process cannot freeze it any more
		_, err := c.settle(ctx, run, e)
		return err
	})
	// A merge that was prepared before does not apply after this: its generation is not that of a
	// new record.
	key := record.AccountKey(accountID)
	_, err := c.records.update(ctx, nil, key, Update{Drop: true})
	return errors.Join(pending, err)
}
