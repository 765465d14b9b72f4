package redisstore

import (
	"errors"
	"time"
)

// ErrCircuitOpen is in the error of a call that was not sent, because Redis has fallen silent: an
// earlier call got no answer in time, and no other call was answered in the last three quarters of
// that time. Nothing has changed. A probe in the background asks Redis again and again, and as soon
// as it is answered, calls are sent again. Data calls return it wrapped in [guest.ErrUnavailable].
var ErrCircuitOpen = errors.New("redis has stopped answering, so calls fail at once until it " +
	"answers again")

// A breaker knows whether a server has fallen silent. That some of many calls are slow does not
// open it. Its zero value is closed.
type breaker struct {
	open     bool
	answered time.Time // the last answer
	underWay int       // calls
	waiting  time.Time // since when there have always been some, and none was answered
}

// ask records that a call is sent.
func (b *breaker) ask(now time.Time) {
	if b.underWay == 0 {
		b.waiting = now
	}
	b.underWay++
}

// end records that a call has ended, after answer or noAnswer has said how.
func (b *breaker) end() { b.underWay-- }

// answer records that the server answered a call.
func (b *breaker) answer(now time.Time) { b.open, b.answered, b.waiting = false, now, now }

// noAnswer records that a call ended without an answer, for which it would have waited for timeout.
//
// Three quarters of timeout without an answer are enough: a call that was sent just before the last
// answer came ends less than timeout after it. It must open the breaker all the same, so that calls
// in the queue are not sent. But a call that its caller ended early counts only if calls have
// waited for timeout, one or the other of them all the time.
func (b *breaker) noAnswer(now time.Time, timeout time.Duration, byCaller bool) {
	if byCaller && now.Sub(b.waiting) < timeout {
		return
	}
	if now.Sub(b.answered) >= timeout-timeout/4 {
		b.open = true
	}
}
