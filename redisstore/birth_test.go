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

// newborn is the first write of a guest; the incarnation is one that no other has.
func newborn() guest.Update {
	return guest.Update{
		If: guest.Fields{".s": ""}, Default: guest.Fields{".i": fmt.Sprint("incarnation", prefixes.Add(1))}, Add: map[string]int64{"n": 1},
		TTL: time.Hour, Once: true, New: true, Return: []string{"n"},
	}
}

// A record is made by one plain command, with its life; the next update of it takes the script.
func TestBirth(t *testing.T) {
	each(t, func(t *testing.T, s *redisstore.Store, wire *redistest.Faults) {
		apply(t, s, "k", newborn())
		names := wire.Counts().Names
		if names["RESTORE"] != 1 || names["EVALSHA"]+names["EVAL"] > 0 {
			t.Errorf("a birth took %v", names)
		}
		if n := get(t, s, "k", "n")["n"]; n != "1" {
			t.Errorf("n = %s", n)
		}
		empty := guest.Update{Default: guest.Fields{".i": "empty"}, TTL: time.Hour, New: true}
		apply(t, s, "empty", empty)
		if have := get(t, s, "empty"); len(have) != 1 || have[".i"] != "empty" {
			t.Errorf("the record of a guest without data is %q", have)
		}
		again := newborn()
		if res := apply(t, s, "k", again); res.Fields["n"] != "2" {
			t.Errorf("the second addition returns %v", res.Fields)
		}
		if have := get(t, s, "k"); have["n"] != "2" || have[".i"] == again.Default[".i"] {
			t.Errorf("the record is %q", have)
		}
	})
}

// Redis checks a record's checksum, whatever its length.
func TestBirthOfAnyLength(t *testing.T) {
	wire := &redistest.Faults{}
	s := redisstore.New(tuned(t, server.Addr, wire), patient(t))
	for n := 1; n <= 300; n++ {
		u, key, value := newborn(), fmt.Sprint("k", n), strings.Repeat("x", n)
		u.Set = guest.Fields{"v": value}
		apply(t, s, key, u)
		if have := get(t, s, key, "v")["v"]; have != value {
			t.Fatalf("%d bytes came back as %d", n, len(have))
		}
	}
	if names := wire.Counts().Names; names["RESTORE"] != 300 || names["EVALSHA"]+names["EVAL"] > 0 {
		t.Errorf("the births took %v", names)
	}
}

// Whatever is lost, a birth is applied once, and that is known, however many others write meanwhile.
func TestBirthLost(t *testing.T) {
	for _, loss := range []redistest.Loss{redistest.Request, redistest.Reply} {
		for _, between := range []int{0, 1, 20} { // more than the ring holds
			t.Run(fmt.Sprint(loss, between), func(t *testing.T) {
				cfg := patient(t)
				others := redisstore.New(server.Client(), cfg)
				others.Advance(time.Hour) // their IDs make ours too old for the ring
				wire := &redistest.Faults{}
				s := redisstore.New(tuned(t, server.Addr, wire), cfg)
				sent := 0
				wire.Lose = func(c redistest.Command) redistest.Loss {
					if c.Name != "RESTORE" {
						return redistest.Nothing
					}
					if sent++; sent == 1 {
						return loss
					}
					for range between {
						apply(t, others, "k", newborn())
					}
					return redistest.Nothing
				}
				res, err := s.Update(ctx, "k", newborn())
				if err != nil || !res.Applied {
					t.Errorf("the update answers %+v, %v", res, err)
				}
				want := strconv.Itoa(1 + between)
				if n := get(t, s, "k", "n")["n"]; n != want || res.Fields["n"] != want {
					t.Errorf("n = %s, and %s was returned, want %s", n, res.Fields["n"], want)
				}
			})
		}
	}
	t.Run("all", func(t *testing.T) {
		wire := &redistest.Faults{}
		s := redisstore.New(tuned(t, server.Addr, wire), patient(t))
		get(t, s, "k")
		for i, loss := range []redistest.Loss{redistest.Request, redistest.Reply} {
			wire.Lose = func(redistest.Command) redistest.Loss { return loss }
			_, err := s.Update(ctx, "k", newborn())
			wire.Lose = nil
			if n := get(t, s, "k", "n")["n"]; !errors.Is(err, guest.ErrUncertain) || n != []string{"", "1"}[i] {
				t.Errorf("all of %v lost: %v, n = %q", loss, err, n)
			}
		}
	})
}

