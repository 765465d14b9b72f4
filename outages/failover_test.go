package outages

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// How many acknowledged writes a failover loses: a master with two replicas is killed again and
// again while eight writers write. It is a measurement with one promise: with WaitReplicas none is
// lost, since Sentinel promotes the replica with the most data. No write is applied twice in either
// case.
func TestFailoverLoss(t *testing.T) {
	kills := 1
	if *long {
		kills = 5
	}
	for _, wait := range []int{0, 1} {
		t.Run(fmt.Sprint("WaitReplicas ", wait), func(t *testing.T) {
			if !*long {
				t.Parallel()
			}
			testFailoverLoss(t, wait, kills)
		})
	}
}

func testFailoverLoss(t *testing.T, wait, kills int) {
	s := redistest.Sentinel(t, 2, 1)
	rdb := s.Client()
	store := redisstore.New(rdb, redisstore.Config{Prefix: "p", WaitReplicas: wait})
	ctx := context.Background()

	// Each write has a field of its own, to see which one is lost.
	const writers, recordSize = 8, 200
	type result struct{ acked, uncertain bool }
	results := [writers][]result{}
	where := func(w, n int) (key, field string) {
		return fmt.Sprintf("%d-%d", w, n/recordSize), "f" + strconv.Itoa(n%recordSize)
	}
	var acked atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	halt := sync.OnceFunc(func() { close(stop); wg.Wait() })
	defer halt()
	for w := range writers {
		wg.Go(func() {
			for n := 0; !closed(stop)(); n++ {
				key, field := where(w, n)
				_, err := store.Update(ctx, key,
					guest.Update{Add: map[string]int64{field: 1}, Once: true})
				results[w] = append(results[w],
					result{err == nil, errors.Is(err, guest.ErrUncertain)})
				if err == nil {
					acked.Add(1)
				}
				if errors.Is(err, redisstore.ErrCircuitOpen) {
					// otherwise nearly all attempts fall into the outage
					pause := time.NewTimer(10 * time.Millisecond)
					<-pause.C
				}
			}
		})
	}
	writes := func(n int64) {
		from := acked.Load()
		eventually(t, "writes", func() bool { return acked.Load() >= from+n })
	}
	var outage time.Duration
	for n := range kills {
		writes(500)
		master, err := s.Master(ctx)
		must(t, err)
		start := time.Now()
		master.Kill()
		next, err := s.AwaitFailover(ctx, master)
		must(t, err)
		writes(1)
		outage += time.Since(start)
		if n < kills-1 {
			must(t, s.Rejoin(ctx, master, next))
		}
	}
	writes(100)
	halt()

	master, err := s.Master(ctx)
	must(t, err)
	held := master.Client()
	var lost, unsure, there, total int
	for w := range writers {
		for n, r := range results[w] {
			key, field := where(w, n)
			v, err := held.HGet(ctx, "p:"+key, field).Int()
			if err != nil && err != redis.Nil {
				t.Fatal(err)
			}
			total++
			switch {
			case v > 1, v == 1 && !r.acked && !r.uncertain:
				t.Errorf("a write that was %+v is there %d times", r, v)
			case v == 0 && r.acked:
				lost++
			}
			if r.uncertain {
				unsure++
				there += v
			}
		}
	}
	t.Logf("%d kills, each %v until a write was acknowledged again: of %d acknowledged writes %d are lost; %d of %d attempts were uncertain, %d of those are there",
		kills, (outage / time.Duration(kills)).Round(time.Millisecond), acked.Load(), lost, unsure,
		total, there)
	if wait > 0 && lost > 0 {
		t.Errorf("%d acknowledged writes are lost", lost)
	}
}

// The link between a master and its replica is cut, the master continues, and the replica then
// replaces it. This loses what a dead machine or a partition loses. A killed process on one machine
// does not, since its kernel still sends what the process has written.
func TestCutOff(t *testing.T) {
	for _, wait := range []int{0, 1} {
		t.Run(fmt.Sprint("WaitReplicas ", wait), func(t *testing.T) {
			master := redistest.Single(t, "--repl-diskless-sync-delay", "0")
			link := proxyTo(t, master.Addr)
			host, port, _ := net.SplitHostPort(link.Listen)
			replica := redistest.Single(t, "--replicaof", host+" "+port)
			admin := replica.Client()
			ctx := context.Background()
			eventually(t, "the replica is in sync", func() bool {
				return strings.Contains(admin.Info(ctx, "replication").Val(),
					"master_link_status:up")
			})
			rdb := master.Client()
			store := redisstore.New(
				rdb, redisstore.Config{Prefix: "p", MinTimeout: longDeadlines.MinTimeout,
					WaitReplicas: wait, WaitTimeout: 10 * time.Millisecond})
			add := func(field string) error {
				_, err := store.Update(ctx, "k",
					guest.Update{Add: map[string]int64{field: 1}, Once: true})
				return err
			}
			eventually(t, "a write that the replica has", func() bool {
				return add("before") == nil && admin.HGet(ctx, "p:k", "before").Val() != ""
			})

			link.Stop()
			const writes = 20
			acked, unsure := 0, 0
			for range writes {
				switch err := add("after"); {
				case err == nil:
					acked++
				case errors.Is(err, guest.ErrUncertain):
					unsure++
				default:
					t.Fatal(err)
				}
			}
			master.Kill()
			must(t, admin.ReplicaOf(ctx, "NO", "ONE").Err())
			there, err := admin.HGet(ctx, "p:k", "after").Int()
			if err != nil && err != redis.Nil {
				t.Fatal(err)
			}
			t.Logf("of %d writes %d were acknowledged, %d uncertain; %d are there", writes, acked,
				unsure, there)
			if wait > 0 && (acked != 0 || unsure != writes) {
				t.Errorf("without the replica, %d writes were acknowledged and %d uncertain", acked,
					unsure)
			}
		})
	}
}
