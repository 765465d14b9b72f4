package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
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

// slack is what a busy machine may add to a deadline; go-redis left alone takes 3 s and more.
const slack = 1500 * time.Millisecond

// A frozen Redis takes connections and bytes, and never answers.
func TestFrozen(t *testing.T) {
	clients := map[string]func(t *testing.T, addr string) redis.UniversalClient{
		"tuned": func(t *testing.T, addr string) redis.UniversalClient { return tuned(t, addr, nil) },
		"plain": func(t *testing.T, addr string) redis.UniversalClient {
			rdb := redis.NewClient(&redis.Options{Addr: addr})
			t.Cleanup(func() { rdb.Close() })
			return rdb
		},
		"no read timeout": func(t *testing.T, addr string) redis.UniversalClient {
			rdb := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true, ReadTimeout: -2, WriteTimeout: -2})
			t.Cleanup(func() { rdb.Close() })
			return rdb
		},
	}
	for name, client := range clients {
		for _, connected := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", connected ", connected), func(t *testing.T) {
				srv := redistest.Single(t)
				cfg := patient(t)
				rdb := client(t, srv.Addr)
				calm := redisstore.New(rdb, cfg)
				add := guest.Update{Add: map[string]int64{"n": 1}, Once: true}
				if connected {
					apply(t, calm, "k", add)
				}
				// A new store each time: its breaker is closed.
				cfg.MinTimeout, cfg.MaxTimeout = 60*time.Millisecond, 60*time.Millisecond
				fresh := func() *redisstore.Store { return redisstore.New(rdb, cfg) }
				srv.Stop()
				defer srv.Cont()

				start := time.Now()
				_, err := fresh().Get(ctx, "k")
				inTime := func(call string) {
					t.Helper()
					took := time.Since(start)
					if err == nil || took < cfg.MinTimeout-5*time.Millisecond ||
						took > cfg.MaxTimeout+slack {
						t.Errorf("%s took %v, with a deadline of %v: %v", call, took, cfg.MinTimeout, err)
					}
				}
				inTime("Get")
				start = time.Now()
				_, err = fresh().Update(ctx, "k", add)
				inTime("Update")
				// The connection that Get gave up is gone: the update waited for a new one, and was
				// not sent.
				if errors.Is(err, guest.ErrUncertain) {
					t.Errorf("an update that was never sent answers %v", err)
				}
				short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
				defer cancel()
				start = time.Now()
				s := fresh()
				_, err = s.Get(short, "k")
				if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > 20*time.Millisecond+slack {
					t.Errorf("with the caller's deadline Get took %v: %v", took, err)
				}

				srv.Cont()
				eventually(t, "Redis is back", func() bool { _, err := s.Get(ctx, "k"); return err == nil })
				want := ""
				if connected {
					want = "1"
				}
				if n := get(t, calm, "k", "n")["n"]; n != want {
					t.Errorf("n is %q, want %q", n, want)
				}
			})
		}
	}
}

// An update that was sent before Redis froze is uncertain, and applied when Redis wakes up.
func TestFrozenAfterSending(t *testing.T) {
	for _, plain := range []bool{true, false} {
		t.Run(fmt.Sprint("plain ", plain), func(t *testing.T) {
			srv := redistest.Single(t)
			rdb := redis.NewClient(&redis.Options{Addr: srv.Addr, ContextTimeoutEnabled: !plain})
			defer rdb.Close()
			cfg := patient(t)
			add := guest.Update{Add: map[string]int64{"n": 1}}
			apply(t, redisstore.New(rdb, cfg), "k", add)
			cfg.MinTimeout, cfg.MaxTimeout = 90*time.Millisecond, 90*time.Millisecond
			s := redisstore.New(rdb, cfg)
			srv.Stop()
			if _, err := s.Update(ctx, "k", add); !errors.Is(err, guest.ErrUncertain) {
				t.Errorf("got %v, want ErrUncertain", err)
			}
			srv.Cont()
			eventually(t, "the update arrives", func() bool {
				fields, err := s.Get(ctx, "k", "n")
				return err == nil && fields["n"] == "2"
			})
		})
	}
}

