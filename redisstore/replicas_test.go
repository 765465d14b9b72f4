package redisstore_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// cut takes its master from a replica, which goes on with what it has.
func cut(t *testing.T, replica *redis.Client) {
	t.Helper()
	replica.ConfigSet(ctx, "masterauth", "wrong") // it will not get in again
	replica.ConfigSet(ctx, "masteruser", "nobody")
	eventually(t, "the replica has lost its master", func() bool {
		replica.ClientKillByFilter(ctx, "type", "master")
		return strings.Contains(replica.Info(ctx, "replication").Val(), "master_link_status:down")
	})
}

// A client that reads from replicas gets what masters know: here a replica that has lost its master
// and serves what it has. Redirections are followed as the client follows them.
func TestReadsFromMasters(t *testing.T) {
	c := redistest.Cluster(t)
	if err := c.AddReplicas(ctx); err != nil {
		t.Fatal(err)
	}
	const key = "k"
	writer := patient(t)
	slot := redistest.Slot(writer.Prefix + ":" + key)
	owner, err := c.Owner(ctx, slot)
	if err != nil {
		t.Fatal(err)
	}
	replica := c.Replicas[owner].Client()
	writes := redisstore.New(c.Client(), writer)
	apply(t, writes, key, addOne)
	eventually(t, "the replica has the record", func() bool { return replica.DBSize(ctx).Val() == 1 })
	cut(t, replica)
	apply(t, writes, key, addOne)

	eventually(t, "clients hear of the replicas", func() bool {
		for _, node := range c.Nodes {
			//lint:ignore SA1019 it is what clients ask
			slots, err := node.Client().ClusterSlots(ctx).Result()
			if err != nil || slices.ContainsFunc(slots, func(s redis.ClusterSlot) bool { return len(s.Nodes) < 2 }) {
				return false
			}
		}
		return true
	})

	clients := map[string]*redis.ClusterOptions{"replicas": {ReadOnly: true}, "random": {RouteRandomly: true}}
	read := map[string]*redisstore.Store{}
	for name, o := range clients {
		o.Addrs, o.ContextTimeoutEnabled = c.Addrs(), true
		rdb := redis.NewClusterClient(o)
		defer rdb.Close()
		read[name] = redisstore.New(rdb, writer)
	}
	want := 2
	all := func(when string) {
		t.Helper()
		for name, s := range read {
			for range 8 {
				if n := get(t, s, key, "n")["n"]; n != fmt.Sprint(want) {
					t.Fatalf("%s, by %s: n = %q, want %d", when, name, n, want)
				}
				if n := get(t, s, key)["n"]; n != fmt.Sprint(want) {
					t.Fatalf("%s, by %s: of all fields n = %q, want %d", when, name, n, want)
				}
			}
		}
	}
	all("a replica that is behind")

	if err := c.AddMaster(ctx); err != nil { // clients hear of it with its first slot
		t.Fatal(err)
	}
	to := len(c.Nodes) - 1
	if err := c.OpenSlot(ctx, slot, to); err != nil {
		t.Fatal(err)
	}
	all("a slot that moves")
	apply(t, writes, key, guest.Update{Drop: true})
	apply(t, writes, key, addOne) // at the other node: ASK
	want = 1
	all("a record at the other node")
	if err := c.MoveSlot(ctx, slot, to); err != nil {
		t.Fatal(err)
	}
	all("a slot that has moved") // MOVED
}

