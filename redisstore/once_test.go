package redisstore_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// A tally counts the additions to one record by what their callers were told.
type tally struct{ applied, uncertain, refused int64 }

// increments adds 1 to one of some records again and again, and reports how often each was told
// what. done, if not nil, hears of each addition.
func increments(t *testing.T, s *redisstore.Store, records, workers, each int, done func()) []tally {
	var mu sync.Mutex
	told := make([]tally, records)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				r := (w + i) % records
				res, err := s.Update(ctx, strconv.Itoa(r), guest.Update{Add: map[string]int64{"n": 1}, Once: true, Return: []string{"n"}})
				mu.Lock()
				switch {
				case err == nil && res.Applied:
					told[r].applied++
				case errors.Is(err, guest.ErrUncertain):
					told[r].uncertain++
				case err != nil:
					told[r].refused++
				default:
					t.Errorf("not applied, though there is no condition: %+v", res)
				}
				mu.Unlock()
				if err != nil {
					eventually(t, "Redis is back", func() bool { _, err := s.Get(ctx, "0"); return err == nil })
				}
				if done != nil {
					done()
				}
			}
		})
	}
	wg.Wait()
	return told
}

// verify compares the counters with what the callers were told.
func verify(t *testing.T, s *redisstore.Store, told []tally) (sum tally) {
	t.Helper()
	for r, told := range told {
		n, _ := strconv.ParseInt(get(t, s, strconv.Itoa(r), "n")["n"], 10, 64)
		if n < told.applied || n > told.applied+told.uncertain {
			t.Errorf("record %d counts %d, but %d were acknowledged and %d uncertain", r, n, told.applied, told.uncertain)
		}
		sum.applied += told.applied
		sum.uncertain += told.uncertain
		sum.refused += told.refused
	}
	return sum
}

// A tenth of all requests and a tenth of all replies are lost.
func TestAtMostOnce(t *testing.T) {
	each(t, func(t *testing.T, s *redisstore.Store, wire *redistest.Faults) {
		get(t, s, "warm up")
		wire.Lose = redistest.Random(rand.Uint64(), 0.1)
		told := increments(t, s, 20, 8, 500, nil)
		wire.Lose = nil
		sum := verify(t, s, told)
		t.Logf("4000 additions: %+v; %d commands", sum, wire.Counts().Names["EVALSHA"])
		least := int64(3800)
		if _, batches := s.Client().(*redis.AutoPipeliner); batches { // one loss is that of all in a batch
			least = 3000
		}
		if sum.applied < least {
			t.Errorf("of 4000 additions only %d were acknowledged", sum.applied)
		}
	})
}

// The server is killed ten times, with updates on their way.
func TestKilled(t *testing.T) {
	srv := redistest.Single(t, "--appendonly", "yes", "--appendfsync", "always")
	s := redisstore.New(tuned(t, srv.Addr, nil), redisstore.Config{})
	const additions, kills = 4000, 10
	some := make(chan struct{}, kills) // a part of the additions is done
	var n atomic.Int64
	var killer sync.WaitGroup
	killer.Go(func() {
		for range some {
			if err := srv.Restart(); err != nil {
				t.Error(err)
			}
		}
	})
	told := increments(t, s, 20, 8, additions/8, func() {
		if n.Add(1)%(additions/kills) == 0 {
			some <- struct{}{}
		}
	})
	close(some)
	killer.Wait()
	eventually(t, "Redis is back", func() bool { _, err := s.Get(ctx, "0"); return err == nil })
	t.Logf("%d additions: %+v", additions, verify(t, s, told))
}

// A slot moves from node to node while its record is written.
func TestResharding(t *testing.T) {
	cfg := patient(t)
	s := redisstore.New(cluster.Client(), cfg)
	const key = "moving"
	apply(t, s, key, guest.Update{Set: guest.Fields{"a": "1"}})
	var writer sync.WaitGroup
	stop := make(chan struct{})
	applied := 0
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := s.Update(ctx, key, guest.Update{Add: map[string]int64{"n": 1}, Once: true}); err != nil {
				t.Errorf("while the slot moves: %v", err)
				return
			}
			applied++
		}
	})
	for i := range 9 {
		if err := cluster.MoveSlot(ctx, redistest.Slot(cfg.Prefix+":"+key), i%3); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	writer.Wait()
	if n := get(t, s, key, "n")["n"]; n != strconv.Itoa(applied) {
		t.Errorf("the counter is %s after %d additions", n, applied)
	}
	t.Logf("%d additions", applied)
}