// An update whose caller has gone is not sent any more, though the client still works on it.
func TestRevoked(t *testing.T) {
	srv := redistest.Single(t)
	rdb := redis.NewClient(&redis.Options{Addr: srv.Addr, PoolSize: 1})
	defer rdb.Close()
	ended := make(chan error, 1)
	rdb.AddHook(onCommand(func(cmd redis.Cmder, err error) {
		if cmd.Name() == "evalsha" {
			ended <- err
		}
	}))
	s := redisstore.New(rdb, redisstore.Config{MinTimeout: 50 * time.Millisecond, MaxTimeout: 50 * time.Millisecond})
	srv.Stop()
	_, err := s.Update(ctx, "k", guest.Update{Set: guest.Fields{"a": "1"}})
	if err == nil || errors.Is(err, guest.ErrUncertain) {
		t.Errorf("an update that was never sent answers %v", err)
	}
	srv.Cont()
	if err := <-ended; err == nil {
		t.Error("the client sent the update")
	}
	if have := get(t, redisstore.New(srv.Client(), patient(t)), "k"); len(have) != 0 {
		t.Errorf("the record holds %v", have)
	}
}

// What Redis refuses was not done, and the error says so by not being uncertain.
func TestRefused(t *testing.T) {
	for _, row := range []struct {
		name   string
		args   []string
		refuse func(*testing.T, *redistest.Server, *redis.Client)
		want   string // in the error
		tries  int64
	}{
		{"a replica", nil, func(t *testing.T, srv *redistest.Server, rdb *redis.Client) {
			rdb.Do(ctx, "REPLICAOF", "127.0.0.1", "1")
		}, "READONLY", 3},
		{"a replica without its master", []string{"--replica-serve-stale-data", "no"}, func(t *testing.T, srv *redistest.Server, rdb *redis.Client) {
			rdb.Do(ctx, "REPLICAOF", "127.0.0.1", "1")
		}, "MASTERDOWN", 3},
		{"no slots", []string{"--cluster-enabled", "yes"}, nil, "CLUSTERDOWN", 3},
		{"out of memory", nil, func(t *testing.T, srv *redistest.Server, rdb *redis.Client) {
			rdb.ConfigSet(ctx, "maxmemory", "1")
		}, "OOM", 1},
		{"too few replicas", nil, func(t *testing.T, srv *redistest.Server, rdb *redis.Client) {
			rdb.ConfigSet(ctx, "min-replicas-to-write", "1")
		}, "NOREPLICAS", 1},
		{"no permission", nil, func(t *testing.T, srv *redistest.Server, rdb *redis.Client) {
			rdb.Do(ctx, "ACL", "SETUSER", "default", "-@write", "-evalsha")
		}, "NOPERM", 1},
		{"another type", nil, func(t *testing.T, srv *redistest.Server, rdb *redis.Client) {
			rdb.Del(ctx, "guest:g:secret")
			rdb.Set(ctx, "guest:g:secret", "x", 0)
		}, "WRONGTYPE", 1},
		{"no such command", []string{"--rename-command", "EVALSHA", ""}, nil, "unknown command", 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			srv := redistest.Single(t, row.args...)
			wire := &redistest.Faults{}
			rdb := tuned(t, srv.Addr, wire)
			cfg := patient(t)
			cfg.Prefix = "guest"
			s := redisstore.New(rdb, cfg)
			set := guest.Update{Set: guest.Fields{"name": "private"}, Unset: []string{"other"}, Once: true}
			if row.refuse != nil {
				apply(t, s, "g:secret", guest.Update{Set: guest.Fields{"name": "0"}})
				row.refuse(t, srv, srv.Client())
			}
			before := wire.Counts().Names["EVALSHA"]
			const calls = 6
			for range calls { // they do not open the breaker
				_, err := s.Update(ctx, "g:secret", set)
				if err == nil || errors.Is(err, guest.ErrUncertain) || !strings.Contains(err.Error(), row.want) {
					t.Fatalf("got %v, want %s", err, row.want)
				}
				if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "private") {
					t.Errorf("the error gives away a key or a value: %v", err)
				}
			}
			if n := (wire.Counts().Names["EVALSHA"] - before) / calls; n != row.tries {
				t.Errorf("sent %d times, want %d", n, row.tries)
			}
			if have := srv.Client().HGet(ctx, "guest:g:secret", "name").Val(); have == "private" {
				t.Error("the update was applied")
			}
		})
	}
}

