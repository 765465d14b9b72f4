package main

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"runtime"
	"runtime/metrics"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/memstore"
	"github.com/redis/go-redis/v9"
)

// shards runs guests through a Cluster and counts, at the wire, the commands that each of its
// shards gets.
func shards(n, guests int) (commands []int64, err error) {
	dir, err := os.MkdirTemp("", "shards")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cluster, err := redistest.StartShards(dir, n)
	if err != nil {
		return nil, err
	}
	defer cluster.Close()

	wires := map[string]*redistest.Faults{}
	for _, addr := range cluster.Addrs() {
		wires[addr] = &redistest.Faults{}
	}
	rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs(), PoolSize: *poolSize,
		ContextTimeoutEnabled: true,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			w := wires[addr]
			if w == nil {
				return nil, fmt.Errorf("no shard at %s", addr)
			}
			return w.Dial(ctx, network, addr)
		}})
	defer rdb.Close()
	app, err := newGuest(slowStore(rdb), guest.OnFirstVisit, func() {})
	if err != nil {
		return nil, err
	}
	if err := crowd(app, guests, First, None, Add, Read); err != nil {
		return nil, err
	}
	for _, addr := range cluster.Addrs() {
		names := wires[addr].Counts().Names
		commands = append(commands, names["EVALSHA"]+names["HMGET"])
	}
	return commands, nil
}

// A memoryTest is how memstore behaves with many guests.
type memoryTest struct {
	guests        int
	bytes         float64 // of heap, a guest
	pauseP99      time.Duration
	pauseMax      time.Duration
	readSlow      figure // time of a read, 16 abreast, in units of the same with a thousand guests
	addSlow       figure
	flood, before int
	left          int // guests with data that are left after the flood
	// guests of the flood that are left; fewer than came, or the store was never full
	emptyLeft int
}

func inMemory(rdb *redis.Client, guests, flood int, e effort) (m memoryTest, err error) {
	if err := m.crowded(rdb, guests, e); err != nil {
		return m, err
	}
	return m, m.flooded(50_000, flood, 64<<20)
}

// crowded fills a store and measures it.
func (m *memoryTest) crowded(rdb *redis.Client, guests int, e effort) error {
	open := func(max int64, guests int) (App, []*browser, error) {
		app, err := newGuest(memstore.New(memstore.Config{MaxBytes: max}), guest.OnFirstVisit,
			func() {})
		if err != nil {
			return nil, nil, err
		}
		var some []*browser
		for range tabs {
			b, err := newKnown(app, Small)
			if err != nil {
				return nil, nil, err
			}
			some = append(some, b)
		}
		return app, some, crowd(app, guests, First, None)
	}
	m.guests = guests
	before := heap()
	many, visitors, err := open(16<<30, guests)
	if err != nil {
		return err
	}
	m.bytes = float64(heap()-before) / float64(guests)

	few, fewVisitors, err := open(16<<30, 1000)
	if err != nil {
		return err
	}
	pauses := gcPauses()
	for _, w := range []Work{Read, Add} {
		var runners []runner
		for _, side := range []struct {
			app      App
			visitors []*browser
		}{{few, fewVisitors}, {many, visitors}} {
			r := runner{name: string(w)}
			for _, b := range side.visitors {
				r.calls = append(r.calls, side.app.Prepare(w, "", b.header()))
			}
			runners = append(runners, r)
		}
		results, err := race(rdb, runners, 0, tabs, e)
		if err != nil {
			return err
		}
		if w == Read {
			m.readSlow = results[1].time
		} else {
			m.addSlow = results[1].time
		}
	}
	collected := make(chan bool)
	go func() {
		defer close(collected)
		for range 3 {
			runtime.GC()
		}
	}()
	for done := false; !done; {
		if err := crowd(many, 200, First, None, Add, Read); err != nil {
			return err
		}
		select {
		case <-collected:
			done = true
		default:
		}
	}
	m.pauseP99, m.pauseMax = pausesSince(pauses)
	runtime.KeepAlive(many)
	return nil
}

// flooded fills a part of a store with guests with data, sends a flood of guests without, and
// counts the guests that are left.
func (m *memoryTest) flooded(guests, flood int, maxBytes int64) error {
	m.before, m.flood = guests, flood
	store := memstore.New(memstore.Config{MaxBytes: maxBytes})
	app, err := newGuest(store, guest.OnFirstVisit, func() {})
	if err != nil {
		return err
	}
	var kept []*browser
	for range m.before {
		b := &browser{}
		if _, err := b.visit(app, First, ""); err != nil {
			return err
		}
		kept = append(kept, b)
	}
	if err := crowd(app, flood, Visit); err != nil {
		return err
	}
	for _, b := range kept {
		if text, err := b.visit(app, Read, ""); err == nil && text == theme {
			m.left++
		}
	}
	keys := 0
	for _, err := range store.Keys(ctx, "g:") {
		if err != nil {
			return err
		}
		keys++
	}
	m.emptyLeft = keys - m.left
	return nil
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

const pauseMetric = "/sched/pauses/total/gc:seconds"

func gcPauses() *metrics.Float64Histogram {
	s := []metrics.Sample{{Name: pauseMetric}}
	metrics.Read(s)
	h := s[0].Value.Float64Histogram()
	return &metrics.Float64Histogram{Counts: append([]uint64(nil), h.Counts...), Buckets: h.Buckets}
}

// pausesSince returns the 99th percentile and the longest pause since, both rounded up to a bucket.
func pausesSince(before *metrics.Float64Histogram) (p99, longest time.Duration) {
	after := gcPauses()
	total := uint64(0)
	for i := range after.Counts {
		after.Counts[i] -= before.Counts[i]
		total += after.Counts[i]
	}
	seen := uint64(0)
	for i, n := range after.Counts {
		if n == 0 {
			continue
		}
		upper := after.Buckets[i+1]
		if math.IsInf(upper, 1) {
			upper = after.Buckets[i]
		}
		d := time.Duration(upper * float64(time.Second))
		if seen += n; p99 == 0 && float64(seen) >= 0.99*float64(total) {
			p99 = d
		}
		longest = d
	}
	return p99, longest
}
