package outages

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

var faults = []fault{
	{name: "down", place: down(0), opens: true, probe: true},
	{name: "down, with DialerRetries 1", place: down(1), opens: true, probe: true},
	{name: "frozen", place: frozen, opens: true},
	{name: "frozen again and again", place: flapping},
	{name: "requests swallowed", place: through(`{"type": "timeout", "stream": "upstream", "attributes": {"timeout": 0}}`), opens: true},
	{name: "replies swallowed", place: through(`{"type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}}`), opens: true},
	{name: "connections reset", place: through(`{"type": "reset_peer", "stream": "downstream", "attributes": {"timeout": 0}}`), opens: true, probe: true},
	{name: "slow", place: through(
		`{"type": "latency", "attributes": {"latency": 50, "jitter": 50}}`,
		`{"type": "tail", "attributes": {"latency": 2000, "percent": 5}}`)},
	{name: "requests and replies lost", place: lossy, probe: true},
	{name: "killed every second", place: killed, probe: true},
	{name: "out of memory", place: full, reads: true, probe: true},
	{name: "a replica", place: demoted, reads: true, probe: true},
	{name: "loading", place: loading, probe: true},
	{name: "no cluster", place: clusterDown, probe: true},
	{name: "a slot half moved", place: slotHalfMoved, calm: true},
	{name: "slots moving", place: slotsMoving, calm: true},
	{name: "pool exhausted", place: poolExhausted, opens: true, probe: true},
	{name: "scripts flushed", place: flushed, calm: true},
	{name: "Sentinel failover", place: sentinelFailover},
	{name: "Cluster master killed", place: clusterFailover},
}

// persistent returns a server that keeps what it has acknowledged.
var persistent = []string{"--appendonly", "yes", "--appendfsync", "always"}

// newPlace returns a place with one server.
func newPlace(t testing.TB, addr string, config redisstore.Config) *place {
	wire := &redistest.Faults{}
	rdb := redis.NewClient(
		&redis.Options{Addr: addr, Dialer: wire.Dial, ContextTimeoutEnabled: true})
	t.Cleanup(func() { rdb.Close() })
	return &place{rdb: rdb, wire: wire, config: config}
}