// A Redis that is loading its data, and one with too many clients, are waited for as long as it
// makes sense.
func TestRefusedForAMoment(t *testing.T) {
	t.Run("loading", func(t *testing.T) {
		srv := redistest.Single(t, "--key-load-delay", "4000", "--loading-process-events-interval-bytes", "1024", "--rdbcompression", "no")
		s := redisstore.New(tuned(t, srv.Addr, nil), patient(t))
		for i := range 50 {
			apply(t, s, fmt.Sprint(i), guest.Update{Set: guest.Fields{"a": strings.Repeat("x", 2000)}})
		}
		srv.Client().Save(ctx)
		if err := srv.Restart(); err != nil {
			t.Fatal(err)
		}
		loading := false
		eventually(t, "Redis is back", func() bool {
			_, err := s.Update(ctx, "k", guest.Update{Add: map[string]int64{"n": 1}})
			loading = loading || redis.IsLoadingError(err)
			if errors.Is(err, guest.ErrUncertain) {
				t.Error(err)
			}
			return err == nil
		})
		if !loading {
			t.Error("Redis was not caught loading")
		}
		if n := get(t, s, "k")["n"]; n != "1" {
			t.Errorf("n = %s", n)
		}
	})
	t.Run("clients", func(t *testing.T) {
		srv := redistest.Single(t)
		admin := redis.NewClient(&redis.Options{Addr: srv.Addr, PoolSize: 1})
		defer admin.Close()
		admin.ConfigSet(ctx, "maxclients", "1")
		s := redisstore.New(tuned(t, srv.Addr, nil), patient(t))
		_, err := s.Update(ctx, "k", guest.Update{Set: guest.Fields{"a": "1"}})
		if err == nil || errors.Is(err, guest.ErrUncertain) { // the text is lost when the connection closes too fast
			t.Errorf("got %v", err)
		}
		admin.ConfigSet(ctx, "maxclients", "100")
		eventually(t, "a connection", s.Closed)
		apply(t, s, "k", guest.Update{Set: guest.Fields{"a": "1"}})
	})
}

// A full Redis refuses what takes memory. What gives it back passes, and so do the steps of a
// claim.
func TestOutOfMemory(t *testing.T) {
	srv := redistest.Single(t)
	rdb := srv.Client()
	cfg := patient(t)
	s := redisstore.New(rdb, cfg)
	for _, k := range []string{"a", "b", "c", "d", "e"} {
		apply(t, s, k, guest.Update{Set: guest.Fields{".i": "x", "big": strings.Repeat("x", 1000), "cart/a": "1", "n": "1"}, TTL: time.Hour})
	}
	if err := rdb.ConfigSet(ctx, "maxmemory", "1").Err(); err != nil { // noeviction
		t.Fatal(err)
	}
	freeze := guest.Update{Set: guest.Fields{".s": "frozen"}, Stamp: ".t", Once: true, TTL: 2 * time.Hour, ReturnAll: true}
	for _, u := range []guest.Update{
		freeze,
		{Set: guest.Fields{"x": "1"}},
		{Default: guest.Fields{"x": "1"}},
		{Add: map[string]int64{"n": 1}, Once: true},
		{Set: guest.Fields{"x": "1"}, Unset: []string{"big"}},
	} {
		before := get(t, s, "a")
		_, err := s.Update(ctx, "a", u)
		if err == nil || !strings.Contains(err.Error(), "OOM ") || errors.Is(err, guest.ErrUncertain) {
			t.Errorf("%+v answers %v, want OOM", u, err)
		}
		if have := get(t, s, "a"); fmt.Sprint(have) != fmt.Sprint(before) {
			t.Errorf("%+v was applied in part: %v", u, have)
		}
	}

	freeze.Reserve = true
	if res := apply(t, s, "a", freeze); len(res.Fields) != 6 {
		t.Errorf("frozen with %v", res.Fields)
	}
	apply(t, s, "new", guest.Update{Set: guest.Fields{"a": "1"}, Add: map[string]int64{"n": 1}, Once: true, TTL: time.Hour, Reserve: true})
	apply(t, s, "b", guest.Update{Unset: []string{"big"}, UnsetPrefix: []string{"cart/"}})
	apply(t, s, "b", guest.Update{Unset: []string{"n"}, TTL: 2 * time.Hour, Once: true})
	apply(t, s, "c", guest.Update{Drop: true})
	apply(t, s, "d", guest.Update{TTL: 2 * time.Hour})
	for key, want := range map[string]guest.Fields{
		"new": {"a": "1", "n": "1"}, "b": {".i": "x"}, "c": {},
	} {
		if have := get(t, s, key); fmt.Sprint(have) != fmt.Sprint(want) {
			t.Errorf("%s holds %v, want %v", key, have, want)
		}
	}
	for _, key := range []string{"a", "b", "d"} {
		if ttl := rdb.TTL(ctx, cfg.Prefix+":"+key).Val(); ttl < time.Hour+time.Minute {
			t.Errorf("%s lives for %v", key, ttl)
		}
	}
}

