package redisstore

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// attempts is how often a call is sent at most.
const attempts = 3

// repeat tries again after a refusal, and after a broken connection: the first time at once, then
// after a pause.
func repeat(ctx context.Context, try func(context.Context) error) error {
	for n := 1; ; n++ {
		err := try(ctx)
		broken := isBroken(err)
		if n == attempts || !broken && !isRefusal(err) {
			return err
		}
		if broken && n == 1 {
			continue
		}
		// 4 to 12 ms, then 8 to 24 ms: many wait for the same thing.
		pause := time.NewTimer(time.Duration(n) * (4*time.Millisecond + rand.N(8*time.Millisecond)))
		select {
		case <-ctx.Done():
			pause.Stop()
			return err
		case <-pause.C:
		}
	}
}

// A permanent error is one after which a call must not be tried again.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// A replyError is, like an error reply of Redis, an answer: nothing was done, and the connection is
// fine.
type replyError string

func (e replyError) Error() string { return string(e) }
func (replyError) RedisError()     {}

// errRetryNow asks for another try at once: Redis has answered that the update needs another form.
const errRetryNow = replyError("there was no time left to send the update in another form")

// isAnswer reports whether a call that ended with err was answered: it succeeded, or Redis says why
// not.
func isAnswer(err error) bool { return err == nil || isReply(err) }

// isReply reports whether err is an error reply of Redis.
func isReply(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}

// isRefusal reports whether Redis did not look at the command, and may soon.
func isRefusal(err error) bool {
	if err == nil || !isReply(err) {
		return false
	}
	_, moved := redis.IsMovedError(err) // more often than the client follows
	_, ask := redis.IsAskError(err)
	return moved || ask || redis.IsTryAgainError(err) || redis.IsClusterDownError(err) ||
		redis.IsMasterDownError(err) || redis.IsLoadingError(err) || redis.IsMaxClientsError(err) ||
		redis.IsReadOnlyError(err) || redis.HasErrorPrefix(err, "BUSY") ||
		strings.Contains(err.Error(), "-READONLY ") // as scripts say it before Redis 7
}

// isBroken reports whether the connection broke, or there was none, and another may serve.
func isBroken(err error) bool {
	if isAnswer(err) || errors.As(err, new(permanent)) {
		return false
	}
	for _, slow := range []error{
		context.Canceled, context.DeadlineExceeded,
		redis.ErrPoolTimeout, redis.ErrPoolExhausted, redis.ErrClosed,
	} {
		if errors.Is(err, slow) {
			return false
		}
	}
	var network net.Error
	slow := errors.As(err, &network) && network.Timeout()
	return !slow // what is slow only gets slower by asking again
}