func newClusterPlace(t testing.TB, addrs []string, config redisstore.Config) *place {
	wire := &redistest.Faults{}
	rdb := redis.NewClusterClient(
		&redis.ClusterOptions{Addrs: addrs, Dialer: wire.Dial, ContextTimeoutEnabled: true})
	t.Cleanup(func() { rdb.Close() })
	return &place{rdb: rdb, wire: wire, config: config}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// meanwhile calls a function again and again until stop is called, which returns when the last call
// has ended.
func meanwhile(t testing.TB, f func() error) (start, stop func()) {
	var wg sync.WaitGroup
	ended := make(chan struct{})
	start = func() {
		wg.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				if err := f(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	return start, func() { close(ended); wg.Wait() }
}

// loaded waits until a server that has started has loaded its data, too.
func loaded(t testing.TB, srv *redistest.Server) {
	admin := srv.Client()
	eventually(t, "the data are loaded", func() bool {
		return admin.Exists(context.Background(), "k").Err() == nil
	})
}

// down kills the server. go-redis tries a refused port again five times, 100 ms apart, unless
// configured otherwise.
func down(dialerRetries int) func(testing.TB) *place {
	return func(t testing.TB) *place {
		srv := redistest.Single(t, persistent...)
		p := &place{wire: &redistest.Faults{}}
		p.rdb = redis.NewClient(
			&redis.Options{Addr: srv.Addr, Dialer: p.wire.Dial, ContextTimeoutEnabled: true,
				DialerRetries: dialerRetries})
		t.Cleanup(func() { p.rdb.Close() })
		p.breaks = srv.Kill
		p.mends = func() { must(t, srv.Restart()); loaded(t, srv) }
		return p
	}
}

func frozen(t testing.TB) *place {
	srv := redistest.Single(t)
	p := newPlace(t, srv.Addr, redisstore.Config{})
	p.breaks, p.mends = srv.Stop, srv.Cont
	return p
}

// flapping freezes Redis for longer than calls wait, and lets it go for a moment.
func flapping(t testing.TB) *place {
	p := frozen(t)
	stop, cont := p.breaks, p.mends
	over := make(chan struct{})
	p.breaks = func() {
		go func() {
			defer close(over)
			tick := time.NewTicker(400 * time.Millisecond)
			defer tick.Stop()
			for range 4 {
				stop()
				<-tick.C
				cont()
				<-tick.C
			}
		}()
	}
	p.enough = closed(over)
	p.mends = func() { <-over }
	return p
}

func lossy(t testing.TB) *place {
	p := newPlace(t, redistest.Single(t).Addr, longDeadlines)
	random := redistest.Random(1, 0.1)
	var mu sync.Mutex
	bad := false
	p.wire.Lose = func(c redistest.Command) redistest.Loss {
		mu.Lock()
		defer mu.Unlock()
		if !bad {
			return redistest.Nothing
		}
		return random(c)
	}
	set := func(to bool) func() {
		return func() { mu.Lock(); defer mu.Unlock(); bad = to }
	}
	p.breaks, p.mends = set(true), set(false)
	return p
}

func killed(t testing.TB) *place {
	srv := redistest.Single(t, persistent...)
	p := newPlace(t, srv.Addr, redisstore.Config{})
	kills := 2
	if *long {
		kills = 10
	}
	over := make(chan struct{})
	p.breaks = func() {
		must(t, srv.Restart())
		go func() {
			defer close(over)
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for range kills {
				<-tick.C
				if err := srv.Restart(); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	p.enough = closed(over)
	p.mends = func() { <-over; loaded(t, srv) }
	return p
}

func closed(c <-chan struct{}) func() bool {
	return func() bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
}

func full(t testing.TB) *place {
	srv := redistest.Single(t)
	admin := srv.Client()
	p := newPlace(t, srv.Addr, longDeadlines)
	// noeviction is the default
	p.breaks = func() { must(t, admin.ConfigSet(t.Context(), "maxmemory", "1").Err()) }
	p.mends = func() { must(t, admin.ConfigSet(t.Context(), "maxmemory", "0").Err()) }
	return p
}

func demoted(t testing.TB) *place {
	srv := redistest.Single(t)
	admin := srv.Client()
	p := newPlace(t, srv.Addr, longDeadlines)
	p.breaks = func() { must(t, admin.ReplicaOf(t.Context(), "127.0.0.1", "1").Err()) }
	p.mends = func() { must(t, admin.ReplicaOf(t.Context(), "NO", "ONE").Err()) }
	return p
}

func loading(t testing.TB) *place {
	srv := redistest.Single(t, "--key-load-delay", "10000",
		"--loading-process-events-interval-bytes", "1024", "--rdbcompression", "no")
	admin := srv.Client()
	p := newPlace(t, srv.Addr, longDeadlines)
	p.breaks = func() {
		for i := range 500 { // 5 s
			must(t, admin.Set(t.Context(), fmt.Sprint("other", i), strings.Repeat("x", 1500),
				0).Err())
		}
		must(t, admin.Save(t.Context()).Err())
		must(t, srv.Restart())
		if err := admin.Get(t.Context(), "k").Err(); !redis.IsLoadingError(err) {
			t.Fatalf("Redis is not loading: %v", err)
		}
	}
	p.mends = func() {
		must(t, admin.ConfigSet(t.Context(), "key-load-delay", "0").Err())
		loaded(t, srv)
	}
	return p
}

// clusterDown removes one slot from a Cluster of one node, which then refuses all slots.
func clusterDown(t testing.TB) *place {
	srv := redistest.Single(t, "--cluster-enabled", "yes")
	admin := srv.Client()
	must(t, admin.ClusterAddSlotsRange(t.Context(), 0, 16383).Err())
	state := func(want string) {
		eventually(t, "the cluster is "+want, func() bool {
			return strings.Contains(admin.ClusterInfo(t.Context()).Val(), "cluster_state:"+want)
		})
	}
	state("ok")
	p := newClusterPlace(t, []string{srv.Addr}, longDeadlines)
	p.breaks = func() { must(t, admin.ClusterDelSlots(t.Context(), 0).Err()); state("fail") }
	p.mends = func() { must(t, admin.ClusterAddSlots(t.Context(), 0).Err()); state("ok") }
	return p
}

// inUse returns the slots of all records.
func inUse(t testing.TB, c *redistest.ClusterServers) (slots []int) {
	for _, node := range c.Nodes {
		for _, key := range node.Client().Keys(t.Context(), "*").Val() {
			slots = append(slots, redistest.Slot(key))
		}
	}
	return slots
}

// slotHalfMoved leaves the slots of all records open, like an interrupted resharding: Redis then
// answers ASK, and to commands with several keys TRYAGAIN.
func slotHalfMoved(t testing.TB) *place {
	c := redistest.Cluster(t)
	p := newClusterPlace(t, c.Addrs(), longDeadlines)
	moved := map[int]int{}
	p.breaks = func() {
		for _, slot := range inUse(t, c) {
			from, err := c.Owner(t.Context(), slot)
			must(t, err)
			moved[slot] = (from + 1) % len(c.Nodes)
			must(t, c.OpenSlot(t.Context(), slot, moved[slot]))
		}
	}
	p.mends = func() {
		for slot, to := range moved {
			must(t, c.MoveSlot(t.Context(), slot, to))
		}
	}
	return p
}

func slotsMoving(t testing.TB) *place {
	c := redistest.Cluster(t)
	p := newClusterPlace(t, c.Addrs(), longDeadlines)
	var slots []int
	var n atomic.Int64
	start, stop := meanwhile(t, func() error {
		slot := slots[int(n.Load())%len(slots)]
		defer n.Add(1)
		from, err := c.Owner(context.Background(), slot)
		if err != nil {
			return err
		}
		return c.MoveSlot(context.Background(), slot, (from+1)%len(c.Nodes))
	})
	p.breaks = func() { slots = inUse(t, c); start() }
	p.enough = func() bool { return n.Load() >= 6 }
	p.mends = func() { stop(); t.Logf("%d slots moved", n.Load()) }
	return p
}

// poolExhausted lets the app take all connections of the pool.
func poolExhausted(t testing.TB) *place {
	srv := redistest.Single(t)
	p := newPlace(t, srv.Addr, redisstore.Config{})
	rdb := p.rdb.(*redis.Client)
	var held []*redis.Conn
	p.breaks = func() {
		for range rdb.Options().PoolSize {
			conn := rdb.Conn()
			must(t, conn.Ping(t.Context()).Err())
			held = append(held, conn)
		}
	}
	p.mends = func() {
		for _, conn := range held {
			conn.Close()
		}
	}
	return p
}

func flushed(t testing.TB) *place {
	srv := redistest.Single(t)
	admin := srv.Client()
	p := newPlace(t, srv.Addr, longDeadlines)
	var n atomic.Int64
	start, stop := meanwhile(t, func() error {
		n.Add(1)
		return admin.ScriptFlush(context.Background()).Err()
	})
	p.breaks = start
	p.enough = func() bool { return n.Load() >= 1000 }
	p.mends = func() { stop(); t.Logf("flushed %d times", n.Load()) }
	return p
}

// sentinelFailover kills the master. Without WaitReplicas the last acknowledged writes could be
// lost.
func sentinelFailover(t testing.TB) *place {
	s := redistest.Sentinel(t, 2, 1)
	wire := &redistest.Faults{}
	rdb := redis.NewFailoverClient(
		&redis.FailoverOptions{MasterName: redistest.MasterName, SentinelAddrs: s.Addrs(),
			Dialer: wire.Dial, ContextTimeoutEnabled: true})
	t.Cleanup(func() { rdb.Close() })
	p := &place{rdb: rdb, wire: wire, config: redisstore.Config{WaitReplicas: 1}}
	p.breaks, p.enough, p.mends = failover(t, s.Nodes[0].Kill, func() error {
		_, err := s.AwaitFailover(context.Background(), s.Nodes[0])
		return err
	})
	return p
}

// failover is a fault that ends by itself, when await returns.
func failover(t testing.TB, kill func(),
	await func() error) (breaks func(), enough func() bool, mends func()) {
	over := make(chan struct{})
	breaks = func() {
		kill()
		go func() {
			defer close(over)
			start := time.Now()
			if err := await(); err != nil {
				t.Error(err)
			}
			t.Logf("failover in %v", time.Since(start).Round(time.Millisecond))
		}()
	}
	return breaks, closed(over), func() { <-over }
}

// clusterFailover kills the master of a record.
func clusterFailover(t testing.TB) *place {
	c := redistest.Cluster(t, "--cluster-node-timeout", "500")
	must(t, c.AddReplicas(t.Context()))
	p := newClusterPlace(t, c.Addrs(), redisstore.Config{WaitReplicas: 1})
	var dead int
	p.breaks, p.enough, p.mends = failover(t, func() {
		var err error
		dead, err = c.Owner(t.Context(), inUse(t, c)[0])
		must(t, err)
		c.Nodes[dead].Kill()
	}, func() error { return c.AwaitFailover(context.Background(), dead) })
	over := p.mends
	// otherwise there is no replica to wait for
	p.mends = func() { over(); must(t, c.Rejoin(t.Context(), dead)) }
	return p
}