// A silent Redis is asked by the probe alone, whose answer closes the breaker.
func TestSilence(t *testing.T) {
	srv := redistest.Single(t)
	wire := &redistest.Faults{}
	rdb := tuned(t, srv.Addr, wire)
	s := redisstore.New(rdb, redisstore.Config{})
	get(t, s, "k")
	srv.Stop()
	defer srv.Cont()

	hurried, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	for range 10 { // such callers say nothing about Redis
		if _, err := s.Get(hurried, "k"); err == nil || errors.Is(err, redisstore.ErrCircuitOpen) {
			t.Fatalf("got %v", err)
		}
	}
	if _, err := s.Get(ctx, "k"); err == nil || errors.Is(err, redisstore.ErrCircuitOpen) {
		t.Fatalf("got %v", err)
	}
	before := wire.Counts().Names
	start := time.Now()
	for range 1000 {
		_, err := s.Get(ctx, "k")
		if !errors.Is(err, redisstore.ErrCircuitOpen) {
			t.Fatalf("got %v, want ErrCircuitOpen", err)
		}
		_, err = s.Update(ctx, "k", guest.Update{Set: guest.Fields{"a": "1"}})
		if !errors.Is(err, redisstore.ErrCircuitOpen) || errors.Is(err, guest.ErrUncertain) {
			t.Fatalf("got %v, want ErrCircuitOpen", err)
		}
	}
	t.Logf("2000 calls took %v", time.Since(start))
	for name, n := range wire.Counts().Names {
		if name != "PING" && name != "HELLO" && name != "CLIENT" && n != before[name] {
			t.Errorf("while the breaker is open, %d times %s", n-before[name], name)
		}
	}
	srv.Cont()
	// No call is needed for it, and none that is made then fails.
	eventually(t, "the probe is answered", s.Closed)
	get(t, s, "k")
}

// No server listens: each call ends by its deadline, and nothing is uncertain.
func TestRefusedPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for name, rdb := range map[string]redis.UniversalClient{
		"tuned":   tuned(t, l.Addr().String(), nil),
		"plain":   redis.NewClient(&redis.Options{Addr: l.Addr().String()}),
		"cluster": redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{l.Addr().String()}}),
	} {
		s := redisstore.New(rdb, redisstore.Config{MinTimeout: 60 * time.Millisecond, MaxTimeout: 60 * time.Millisecond})
		for range 7 {
			start := time.Now()
			_, err := s.Update(ctx, "k", guest.Update{Set: guest.Fields{"a": "1"}})
			if took := time.Since(start); err == nil || errors.Is(err, guest.ErrUncertain) || took > 60*time.Millisecond+slack {
				t.Errorf("%s: after %v: %v", name, took, err)
			}
		}
		rdb.Close()
	}
}