// What a network kept of a birth and delivers again later changes nothing.
func TestBirthDelivered(t *testing.T) {
	rdb := tuned(t, server.Addr, nil)
	var kept [][]any
	rdb.AddHook(onCommand(func(cmd redis.Cmder, _ error) {
		if cmd.Name() == "restore" {
			kept = append(kept, argsSent(cmd, 3))
		}
	}))
	s := redisstore.New(rdb, patient(t))
	for i := range 20 {
		apply(t, s, "k", newborn())
		for _, args := range kept {
			if err := server.Client().Do(ctx, args...).Err(); err == nil || !redis.HasErrorPrefix(err, "BUSYKEY") {
				t.Fatalf("a late copy: %v", err)
			}
		}
		if n := get(t, s, "k", "n")["n"]; n != strconv.Itoa(i+1) {
			t.Fatalf("n = %s after %d additions", n, i+1)
		}
	}
	if len(kept) != 20 {
		t.Errorf("%d commands kept", len(kept))
	}
}

// A Redis that knows no RESTORE, or lets us not use it, is asked once; the script does it all.
func TestBirthNotAllowed(t *testing.T) {
	for _, row := range []struct {
		name   string
		args   []string
		refuse func(*redis.Client)
	}{
		{"no permission", nil, func(rdb *redis.Client) { rdb.Do(ctx, "ACL", "SETUSER", "default", "-@dangerous") }},
		{"no such command", []string{"--rename-command", "RESTORE", ""}, func(*redis.Client) {}},
	} {
		t.Run(row.name, func(t *testing.T) {
			srv := redistest.Single(t, row.args...)
			row.refuse(srv.Client())
			wire := &redistest.Faults{}
			s := redisstore.New(tuned(t, srv.Addr, wire), patient(t))
			for i := range 5 {
				if res := apply(t, s, fmt.Sprint(i), newborn()); res.Fields["n"] != "1" {
					t.Errorf("the answer is %+v", res)
				}
			}
			if n := wire.Counts().Names["RESTORE"]; n != 1 {
				t.Errorf("%d times RESTORE", n)
			}
		})
	}
}

// When Redis is full, or a replica now, or the key is another program's, a birth says so as any update does.
func TestBirthRefused(t *testing.T) {
	for _, row := range []struct {
		name   string
		refuse func(*redis.Client)
		want   string
	}{
		{"out of memory", func(rdb *redis.Client) { rdb.ConfigSet(ctx, "maxmemory", "1") }, "OOM"},
		{"a replica", func(rdb *redis.Client) { rdb.Do(ctx, "REPLICAOF", "127.0.0.1", "1") }, "READONLY"},
		{"too few replicas", func(rdb *redis.Client) { rdb.ConfigSet(ctx, "min-replicas-to-write", "1") }, "NOREPLICAS"},
		{"another type", func(rdb *redis.Client) { rdb.Set(ctx, "guest:g:secret", "x", 0) }, "WRONGTYPE"},
	} {
		t.Run(row.name, func(t *testing.T) {
			srv := redistest.Single(t)
			cfg := patient(t)
			cfg.Prefix = "guest"
			s := redisstore.New(tuned(t, srv.Addr, nil), cfg)
			row.refuse(srv.Client())
			_, err := s.Update(ctx, "g:secret", newborn())
			if err == nil || errors.Is(err, guest.ErrUncertain) || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want %s", err, row.want)
			}
		})
	}
	t.Run("and then not any more", func(t *testing.T) {
		srv := redistest.Single(t)
		wire := &redistest.Faults{}
		s := redisstore.New(tuned(t, srv.Addr, wire), patient(t))
		srv.Client().ConfigSet(ctx, "maxmemory", "1")
		if _, err := s.Update(ctx, "k", newborn()); err == nil {
			t.Fatal("a full Redis takes a record")
		}
		srv.Client().ConfigSet(ctx, "maxmemory", "0")
		before := wire.Counts().Names["EVALSHA"]
		apply(t, s, "k", newborn())
		if wire.Counts().Names["EVALSHA"] != before {
			t.Error("a Redis that was full is not asked for RESTORE again")
		}
	})
}

