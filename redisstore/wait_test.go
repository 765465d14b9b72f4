package redisstore_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// waiting configures a store that waits for replicas.
func waiting(t testing.TB, replicas int, timeout time.Duration) redisstore.Config {
	cfg := patient(t)
	cfg.WaitReplicas, cfg.WaitTimeout = replicas, timeout
	return cfg
}

var addOne = guest.Update{Add: map[string]int64{"n": 1}, Once: true, Return: []string{"n"}}

// An update counts when the replica has it, too. If it has not, the error says that it is not known
// what will become of the update; it is applied once by the master and, when the replica comes
// back, by that.
func TestWaitReplicas(t *testing.T) {
	for _, deadlines := range []bool{true, false} {
		t.Run(fmt.Sprint("deadlines ", deadlines), func(t *testing.T) {
			master := redistest.Single(t)
			replica := redistest.Replica(t, master)
			wire := &redistest.Faults{}
			rdb := redis.NewClient(&redis.Options{Addr: master.Addr, Dialer: wire.Dial, ContextTimeoutEnabled: deadlines})
			defer rdb.Close()
			cfg := waiting(t, 1, 20*time.Second)
			s := redisstore.New(rdb, cfg)
			apply(t, s, "k", addOne) // connects, and makes the script known
			before := wire.Counts()
			if n := apply(t, s, "k", addOne).Fields["n"]; n != "2" {
				t.Errorf("n = %s", n)
			}
			if trips := wire.Counts().RoundTrips - before.RoundTrips; trips != 1 {
				t.Errorf("%d round trips, want 1", trips)
			}
			copied := func() string { return replica.Client().HGet(ctx, cfg.Prefix+":k", "n").Val() }
			if n := copied(); n != "2" {
				t.Errorf("the replica has %q", n)
			}

			replica.Stop()
			cfg.WaitTimeout = 50 * time.Millisecond
			hasty := redisstore.New(rdb, cfg)
			before = wire.Counts()
			const calls = 6
			for range calls { // they do not open the breaker
				res, err := hasty.Update(ctx, "k", addOne)
				if !errors.Is(err, guest.ErrUncertain) || errors.Is(err, redisstore.ErrCircuitOpen) || !strings.Contains(err.Error(), "WaitReplicas") {
					t.Fatalf("got %+v, %v, want ErrUncertain", res, err)
				}
			}
			if n := wire.Counts().Names["EVALSHA"] - before.Names["EVALSHA"]; n != calls {
				t.Errorf("%d updates were sent %d times", calls, n)
			}
			want := strconv.Itoa(2 + calls)
			if n := get(t, s, "k", "n")["n"]; n != want {
				t.Errorf("the master has %s, want %s", n, want)
			}
			replica.Cont()
			eventually(t, "the replica catches up", func() bool { return copied() == want })
			apply(t, s, "k", addOne)
		})
	}
}

// An update that comes again, because its reply was lost, and is recognised, is confirmed like the
// first.
func TestWaitForWhatWasRecognised(t *testing.T) {
	master := redistest.Single(t)
	replica := redistest.Replica(t, master)
	wire := &redistest.Faults{}
	rdb := tuned(t, master.Addr, wire)
	s := redisstore.New(rdb, waiting(t, 1, 50*time.Millisecond))
	eventually(t, "a first update", func() bool { _, err := s.Update(ctx, "k", addOne); return err == nil })
	n := get(t, s, "k", "n")["n"]
	replica.Stop()
	defer replica.Cont()
	wire.Lose = loseFirst("EVALSHA", redistest.Reply)
	before := wire.Counts()
	if res, err := s.Update(ctx, "k", addOne); !errors.Is(err, guest.ErrUncertain) {
		t.Errorf("got %+v, %v, want ErrUncertain", res, err)
	}
	if sent := wire.Counts().Names["EVALSHA"] - before.Names["EVALSHA"]; sent != 2 {
		t.Errorf("sent %d times, want 2", sent)
	}
	before1, _ := strconv.Atoi(n)
	if n := get(t, s, "k", "n")["n"]; n != strconv.Itoa(before1+1) {
		t.Errorf("n = %s after %d and one more", n, before1)
	}
}

