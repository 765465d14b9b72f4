package redisstore

import (
	"time"

	"github.com/redis/go-redis/v9"
)

// Advance sets the clock of the store's operation IDs forward.
func (s *Store) Advance(d time.Duration) { s.ids.catchUp(ticks(time.Since(idEpoch) + d)) }

// Breaker's constants.
const (
	BreakAfter = breakAfter
	BreakFor   = breakFor
)

// Client is the store's.
func (s *Store) Client() redis.UniversalClient { return s.rdb }

// FromReplicas reports whether the client is known to read from replicas.
func (s *Store) FromReplicas() bool { return s.fromReplicas }