// The reply to an update is lost, and others come in before it is sent again.
func TestRing(t *testing.T) {
	for _, row := range []struct {
		between   int
		once      bool // the others too
		uncertain bool
	}{
		{0, true, false},
		{1, true, false},
		{6, true, false},
		{7, true, true}, // its ID is no longer in the ring
		{20, true, true},
		{20, false, false}, // these take no place
	} {
		t.Run(fmt.Sprint(row.between, row.once), func(t *testing.T) {
			cfg := patient(t)
			others := redisstore.New(server.Client(), cfg)
			wire := &redistest.Faults{}
			s := redisstore.New(tuned(t, server.Addr, wire), cfg)
			add := guest.Update{Add: map[string]int64{"n": 1}, Once: true, Return: []string{"n"}}
			apply(t, s, "k", add)

			sent := 0
			wire.Lose = func(c redistest.Command) redistest.Loss {
				if c.Name != "EVALSHA" {
					return redistest.Nothing
				}
				if sent++; sent == 1 {
					return redistest.Reply
				}
				for range row.between {
					u := add
					u.Once = row.once
					apply(t, others, "k", u)
				}
				return redistest.Nothing
			}
			res, err := s.Update(ctx, "k", add)
			if n := get(t, others, "k", "n")["n"]; n != strconv.Itoa(2+row.between) {
				t.Errorf("n = %s after %d additions", n, 2+row.between)
			}
			if row.uncertain {
				if !errors.Is(err, guest.ErrUncertain) {
					t.Errorf("got %+v, %v, want ErrUncertain", res, err)
				}
			} else if err != nil || !res.Applied || res.Fields["n"] != strconv.Itoa(2+row.between) {
				t.Errorf("got %+v, %v", res, err)
			}
		})
	}
}

// Whatever a network kept and delivers again later is applied only once, though the senders' clocks
// disagree.
func TestDelayedDuplicates(t *testing.T) {
	cfg := patient(t)
	rdb := tuned(t, server.Addr, nil)
	var kept [][]any
	rdb.AddHook(onCommand(func(cmd redis.Cmder, _ error) {
		if cmd.Name() == "evalsha" || cmd.Name() == "eval" {
			kept = append(kept, argsSent(cmd, 4))
		}
	}))
	raw := server.Client()
	var stores []*redisstore.Store
	for _, ahead := range []time.Duration{0, time.Millisecond, time.Minute, time.Hour} {
		s := redisstore.New(rdb, cfg)
		s.Advance(ahead)
		stores = append(stores, s)
	}
	for i := range 500 {
		s := stores[rand.IntN(len(stores))]
		apply(t, s, "k", guest.Update{Add: map[string]int64{"n": 1}, Once: true, TTL: time.Hour})
		for range 4 {
			args := kept[max(0, len(kept)-1-rand.IntN(12))]
			if err := raw.Do(ctx, args...).Err(); err != nil && !redis.HasErrorPrefix(err, "NOSCRIPT") {
				t.Fatal(err)
			}
		}
		if n := get(t, s, "k", "n")["n"]; n != strconv.Itoa(i+1) {
			t.Fatalf("n = %s after %d additions", n, i+1)
		}
	}
}

// Processes whose clocks disagree get along: one too many round trips, once.
func TestClockSkew(t *testing.T) {
	cfg := patient(t)
	ahead := redisstore.New(server.Client(), cfg)
	ahead.Advance(time.Hour)
	wire := &redistest.Faults{}
	s := redisstore.New(tuned(t, server.Addr, wire), cfg)
	add := guest.Update{Add: map[string]int64{"n": 1}, Once: true}
	for range 7 {
		apply(t, ahead, "k", add)
	}
	get(t, s, "k")
	for i, want := range []int64{2, 1, 1, 1} {
		before := wire.Counts()
		apply(t, s, "k", add)
		if trips := wire.Counts().RoundTrips - before.RoundTrips; trips != want {
			t.Errorf("update %d of the process behind took %d round trips, want %d", i, trips, want)
		}
	}
	for range 20 {
		apply(t, ahead, "k", add)
		apply(t, s, "k", add)
	}
	if n := get(t, s, "k", "n")["n"]; n != "51" {
		t.Errorf("n = %s after 51 additions", n)
	}
}

