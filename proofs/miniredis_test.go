package proofs

import (
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
	stop := make(chan struct{})
	var expiry sync.WaitGroup
	expiry.Go(func() { // its records do not expire by themselves
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for last := time.Now(); ; {
			select {
			case <-stop:
				return
			case now := <-tick.C:
				mini.FastForward(now.Sub(last))
				last = now
			}
		}
	})
	defer expiry.Wait()
	defer close(stop)
	rdb := redis.NewClient(&redis.Options{Addr: mini.Addr(), ContextTimeoutEnabled: true})
	defer rdb.Close()
	s := redisstore.New(rdb, redisstore.Config{
		ReadTimeout: 20 * time.Second, WriteTimeout: 20 * time.Second,
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