// All connections of the app are busy.
func TestPoolExhausted(t *testing.T) {
	for _, tuned := range []bool{true, false} {
		rdb := redis.NewClient(&redis.Options{Addr: server.Addr, PoolSize: 1, ContextTimeoutEnabled: tuned})
		defer rdb.Close()
		busy := rdb.Conn()
		busy.Ping(ctx)
		cfg := patient(t)
		cfg.MinTimeout, cfg.MaxTimeout = 50*time.Millisecond, 50*time.Millisecond
		s := redisstore.New(rdb, cfg)
		start := time.Now()
		_, err := s.Update(ctx, "k", guest.Update{Set: guest.Fields{"a": "1"}})
		if took := time.Since(start); err == nil || errors.Is(err, guest.ErrUncertain) || took > 50*time.Millisecond+slack {
			t.Errorf("after %v: %v", took, err)
		}
		busy.Close()
		eventually(t, "a connection", s.Closed)
		if have := get(t, s, "k"); len(have) != 0 {
			t.Errorf("the record holds %v", have)
		}
	}
}

// The script is forgotten all the time.
func TestScriptFlush(t *testing.T) {
	srv := redistest.Single(t)
	s := redisstore.New(srv.Client(), patient(t))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		rdb := srv.Client()
		for {
			select {
			case <-stop:
				return
			default:
				rdb.ScriptFlush(ctx)
			}
		}
	})
	told := increments(t, s, 4, 4, 500, nil)
	close(stop)
	wg.Wait()
	if sum := verify(t, s, told); sum != (tally{applied: 2000}) {
		t.Errorf("of 2000 additions: %+v", sum)
	}
}

func TestCheck(t *testing.T) {
	cfg := patient(t)
	check := func(rdb redis.UniversalClient) error { return redisstore.New(rdb, cfg).Check(ctx) }
	if err := check(server.Client()); err != nil {
		t.Errorf("a good server: %v", err)
	}
	if err := check(cluster.Client()); err != nil {
		t.Errorf("a good cluster: %v", err)
	}
	if n := server.Client().Keys(ctx, cfg.Prefix+"*").Val(); len(n) != 0 {
		t.Errorf("Check leaves %v", n)
	}

	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": server.Addr}, ContextTimeoutEnabled: true, HeartbeatFn: up})
	defer ring.Close()
	if err := check(ring); err != nil {
		t.Errorf("a good ring: %v", err)
	}
	usual := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": server.Addr}, ContextTimeoutEnabled: true})
	defer usual.Close()
	if err := check(usual); err == nil || !strings.Contains(err.Error(), "HeartbeatFn") {
		t.Errorf("a ring as it is by default: %v", err)
	}

	acl := filepath.Join(t.TempDir(), "users.acl")
	if err := os.WriteFile(acl, []byte("user default on nopass ~* &* +@all -hdel\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	srv := redistest.Single(t, "--maxmemory-policy", "volatile-lru", "--aclfile", acl)
	plain := redis.NewClient(&redis.Options{Addr: srv.Addr})
	defer plain.Close()
	err := check(plain)
	for _, want := range []string{"ContextTimeoutEnabled", "volatile-lru", "commands are refused in scripts", "HDEL"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("not reported: %s in %v", want, err)
		}
	}
	srv.Kill()
	if err := check(srv.Client()); err == nil || !strings.Contains(err.Error(), "INFO") {
		t.Errorf("a dead server: %v", err)
	}
}

// Check reports exactly the policies under which a Redis short of memory forgets that a guest was
// claimed, or an account. Then another account can claim that guest with a copy of its cookie.
func TestEvictionPolicies(t *testing.T) {
	srv := redistest.Single(t)
	rdb := srv.Client()
	set := func(name, value string) {
		t.Helper()
		if err := rdb.ConfigSet(ctx, name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, policy := range []string{
		"noeviction", "volatile-ttl", "volatile-lru", "volatile-lfu", "volatile-random", "allkeys-lru", "allkeys-lfu", "allkeys-random",
	} {
		t.Run(policy, func(t *testing.T) {
			set("maxmemory-policy", policy)
			cfg := patient(t)
			s := redisstore.New(rdb, cfg)
			cart := guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))
			m, err := guest.New(guest.Config{Store: s, Secrets: [][]byte{make([]byte, 32)}, Data: []guest.Kind{cart}, Cookie: guest.Cookie{Insecure: true}})
			if err != nil {
				t.Fatal(err)
			}
			w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil)
			r = m.Identify(w, r)
			if _, err := cart.Add(r.Context(), "tea", 1); err != nil {
				t.Fatal(err)
			}
			claim := func(account string) guest.Receipt {
				r := httptest.NewRequest("POST", "/login", nil)
				for _, c := range w.Result().Cookies() {
					r.AddCookie(c)
				}
				receipt, err := m.Claim(httptest.NewRecorder(), r, account)
				if err != nil && !errors.Is(err, guest.ErrClaimed) {
					t.Fatal(err)
				}
				return receipt
			}
			if receipt := claim("ann"); !receipt.Claimed {
				t.Fatalf("ann's claim: %+v", receipt)
			}

			// Every write finds too little memory, and evicts all that the policy lets go.
			set("maxmemory", "1")
			defer set("maxmemory", "0")
			eventually(t, "Redis says that it is full", func() bool { return redis.HasErrorPrefix(rdb.Set(ctx, cfg.Prefix+"x", "1", 0).Err(), "OOM") })
			set("maxmemory", "0")

			evicts := policy != "noeviction"
			if receipt := claim("bob"); receipt.Claimed != evicts {
				t.Errorf("bob's claim of ann's guest succeeds: %t, want %t", receipt.Claimed, evicts)
			}
			n, err := cart.Get(m.As(ctx, "ann"), "tea")
			if forgotten := strings.HasPrefix(policy, "allkeys-"); (n != 1) != forgotten || err != nil {
				t.Errorf("ann has %d, %v", n, err)
			}
			err = s.Check(ctx)
			if !evicts {
				if err != nil {
					t.Errorf("Check reports %v", err)
				}
				return
			}
			if err == nil {
				t.Fatal("Check reports nothing")
			}
			for _, want := range []string{policy, "claimed a second time", "set noeviction"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Check does not say %q: %v", want, err)
				}
			}
		})
	}
}

