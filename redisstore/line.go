package redisstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A line is where calls wait for one server. As many of them are under way as the client has
// connections. The others stand in line, so that the time which a busy client needs is not mistaken
// for the silence of the server: only a call under way has the deadline that depends on how fast
// the server answers.
type line struct {
	places chan struct{}               // each call under way takes one; nil: there is no bound
	most   time.Duration               // the longest wait for a place, and for a probe's answer
	ping   func(context.Context) error // the probe

	mu      sync.Mutex
	rtt     estimator
	breaker breaker
	opened  chan struct{} // closed while the breaker is open
	probing bool
}

// newLine returns a line with this many places; 0: there is no bound.
func newLine(places int, least, most time.Duration, ping func(context.Context) error) *line {
	l := &line{
		most: most, ping: ping, rtt: estimator{least: least, most: most},
		opened: make(chan struct{}),
	}
	if places > 0 {
		l.places = make(chan struct{}, places)
	}
	return l
}

// call waits for a place, and calls try until it succeeds or it makes no sense to go on.
func (l *line) call(ctx context.Context, try func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := l.enter(ctx); err != nil {
		return err
	}
	defer l.leave()
	for start := time.Now(); ; {
		err := l.ask(ctx, try)
		if err != errRetryNow || time.Since(start) > l.most {
			return err
		}
	}
}

// ask calls try, again if the connection breaks, and gives it one deadline for the answer.
func (l *line) ask(ctx context.Context, try func(context.Context) error) error {
	start := time.Now()
	timeout := l.begin(start)
	own, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := repeat(own, try)
	callerDone := ended(ctx) // the caller has given up
	switch {
	case err == nil || isReply(err):
		l.answer(start)
		return err
	case errors.Is(err, redis.ErrClosed): // the client was closed
		return err
	}
	l.noAnswer(timeout, callerDone != nil)
	if callerDone != nil {
		return fmt.Errorf("%w: %w", callerDone, err)
	}
	if ended(own) == nil {
		return err
	}
	return fmt.Errorf("no answer within %v: %w", timeout.Round(time.Millisecond), err)
}

// enter waits for a place.
func (l *line) enter(ctx context.Context) error {
	opened := l.whenOpened()
	select {
	case <-opened:
		return ErrCircuitOpen
	default:
	}
	if l.places == nil {
		return nil
	}
	select {
	case l.places <- struct{}{}:
		return nil
	default:
	}
	limit := time.NewTimer(l.most)
	defer limit.Stop()
	select {
	case <-opened:
		return ErrCircuitOpen
	case <-ctx.Done():
		return ctx.Err()
	case <-limit.C:
		return fmt.Errorf("no connection was free within %v (the client needs a larger PoolSize): %w",
			l.most, context.DeadlineExceeded)
	case l.places <- struct{}{}:
		return nil
	}
}

func (l *line) leave() {
	if l.places != nil {
		<-l.places
	}
}

func (l *line) whenOpened() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.opened
}

// begin records that a call is sent, and returns how long to wait for its answer.
func (l *line) begin(now time.Time) (timeout time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.breaker.ask(now)
	return l.rtt.timeout()
}

// answer records that a call which began at start was answered.
func (l *line) answer(start time.Time) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeBreaker(now)
	l.rtt.sample(now.Sub(start))
}

func (l *line) closeBreaker(now time.Time) {
	if l.breaker.open {
		l.opened = make(chan struct{})
	}
	l.breaker.answer(now)
}

// noAnswer records that a call got no answer, for which it would have waited for timeout had its
// caller not ended it. If that opens the breaker, the calls in line leave, and the probe begins.
func (l *line) noAnswer(timeout time.Duration, byCaller bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.breaker.open {
		return
	}
	if l.breaker.noAnswer(time.Now(), timeout, byCaller); !l.breaker.open {
		return
	}
	close(l.opened)
	if !l.probing {
		l.probing = true
		go l.probe()
	}
}

// probePause is the time between a probe that failed and the next.
const probePause = 100 * time.Millisecond

// errGone ends the probe of a server that the client does not use any more.
var errGone = errors.New("the client does not use this server any more")

// probe asks the server until the breaker is closed. No call waits for it.
func (l *line) probe() {
	for l.askAgain() {
		time.Sleep(probePause)
	}
}

// askAgain asks the server, and reports whether it is to be asked again.
func (l *line) askAgain() bool {
	_, err := l.pingOnce()
	if err == nil || isReply(err) {
		// That answer has perhaps waited for the server to come back. The time of another one says
		// how long answers take.
		var start time.Time
		if start, err = l.pingOnce(); err == nil || isReply(err) {
			l.answer(start)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, redis.ErrClosed) || errors.Is(err, errGone) {
		l.closeBreaker(time.Now()) // no use waiting: calls return what the client says
	}
	l.probing = l.breaker.open
	return l.probing
}

func (l *line) pingOnce() (start time.Time, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), l.most)
	defer cancel()
	return time.Now(), l.ping(ctx)
}
