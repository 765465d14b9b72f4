package redisstore

import (
	"context"
	"fmt"
	"slices"

	"github.com/guestkit/guest"
	"github.com/redis/go-redis/v9"
)

// Update implements [guest.Store].
//
// If the reply to an update is lost, it is sent again; with Once under the same ID, by which the script knows it. But
// if the repetition is not applied, or fails, the first may have been, or be still under way: the error wraps
// [guest.ErrUncertain]. With Once and Drop nothing is sent again, because the record takes its IDs along.
//
// An update with New is lua/create.lua where it can be, which makes a record but changes none; if there is one,
// lua/update.lua follows. A creation whose reply was lost is known by its Default: no number of other updates hides it, and if
// the other script finds another's, it was not applied. With WaitReplicas lua/update.lua does it alone: two would wait twice.
//
// With Config.WaitReplicas the error of an update that too few replicas have confirmed in time wraps it as well: the
// master has applied it, but a failover may undo it.
func (s *Store) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	var (
		name    = s.key(key)
		first   *creation // nil: the other script does it
		script  *execution
		answer  reply
		to      = s.masterOf(name)
		doubt   bool // a creation may have been applied
		unknown bool // one of the attempts may have been applied, or undone
	)
	if s.waitReplicas > 0 {
		to = confirmed{master{s.rdb, name}, s.waitReplicas, s.waitTimeout}
	} else {
		first = s.creationOf(name, u)
	}
	err := s.call(ctx, s.writeTimeout, func(ctx context.Context) (err error) {
		if first != nil {
			made, err := s.create(ctx, first)
			if made || err != nil {
				lost := err != nil && first.op.sent() && !isReply(err) // sent takes the command back, if it still can
				doubt = lost || err != nil && doubt
				return err
			}
			first = nil
		}
		if script == nil {
			script = s.execution(name, u)
		}
		answer, err = s.eval(ctx, to, script, u)
		doubt = doubt && err != nil // the script has seen whose creation the record is
		switch {
		case err == errTooFew:
			unknown = true
		case err != nil && script.op.sent() && !isReply(err):
			unknown = true
			if u.Once && u.Drop {
				return final{err}
			}
		case err == nil && answer.status == statusApplied:
			unknown = false
		case err == nil && answer.status == statusStale && !unknown:
			script.op.renumber(number(answer.detail))
			return errAgain
		}
		return err
	})
	unknown = unknown || doubt
	if err == nil && first == nil {
		err = answer.err()
	}
	switch {
	case unknown && err == nil:
		return guest.Result{}, fmt.Errorf("redisstore: update: %w", guest.ErrUncertain)
	case unknown:
		return guest.Result{}, fmt.Errorf("redisstore: update: %w: %w", guest.ErrUncertain, err)
	case err != nil:
		return guest.Result{}, fmt.Errorf("redisstore: update: %w", err)
	case first != nil:
		return created(u), nil
	}
	return answer.result(u, script.met), nil
}

// An execution is a run of the script, to be sent perhaps several times.
type execution struct {
	request
	op          operation
	args        []any
	roomForArgs [5]any
}

func (s *Store) execution(key string, u guest.Update) *execution {
	e := new(execution)
	e.fill(u, s.waitReplicas > 0)
	e.op.clock, e.op.numbered, e.op.arg = &s.clock, u.Once && !u.Drop, e.head
	e.args = appendPointers(append(e.roomForArgs[:0], "evalsha", updateSHA, "1", key, &e.op), e.rest)
	return e
}

// eval runs the update's script once.
func (s *Store) eval(ctx context.Context, to processor, e *execution, u guest.Update) (reply, error) {
	answer, err := s.run(ctx, to, &e.op, updateScript, e.args)
	if err != nil {
		return reply{}, err
	}
	return parseReply(answer, u)
}

// run runs a script once. A server that does not know it has done nothing, and gets it in full.
func (s *Store) run(ctx context.Context, to processor, op *operation, script string, args []any) (any, error) {
	op.prepare()
	cmd := redis.NewCmd(ctx, args...)
	err := s.send(ctx, to, cmd)
	if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
		op.prepare()
		inFull := slices.Concat([]any{"eval", script}, args[2:])
		cmd = redis.NewCmd(ctx, inFull...)
		err = s.send(ctx, to, cmd)
	}
	if err != nil {
		return nil, err
	}
	return cmd.Val(), nil
}
