package redisstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A queue is where calls wait for one server. As many of them are under way as the client has
// connections. The others wait here, so that the time which a busy client needs is not mistaken
// for the silence of the server: only a call under way has the deadline that depends on how fast
// the server answers.
type queue struct {
	turns chan struct{}               // each call under way takes one; nil: there is no bound
	most  time.Duration               // the longest wait for a turn, and for a probe's answer
	ping  func(context.Context) error // the probe

	mu      sync.Mutex
	rtt     estimator
	breaker breaker
	opened  chan struct{} // closed while the breaker is open
	probing bool
}

// newQueue returns a queue with this many turns; 0: there is no bound.
func newQueue(turns int, least, most time.Duration, ping func(context.Context) error) *queue {
	q := &queue{
		most: most, ping: ping, rtt: estimator{least: least, most: most},
		opened: make(chan struct{}),
	}
	if turns > 0 {
		q.turns = make(chan struct{}, turns)
	}
	return q
}

// call waits for a turn, and calls try until it succeeds or it makes no sense to go on.
func (q *queue) call(ctx context.Context, try func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := q.enter(ctx); err != nil {
		return err
	}
	defer q.leave()
	for start := time.Now(); ; {
		err := q.ask(ctx, try)
		if err != errRetryNow || time.Since(start) > q.most {
			return err
		}
	}
}

// ask calls try, again if the connection breaks, and gives it one deadline for the answer.
func (q *queue) ask(ctx context.Context, try func(context.Context) error) error {
	start := time.Now()
	timeout := q.begin(start)
	defer q.end()
	own, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := repeat(own, try)
	callerDone := ended(ctx) // the caller has given up
	switch {
	case isAnswer(err):
		q.answer(start)
		return err
	case errors.Is(err, redis.ErrClosed): // the client was closed
		return err
	}
	q.noAnswer(timeout, callerDone != nil)
	if callerDone != nil {
		return fmt.Errorf("%w: %w", callerDone, err)
	}
	if ended(own) == nil {
		return err
	}
	return fmt.Errorf("no answer within %v: %w", timeout.Round(time.Millisecond), err)
}

// enter waits for a turn.
func (q *queue) enter(ctx context.Context) error {
	opened := q.whenOpened()
	select {
	case <-opened:
		return ErrCircuitOpen
	default:
	}
	if q.turns == nil {
		return nil
	}
	select {
	case q.turns <- struct{}{}:
		return nil
	default:
	}
	limit := time.NewTimer(q.most)
	defer limit.Stop()
	select {
	case <-opened:
		return ErrCircuitOpen
	case <-ctx.Done():
		return ctx.Err()
	case <-limit.C:
		return fmt.Errorf("no connection was free within %v "+
			"(the client needs a larger PoolSize): %w", q.most, context.DeadlineExceeded)
	case q.turns <- struct{}{}:
		return nil
	}
}

func (q *queue) leave() {
	if q.turns != nil {
		<-q.turns
	}
}

func (q *queue) whenOpened() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.opened
}

// begin records that a call is sent, and returns how long to wait for its answer.
func (q *queue) begin(now time.Time) (timeout time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.breaker.ask(now)
	return q.rtt.timeout()
}

// end records that a call has ended.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.breaker.end()
}

// answer records that a call which began at start was answered.
func (q *queue) answer(start time.Time) {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closeBreaker(now)
	q.rtt.sample(now.Sub(start))
}

func (q *queue) closeBreaker(now time.Time) {
	if q.breaker.open {
		q.opened = make(chan struct{})
	}
	q.breaker.answer(now)
}

// noAnswer records that a call got no answer, for which it would have waited for timeout had its
// caller not ended it. If that opens the breaker, the calls in the queue leave, and the probe
// begins.
func (q *queue) noAnswer(timeout time.Duration, byCaller bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.breaker.open {
		return
	}
	if q.breaker.noAnswer(time.Now(), timeout, byCaller); !q.breaker.open {
		return
	}
	close(q.opened)
	if !q.probing {
		q.probing = true
		go q.probe()
	}
}

// probePause is the time between a probe that failed and the next.
const probePause = 100 * time.Millisecond

// errGone ends the probe of a server that the client does not use any more.
var errGone = errors.New("the client does not use this server any more")

// probe asks the server until the breaker is closed. No call waits for it.
func (q *queue) probe() {
	for q.askAgain() {
		time.Sleep(probePause)
	}
}

// askAgain asks the server, and reports whether it is to be asked again.
func (q *queue) askAgain() bool {
	_, err := q.pingOnce()
	if isAnswer(err) {
		// That answer has perhaps waited for the server to come back. The time of another one says
		// how long answers take.
		var start time.Time
		if start, err = q.pingOnce(); isAnswer(err) {
			q.answer(start)
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if errors.Is(err, redis.ErrClosed) || errors.Is(err, errGone) {
		q.closeBreaker(time.Now()) // no use waiting: calls return what the client says
	}
	q.probing = q.breaker.open
	return q.probing
}

func (q *queue) pingOnce() (start time.Time, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), q.most)
	defer cancel()
	return time.Now(), q.ping(ctx)
}
