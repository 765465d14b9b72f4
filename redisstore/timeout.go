package redisstore

import (
	"context"
	"sync"
	"time"
)

// Calls that begin within a few milliseconds share one timer: to start one for each, as context.WithTimeout does, wakes a
// thread, and is 4 % of what an addition takes.

// A timeout is the context of a call. Its deadline is exact, and so the socket's; Done comes up to late after it, which is for
// what waits for anything else.
type timeout struct {
	context.Context
	end  time.Time
	done <-chan struct{}
}

const late = 4 * time.Millisecond

func (t *timeout) Deadline() (time.Time, bool) { return t.end, true }
func (t *timeout) Done() <-chan struct{}       { return t.done }

func (t *timeout) Err() error {
	select {
	case <-t.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// timers makes timeouts of one length.
type timers struct {
	length time.Duration

	mu   sync.Mutex
	last time.Time       // when the last timer fires
	done <-chan struct{} // by it
}

// limit is context.WithTimeout. If sockets keep deadlines, a caller that goes away is not noticed, nor would go-redis notice it
// while it waits for a reply.
func (t *timers) limit(ctx context.Context, sockets bool) (context.Context, context.CancelFunc) {
	if _, bounded := ctx.Deadline(); bounded || ctx.Done() != nil && !sockets {
		return context.WithTimeout(ctx, t.length)
	}
	end := time.Now().Add(t.length)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last.Before(end) {
		done := make(chan struct{})
		time.AfterFunc(t.length+late, func() { close(done) })
		t.last, t.done = end.Add(late), done
	}
	return &timeout{ctx, end, t.done}, func() {}
}
