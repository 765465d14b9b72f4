package guest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Recover finishes the claims that a crash, an outage or a failing OnClaim left half done, and returns how many. Any
// process may run it at any time, several at once too. What fails is joined in the error and is tried again by
// the next Recover.
func (m *Manager) Recover(ctx context.Context) (finished int, err error) {
	err = m.eachNote(ctx, func(n note, made string, now time.Time) error {
		done, err := m.settle(ctx, m.newClaim(n.guest, n.owner).finish(), n, made, now)
		if done {
			finished++
		}
		return err
	})
	return finished, err
}

// RecoverClaim is [Manager.Recover] for one claim of [Inspector.Pending]. It reports whether the claim is finished.
func (m *Manager) RecoverClaim(ctx context.Context, p PendingClaim) (finished bool, err error) {
	return m.settle(ctx, m.newClaim(p.note.guest, p.note.owner).finish(), p.note, p.made, p.Started.Add(p.Age))
}

const stuckAfter = 24 * time.Hour

// settle runs the claim of a note. A note whose guest is not sealed for it is struck once its claimer cannot
// seal any more.
func (m *Manager) settle(ctx context.Context, c claim, n note, made string, now time.Time) (finished bool, err error) {
	c = m.drive(ctx, c)
	if c.outcome == failed {
		receipt := c.receipt()
		if m.cfg.Hooks.Stuck != nil && !receipt.At.IsZero() && now.Sub(receipt.At) > stuckAfter {
			receipt.Pending = true
			m.cfg.Hooks.Stuck(ctx, receipt, c.err)
		}
		return false, c.err
	}
	if c.outcome == claimed && c.incarnation == n.incarnation { // struck with the claim
		return true, nil
	}
	milli, _ := strconv.ParseInt(made, 10, 64)
	if now.Sub(time.UnixMilli(milli)) < noteLife {
		return c.outcome == claimed, nil
	}
	_, err = m.update(ctx, outboxOf(n.guest), Update{If: Fields{n.field(): made}, Unset: []string{n.field()}, Reserve: true})
	return c.outcome == claimed, err
}

// eachNote calls f for every note in the outbox, with when it was made and what time it is, by the store's clock. It
// goes on after an error of f, but not when the store cannot be asked.
func (m *Manager) eachNote(ctx context.Context, f func(n note, made string, now time.Time) error) (err error) {
	for shard := range outboxShards {
		if ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		notes, e := m.get(ctx, outboxKey(shard))
		if e != nil {
			return errors.Join(err, fmt.Errorf("guest: the outbox was not read: %w", e))
		}
		if len(notes) == 0 {
			continue
		}
		clock, e := m.update(ctx, outboxKey(shard), Update{NotAfter: time.Now().Add(day)}) // changes nothing
		if e != nil {
			return errors.Join(err, fmt.Errorf("guest: the outbox was not read: %w", e))
		}
		for field, made := range notes {
			if n, ok := parseNote(field); ok {
				err = errors.Join(err, f(n, made, clock.Now))
			}
		}
	}
	return err
}

// Run calls Recover every so often (0: every minute) until ctx ends. The app starts it, in a goroutine of its own,
// and stops it: go guests.Run(ctx, 0). One process is enough, any number is safe.
func (m *Manager) Run(ctx context.Context, every time.Duration) {
	if every <= 0 {
		every = time.Minute
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if _, err := m.Recover(ctx); err != nil && ctx.Err() == nil {
			m.warn("Recover left claims unfinished", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
