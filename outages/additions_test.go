package outages

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// A tenth of the requests and a tenth of the replies of many additions are lost. The counters hold
// each acknowledged addition once, and of the others only those that were reported as uncertain.
func TestAdditions(t *testing.T) {
	additions := 4_000
	if *long {
		additions = 20_000
	}
	const workers, records = 8, 40
	seed := rand.Uint64()
	wire := &redistest.Faults{Lose: redistest.Random(seed, 0.1)}
	srv := redistest.Single(t)
	rdb := redis.NewClient(
		&redis.Options{Addr: srv.Addr, Dialer: wire.Dial, ContextTimeoutEnabled: true})
	defer rdb.Close()
	store := redisstore.New(
		rdb, redisstore.Config{Prefix: "p", MinTimeout: longDeadlines.MinTimeout})

	var mu sync.Mutex
	var acked, unsure, failed [records]int
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for n := range additions / workers {
				i := (w + n) % records
				res, err := store.Update(context.Background(), strconv.Itoa(i),
					guest.Update{Add: map[string]int64{"n": 1}, Once: true})
				mu.Lock()
				switch {
				case err == nil && res.Applied:
					acked[i]++
				case errors.Is(err, guest.ErrUncertain):
					unsure[i]++
				case err != nil:
					failed[i]++
				default:
					t.Errorf("not applied: %+v", res)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()

	sum := [4]int{}
	for i := range records {
		n, err := srv.Client().HGet(context.Background(), "p:"+strconv.Itoa(i), "n").Int()
		if err != nil {
			t.Fatal(err)
		}
		if n < acked[i] || n > acked[i]+unsure[i] {
			t.Errorf("a record counts %d; %d additions were acknowledged, %d uncertain (seed %d)",
				n, acked[i], unsure[i], seed)
		}
		for j, k := range []int{acked[i], unsure[i], failed[i], n} {
			sum[j] += k
		}
	}
	t.Logf("%d additions, sent %d times: %d acknowledged, %d uncertain, %d failed; the counters hold %d",
		additions, wire.Counts().Names["EVALSHA"], sum[0], sum[1], sum[2], sum[3])
	if sum[0] < additions*9/10 {
		t.Errorf("only %d of %d additions were acknowledged", sum[0], additions)
	}
}
