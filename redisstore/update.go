package redisstore

import (
	"context"
	"fmt"

	"github.com/guestkit/guest"
)

// Update implements [guest.Store].
//
// If the reply to an update is lost, it is sent again; with Once under the same operation ID, by
// which the script knows it. But if the repetition is not applied, or fails, the first may have
// been, or be still under way: the error wraps [guest.ErrUncertain]. With Once and Drop nothing is
// sent again, because the record takes its IDs along.
//
// With Config.WaitReplicas the error of an update that too few replicas have confirmed in time
// wraps it as well: the master has applied it, but a failover may undo it.
func (s *Store) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	var (
		name         = s.key(key)
		create       = s.createCall(name, u) // nil: not for this update, or there is a record
		change       *scriptCall
		answer       reply
		maybeCreated bool // create may have run
		maybeApplied bool // change may have been applied, or be undone
	)
	err := s.call(ctx, name, func(ctx context.Context) error {
		if create != nil {
			r, sent, err := s.run(ctx, s.writesTo(name), create)
			if err != nil {
				maybeCreated = maybeCreated || sent
				return err
			}
			if r.status == statusApplied {
				maybeCreated = false
				return nil
			}
			// There is a record. If an attempt has made it whose reply was lost, the other script
			// knows it by the defaults.
			create = nil
		}
		if change == nil {
			change = s.changeCall(name, u)
		}
		r, sent, err := s.change(ctx, name, change, u)
		if err != nil {
			maybeApplied = maybeApplied || sent || err == errTooFew
			if sent && u.Once && u.Drop {
				return permanent{err}
			}
			return err
		}
		answer, maybeCreated = r, false
		switch {
		case r.status == statusApplied:
			maybeApplied = false
		case r.status == statusStale && !maybeApplied:
			change.first.renumber(number(r.detail))
			return errRetryNow
		case r.status == statusNoClock:
			s.timeSource.CompareAndSwap(timeInScripts, timeByCommand)
			return errRetryNow
		}
		return nil
	})
	if err == nil && create == nil {
		err = answer.err()
	}
	switch {
	case (maybeCreated || maybeApplied) && err == nil:
		return guest.Result{}, fmt.Errorf("redisstore: update: %w", guest.ErrUncertain)
	case maybeCreated || maybeApplied:
		return guest.Result{}, fmt.Errorf("redisstore: update: %w: %w", guest.ErrUncertain, err)
	case err != nil:
		return guest.Result{}, fmt.Errorf("redisstore: update: %w", err)
	case create != nil:
		return createdResult(u), nil
	}
	return answer.result(), nil
}

// change runs the script that changes a record, after asking for the time if the script cannot.
func (s *Store) change(
	ctx context.Context, key string, c *scriptCall, u guest.Update,
) (r reply, sent bool, err error) {
	if timed(u) && s.timeSource.Load() != timeInScripts {
		now, err := s.now(ctx, key)
		if err != nil {
			return reply{}, false, err
		}
		return s.run(ctx, s.writesTo(key), c, "clock", now)
	}
	return s.run(ctx, s.writesTo(key), c)
}