// An answer that took no write rests on what others wrote, so it is confirmed as well: a condition
// that does not hold may hold after a failover. Newer servers wait for a connection's own writes
// only, so there has to be one, and no trace of it.
func TestWaitForWhatOthersWrote(t *testing.T) {
	for _, tt := range []struct {
		name, key string
		u         guest.Update
	}{
		{"a condition does not hold", "k", guest.Update{If: guest.Fields{"n": ""}, Set: guest.Fields{"n": "7"}}},
		{"nothing to do", "k", guest.Update{}},
		{"nothing to remove", "k", guest.Update{Unset: []string{"other"}}},
		{"nothing to add", "k", guest.Update{Add: map[string]int64{"other": 0}, Return: []string{"other"}}},
		{"a life that is long enough", "k", guest.Update{TTL: time.Second}},
		{"no record", "none", guest.Update{If: guest.Fields{"n": "1"}, Drop: true}},
		{"no record to drop", "none", guest.Update{Drop: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			master := redistest.Single(t)
			replica := redistest.Replica(t, master)
			rdb := tuned(t, master.Addr, nil)
			cfg := waiting(t, 1, 50*time.Millisecond)
			s := redisstore.New(rdb, cfg)
			eventually(t, "an answer", func() bool { _, err := s.Update(ctx, tt.key, tt.u); return err == nil })
			cfg.WaitReplicas = 0
			apply(t, redisstore.New(master.Client(), cfg), "k", guest.Update{Add: map[string]int64{"n": 1}, TTL: time.Hour})
			state := func() (writes, records string) {
				info, err := rdb.InfoMap(ctx, "persistence").Result()
				if err != nil {
					t.Fatal(err)
				}
				return info["Persistence"]["rdb_changes_since_last_save"], fmt.Sprint(rdb.Keys(ctx, "*"), rdb.HGetAll(ctx, cfg.Prefix+":k"), rdb.ExpireTime(ctx, cfg.Prefix+":k"))
			}
			writes, records := state()
			replica.Stop()
			defer replica.Cont()
			if res, err := s.Update(ctx, tt.key, tt.u); !errors.Is(err, guest.ErrUncertain) {
				t.Errorf("got %+v, %v, want ErrUncertain", res, err)
			}
			writesNow, recordsNow := state()
			if writesNow == writes {
				t.Error("nothing was written, so newer servers wait for nothing")
			}
			if recordsNow != records {
				t.Errorf("the records were %s and are %s", records, recordsNow)
			}
		})
	}
}

// A server that forgets its scripts, or is a replica itself.
func TestWaitAndErrors(t *testing.T) {
	master := redistest.Single(t)
	redistest.Replica(t, master)
	wire := &redistest.Faults{}
	s := redisstore.New(tuned(t, master.Addr, wire), waiting(t, 1, 20*time.Second))
	apply(t, s, "k", addOne)
	master.Client().ScriptFlush(ctx)
	if n := apply(t, s, "k", addOne).Fields["n"]; n != "2" {
		t.Errorf("n = %s", n)
	}
	if err := s.Check(ctx); err != nil {
		t.Errorf("a good pair: %v", err)
	}
	if err := redisstore.New(master.Client(), waiting(t, 2, 0)).Check(ctx); err == nil || !strings.Contains(err.Error(), "WaitReplicas") {
		t.Errorf("one replica, and two to wait for: %v", err)
	}

	// Demoted, the master refuses, and the client must not keep the connection: the address may be
	// another's by now.
	master.Client().ReplicaOf(ctx, "127.0.0.1", "1")
	before := wire.Counts()
	_, err := s.Update(ctx, "k", addOne)
	if err == nil || errors.Is(err, guest.ErrUncertain) || !strings.Contains(err.Error(), "READONLY") {
		t.Errorf("got %v, want READONLY", err)
	}
	if conns := wire.Counts().Conns - before.Conns; conns == 0 {
		t.Error("the connection to what is a replica now was used again")
	}
	wrapper := struct{ redis.UniversalClient }{server.Client()}
	if _, err := redisstore.New(wrapper, waiting(t, 1, 0)).Update(ctx, "k", addOne); err == nil || errors.Is(err, guest.ErrUncertain) {
		t.Errorf("with a client we do not know: %v", err)
	}
}

// In a Cluster WAIT goes to the node that did the write, wherever its slot moves meanwhile.
func TestWaitInACluster(t *testing.T) {
	c := redistest.Cluster(t)
	if err := c.AddReplicas(ctx); err != nil {
		t.Fatal(err)
	}
	cfg := waiting(t, 1, 20*time.Second)
	s := redisstore.New(c.Client(), cfg)
	const records = 12
	for i := range records {
		apply(t, s, fmt.Sprint(i), addOne)
	}
	const key = "0"
	slot := redistest.Slot(cfg.Prefix + ":" + key)
	for round := range 3 {
		from, err := c.Owner(ctx, slot)
		if err != nil {
			t.Fatal(err)
		}
		to := (from + 1) % len(c.Nodes)
		if err := c.OpenSlot(ctx, slot, to); err != nil {
			t.Fatal(err)
		}
		apply(t, s, key, addOne)
		if round == 1 { // the record is at the other node already: ASK
			apply(t, s, key, guest.Update{Drop: true})
			apply(t, s, key, guest.Update{Add: map[string]int64{"n": 3}, Once: true})
		}
		if err := c.MoveSlot(ctx, slot, to); err != nil {
			t.Fatal(err)
		}
		apply(t, s, key, addOne) // MOVED
	}
	if n := get(t, s, key, "n")["n"]; n != "6" {
		t.Errorf("n = %s, want 6", n)
	}

	owner, err := c.Owner(ctx, slot)
	if err != nil {
		t.Fatal(err)
	}
	c.Replicas[owner].Stop()
	defer c.Replicas[owner].Cont()
	cfg.WaitTimeout = 50 * time.Millisecond
	hasty := redisstore.New(c.Client(), cfg)
	for i := range records {
		at, err := c.Owner(ctx, redistest.Slot(fmt.Sprint(cfg.Prefix, ":", i)))
		if err != nil {
			t.Fatal(err)
		}
		if at != owner {
			apply(t, s, fmt.Sprint(i), addOne)
		} else if _, err := hasty.Update(ctx, fmt.Sprint(i), addOne); !errors.Is(err, guest.ErrUncertain) {
			t.Errorf("a frozen replica: %v, want ErrUncertain", err)
		}
	}
}
