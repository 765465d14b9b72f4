// Package memstore keeps guests in the memory of one process: for tests, for development, and for
// apps that run as one process and may lose their guests when it ends. Several processes that serve
// one site need redisstore.
//
// A store is bounded by bytes. When it is full, it evicts guests without data, those that expire
// first before the others; a guest with data is never evicted. If it is full of data, it refuses
// additions with [ErrFull].
package memstore

import (
	"context"
	"errors"
	"hash/maphash"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/guestkit/guest"
)

// ErrFull means that the store is full of records that it may not evict. Nothing was written.
var ErrFull = errors.New(
	"memstore: full of guests with data (raise Config.MaxBytes, or keep guests in Redis with redisstore)")

// Config says how much a [Store] may keep.
type Config struct {
	// MaxBytes bounds the memory that records take, in bytes: names, values and what Go needs to
	// hold them, estimated from above. The process needs more, depending on GOGC. 0 or less: 256
	// MiB.
	MaxBytes int64
}

// Store is a [guest.Store] in memory. It has no goroutine and need not be closed: expired records
// are removed when they are read, and a few with every write.
type Store struct {
	max    int64
	bytes  atomic.Int64 // of all records
	held   atomic.Int64 // of those that may not be evicted
	lost   atomic.Int64 // see Lost
	room   sync.Mutex   // held by the one writer that makes room; only it ever locks a second shard
	seed   maphash.Seed
	shards [64]shard
}

// A shard holds the records of some keys. Each record is in one of the queues.
type shard struct {
	mu      sync.Mutex
	records map[string]*record
	empty   queue // what may be evicted
	kept    queue // the rest
}

var _ guest.Store = (*Store)(nil)

// New returns an empty store.
func New(cfg Config) *Store {
	s := &Store{max: cfg.MaxBytes, seed: maphash.MakeSeed()}
	if s.max <= 0 {
		s.max = 256 << 20
	}
	for i := range s.shards {
		s.shards[i].records = map[string]*record{}
	}
	return s
}

func (s *Store) shard(key string) *shard {
	return &s.shards[maphash.String(s.seed, key)%uint64(len(s.shards))]
}

// Get implements [guest.Store].
func (s *Store) Get(ctx context.Context, key string, names ...string) (guest.Fields, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	sh := s.shard(key)
	sh.mu.Lock()
	var have fields
	if r := s.find(sh, key, time.Now().UnixMilli()); r != nil {
		have = r.fields
	}
	sh.mu.Unlock()
	return have.pick(names, len(names) == 0), nil
}

// Update implements [guest.Store]. The error is [ErrFull] if there is no room for what the update
// would add.
func (s *Store) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	if err := ctx.Err(); err != nil {
		return guest.Result{}, err
	}
	sh := s.shard(key)
	sh.mu.Lock()
	res, err := s.update(sh, key, &u, false)
	sh.mu.Unlock()
	if err != ErrFull {
		return res, err
	}
	s.room.Lock()
	defer s.room.Unlock()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return s.update(sh, key, &u, true)
}

// update runs with the shard locked. To make room it also needs s.room.
func (s *Store) update(sh *shard, key string, u *guest.Update,
	makeRoom bool) (guest.Result, error) {
	now := time.Now()
	ms := now.UnixMilli()
	s.sweep(sh, ms)
	r := s.find(sh, key, ms)
	if r == nil {
		r = &record{expires: never}
	}

	var res guest.Result
	if u.Stamp != "" || !u.NotAfter.IsZero() {
		res.Now = time.UnixMilli(ms)
	}
	if !r.fields.meet(u.If) || !u.NotAfter.IsZero() && time.UnixMilli(ms).After(u.NotAfter) {
		res.Fields = r.fields.pick(slices.AppendSeq(slices.Clone(u.Return), maps.Keys(u.If)),
			u.ReturnAll)
		return res, nil
	}
	f, err := r.fields.apply(u, ms)
	if err != nil {
		return guest.Result{}, err
	}
	size := sizeOf(key, f)
	if !s.take(size - r.size) {
		if !makeRoom {
			return guest.Result{}, ErrFull
		}
		if !s.makeRoom(sh, r, size, ms) {
			if !u.Reserve {
				return guest.Result{}, ErrFull
			}
			s.bytes.Add(size - r.size)
		}
	}
	expires := r.expires
	if u.TTL > 0 && (!u.KeepTTL || !r.stored()) { // rounded up: the record lives at least that long
		if until := now.Add(u.TTL).Add(time.Millisecond - 1).UnixMilli(); until > expires ||
			!r.stored() {
			expires = until
		}
	}
	if !r.stored() {
		r.key = strings.Clone(key)
	}
	s.replace(sh, r, f, size, expires)
	res.Applied = true
	res.Fields = f.pick(u.Return, u.ReturnAll)
	return res, nil
}

// Keys implements [guest.Store]. No lock is held while the loop's body runs.
func (s *Store) Keys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for i := range s.shards {
			keys := s.shards[i].keys(prefix)
			for {
				if err := ctx.Err(); err != nil {
					yield("", err)
					return
				}
				if len(keys) == 0 {
					break
				}
				if !yield(keys[0], nil) {
					return
				}
				keys = keys[1:]
			}
		}
	}
}

func (sh *shard) keys(prefix string) []string {
	now := time.Now().UnixMilli()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	var keys []string
	for key, r := range sh.records {
		if strings.HasPrefix(key, prefix) && r.expires > now {
			keys = append(keys, key)
		}
	}
	return keys
}

// Len returns the number of records, including those that have expired but are not swept yet.
func (s *Store) Len() int {
	n := 0
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		n += len(sh.records)
		sh.mu.Unlock()
	}
	return n
}

// Bytes returns the estimated memory that the records take, in bytes. Only updates with Reserve
// raise it above [Config.MaxBytes].
func (s *Store) Bytes() int64 { return s.bytes.Load() }

// Lost returns how many guests have expired with data that no account had claimed: lost carts. A
// guest is counted when a write sweeps it, so a store without writes counts late.
func (s *Store) Lost() int64 { return s.lost.Load() }
