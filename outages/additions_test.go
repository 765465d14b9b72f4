package outages

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
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
		rdb, redisstore.Config{Prefix: "p", ReadTimeout: longDeadlines.ReadTimeout,
			WriteTimeout: longDeadlines.WriteTimeout})

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

// Every reply to a write is lost once: the many items of one AddAll are added once all the same,
// and those of one SetAll stored, by a new guest, by one that is known, and by an account.
func TestManyItemsAreAddedOnce(t *testing.T) {
	var lost, sent int
	wire := &redistest.Faults{Lose: func(c redistest.Command) redistest.Loss {
		if c.Name != "EVALSHA" && c.Name != "EVAL" {
			return redistest.Nothing
		}
		if sent++; sent%2 == 0 {
			return redistest.Nothing // the repetition
		}
		lost++
		return redistest.Reply
	}}
	srv := redistest.Single(t)
	rdb := redis.NewClient(
		&redis.Options{Addr: srv.Addr, Dialer: wire.Dial, ContextTimeoutEnabled: true})
	defer rdb.Close()
	// the scripts are known, so that each write is one command
	warm := redisstore.New(srv.Client(), longDeadlines)
	for _, u := range []guest.Update{
		{Default: guest.Fields{".i": "1"}, New: true}, {Add: map[string]int64{"n": 1}, Once: true},
		{Set: guest.Fields{"a": "1", "b": "2"}, Once: true},
	} {
		if _, err := warm.Update(t.Context(), "warm", u); err != nil {
			t.Fatal(err)
		}
	}
	notes := guest.NewMap("notes", guest.EachItem(guest.PreferGuest[string])).Encrypted()
	m, err := guest.New(guest.Config{
		Store: redisstore.New(rdb, longDeadlines), Secrets: [][]byte{make([]byte, 32)},
		Data: []guest.Kind{cart, notes}, Create: guest.OnFirstWrite,
	})
	if err != nil {
		t.Fatal(err)
	}
	amounts, texts, want := map[string]int64{}, map[string]string{}, map[string]int64{}
	for i := range 20 {
		amounts[strconv.Itoa(i)], texts[strconv.Itoa(i)] = int64(i+1), strconv.Itoa(i)
	}
	writes := func(ctx context.Context, who string, times int64) {
		t.Helper()
		for item, n := range amounts {
			want[item] = n * times
		}
		before := lost
		if sums, err := cart.AddAll(ctx, amounts); !maps.Equal(sums, want) || err != nil {
			t.Errorf("%s: AddAll = %v, %v; want %v", who, sums, err, want)
		}
		if err := notes.SetAll(ctx, texts); err != nil {
			t.Errorf("%s: %v", who, err)
		}
		if lost-before < 2 { // a new guest's first write sends two scripts
			t.Errorf("%s: %d replies were lost", who, lost-before)
		}
		sums, err := cart.All(ctx)
		read, err2 := notes.All(ctx)
		if !maps.Equal(sums, want) || !maps.Equal(read, texts) || err != nil || err2 != nil {
			t.Errorf("%s: stored are %v, %v, %v, %v", who, sums, err, read, err2)
		}
	}
	var id string
	m.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		writes(r.Context(), "a new guest", 1)
		id = guest.FromContext(r.Context()).GuestID()
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil))
	writes(m.AsGuest(t.Context(), id), "a known guest", 2)
	writes(m.As(t.Context(), "ann"), "an account", 1)
	writes(m.As(t.Context(), "ann"), "an account with data", 2)
}
