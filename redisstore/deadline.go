package redisstore

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// processor is a client, or the client of one node of a Cluster.
type processor interface {
	Process(context.Context, redis.Cmder) error
}

// once is a command that go-redis does not send again on its own account, except where a Cluster
// redirects it, nor answers from a client-side cache, which hears of others' writes only later.
type once struct{ redis.Cmder }

func (once) NoRetry() bool { return true }

// send sends cmd and waits for its reply until ctx ends. After that cmd must not be touched: a
// client that does not keep deadlines is still at work on it.
func (s *Store) send(ctx context.Context, to processor, cmd redis.Cmder) error {
	if s.deadlines { // as within would, but without a function to allocate
		return redact(process(ctx, to, cmd))
	}
	return redact(s.within(ctx, func() error { return process(ctx, to, cmd) }))
}

// within returns what do returns, or the error of ctx when that ends, if the client does not keep
// deadlines by itself.
func (s *Store) within(ctx context.Context, do func() error) error {
	if s.deadlines {
		return do()
	}
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// process sends cmd. A reply that claims an impossible length makes go-redis panic, after it has
// put the connection away.
func process(ctx context.Context, to processor, cmd redis.Cmder) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = permanent{fmt.Errorf("%w: %v", errReply, p)}
		}
	}()
	return to.Process(ctx, once{cmd})
}

// keepsDeadlines reports whether rdb ends a command at the deadline of its context. Of a wrapper we
// cannot know.
func keepsDeadlines(rdb redis.UniversalClient) bool {
	keeps := func(enabled bool, read, write time.Duration) bool {
		return enabled && read >= 0 && write >= 0 // negative: go-redis sets no deadlines at all
	}
	switch c := rdb.(type) {
	case *redis.Client:
		o := c.Options()
		return keeps(o.ContextTimeoutEnabled, o.ReadTimeout, o.WriteTimeout)
	case *redis.ClusterClient:
		o := c.Options()
		return keeps(o.ContextTimeoutEnabled, o.ReadTimeout, o.WriteTimeout)
	case *redis.Ring:
		o := c.Options()
		return keeps(o.ContextTimeoutEnabled, o.ReadTimeout, o.WriteTimeout)
	}
	return false
}

// ended is ctx.Err, but not later than the socket, which has the same deadline.
func ended(ctx context.Context) error {
	if end, ok := ctx.Deadline(); ok && ctx.Err() == nil && !time.Now().Before(end) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// redact shortens an error reply that repeats the command, because the command holds the key.
func redact(err error) error {
	if err != nil && isReply(err) {
		if text, _, found := strings.Cut(err.Error(), ", with args"); found {
			return replyError(text)
		}
	}
	return err
}