// The updates of a process whose clock is behind are remembered as long as those of others, not only
// until the next update.
func TestRingOfAClockBehind(t *testing.T) {
	for _, script := range []string{"write", "update"} {
		t.Run(script, func(t *testing.T) {
			cfg := patient(t)
			ahead := redisstore.New(server.Client(), cfg)
			ahead.Advance(time.Hour)
			add := guest.Update{Add: map[string]int64{"n": 1}, Once: true, Return: []string{"n"}}
			for range 7 {
				apply(t, ahead, "k", add)
			}
			wire := &redistest.Faults{}
			s := redisstore.New(tuned(t, server.Addr, wire), cfg)
			if script == "update" {
				s.UpdateOnly()
			}
			get(t, s, "k")
			sent := 0
			wire.Lose = func(c redistest.Command) redistest.Loss {
				if c.Name != "EVALSHA" {
					return redistest.Nothing
				}
				switch sent++; sent {
				case 2: // the first was too old
					return redistest.Reply
				case 3:
					for range 6 {
						apply(t, ahead, "k", add)
					}
				}
				return redistest.Nothing
			}
			if res := apply(t, s, "k", add); res.Fields["n"] != "14" || sent != 3 {
				t.Errorf("the repetition answers %+v after %d scripts, want 14 after 3", res, sent)
			}
		})
	}
}

// An update that is too old for the ring, and whose first reply is lost, may have been applied for
// all we know.
func TestStaleAndLost(t *testing.T) {
	cfg := patient(t)
	ahead := redisstore.New(server.Client(), cfg)
	ahead.Advance(time.Hour)
	add := guest.Update{Add: map[string]int64{"n": 1}, Once: true}
	for range 7 {
		apply(t, ahead, "k", add)
	}
	wire := &redistest.Faults{}
	s := redisstore.New(tuned(t, server.Addr, wire), cfg)
	wire.Lose = loseFirst("EVALSHA", redistest.Reply)
	if _, err := s.Update(ctx, "k", add); !errors.Is(err, guest.ErrUncertain) {
		t.Errorf("got %v, want ErrUncertain", err)
	}
	if n := get(t, s, "k", "n")["n"]; n != "7" {
		t.Errorf("n = %s, want 7", n)
	}
}

// loseFirst loses the first of the commands of this name.
func loseFirst(name string, loss redistest.Loss) func(redistest.Command) redistest.Loss {
	seen := false
	return func(c redistest.Command) redistest.Loss {
		if c.Name != name || seen {
			return redistest.Nothing
		}
		seen = true
		return loss
	}
}

// An update whose first reply is lost, and whose repetition is not applied, is uncertain unless the
// ring knows it.
func TestRepetition(t *testing.T) {
	lock := guest.Update{If: guest.Fields{"lock": ""}, Set: guest.Fields{"lock": "1"}}
	lockOnce := lock
	lockOnce.Once = true
	for _, row := range []struct {
		name      string
		update    guest.Update
		loss      redistest.Loss
		uncertain bool
		want      string // of the field lock
	}{
		{"once", lockOnce, redistest.Reply, false, "1"},
		{"once, never arrived", lockOnce, redistest.Request, false, "1"},
		{"without once", lock, redistest.Reply, true, "1"},
		{"without once, never arrived", lock, redistest.Request, false, "1"},
		{"harmless", guest.Update{Set: guest.Fields{"lock": "1"}}, redistest.Reply, false, "1"},
		{"drop", guest.Update{Drop: true}, redistest.Reply, false, ""},
		{"drop once", guest.Update{Drop: true, Once: true}, redistest.Reply, true, ""},
		{"drop once, never arrived", guest.Update{Drop: true, Once: true}, redistest.Request, true, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			wire := &redistest.Faults{}
			s := redisstore.New(tuned(t, server.Addr, wire), patient(t))
			apply(t, s, "k", guest.Update{Set: guest.Fields{"a": "1"}})
			wire.Lose = loseFirst("EVALSHA", row.loss)
			res, err := s.Update(ctx, "k", row.update)
			if row.uncertain != errors.Is(err, guest.ErrUncertain) || !row.uncertain && (err != nil || !res.Applied) {
				t.Errorf("got %+v, %v", res, err)
			}
			if have := get(t, s, "k", "lock")["lock"]; have != row.want {
				t.Errorf("lock is %q, want %q", have, row.want)
			}
		})
	}
}

