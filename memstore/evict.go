package memstore

import (
	"container/heap"
	"strings"
)

// A queue holds records, the one that expires first at the front.
type queue []*record

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].expires < q[j].expires }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i]; q[i].index, q[j].index = i, j }
func (q *queue) Push(r any)        { r.(*record).index = len(*q); *q = append(*q, r.(*record)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	r := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return r
}

// find returns the live record of a key, or nil.
func (s *Store) find(sh *shard, key string, now int64) *record {
	r := sh.records[key]
	if r != nil && r.expires <= now {
		s.remove(sh, r)
		return nil
	}
	return r
}

// enter puts a record into its queue. A record that is not stored has none.
func (s *Store) enter(sh *shard, r *record) {
	if r.empty {
		heap.Push(&sh.empty, r)
	} else if r.stored() {
		s.held.Add(r.size)
		heap.Push(&sh.kept, r)
	}
}

func (s *Store) leave(sh *shard, r *record) {
	if r.empty {
		heap.Remove(&sh.empty, r.index)
	} else if r.stored() {
		s.held.Add(-r.size)
		heap.Remove(&sh.kept, r.index)
	}
}

// replace changes the fields of a record, and removes the record if there are none. The bytes have
// been taken from the budget.
func (s *Store) replace(sh *shard, r *record, f fields, size, expires int64) {
	empty := len(f) > 0 && expires != never && f.empty()
	// the record keeps its place
	if r.stored() && len(f) > 0 && !r.empty && !empty && r.expires == expires {
		s.held.Add(size - r.size)
		r.fields, r.size = f, size
		return
	}
	s.leave(sh, r)
	r.fields, r.size, r.expires, r.empty = f, size, expires, empty
	s.enter(sh, r)
	if r.stored() {
		sh.records[r.key] = r
	} else {
		delete(sh.records, r.key)
	}
}

// remove removes a record that has expired, or an empty one.
func (s *Store) remove(sh *shard, r *record) {
	if strings.HasPrefix(r.key, guestKeys) && r.fields.unclaimed() {
		s.lost.Add(1)
	}
	s.bytes.Add(-r.size)
	s.replace(sh, r, nil, 0, never)
}

// sweep removes some of the expired records: more than one write can add, so that they do not pile
// up.
func (s *Store) sweep(sh *shard, now int64) {
	for range 4 {
		r := sh.expired(now)
		if r == nil {
			return
		}
		s.remove(sh, r)
	}
}

func (sh *shard) expired(now int64) *record {
	for _, q := range []queue{sh.empty, sh.kept} {
		if len(q) > 0 && q[0].expires <= now {
			return q[0]
		}
	}
	return nil
}

// take takes n bytes from the budget if it has them. A negative n returns bytes, which always
// succeeds.
func (s *Store) take(n int64) bool {
	for {
		have := s.bytes.Load()
		if n > 0 && have+n > s.max {
			return false
		}
		if s.bytes.CompareAndSwap(have, have+n) {
			return true
		}
	}
}

// makeRoom takes the bytes by which the record r grows to its new size. If the budget lacks them,
// it removes expired records and evicts empty guests: first in r's own shard, which is mostly
// enough, then in the others. It removes no more than it needs, so the work is bounded by what is
// written. It evicts no guest if that would not free enough.
//
// It locks other shards while its own is locked. No other function does that, and none waits for
// s.room with a shard locked, so it cannot deadlock.
func (s *Store) makeRoom(own *shard, r *record, size, now int64) bool {
	s.leave(own, r) // so that it is not evicted to make room for itself
	defer s.enter(own, r)
	grown := size - r.size
	if s.suffices(size) && s.free(own, own, grown, now, true) {
		return true
	}
	// a second time if another write has taken what this one freed
	for _, evict := range []bool{false, true, true} {
		if evict && !s.suffices(size) {
			return false
		}
		for i := range s.shards {
			if s.free(&s.shards[i], own, grown, now, evict) {
				return true
			}
		}
	}
	return false
}

// suffices reports whether there is room for a record of this size when all empty guests are
// evicted.
func (s *Store) suffices(size int64) bool { return s.held.Load()+size <= s.max }

// free removes records of a shard until it can take n bytes. The writer's own shard is locked
// already.
func (s *Store) free(sh, own *shard, n, now int64, evict bool) bool {
	if sh != own {
		sh.mu.Lock()
		defer sh.mu.Unlock()
	}
	for !s.take(n) {
		r := sh.expired(now)
		if r == nil && evict && len(sh.empty) > 0 {
			r = sh.empty[0]
		}
		if r == nil {
			return false
		}
		s.remove(sh, r)
	}
	return true
}