// A master that has become a replica sends such a client on, instead of answering it as the replica
// that it is.
func TestReadsFromTheNextMaster(t *testing.T) {
	c := redistest.Cluster(t)
	if err := c.AddReplicas(ctx); err != nil {
		t.Fatal(err)
	}
	cfg := patient(t)
	owner, err := c.Owner(ctx, redistest.Slot(cfg.Prefix+":k"))
	if err != nil {
		t.Fatal(err)
	}
	usual := redisstore.New(c.Client(), cfg)
	apply(t, usual, "k", addOne)
	var stores [2]*redisstore.Store
	for i := range stores {
		rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs(), ReadOnly: true, ContextTimeoutEnabled: true})
		defer rdb.Close()
		stores[i] = redisstore.New(rdb, cfg)
		if n := get(t, stores[i], "k", "n")["n"]; n != "1" {
			t.Fatalf("n = %q, want 1", n)
		}
	}
	reads, updates := stores[0], stores[1]
	old, next := c.Nodes[owner].Client(), c.Replicas[owner].Client()
	eventually(t, "the replica has the record", func() bool { return next.DBSize(ctx).Val() == 1 })
	if err := next.Do(ctx, "CLUSTER", "FAILOVER", "TAKEOVER").Err(); err != nil {
		t.Fatal(err)
	}
	role := func(rdb *redis.Client, want string) func() bool {
		return func() bool { return strings.Contains(rdb.Info(ctx, "replication").Val(), want) }
	}
	eventually(t, "the replica is the master", role(next, "role:master"))
	eventually(t, "the master is a replica", role(old, "master_link_status:up"))
	cut(t, old)
	apply(t, usual, "k", addOne)
	for range 3 {
		if n := get(t, reads, "k", "n")["n"]; n != "2" {
			t.Fatalf("n = %q, want 2", n)
		}
	}
	apply(t, updates, "k", guest.Update{If: guest.Fields{"n": "2"}, Set: guest.Fields{"seen": "1"}})
}

// The third way to such a client, which go-redis cannot use without a data race in itself.
func TestRouteByLatency(t *testing.T) {
	for name, rdb := range map[string]redis.UniversalClient{
		"Cluster":  redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs(), RouteByLatency: true}),
		"Sentinel": redis.NewFailoverClusterClient(&redis.FailoverOptions{RouteByLatency: true}),
	} {
		defer rdb.Close()
		if !redisstore.New(rdb, redisstore.Config{}).FromReplicas() {
			t.Errorf("%s: its reads would go where the client's go", name)
		}
	}
	if redisstore.New(cluster.Client(), redisstore.Config{}).FromReplicas() {
		t.Error("a usual client is taken for one that reads from replicas")
	}
}

// With Sentinel such a client is one of a Cluster that there is not.
func TestReadsFromTheMasterBySentinel(t *testing.T) {
	all := redistest.Sentinel(t, 1, 1)
	replica := all.Nodes[1].Client()
	cfg := patient(t)
	writes := redisstore.New(all.Nodes[0].Client(), cfg)
	apply(t, writes, "k", addOne)
	eventually(t, "the replica has the record", func() bool { return replica.DBSize(ctx).Val() == 1 })
	cut(t, replica)
	apply(t, writes, "k", addOne)
	for _, o := range []redis.FailoverOptions{{RouteRandomly: true}, {ReplicaOnly: true}} {
		o.MasterName, o.SentinelAddrs, o.ContextTimeoutEnabled = redistest.MasterName, all.Addrs(), true
		rdb := redis.NewFailoverClusterClient(&o)
		defer rdb.Close()
		s := redisstore.New(rdb, cfg)
		for range 8 {
			if n := get(t, s, "k", "n")["n"]; n != "2" {
				t.Fatalf("n = %q, want 2", n)
			}
		}
		if res := apply(t, s, "new", firstWrite()); res.Fields["n"] == "" {
			t.Errorf("an update answers %v", res)
		}
	}
}

// A client that remembers what it read asks nevertheless: it hears of others' writes only a little
// later.
func TestReadsPastACache(t *testing.T) {
	wire := &redistest.Faults{}
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr, Dialer: wire.Dial, ContextTimeoutEnabled: true, ClientSideCacheConfig: &redis.ClientSideCacheConfig{}})
	defer rdb.Close()
	cfg := patient(t)
	s := redisstore.New(rdb, cfg)
	apply(t, redisstore.New(server.Client(), cfg), "k", addOne)
	for range 3 {
		get(t, s, "k", "n")
		get(t, s, "k")
	}
	if names := wire.Counts().Names; names["HMGET"] != 3 || names["HGETALL"] != 3 {
		t.Errorf("six reads asked Redis %v", names)
	}
	for range 3 {
		rdb.HGet(ctx, cfg.Prefix+":k", "n")
	}
	if n := wire.Counts().Names["HGET"]; n != 1 {
		t.Errorf("the client has no cache: it asked %d times", n)
	}
}
