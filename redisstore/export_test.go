package redisstore

import "time"

// Advance sets the clock of the store's operation IDs forward.
func (s *Store) Advance(d time.Duration) { s.clock.passed(ticks(time.Since(idEpoch) + d)) }

// Breaker's constants.
const (
	BreakAfter = breakAfter
	BreakFor   = breakFor
)