// up is the HeartbeatFn that docs/redis.md asks for.
func up(context.Context, *redis.Client) bool { return true }

// A server of a Ring is away for longer than a Ring waits: no record is looked for elsewhere.
func TestRingWithoutAServer(t *testing.T) {
	frozen, other := redistest.Single(t), redistest.Single(t)
	var beats atomic.Int64
	rdb := redis.NewRing(&redis.RingOptions{
		Addrs: map[string]string{"a": frozen.Addr, "b": other.Addr}, HeartbeatFrequency: time.Millisecond, ContextTimeoutEnabled: true,
		HeartbeatFn: func(ctx context.Context, shard *redis.Client) bool {
			beats.Add(1)
			return up(ctx, shard)
		},
	})
	defer rdb.Close()
	cfg := patient(t)
	s := redisstore.New(rdb, cfg)
	cfg.MinTimeout, cfg.MaxTimeout = 20*time.Millisecond, 20*time.Millisecond
	hasty := redisstore.New(rdb, cfg)
	const records = 40
	for i := range records {
		apply(t, s, fmt.Sprint(i), addOne)
	}
	frozen.Stop()
	defer frozen.Cont()
	before := beats.Load()
	eventually(t, "some heartbeats", func() bool { return beats.Load() > before+20 }) // three without an answer are enough
	failed := 0
	for i := range records {
		fields, err := hasty.Get(ctx, fmt.Sprint(i), "n")
		if err != nil {
			failed++
		} else if fields["n"] != "1" {
			t.Errorf("record %d is %v", i, fields)
		}
		if res, err := hasty.Update(ctx, fmt.Sprint(i), addOne); err == nil && res.Fields["n"] != "2" {
			t.Errorf("an addition to record %d returns %v", i, res.Fields)
		}
	}
	if failed == 0 {
		t.Error("no record is on the server that is away")
	}
	frozen.Cont()
	for i := range records {
		if n := get(t, s, fmt.Sprint(i), "n")["n"]; n != "1" && n != "2" {
			t.Errorf("afterwards record %d has n = %q", i, n)
		}
	}
}

