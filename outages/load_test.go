package outages

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// A distant Redis, and one whose answers vary, are waited for: every page of a crowd is whole. The
// crowd is larger than the pool, so pages also wait in the queue.
func TestLatency(t *testing.T) {
	for _, row := range []struct{ latency, jitter int }{ // of each answer, ms
		{0, 0}, {5, 0}, {50, 0}, {300, 0}, {50, 50}, {150, 150},
	} {
		t.Run(fmt.Sprintf("%d ± %d ms", row.latency, row.jitter), func(t *testing.T) {
			t.Parallel()
			proxy := proxyTo(t, redistest.Single(t).Addr)
			_, err := proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(
				`{"type": "latency", "attributes": {"latency": %d, "jitter": %d}}`,
				row.latency, row.jitter)))
			must(t, err)
			at := newPlace(t, proxy.Listen, redisstore.Config{
				MinTimeout: time.Second, // a busy machine is not what we test
			})
			site := newSite(t, redisstore.New(at.rdb, at.config))
			var wg sync.WaitGroup
			for range 30 {
				wg.Go(func() {
					v := site.newVisitor()
					for range 3 {
						if p := v.visit(); !p.whole() {
							t.Errorf("a page lacks something: %+v", p)
						}
					}
					if p := v.fetch("GET", "/cart", nil); p.Read != done || p.Amount != 3 {
						t.Errorf("the cart holds %d, want 3 (%s)", p.Amount, p.Read)
					}
				})
			}
			wg.Wait()
			if errors := site.errors(); errors != "" {
				t.Errorf("the store's errors:\n%s", errors)
			}
		})
	}
}

// Redis freezes while 500 visitors, in the long form 5,000, ask for pages. Little is sent to Redis,
// nothing piles up, and when Redis is back each cart holds what was acknowledged.
func TestFrozenUnderLoad(t *testing.T) {
	crowd, config := 500, redisstore.Config{
		MinTimeout: time.Second, // a busy machine is not what we test
	}
	if *long {
		crowd, config = 5000, redisstore.Config{}
	}
	srv := redistest.Single(t)
	at := newPlace(t, srv.Addr, config)
	pool := int64(at.rdb.(*redis.Client).Options().PoolSize)
	site := newSite(t, redisstore.New(at.rdb, at.config))
	visitors := make([]*visitor, crowd)
	all := func(do func(*visitor)) {
		var wg sync.WaitGroup
		for _, v := range visitors {
			wg.Go(func() { do(v) })
		}
		wg.Wait()
	}
	for i := range visitors {
		visitors[i] = site.newVisitor()
	}
	// With no time limit: the machine may be too busy for the deadlines.
	all(func(v *visitor) { v.visit() })

	var frozen, over atomic.Bool
	var pages, whole atomic.Int64
	var most atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		all(func(v *visitor) {
			for !over.Load() {
				p := v.visit()
				if frozen.Load() {
					pages.Add(1)
					if n := int64(runtime.NumGoroutine()); n > most.Load() {
						most.Store(n)
					}
				} else if p.whole() {
					whole.Add(1)
				}
			}
		})
	}()
	defer func() {
		srv.Cont()
		over.Store(true)
		<-ended
	}()
	eventually(t, "pages", func() bool { return whole.Load() > int64(2*crowd) })
	srv.Stop()
	frozen.Store(true)
	before := at.wire.Counts()
	start := time.Now()
	eventually(t, "pages while Redis is frozen", func() bool {
		return pages.Load() > int64(3*crowd)
	})
	after, inUse := at.wire.Counts(), heap()
	t.Logf("frozen for %v: %d pages, %d goroutines at most, heap %d KiB; %d commands, "+
		"%d connections", time.Since(start).Round(time.Millisecond), pages.Load(), most.Load(),
		inUse>>10, after.Commands-before.Commands, after.Conns-before.Conns)
	// What was under way, and once more when that has ended; then the probe.
	if n := after.Conns - before.Conns; n > 2*pool {
		t.Errorf("%d connections were made to a Redis that is frozen", n)
	}
	if n := after.Commands - before.Commands; n > 4*pool {
		t.Errorf("%d commands were sent to a Redis that is frozen", n)
	}
	// A visitor is one goroutine, and its connection has two at its end and two at ours. The store
	// adds none to them.
	if n := most.Load(); n > int64(5*crowd+100) {
		t.Errorf("%d goroutines", n)
	}
	if inUse > uint64(crowd)*128<<10 { // for both ends
		t.Errorf("a heap of %d KiB", inUse>>10)
	}

	frozen.Store(false)
	whole.Store(0)
	srv.Cont()
	start = time.Now()
	eventually(t, "a whole page", func() bool { return whole.Load() > 0 })
	t.Logf("whole again after %v", time.Since(start).Round(time.Millisecond))
	eventually(t, "whole pages", func() bool { return whole.Load() > int64(crowd) })
	if n := at.wire.Counts().Conns - after.Conns; n > 2*pool {
		t.Errorf("%d connections were made when Redis was back", n)
	}
	over.Store(true)
	<-ended
	for _, v := range visitors[:100] {
		v.verify()
	}
	t.Logf("the store's errors:\n%s", site.errors())
}

// heap returns how many bytes are in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// One master of a Cluster is frozen. Visitors whose records are elsewhere do not notice.
func TestOneMasterFrozen(t *testing.T) {
	c := redistest.Cluster(t, "--cluster-node-timeout", "60000") // the others are to go on
	at := newClusterPlace(t, c.Addrs(), redisstore.Config{
		MinTimeout: time.Second, // a busy machine is not what we test
	})
	site := newSite(t, redisstore.New(at.rdb, at.config))
	var near, away []*visitor
	for len(near) < 10 || len(away) < 10 {
		v := site.newVisitor()
		v.settle("oak")
		owner, err := c.Owner(t.Context(), redistest.Slot("guest:g:"+v.id))
		must(t, err)
		if owner == 0 {
			away = append(away, v)
		} else {
			near = append(near, v)
		}
	}
	c.Nodes[0].Stop()
	defer c.Nodes[0].Cont()
	var wg sync.WaitGroup
	for _, v := range near {
		wg.Go(func() {
			for range 50 {
				if p := v.visit(); !p.whole() {
					t.Errorf("a visitor of another master gets %+v", p)
					return
				}
			}
		})
	}
	var mu sync.Mutex
	waited := 0 // calls that failed after they were sent
	for _, v := range away {
		wg.Go(func() {
			for range 50 {
				p := v.visit()
				mu.Lock()
				waited += p.failedCalls()
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if waited > 4*len(away) { // of 100 for each
		t.Errorf("%d calls waited for the frozen master", waited)
	}
	c.Nodes[0].Cont()
	for _, v := range append(near, away...) {
		v.verify()
	}
	t.Logf("%d calls waited; the store's errors:\n%s", waited, site.errors())
}
