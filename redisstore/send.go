package redisstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// attempts is how often a call is sent at most.
const attempts = 3

// call calls try until it succeeds or it makes no sense to go on, at most for timeout.
func (s *Store) call(ctx context.Context, timeout time.Duration, try func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !s.breaker.allow() {
		return ErrOpen
	}
	own, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := repeat(own, try)
	answered := err == nil || isReply(err)
	hurried := ended(ctx) // the caller was: that says nothing about Redis
	s.breaker.report(answered, hurried != nil)
	switch {
	case answered || ended(own) == nil:
		return err
	case hurried != nil:
		return fmt.Errorf("%w: %w", hurried, err)
	}
	return fmt.Errorf("no answer within %v: %w", timeout, err)
}

// ended is ctx.Err, but not later than the socket, which has the same deadline.
func ended(ctx context.Context) error {
	if end, ok := ctx.Deadline(); ok && ctx.Err() == nil && !time.Now().Before(end) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// repeat tries again after a refusal, and after a broken connection: the first time at once, then after a pause.
func repeat(ctx context.Context, try func(context.Context) error) error {
	for n := 1; ; n++ {
		err := try(ctx)
		for err == errAgain && ctx.Err() == nil {
			err = try(ctx)
		}
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

// processor is a client, or the client of one node of a Cluster.
type processor interface {
	Process(context.Context, redis.Cmder) error
}

// once is a command that go-redis does not send again on its own account, except where a Cluster redirects it, nor answers from
// a client-side cache, which hears of others' writes only later.
type once struct{ redis.Cmder }

func (once) NoRetry() bool { return true }

// send sends cmd and waits for its reply until ctx ends. Then nobody may touch cmd any more: a client that does not
// keep deadlines is still at work on it.
func (s *Store) send(ctx context.Context, to processor, cmd redis.Cmder) error {
	if s.deadlines {
		return redact(process(ctx, to, cmd))
	}
	done := make(chan error, 1)
	go func() { done <- process(ctx, to, cmd) }()
	select {
	case err := <-done:
		return redact(err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errReply: whatever answers, it is not a Redis that understood us.
var errReply = errors.New("the reply is not one to this command")

// process sends cmd. A reply that claims an impossible length makes go-redis panic, after it has put the connection away.
func process(ctx context.Context, to processor, cmd redis.Cmder) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = final{fmt.Errorf("%w: %v", errReply, p)}
		}
	}()
	return to.Process(ctx, once{cmd})
}

// keepsDeadlines reports whether rdb ends a command at the deadline of its context. Of a wrapper we cannot know.
func keepsDeadlines(rdb redis.UniversalClient) bool {
	var enabled bool
	var read, write time.Duration // negative: go-redis sets no deadlines at all
	switch c := rdb.(type) {
	case *redis.Client:
		enabled, read, write = c.Options().ContextTimeoutEnabled, c.Options().ReadTimeout, c.Options().WriteTimeout
	case *redis.ClusterClient:
		enabled, read, write = c.Options().ContextTimeoutEnabled, c.Options().ReadTimeout, c.Options().WriteTimeout
	case *redis.Ring:
		enabled, read, write = c.Options().ContextTimeoutEnabled, c.Options().ReadTimeout, c.Options().WriteTimeout
	}
	return enabled && read >= 0 && write >= 0
}

// final is an error after which a call must not be tried again.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// A replyError is, like an error reply of Redis, an answer: nothing was done, and the connection is fine.
type replyError string

func (e replyError) Error() string { return string(e) }
func (replyError) RedisError()     {}

// errAgain asks for another try at once, which does not count.
const errAgain = replyError("the record is written to faster than we can follow")

// redact shortens an error reply that repeats the command, because the command holds the key.
func redact(err error) error {
	if err != nil && isReply(err) {
		if text, _, found := strings.Cut(err.Error(), ", with args"); found {
			return replyError(text)
		}
	}
	return err
}

// isReply reports whether err is an answer of Redis.
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
	return moved || ask || redis.IsTryAgainError(err) || redis.IsClusterDownError(err) || redis.IsMasterDownError(err) ||
		redis.IsLoadingError(err) || redis.IsMaxClientsError(err) || redis.IsReadOnlyError(err) ||
		strings.Contains(err.Error(), "-READONLY ") // as scripts say it before Redis 7
}

// isBroken reports whether the connection broke, or there was none, and another may serve.
func isBroken(err error) bool {
	if err == nil || isReply(err) || errors.As(err, new(final)) {
		return false
	}
	for _, slow := range []error{context.Canceled, context.DeadlineExceeded, redis.ErrPoolTimeout, redis.ErrPoolExhausted, redis.ErrClosed} {
		if errors.Is(err, slow) {
			return false
		}
	}
	var network net.Error
	return !errors.As(err, &network) || !network.Timeout() // what is slow only gets slower by asking again
}