// With WaitReplicas the script does it all: one command and one WAIT, with all the time there is.
func TestBirthWaits(t *testing.T) {
	wire := &redistest.Faults{}
	s := redisstore.New(tuned(t, server.Addr, wire), waiting(t, 1, 20*time.Millisecond))
	if _, err := s.Update(ctx, "k", newborn()); !errors.Is(err, guest.ErrUncertain) {
		t.Errorf("without a replica: %v", err)
	}
	if n := get(t, s, "k", "n")["n"]; n != "1" {
		t.Errorf("n = %q", n)
	}
	if n := wire.Counts().Names["RESTORE"]; n != 0 {
		t.Errorf("%d times RESTORE", n)
	}
}

// A record that a birth has made takes no more memory than Redis's own commands would.
func TestBirthMemory(t *testing.T) {
	rdb := server.Client()
	cfg := patient(t)
	s := redisstore.New(rdb, cfg)
	for name, value := range map[string]string{"small": "x", "long": strings.Repeat("x", 100)} {
		u := newborn()
		u.Add, u.Set = nil, guest.Fields{"theme": value}
		apply(t, s, name, u)
		plain := cfg.Prefix + ";" + name
		rdb.HSet(ctx, plain, ".i", u.Default[".i"], "theme", value)
		rdb.Expire(ctx, plain, time.Hour)
		key := cfg.Prefix + ":" + name
		if have, want := rdb.MemoryUsage(ctx, key).Val(), rdb.MemoryUsage(ctx, plain).Val(); have != want || have == 0 {
			t.Errorf("%s: %d bytes, by HSET %d", name, have, want)
		}
		if have, want := rdb.ObjectEncoding(ctx, key).Val(), rdb.ObjectEncoding(ctx, plain).Val(); have != want {
			t.Errorf("%s: %s, by HSET %s", name, have, want)
		}
	}
}

// A guest that only comes back needs no bookkeeping either; its first change brings it.
func TestBirthLivesOn(t *testing.T) {
	rdb := server.Client()
	cfg := patient(t)
	s := redisstore.New(rdb, cfg)
	apply(t, s, "k", newborn())
	key := cfg.Prefix + ":k"
	apply(t, s, "k", guest.Update{If: guest.Fields{".s": ""}, Default: guest.Fields{".i": "another"}, TTL: 10 * time.Hour})
	if rdb.HExists(ctx, key, "!").Val() || rdb.PTTL(ctx, key).Val() < 9*time.Hour {
		t.Errorf("after a return: %q, for %v", rdb.HGetAll(ctx, key).Val(), rdb.PTTL(ctx, key).Val())
	}
	apply(t, s, "k", guest.Update{Add: map[string]int64{"n": 1}, Once: true})
	if !rdb.HExists(ctx, key, "!").Val() {
		t.Error("a change leaves no mark")
	}
	if _, err := s.Update(ctx, "k", guest.Update{Set: guest.Fields{"a": "1"}, Quota: guest.Quota{Fields: 1}}); !errors.Is(err, guest.ErrQuota) {
		t.Errorf("a second field where one is allowed: %v", err)
	}
}
