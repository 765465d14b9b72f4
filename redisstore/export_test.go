package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/guestkit/guest"
	"github.com/redis/go-redis/v9"
)

// Advance sets the clock of the store's operation IDs forward.
func (s *Store) Advance(d time.Duration) { s.clock.passed(ticks(time.Since(idEpoch) + d)) }

// Breaker's constants.
const (
	BreakAfter = breakAfter
	BreakFor   = breakFor
)

// Client is the store's.
func (s *Store) Client() redis.UniversalClient { return s.rdb }

// FromReplicas reports whether the client is known to read from replicas.
func (s *Store) FromReplicas() bool { return s.fromReplicas }

// WayShort is the first of the ways that are the short cut.
const WayShort = wayShort

// Way is the way that an operation's argument asks for.
func Way(arg any) byte { return arg.([]byte)[wayAt] }

// Run runs the script once, under this ID, and prints its answer. With long it does not take the short cut, for which
// short says the update was sent.
func (s *Store) Run(key string, u guest.Update, id [8]byte, long bool) (answer string, short bool) {
	e := s.execution(s.key(key), u)
	copy(e.head, id[:])
	if short = e.head[wayAt] >= wayShort; short && long {
		e.head[wayAt] = wayUsual
	}
	r, err := s.eval(context.Background(), s.rdb, e, u)
	return fmt.Sprintf("%+v %v", r, err), short
}
