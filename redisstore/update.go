package redisstore

import (
	"context"
	"fmt"

	"github.com/guestkit/guest"
	"github.com/redis/go-redis/v9"
)

// Update implements [guest.Store].
//
// If the reply to an update is lost, it is sent again; with Once under the same ID, by which the script knows it. But
// if the repetition is not applied, or fails, the first may have been, or be still under way: the error wraps
// [guest.ErrUncertain]. With Once and Drop nothing is sent again, because the record takes its IDs along.
//
// With Config.WaitReplicas the error of an update that too few replicas have confirmed in time wraps it as well: the
// master has applied it, but a failover may undo it.
func (s *Store) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	var (
		req     = requestOf(u)
		op      = &operation{clock: &s.clock, numbered: u.Once && !u.Drop, arg: req.head}
		args    = withPointers(req.rest, "evalsha", updateSHA, "1", s.key(key), op)
		answer  reply
		to      processor = s.rdb
		unknown bool      // one of the attempts may have been applied, or undone
	)
	if s.waitReplicas > 0 {
		to = confirmed{s.rdb, s.key(key), s.waitReplicas, s.waitTimeout}
	}
	err := s.call(ctx, s.write, func(ctx context.Context) (err error) {
		answer, err = s.eval(ctx, to, op, args, u)
		switch {
		case err == errTooFew:
			unknown = true
		case err != nil && op.sent() && !isReply(err):
			unknown = true
			if u.Once && u.Drop {
				return final{err}
			}
		case err == nil && answer.status == statusApplied:
			unknown = false
		case err == nil && answer.status == statusStale && !unknown:
			op.renumber(number(answer.detail))
			return errAgain
		}
		return err
	})
	if err == nil {
		err = answer.err()
	}
	switch {
	case unknown && err == nil:
		return guest.Result{}, fmt.Errorf("redisstore: update: %w", guest.ErrUncertain)
	case unknown:
		return guest.Result{}, fmt.Errorf("redisstore: update: %w: %w", guest.ErrUncertain, err)
	case err != nil:
		return guest.Result{}, fmt.Errorf("redisstore: update: %w", err)
	}
	return answer.result(u, req.met), nil
}

// eval runs the script once. A server that does not know it has done nothing, and gets it in full.
func (s *Store) eval(ctx context.Context, to processor, op *operation, args []any, u guest.Update) (reply, error) {
	op.prepare()
	args[0], args[1] = "evalsha", updateSHA
	cmd := redis.NewCmd(ctx, args...)
	err := s.send(ctx, to, cmd)
	if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
		op.prepare()
		args[0], args[1] = "eval", updateScript
		cmd = redis.NewCmd(ctx, args...)
		err = s.send(ctx, to, cmd)
	}
	if err != nil {
		return reply{}, err
	}
	return parseReply(cmd.Val(), u)
}
