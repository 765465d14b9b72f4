// Package countmin limits how often each of very many keys may do something, in constant memory.
package countmin

import (
	"hash/maphash"
	"math"
	"sync"
	"time"
)

// A Limiter allows each key a burst of events at once, and then one more event each time an
// interval has passed. It takes 1 MiB, however many keys there are. It is safe for concurrent use.
//
// It is a count-min sketch (Cormode and Muthukrishnan, 2005) of the arrival times of GCRA (ITU-T
// I.371): each key has a cell in each of two rows, and may share it with other keys. A cell is
// never behind any of its keys, so the earlier of a key's two cells may allow too little, but never
// too much. Nothing is evicted, so a flood of keys cannot make it forget one.
type Limiter struct {
	start time.Time
	seed  maphash.Seed
	every int64 // nanoseconds that one event costs
	ahead int64 // nanoseconds that a key may be ahead of time: the burst

	mu   sync.Mutex
	rows [2][1 << 16]int64 // until when the key's time is used up, nanoseconds since start
}

// New returns a Limiter for burst events at once and one more each time every has passed. Both must
// be positive.
func New(every time.Duration, burst int) *Limiter {
	return &Limiter{
		start: time.Now(),
		seed:  maphash.MakeSeed(),
		every: int64(every),
		ahead: min(int64(burst-1), math.MaxInt64/4/int64(every)) * int64(every),
	}
}

// Allow reports whether the key is within its limit, and counts it if so.
func (l *Limiter) Allow(key []byte) bool {
	hash := maphash.Bytes(l.seed, key)
	a, b := &l.rows[0][uint16(hash)], &l.rows[1][uint16(hash>>32)]

	l.mu.Lock()
	defer l.mu.Unlock()
	now := int64(time.Since(l.start))
	due := min(*a, *b)
	if due > now+l.ahead {
		return false
	}
	due = max(due, now) + l.every
	*a, *b = max(*a, due), max(*b, due)
	return true
}
