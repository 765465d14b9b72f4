package redisstore

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// errTooFew comes with a reply, so it is one: the connection is fine, and asking again would not help.
const errTooFew = replyError("fewer replicas than WaitReplicas have confirmed the update in WaitTimeout")

// lateness is how much later than asked WAIT may give up: Redis looks at its clock ten times a second.
const lateness = 110 * time.Millisecond

// A confirmed processor sends each command about the key in a pipeline with WAIT: WAIT speaks of what its own
// connection has done, so it must follow on the same one, to the node that has the key. It covers what other connections
// wrote before this one did, and the script always writes unless it refuses an update, so what the answer rests on is
// confirmed: also that an update that came again was applied before, or that a condition does not hold.
type confirmed struct {
	master
	replicas int
	timeout  time.Duration
}

// Process implements processor.
func (c confirmed) Process(ctx context.Context, cmd redis.Cmder) error {
	var got *redis.Cmd
	err := c.send(ctx, cmd, func(pipe redis.Pipeliner) {
		wait := c.timeout
		if end, ok := ctx.Deadline(); ok {
			wait = min(wait, time.Until(end)-lateness) // Redis answers before we stop listening
		}
		got = pipe.Do(ctx, "wait", c.replicas, max(1, wait.Milliseconds())) // 0 would be for ever
	})
	if err != nil {
		return err
	}
	switch n, err := got.Int(); {
	case err != nil && !isReply(err):
		return err
	case err != nil || n < c.replicas:
		return errTooFew
	}
	return nil
}
