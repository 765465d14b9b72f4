// Package redisstore keeps records in Redis, or in Valkey: a single server, Sentinel, Cluster or
// Ring, whatever the client it is given speaks to.
//
// A record is one hash under the key "prefix:key". A read is one HMGET or HGETALL, an update one
// EVALSHA of a script with this one key, so nothing depends on the slots of a Cluster. Redis 6.2 or
// newer is needed.
package redisstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/guestkit/guest"
	"github.com/redis/go-redis/v9"
)

var _ guest.Store = (*Store)(nil)

// Config configures a [Store]. The zero value is a good one.
type Config struct {
	// Prefix begins every key, so that several stores share a Redis: with "guest" the record "g:1"
	// is the key "guest:g:1". No other store's prefix may begin with this one and a colon. "":
	// "guest".
	Prefix string

	// MinTimeout is the least time that Redis gets for its answer to a call, retries included. It
	// gets more if its answers take longer or vary: see docs/redis.md. 0 or less: 250 ms.
	MinTimeout time.Duration

	// MaxTimeout is the most time that Redis gets for its answer. It is also the most time that a
	// call waits in the queue beforehand, until one of the client's connections is free. 0 or less:
	// 2 s. If it is shorter than MinTimeout, MinTimeout counts.
	MaxTimeout time.Duration

	// WaitReplicas is how many replicas must have an update before it counts: Update sends WAIT
	// along with it, still in one round trip. If fewer have it in time, the error wraps
	// [guest.ErrUncertain]: the master has applied the update, a failover may undo it. 0: the
	// master alone decides, and a failover loses what it had not sent yet. Not for clients other
	// than go-redis's own.
	WaitReplicas int

	// WaitTimeout bounds the wait for replicas. It should be well below MinTimeout, which bounds it
	// as well. 0 or less: 100 ms.
	WaitTimeout time.Duration
}

// Store is a [guest.Store] in Redis. Its methods are safe for concurrent use.
//
// Calls wait for a Redis that is busy or far away, and notice one that is silent: a call ends when
// its answer is overdue, also if Redis is frozen. Once Redis has fallen silent, calls fail at once
// with an error that wraps [ErrCircuitOpen], until it answers again.
type Store struct {
	rdb          redis.UniversalClient
	prefix       string // of every key, with the colon
	minTimeout   time.Duration
	maxTimeout   time.Duration
	waitReplicas int
	waitTimeout  time.Duration
	deadlines    bool // rdb ends a command at the deadline of its context
	fromReplicas bool // rdb reads from replicas
	updateOnly   bool // lua/update.lua makes all updates, as it alone gets its answers confirmed
	timeSource   atomic.Int32
	queue        *queue   // of the client as a whole
	queues       sync.Map // the *queue of each server of a Cluster or Ring, by its address
	ids          operationIDs
}

// New returns a store on rdb, which stays the caller's: New changes none of its options, and there
// is no Close. A client with ContextTimeoutEnabled saves a goroutine per call, and a call under way
// is then ended by its deadline alone: go-redis does not notice that its context is cancelled while
// it waits for a reply. A Cluster client that reads from replicas still reads from masters here, as
// a replica may not know yet that a guest is claimed. See also [Store.Check].
func New(rdb redis.UniversalClient, cfg Config) *Store {
	if cfg.Prefix == "" {
		cfg.Prefix = "guest"
	}
	if cfg.MinTimeout <= 0 {
		cfg.MinTimeout = 250 * time.Millisecond
	}
	if cfg.MaxTimeout <= 0 {
		cfg.MaxTimeout = 2 * time.Second
	}
	cfg.MaxTimeout = max(cfg.MinTimeout, cfg.MaxTimeout)
	if cfg.WaitTimeout <= 0 {
		cfg.WaitTimeout = 100 * time.Millisecond
	}
	s := &Store{
		rdb:          rdb,
		prefix:       cfg.Prefix + ":",
		minTimeout:   cfg.MinTimeout,
		maxTimeout:   cfg.MaxTimeout,
		waitReplicas: cfg.WaitReplicas,
		waitTimeout:  cfg.WaitTimeout,
		deadlines:    keepsDeadlines(rdb),
		fromReplicas: readsReplicas(rdb),
		updateOnly:   cfg.WaitReplicas > 0,
	}
	s.queue = s.clientQueue()
	rand.Read(s.ids.process[:])
	return s
}

func (s *Store) key(record string) string { return s.prefix + record }

// Get implements [guest.Store].
func (s *Store) Get(ctx context.Context, key string, names ...string) (guest.Fields, error) {
	fields := make(guest.Fields, len(names))
	key = s.key(key)
	if len(names) == 0 {
		all := redis.NewMapStringStringCmd(ctx, "hgetall", key)
		if err := s.read(ctx, key, all); err != nil {
			return nil, fmt.Errorf("redisstore: read: %w", err)
		}
		for name, value := range all.Val() {
			addField(fields, name, value)
		}
		return fields, nil
	}

	// The caller may change its own names while we are sending.
	names = append(make([]string, 0, len(names)), names...)
	args := append(make([]any, 0, 2+len(names)), "hmget", key)
	some := redis.NewSliceCmd(ctx, appendPointers(args, names)...)
	if err := s.read(ctx, key, some); err != nil {
		return nil, fmt.Errorf("redisstore: read: %w", err)
	}
	if len(some.Val()) != len(names) {
		return nil, fmt.Errorf("redisstore: read: %w", errReply)
	}
	for i, value := range some.Val() {
		addField(fields, names[i], value)
	}
	return fields, nil
}

// addField adds what Redis has to say about a field: a string, or nil if there is none. The store's
// own stay hidden.
func addField(fields guest.Fields, name string, value any) {
	if s, ok := value.(string); ok && !strings.HasPrefix(name, "!") {
		fields[name] = s
	}
}

// appendPointers appends pointers to strings: unlike strings they fit into an interface without an
// allocation.
func appendPointers(args []any, s []string) []any {
	for i := range s {
		args = append(args, &s[i])
	}
	return args
}
