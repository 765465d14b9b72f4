package redisstore_test

import (
	"context"
	"encoding"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

// Shared by tests that leave the servers as they are.
var (
	server  *redistest.Server
	cluster *redistest.ClusterServers
)

func TestMain(m *testing.M) {
	redis.SetLogger(&logging.VoidLogger{}) // refused connections are what we test
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "redisstore")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	if server, err = redistest.Start(dir); err != nil {
		return fail(err)
	}
	defer server.Close()
	if cluster, err = redistest.StartCluster(dir); err != nil {
		return fail(err)
	}
	defer cluster.Close()
	return m.Run()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

var ctx = context.Background()

// backends are the clients that a store works with, each to be used through a network of its own.
var backends = []struct {
	name string
	dial func(*redistest.Faults) redis.UniversalClient
}{
	{"single", func(f *redistest.Faults) redis.UniversalClient {
		return redis.NewClient(&redis.Options{Addr: server.Addr, Dialer: f.Dial, ContextTimeoutEnabled: true})
	}},
	{"plain", func(f *redistest.Faults) redis.UniversalClient { // as an app has it that has not heard of us
		return redis.NewClient(&redis.Options{Addr: server.Addr, Dialer: f.Dial})
	}},
	{"resp2", func(f *redistest.Faults) redis.UniversalClient {
		return redis.NewClient(&redis.Options{Addr: server.Addr, Dialer: f.Dial, ContextTimeoutEnabled: true, Protocol: 2})
	}},
	{"cluster", func(f *redistest.Faults) redis.UniversalClient {
		return redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs(), Dialer: f.Dial, ContextTimeoutEnabled: true})
	}},
	{"autopipelined", func(f *redistest.Faults) redis.UniversalClient {
		rdb, err := redis.NewClient(&redis.Options{Addr: server.Addr, Dialer: f.Dial, ContextTimeoutEnabled: true}).AutoPipeline()
		if err != nil {
			panic(err) // only of a faulty configuration
		}
		return rdb
	}},
	{"ring", func(f *redistest.Faults) redis.UniversalClient {
		return redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": server.Addr}, Dialer: f.Dial, ContextTimeoutEnabled: true})
	}},
}

// each runs a test on all backends. The store has a prefix of its own, and time enough for a busy
// machine.
func each(t *testing.T, test func(*testing.T, *redisstore.Store, *redistest.Faults)) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			f := &redistest.Faults{}
			rdb := b.dial(f)
			t.Cleanup(func() { rdb.Close() })
			test(t, redisstore.New(rdb, patient(t)), f)
		})
	}
	t.Run("by update.lua alone", func(t *testing.T) { // what the other scripts do, it can do as well
		f := &redistest.Faults{}
		s := redisstore.New(tuned(t, server.Addr, f), patient(t))
		s.UpdateOnly()
		test(t, s, f)
	})
}

var prefixes atomic.Int64

// patient configures a store whose deadlines do not matter to a test.
func patient(t testing.TB) redisstore.Config {
	return redisstore.Config{
		Prefix:     fmt.Sprint("test", prefixes.Add(1)),
		MinTimeout: 20 * time.Second,
	}
}

// tuned returns a client of a server with the option that the store asks for.
func tuned(t testing.TB, addr string, dialer *redistest.Faults) *redis.Client {
	o := &redis.Options{Addr: addr, ContextTimeoutEnabled: true}
	if dialer != nil {
		o.Dialer = dialer.Dial
	}
	rdb := redis.NewClient(o)
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

func apply(t testing.TB, s *redisstore.Store, key string, u guest.Update) guest.Result {
	t.Helper()
	res, err := s.Update(ctx, key, u)
	if err != nil || !res.Applied {
		t.Fatalf("the update answers %+v, %v", res, err)
	}
	return res
}

func get(t testing.TB, s *redisstore.Store, key string, names ...string) guest.Fields {
	t.Helper()
	fields, err := s.Get(ctx, key, names...)
	if err != nil {
		t.Fatal(err)
	}
	return fields
}

// eventually polls until f holds.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !f(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("not in time: ", what)
		}
	}
}

// onCommand is called when the client is done with a command.
type onCommand func(redis.Cmder, error)

func (onCommand) DialHook(next redis.DialHook) redis.DialHook { return next }
func (onCommand) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (f onCommand) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		f(cmd, err)
		return err
	}
}

// argsSent copies the arguments of a command, the operation's among them as it was sent, whatever
// becomes of it.
func argsSent(cmd redis.Cmder, operation int) []any {
	args := slices.Clone(cmd.Args())
	sent, _ := args[operation].(encoding.BinaryMarshaler).MarshalBinary()
	args[operation] = slices.Clone(sent)
	return args
}
