package redisstore

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"
)

// A sendMarker is the first argument of a script, and knows whether the command was sent: go-redis
// asks for the argument's bytes at the moment it writes the command to a connection. There it also
// stops a command whose caller does not wait any more.
type sendMarker struct {
	arg []byte
	// ids makes arg, an operation ID, when the command is sent, so that IDs arrive nearly in their
	// order. nil: arg is given.
	ids   *operationIDs
	state atomic.Int32
}

const (
	notSent int32 = iota
	maybeSent
	revoked // and never will be sent
)

var errRevoked = errors.New("the caller does not wait for this command any more")

// reset readies the marker for another attempt.
func (m *sendMarker) reset() { m.state.Store(notSent) }

// revoke stops the command, unless it was sent: then it reports true.
func (m *sendMarker) revoke() (sent bool) {
	return !m.state.CompareAndSwap(notSent, revoked) && m.state.Load() == maybeSent
}

// MarshalBinary returns the argument.
func (m *sendMarker) MarshalBinary() ([]byte, error) {
	if !m.state.CompareAndSwap(notSent, maybeSent) && m.state.Load() == revoked {
		return nil, errRevoked
	}
	if m.ids != nil && m.arg == nil {
		id := m.ids.next()
		m.arg = id[:]
	}
	return m.arg, nil
}

// String hides the argument from hooks that print commands.
func (m *sendMarker) String() string { return "…" }

// renumber gives the operation another ID, later than the time latest.
func (m *sendMarker) renumber(latest int64) {
	m.ids.catchUp(latest)
	m.arg = nil
}

// An operation ID is six bytes of time, in units of 10 µs since 2020, and two bytes of the process.
// A record remembers seven, and forgets the oldest first; an operation that is older than all of
// them is refused. So it matters that times rise within a process, and that a process whose clock
// is behind catches up with what it meets; it does not matter whether they are right.
const idSize = 8

var idEpoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// operationIDs makes IDs, each later than the one before.
type operationIDs struct {
	last    atomic.Int64
	process [2]byte // random
}

func ticks(since time.Duration) int64 { return int64(since / (10 * time.Microsecond)) }

func (o *operationIDs) next() (id [idSize]byte) {
	now := ticks(time.Since(idEpoch))
	for {
		last := o.last.Load()
		if t := max(now, last+1); o.last.CompareAndSwap(last, t) {
			binary.BigEndian.PutUint64(id[:], uint64(t)<<16)
			copy(id[6:], o.process[:])
			return id
		}
	}
}

// catchUp makes the next ID later than the time t, which another process has given.
func (o *operationIDs) catchUp(t int64) {
	for last := o.last.Load(); last < t && !o.last.CompareAndSwap(last, t); {
		last = o.last.Load()
	}
}
