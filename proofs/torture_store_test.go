package proofs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/memstore"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

func init() { redis.SetLogger(&logging.VoidLogger{}) } // broken connections are what we test

// A network loses requests and replies until it is calm.
type network struct {
	mu      sync.Mutex
	lose    func(redistest.Command) redistest.Loss
	replies bool // are lost, too; otherwise only requests
	calm    bool
	count   [3]int // by redistest.Loss
}

func newNetwork(seed uint64, loss float64) *network {
	return &network{lose: redistest.Random(seed, loss), replies: true}
}

func (n *network) Lose(c redistest.Command) redistest.Loss {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.calm {
		return redistest.Nothing
	}
	l := n.lose(c)
	if l == redistest.Reply && !n.replies {
		l = redistest.Request
	}
	n.count[l]++
	return l
}

func (n *network) faults() *redistest.Faults { return &redistest.Faults{Lose: n.Lose} }

func (n *network) calmDown() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calm = true
}

func (n *network) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return fmt.Sprintf("%d requests and %d replies lost of %d", n.count[redistest.Request],
		n.count[redistest.Reply], n.count[0]+n.count[1]+n.count[2])
}

// A backend is where a torture keeps its records.
type backend struct {
	// one for each process, through the bad network
	store func() guest.Store
	clean guest.Store // through a good one
	// runs until ctx ends; nil: no disturbance
	disturb func(ctx context.Context, r *torture) (done int)
	what    string // the name of the disturbance
	prefix  string // of its keys in a Cluster
}

var prefixes atomic.Int64

func storeConfig() redisstore.Config {
	return redisstore.Config{
		Prefix: fmt.Sprint("torture", prefixes.Add(1)),
		// generous, as a busy machine is not what we test
		MinTimeout: 2 * time.Second,
	}
}

func singleBackend(server *redistest.Server) func(t testing.TB, n *network) backend {
	return func(t testing.TB, n *network) backend {
		cfg := storeConfig()
		open := func(f *redistest.Faults) guest.Store {
			o := &redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true}
			if f != nil {
				o.Dialer = f.Dial
			}
			rdb := redis.NewClient(o)
			t.Cleanup(func() { rdb.Close() })
			return redisstore.New(rdb, cfg)
		}
		return backend{store: func() guest.Store { return open(n.faults()) }, clean: open(nil)}
	}
}

func clusterBackend(cluster *redistest.ClusterServers) func(t testing.TB, n *network) backend {
	return func(t testing.TB, n *network) backend {
		cfg := storeConfig()
		open := func(f *redistest.Faults) guest.Store {
			o := &redis.ClusterOptions{Addrs: cluster.Addrs(), ContextTimeoutEnabled: true}
			if f != nil {
				o.Dialer = f.Dial
			}
			rdb := redis.NewClusterClient(o)
			t.Cleanup(func() { rdb.Close() })
			return redisstore.New(rdb, cfg)
		}
		return backend{store: func() guest.Store { return open(n.faults()) }, clean: open(nil),
			prefix: cfg.Prefix + ":"}
	}
}

// killed kills the server again and again, as a power failure would, and restarts it.
func killed(server *redistest.Server, every time.Duration) func(testing.TB, *network) backend {
	return func(t testing.TB, n *network) backend {
		b := singleBackend(server)(t, n)
		b.what = "kills"
		b.disturb = func(ctx context.Context, _ *torture) (done int) {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for ; ; done++ {
				select {
				case <-ctx.Done():
					return done
				case <-tick.C:
				}
				if err := server.Restart(); err != nil {
					t.Errorf("after %d kills: %v", done, err)
					return done
				}
			}
		}
		return b
	}
}

// flushed removes the server's scripts all the time.
func flushed(server *redistest.Server) func(testing.TB, *network) backend {
	return func(t testing.TB, n *network) backend {
		b := singleBackend(server)(t, n)
		b.what = "flushes"
		b.disturb = func(ctx context.Context, _ *torture) (done int) {
			rdb := server.Client()
			for ; ctx.Err() == nil; done++ {
				if err := rdb.ScriptFlush(ctx).Err(); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
			return done
		}
		return b
	}
}

// resharded moves slots that are in use from node to node all the time.
func resharded(cluster *redistest.ClusterServers) func(testing.TB, *network) backend {
	return func(t testing.TB, n *network) backend {
		b := clusterBackend(cluster)(t, n)
		b.what = "slots moved"
		b.disturb = func(ctx context.Context, r *torture) (done int) {
			rnd := rand.New(rand.NewPCG(r.seed, 4))
			for ctx.Err() == nil {
				slot, ok := r.slotInUse(rnd)
				if !ok {
					runtime.Gosched()
					continue
				}
				// Not ctx, or a slot might stay half moved.
				if err := cluster.MoveSlot(t.Context(), slot,
					rnd.IntN(len(cluster.Nodes))); err != nil {
					t.Errorf("after %d slots: %v", done, err)
					return done
				}
				done++
			}
			return done
		}
		return b
	}
}

// slotInUse is the slot of a recent guest, its account or the outbox.
func (r *torture) slotInUse(rnd *rand.Rand) (slot int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.browsers) == 0 {
		return 0, false
	}
	b := r.browsers[max(0, len(r.browsers)-1-rnd.IntN(8))]
	b.mu.Lock()
	defer b.mu.Unlock()
	switch rnd.IntN(3) {
	case 0:
		return redistest.Slot(fmt.Sprint(r.backend.prefix, "o:", rnd.IntN(16))), true
	case 1:
		return redistest.Slot(r.backend.prefix + accountKey(b.account)), true
	}
	return redistest.Slot(r.backend.prefix + b.origin), b.origin != ""
}

