package redisstore

import (
	"errors"
	"time"
)

// ErrCircuitOpen is in the error of a call that was not sent, or that waited in line in vain,
// because Redis has fallen silent: a call got no answer in time, and no other call was answered in
// the last half of that time. A probe in the background asks Redis again and again. As soon as it
// answers, calls are sent again.
var ErrCircuitOpen = errors.New("redis has stopped answering, so calls fail at once until it " +
	"answers again")

// A breaker knows whether a server has fallen silent. That some of many calls are slow does not
// open it. Its zero value is closed.
type breaker struct {
	open     bool
	answered time.Time // the last answer
	underWay int       // calls
	busy     time.Time // since when there has always been one under way
}

// begin says that a call is sent.
func (b *breaker) begin(now time.Time) {
	if b.underWay == 0 {
		b.busy = now
	}
	b.underWay++
}

// end says that a call has ended, after answer or noAnswer has said how.
func (b *breaker) end() { b.underWay-- }

// answer says that the server answered a call.
func (b *breaker) answer(now time.Time) { b.open, b.answered = false, now }

// noAnswer says that a call ended without an answer, for which it would have waited for timeout.
//
// Half of that time: a call that was sent just before the last answer came ends sooner than timeout
// after it, and calls that wait in line behind it must not be sent any more.
//
// A call that its caller ended says nothing about the server, unless calls were under way for
// timeout without a pause.
func (b *breaker) noAnswer(now time.Time, timeout time.Duration, byCaller bool) {
	if byCaller && now.Sub(b.busy) < timeout {
		return
	}
	if now.Sub(b.answered) >= timeout/2 {
		b.open = true
	}
}