// The first call on a connection takes as many round trips as the store leaves time for: with TCP,
// and two of TLS, seven.
func TestTripsToConnect(t *testing.T) {
	wire := &redistest.Faults{}
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr, Dialer: wire.Dial, ContextTimeoutEnabled: true,
		DB: 1, ClientName: "app", Username: "default", Password: "any"})
	defer rdb.Close()
	s := redisstore.New(rdb, patient(t))
	get(t, s, "k") // go-redis learns what the server does not know
	first := rdb.Conn()
	defer first.Close()
	if err := first.Ping(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	before := wire.Counts().RoundTrips
	get(t, s, "k")
	if trips := wire.Counts().RoundTrips - before; trips > 4 {
		t.Errorf("%d round trips, want at most 4", trips)
	}
}

// The list of masters may take far longer than finding the master of a key, which the client knows.
func TestListOfMastersIsSlow(t *testing.T) {
	var slow atomic.Bool
	rdb := redis.NewClusterClient(&redis.ClusterOptions{
		ClusterSlots: func(context.Context) ([]redis.ClusterSlot, error) {
			if slow.Load() {
				answer := time.NewTimer(400 * time.Millisecond)
				<-answer.C
			}
			return []redis.ClusterSlot{{Start: 0, End: 16383, Nodes: []redis.ClusterNode{{Addr: server.Addr}}}}, nil
		},
	})
	defer rdb.Close()
	s := redisstore.New(rdb, redisstore.Config{Prefix: patient(t).Prefix})
	apply(t, s, "k", guest.Update{Set: guest.Fields{"a": "1"}})
	slow.Store(true)
	for key, err := range s.Keys(ctx, "") {
		if key != "k" || err != nil {
			t.Errorf("got %q, %v", key, err)
		}
	}
}

// The network forgets the connections of an idle pool. The probe does not wait for each in turn.
func TestForgottenConnections(t *testing.T) {
	wire := &redistest.Faults{}
	rdb := tuned(t, server.Addr, wire)
	var held []*redis.Conn
	for range rdb.Options().PoolSize {
		conn := rdb.Conn()
		held = append(held, conn)
		if err := conn.Ping(ctx).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, conn := range held {
		conn.Close()
	}
	cfg := patient(t)
	cfg.MinTimeout, cfg.MaxTimeout = 60*time.Millisecond, time.Minute
	s := redisstore.New(rdb, cfg)
	apply(t, s, "k", guest.Update{Set: guest.Fields{"a": "1"}})
	wire.Forget()
	if _, err := s.Get(ctx, "k"); err == nil {
		t.Fatal("the connection was not forgotten")
	}
	eventually(t, "an answer", func() bool { _, err := s.Get(ctx, "k"); return err == nil })
}

// A server of a Ring is removed and added again, so that it has another client. When it then is
// silent, the probe asks on that one: on the closed one it would end at once, and close the breaker.
func TestServerComesAndGoes(t *testing.T) {
	a, b := redistest.Single(t), redistest.Single(t)
	rdb := redis.NewRing(&redis.RingOptions{
		Addrs: map[string]string{"a": a.Addr}, ContextTimeoutEnabled: true,
		HeartbeatFn: func(context.Context, *redis.Client) bool { return true },
	})
	defer rdb.Close()
	cfg := patient(t)
	cfg.MinTimeout = 500 * time.Millisecond
	s := redisstore.New(rdb, cfg)
	get(t, s, "k")
	rdb.SetAddrs(map[string]string{"a": b.Addr})
	get(t, s, "k")
	rdb.SetAddrs(map[string]string{"a": a.Addr})
	get(t, s, "k")
	a.Stop()
	defer a.Cont()
	if _, err := s.Get(ctx, "k"); err == nil || errors.Is(err, redisstore.ErrCircuitOpen) {
		t.Fatalf("the first call answers %v", err)
	}
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		if _, err := s.Get(ctx, "k"); !errors.Is(err, redisstore.ErrCircuitOpen) {
			t.Fatalf("a later call answers %v", err)
		}
		runtime.Gosched()
	}
}
