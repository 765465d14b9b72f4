package redisstore

import (
	"errors"
	"sync"
	"time"
)

// ErrCircuitOpen is in the error of a call that was not sent because Redis seems to be away: after
// 5 calls in a row that found no connection or got no answer none is sent for 1 second, then one to
// see whether Redis is back.
var ErrCircuitOpen = errors.New("redis did not answer several times in a row, " +
	"so it is not asked again for a second")

const (
	breakAfter = 5
	breakFor   = time.Second
)

// A breaker keeps calls from waiting for a Redis that does not answer. Its zero value lets them
// pass.
type breaker struct {
	mu       sync.Mutex
	failures int       // in a row
	until    time.Time // if there are breakAfter: no call before
	probing  bool      // the one call that sees whether Redis is back
}

func (b *breaker) allow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < breakAfter {
		return true
	}
	if b.probing || time.Now().Before(b.until) {
		return false
	}
	b.probing = true
	return true
}

// report says how an allowed call ended; a call whose caller did not wait for its end says nothing
// unless it was answered.
func (b *breaker) report(answered, callerDone bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
	if answered {
		b.failures = 0
	} else if !callerDone {
		b.failures++
		b.until = time.Now().Add(breakFor)
	}
}
