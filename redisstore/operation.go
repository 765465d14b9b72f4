package redisstore

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"
)

// An operation is one update on its way, and the first argument of its command. go-redis asks for the argument's
// bytes at the moment it writes the command to a connection, so the operation knows for certain whether it was
// sent; and an update nobody waits for any more can still be stopped there.
type operation struct {
	clock    *clock
	numbered bool   // it has an ID, and is applied at most once
	arg      []byte // the argument, which begins with the ID; zeros until it is made
	state    atomic.Int32
}

const (
	waiting int32 = iota // the command was not sent yet
	sent                 // perhaps it was
	revoked              // it never will be
)

var errRevoked = errors.New("nobody waits for this update any more")

// prepare readies the operation for another attempt.
func (o *operation) prepare() { o.state.Store(waiting) }

// sent reports whether the server may have got the command. If not, it never will.
func (o *operation) sent() bool {
	return !o.state.CompareAndSwap(waiting, revoked) && o.state.Load() == sent
}

// MarshalBinary returns the argument. The ID is made as late as this so that IDs arrive nearly in their order.
func (o *operation) MarshalBinary() ([]byte, error) {
	if !o.state.CompareAndSwap(waiting, sent) && o.state.Load() == revoked {
		return nil, errRevoked
	}
	if o.numbered && [idSize]byte(o.arg) == [idSize]byte{} {
		id := o.clock.next()
		copy(o.arg, id[:])
	}
	return o.arg, nil
}

// String hides the argument from hooks that print commands.
func (o *operation) String() string { return "…" }

// renumber gives the operation a fresh ID, later than the time oldest.
func (o *operation) renumber(oldest int64) {
	o.clock.passed(oldest)
	clear(o.arg[:idSize])
}

// An ID is six bytes of time, in units of 10 µs since 2020, and two bytes of the process. The script evicts IDs from
// a full ring by their time, oldest first, and refuses an ID that is older than all in it. So it matters that times
// rise within a process, and that a process whose clock is behind catches up with what it meets; it does not matter
// whether they are right.
const idSize = 8

var idEpoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

type clock struct {
	last    atomic.Int64
	process [2]byte // random
}

func ticks(since time.Duration) int64 { return int64(since / (10 * time.Microsecond)) }

func (c *clock) next() (id [idSize]byte) {
	now := ticks(time.Since(idEpoch))
	for {
		last := c.last.Load()
		if t := max(now, last+1); c.last.CompareAndSwap(last, t) {
			binary.BigEndian.PutUint64(id[:], uint64(t)<<16)
			copy(id[6:], c.process[:])
			return id
		}
	}
}

// passed tells the clock of a time that another process has given.
func (c *clock) passed(t int64) {
	for last := c.last.Load(); last < t && !c.last.CompareAndSwap(last, t); {
		last = c.last.Load()
	}
}