// A ring is not a record: what adds nothing to nothing leaves nothing behind.
func TestNoRecordOfARing(t *testing.T) {
	rdb := server.Client()
	cfg := patient(t)
	s := redisstore.New(rdb, cfg)
	for _, u := range []guest.Update{
		{Add: map[string]int64{"n": 0}},
		{Unset: []string{"a", "b/"}},
		{UnsetPrefix: []string{"a", "b/"}},
		{Unset: []string{".a"}, TTL: time.Hour, Reserve: true},
		{},
	} {
		u.Once = true
		apply(t, s, "k", u)
		if rdb.Exists(ctx, cfg.Prefix+":k").Val() != 0 {
			t.Errorf("%+v made a record", u)
		}
	}
	// Nor does the count of fields outlive them.
	apply(t, s, "k", guest.Update{Set: guest.Fields{"a": "1", "b/c": "2"}})
	apply(t, s, "k", guest.Update{Unset: []string{"a"}, UnsetPrefix: []string{"b/"}})
	if rdb.Exists(ctx, cfg.Prefix+":k").Val() != 0 {
		t.Error("an empty record stays")
	}
}

// The store's own field in Redis, as lua/write.lua describes it: what one release writes another
// has to read.
func TestOwnField(t *testing.T) {
	cfg := patient(t)
	rdb := server.Client()
	s := redisstore.New(rdb, cfg)
	key := cfg.Prefix + ":k"
	for range 9 { // two more than the ring holds
		apply(t, s, "k", guest.Update{Set: guest.Fields{".i": "1"}, Add: map[string]int64{"cart/tea": 1}, Default: guest.Fields{"a": "xyz"}, Once: true})
	}
	own := []byte(rdb.HGet(ctx, key, "!").Val())
	if len(own) != 6+7*8 || binary.BigEndian.Uint16(own) != 2 || binary.BigEndian.Uint32(own[2:]) != uint32(len("cart/tea")+1+len("a")+3) {
		t.Fatalf("two fields and a full ring: %x", own)
	}
	for i := 6; i+8 < len(own); i += 8 { // 6 bytes of time, the latest first
		if bytes.Compare(own[i:i+6], own[i+8:i+14]) <= 0 {
			t.Errorf("%x before %x", own[i:i+8], own[i+8:i+16])
		}
	}

	// Another process wrote this one in 2026; its ring and its counts are taken over.
	old, err := hex.DecodeString("0001" + "00000009" + "13d13b487bb5b3e6")
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(rdb.Del(ctx, key).Err())
	must(rdb.HSet(ctx, key, "cart/tea", "7", "!", old).Err())
	if res := apply(t, s, "k", guest.Update{Add: map[string]int64{"cart/tea": 1}, Once: true, Return: []string{"cart/tea"}}); res.Fields["cart/tea"] != "8" {
		t.Errorf("the amount is %v", res.Fields)
	}
	if own := rdb.HGet(ctx, key, "!").Val(); len(own) != 6+2*8 || own[6+8:] != string(old[6:]) {
		t.Errorf("the ring is %x", own[6:])
	}
	if _, err := s.Update(ctx, "k", guest.Update{Set: guest.Fields{"b": "1"}, Quota: guest.Quota{Fields: 1}}); !errors.Is(err, guest.ErrQuota) {
		t.Errorf("a second field where one is allowed: %v", err)
	}
}

// More than 65,535 fields are not counted, but a record that shrinks again can be written to.
func TestCountsRecover(t *testing.T) {
	s := redisstore.New(server.Client(), patient(t))
	const n = 66_000
	fields := guest.Fields{}
	for i := range n {
		fields[fmt.Sprint("many/", i)] = "1"
	}
	apply(t, s, "k", guest.Update{Set: fields})
	apply(t, s, "k", guest.Update{UnsetPrefix: []string{"many/"}})
	apply(t, s, "k", guest.Update{Set: guest.Fields{"a": "1"}, Quota: guest.Quota{Fields: 256}})
}

// Where the count of fields is lost, a record of one field has no field of the store's own. It keeps
// its life when that field is removed.
func TestLifeWithoutOwnField(t *testing.T) {
	for _, script := range []string{"write", "update"} {
		t.Run(script, func(t *testing.T) {
			cfg := patient(t)
			rdb := server.Client()
			s := redisstore.New(rdb, cfg)
			if script == "update" {
				s.UpdateOnly()
			}
			key := cfg.Prefix + ":k"
			rdb.HSet(ctx, key, "a", "1")
			rdb.Expire(ctx, key, time.Hour)
			apply(t, s, "k", guest.Update{Unset: []string{"a"}, Once: true})
			if left := rdb.TTL(ctx, key).Val(); left < 59*time.Minute {
				t.Errorf("the record lives for %v", left)
			}
		})
	}
}
