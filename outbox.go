package guest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/guestkit/guest/internal/record"
)

// The outbox has an entry for each claim under way, so that a claim whose process dies is not
// forgotten.

// An entryInOutbox is an entry as it was read, with its age by the store's clock.
type entryInOutbox struct {
	record.OutboxEntry
	added string // when it was added, as stored
	age   time.Duration
}

// A PendingClaim is a claim under way, or one that a crash, an outage or a failing OnClaim left half
// done.
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
		clock, e := c.records.update(ctx, nil, key, Update{NotAfter: time.Now().Add(day)}) // changes nothing
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

const stuckAfter = 24 * time.Hour

// settle runs the claim of an entry. An entry whose guest is not frozen for it is removed once its
// process cannot freeze it any more.
func (c *claimer) settle(ctx context.Context, run claim, e entryInOutbox) (finished bool, err error) {
	run = c.run(ctx, nil, run)
	if run.outcome == failed {
		c.reportStuck(ctx, run, e)
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

// reportStuck calls Hooks.Stuck for a claim that was frozen long ago.
func (c *claimer) reportStuck(ctx context.Context, run claim, e entryInOutbox) {
	at := record.Time(run.at)
	if c.report.hooks.Stuck == nil || at.IsZero() {
		return
	}
	if now := record.Time(e.added).Add(e.age); now.Sub(at) > stuckAfter {
		receipt := run.receipt()
		receipt.Pending = true
		c.report.hooks.Stuck(ctx, receipt, run.err)
	}
}
