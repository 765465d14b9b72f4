package proofs

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/guestkit/guest"
	"github.com/guestkit/guest/redisstore"
	"github.com/guestkit/guest/storetest"
	"github.com/redis/go-redis/v9"
)

// Unit tests of many apps run on miniredis, an imitation of Redis in Go with another Lua. The store
// runs on it, too.
func TestMiniredis(t *testing.T) {
	mini := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: mini.Addr(), ContextTimeoutEnabled: true})
	defer rdb.Close()
	rdb.AddHook(&aging{mini: mini, last: time.Now()})
	s := redisstore.New(rdb, redisstore.Config{
		MinTimeout: 20 * time.Second,
	})
	storetest.Run(t, func(t *testing.T) guest.Store {
		if strings.HasSuffix(t.Name(), "/keys_by_pattern") {
			t.Skip("miniredis v2.40.0: SCAN panics if the pattern of MATCH is not UTF-8 " +
				"(patternRE in keys.go compiles it as a regexp)")
		}
		if strings.HasSuffix(t.Name(), "/the_longest_ttl") {
			t.Skip("miniredis v2.40.0: a TTL of more than 292 years overflows a time.Duration")
		}
		return s
	})
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// Records of miniredis do not age by themselves: aging lets the time pass before each command. (A
// ticker beside the commands would take from a record some of the time before it was made.)
type aging struct {
	mini *miniredis.Miniredis
	mu   sync.Mutex
	last time.Time
}

func (a *aging) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		a.mu.Lock()
		now := time.Now()
		a.mini.FastForward(now.Sub(a.last))
		a.last = now
		a.mu.Unlock()
		return next(ctx, cmd)
	}
}

func (a *aging) DialHook(next redis.DialHook) redis.DialHook { return next }

func (a *aging) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
