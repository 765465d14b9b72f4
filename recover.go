package guest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/guestkit/guest/internal/record"
)

// Recovery: the outbox has an entry for each claim under way, so that a claim is found and finished
// if its process dies. This file reads the outbox and removes entries that no claim needs any more;
// it does not know the steps of a claim, which protocol.go has.

// Recover finishes the claims that a crash, an outage or a failing OnClaim left unfinished, and
// returns how many it has finished. Any process may run it at any time, also several processes at
// once. The error joins those of claims that could not be finished; the next Recover tries them
// again.
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

// RecoverClaim is [Manager.Recover] for one claim that [Inspector.Pending] has returned. It reports
// whether the claim is finished.
func (m *Manager) RecoverClaim(ctx context.Context, p PendingClaim) (finished bool, err error) {
	claimer, e := m.site.claimer, p.entry
	return claimer.settle(ctx, claimer.newClaim(e.Guest, e.Owner).finish(), e)
}

// Run calls Recover at once and then each time every has passed (0: every minute), until ctx ends.
// The app starts it in a goroutine of its own: go guests.Run(ctx, 0). It is enough to run it in one
// process; any number is safe.
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

// An entryInOutbox is an outbox entry as it was read.
type entryInOutbox struct {
	record.OutboxEntry
	added string    // when it was added, as stored
	now   time.Time // when it was read, by the store's clock
}

func (e *entryInOutbox) age() time.Duration { return e.now.Sub(record.Time(e.added)) }

// A PendingClaim is a claim under way, or one that a crash, an outage or a failing OnClaim left
// unfinished.
type PendingClaim struct {
	ID        string        `json:"id"`
	GuestID   string        `json:"guest_id"`
	AccountID string        `json:"account_id,omitempty"` // the account that claims the guest
	SiblingID string        `json:"sibling_id,omitempty"` // or the guest that absorbs it
	State     string        `json:"state"`                // ClaimStarted and so on
	Started   time.Time     `json:"started"`              // by the store's clock
	Age       time.Duration `json:"-"`                    // since Started, by the store's clock

	entry entryInOutbox
}

// How far a claim is, as long as it has an outbox entry.
const (
	ClaimStarted  = "started"  // the guest is open: about to be frozen, or the process died before
	ClaimFrozen   = "frozen"   // the guest is frozen; its owner does not have the data yet
	ClaimMerged   = "merged"   // the owner has the data; OnClaim and the tombstone are next
	ClaimFinished = "finished" // only the outbox entry is left to remove
	ClaimLost     = "lost"     // another owner has the guest, or it has another incarnation
)

// eachEntry calls f for every entry in the outbox. It goes on after an error of f, but stops if the
// store cannot be read.
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
		readClock := Update{NotAfter: time.Now().Add(24 * time.Hour)} // changes nothing
		clock, e := c.records.update(ctx, nil, key, readClock)
		if e != nil {
			return errors.Join(err, fmt.Errorf("guest: the outbox was not read: %w", e))
		}
		for field, added := range entries {
			if entry, ok := record.ParseOutboxEntry(field); ok {
				err = errors.Join(err, f(entryInOutbox{entry, added, clock.Now}))
			}
		}
	}
	return err
}

// settle runs the claim of an entry. If the guest is not frozen for the claim, the entry is removed
// once it is too late for its process to freeze the guest.
func (c *claimer) settle(
	ctx context.Context, run claim, e entryInOutbox,
) (finished bool, err error) {
	run = c.run(ctx, nil, run)
	if run.outcome == failed {
		c.reportStuck(ctx, run, e.now)
		return false, run.err
	}
	if run.outcome == claimed && run.incarnation == e.Incarnation { // which removed the entry
		return true, nil
	}
	if e.age() < entryLife {
		return false, nil
	}
	_, err = c.records.update(ctx, nil, record.OutboxOf(e.Guest), Update{
		If: Fields{e.Field(): e.added}, Unset: []string{e.Field()}, Reserve: true,
	})
	return false, err
}

// eraseAccount finishes the claims for the account, so that nothing comes back later, and removes
// its record.
func (c *claimer) eraseAccount(ctx context.Context, accountID string) error {
	owner := record.AccountOwner(accountID)
	pending := c.eachEntry(ctx, func(e entryInOutbox) error {
		if e.Owner != owner {
			return nil
		}
		run := c.newClaimToErase(e.Guest, e.Owner)
		run.only, run.newIncarnation = e.Incarnation, e.Incarnation
		run.finishOnly = e.age() > freezeWithin // then no process can freeze the guest any more
		_, err := c.settle(ctx, run, e)
		return err
	})
	// A merge that was prepared before this cannot be applied afterwards: a new record begins with
	// another random generation.
	key := record.AccountKey(accountID)
	_, err := c.records.update(ctx, nil, key, Update{Drop: true})
	return errors.Join(pending, err)
}