func memoryBackend(_ testing.TB, n *network) backend {
	clean := memstore.New(memstore.Config{})
	return backend{store: func() guest.Store { return &lossy{clean, n} }, clean: clean}
}

// lossy is a store behind a bad network. Like redisstore it repeats lost calls, and recognises a
// repeated update with Once.
type lossy struct {
	guest.Store
	net *network
}

var errLost = errors.New("the network has lost it")

const attempts = 3

// arrives lets other goroutines run in between.
func (l *lossy) arrives() redistest.Loss {
	loss := l.net.Lose(redistest.Command{})
	for range rand.IntN(4) {
		runtime.Gosched()
	}
	return loss
}

func (l *lossy) Get(ctx context.Context, key string, names ...string) (guest.Fields, error) {
	for range attempts {
		if l.arrives() == redistest.Nothing {
			return l.Store.Get(ctx, key, names...)
		}
	}
	return nil, errLost
}

func (l *lossy) Update(ctx context.Context, key string,
	u guest.Update) (res guest.Result, err error) {
	var done, unknown bool
	for range attempts {
		loss := l.arrives()
		if loss == redistest.Request {
			continue
		}
		if !done || !u.Once {
			res, err = l.Store.Update(ctx, key, u)
			done = err == nil && res.Applied
		}
		switch {
		case loss == redistest.Reply:
			unknown = true
		case done || !unknown:
			return res, err
		default:
			return guest.Result{}, fmt.Errorf("%w: %w", guest.ErrUncertain, errLost)
		}
	}
	if unknown {
		return guest.Result{}, fmt.Errorf("%w: %w", guest.ErrUncertain, errLost)
	}
	return guest.Result{}, errLost
}

// mortal is the store of a process that stops: its last call may still arrive, but gets no answer,
// and no later call arrives.
type mortal struct {
	guest.Store
	calls   atomic.Int64 // still to be made
	arrives bool         // the last one does
}

var errDead = errors.New("the process is dead")

func (m *mortal) Get(ctx context.Context, key string, names ...string) (guest.Fields, error) {
	if m.calls.Add(-1) <= 0 {
		return nil, errDead
	}
	return m.Store.Get(ctx, key, names...)
}

func (m *mortal) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	left := m.calls.Add(-1)
	if left == 0 && m.arrives {
		m.Store.Update(ctx, key, u)
	}
	if left <= 0 {
		return guest.Result{}, errDead
	}
	return m.Store.Update(ctx, key, u)
}

// later is a store with a clock that is ahead.
type later struct {
	guest.Store
	by time.Duration
}

func (l *later) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	res, err := l.Store.Update(ctx, key, u)
	if !res.Now.IsZero() {
		res.Now = res.Now.Add(l.by)
	}
	return res, err
}

// A mutant breaks updates on purpose.
type mutant struct {
	guest.Store
	change func(key string, u *guest.Update)
}

func (m *mutant) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	u.If, u.Set = maps.Clone(u.If), maps.Clone(u.Set)
	m.change(key, &u)
	return m.Store.Update(ctx, key, u)
}

func isMerge(u *guest.Update) bool { return u.Set[".c"] != "" }

var mutants = map[string]func(key string, u *guest.Update){
	"updates have no operation ID": func(_ string, u *guest.Update) { u.Once = false },
	"merges leave no marker": func(_ string, u *guest.Update) {
		if isMerge(u) {
			isMarker := func(field, _ string) bool { return strings.HasPrefix(field, ".c") }
			maps.DeleteFunc(u.If, isMarker)
			maps.DeleteFunc(u.Set, isMarker)
		}
	},
	"writes do not check that the guest is open": func(_ string, u *guest.Update) {
		if u.Once {
			delete(u.If, ".s")
		}
	},
	"a freeze does not check that the guest is open": func(_ string, u *guest.Update) {
		if strings.HasPrefix(u.Set[".s"], "f") {
			delete(u.If, ".s")
		}
	},
	"merges do not check that the account is unchanged": func(_ string, u *guest.Update) {
		if isMerge(u) {
			maps.DeleteFunc(u.If, func(field, _ string) bool { return field[0] != '.' })
		}
	},
}
