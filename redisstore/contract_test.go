package redisstore_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/guestkit/guest/storetest"
)

func TestContract(t *testing.T) {
	each(t, func(t *testing.T, s *redisstore.Store, _ *redistest.Faults) {
		storetest.Run(t, func(*testing.T) guest.Store { return s })
	})
}

func TestRoundTrips(t *testing.T) {
	each(t, func(t *testing.T, s *redisstore.Store, wire *redistest.Faults) {
		record := guest.Fields{".i": "incarnation", "theme": "dark", "cart/a": "1", "big": strings.Repeat("x", 20_000)}
		const key = "g:1"
		apply(t, s, key, guest.Update{Set: record, Once: true}) // connects, and makes the script known
		get(t, s, key)
		get(t, s, "none") // another node

		for _, row := range []struct {
			name    string
			command string
			do      func()
		}{
			{"get one", "HMGET", func() { get(t, s, key, "theme") }},
			{"get some", "HMGET", func() { get(t, s, key, "theme", "cart/a", "none") }},
			{"get all", "HGETALL", func() { get(t, s, key) }},
			{"get none", "HGETALL", func() { get(t, s, "none") }},
			{"set", "EVALSHA", func() { apply(t, s, key, guest.Update{Set: guest.Fields{"theme": "light"}}) }},
			{"set much", "EVALSHA", func() {
				apply(t, s, key, guest.Update{Set: guest.Fields{"theme": strings.Repeat("y", 100_000)}})
			}},
			{"add", "EVALSHA", func() {
				apply(t, s, key, guest.Update{Add: map[string]int64{"cart/a": 1}, Once: true, TTL: 1e12, Return: []string{"cart/a"}})
			}},
			{"unset", "EVALSHA", func() { apply(t, s, key, guest.Update{Unset: []string{"cart/a"}, Reserve: true, Stamp: ".t"}) }},
			{"unset prefix", "EVALSHA", func() { apply(t, s, key, guest.Update{UnsetPrefix: []string{"cart/"}}) }},
			{"not applied", "EVALSHA", func() { s.Update(ctx, key, guest.Update{If: guest.Fields{"theme": "no"}, ReturnAll: true}) }},
			{"over quota", "EVALSHA", func() { s.Update(ctx, key, guest.Update{Set: guest.Fields{"c": "1"}, Quota: guest.Quota{Fields: 1}}) }},
			{"drop", "EVALSHA", func() { apply(t, s, key, guest.Update{Drop: true}) }},
		} {
			before := wire.Counts()
			row.do()
			after := wire.Counts()
			trips, commands := after.RoundTrips-before.RoundTrips, after.Commands-before.Commands
			if trips != 1 || commands != 1 || after.Names[row.command]-before.Names[row.command] != 1 {
				t.Errorf("%s: %d round trips, %d commands, want one %s: %v", row.name, trips, commands, row.command, after.Names)
			}
		}
	})
}

// What crosses the wire to read or change one field does not grow with the record.
func TestBytesOnTheWire(t *testing.T) {
	each(t, func(t *testing.T, s *redisstore.Store, wire *redistest.Faults) {
		cost := func(key string) (out, in int64) {
			apply(t, s, key, addOne) // makes the script known
			before := wire.Counts()
			get(t, s, key, "n")
			apply(t, s, key, addOne)
			after := wire.Counts()
			return after.Out - before.Out, after.In - before.In
		}
		apply(t, s, "a", guest.Update{Set: guest.Fields{"x": "y"}})
		apply(t, s, "b", guest.Update{Set: guest.Fields{"x": strings.Repeat("y", 32<<10)}})
		smallOut, smallIn := cost("a")
		bigOut, bigIn := cost("b")
		if smallOut != bigOut || smallIn != bigIn {
			t.Errorf("%d + %d bytes with a small record, %d + %d with a large one", smallOut, smallIn, bigOut, bigIn)
		}
	})
}

// A second store under another prefix sees nothing of the first.
func TestPrefix(t *testing.T) {
	cfg := patient(t)
	one := redisstore.New(server.Client(), cfg)
	cfg.Prefix += "*"
	two := redisstore.New(server.Client(), cfg)
	apply(t, one, "k", guest.Update{Set: guest.Fields{"a": "1"}})
	apply(t, two, "l", guest.Update{Set: guest.Fields{"a": "2"}})
	if have := get(t, two, "k"); len(have) != 0 {
		t.Errorf("another prefix reads %v", have)
	}
	for key, err := range two.Keys(ctx, "") {
		if err != nil || key != "l" {
			t.Errorf("another prefix lists %q, %v", key, err)
		}
	}
	if n := server.Client().Exists(ctx, cfg.Prefix+":l").Val(); n != 1 {
		t.Error("the record is not under the documented key")
	}
}

// More fields than Lua's stack has room for.
func TestManyFields(t *testing.T) {
	s := redisstore.New(server.Client(), patient(t))
	const n = 10_000
	fields := guest.Fields{}
	add := map[string]int64{}
	var names []string
	for i := range n {
		name := fmt.Sprint("f", i)
		names = append(names, name)
		fields[name] = "1"
		add[name] = 1
	}
	apply(t, s, "k", guest.Update{Set: fields})
	if have := get(t, s, "k", names...); len(have) != n {
		t.Fatalf("%d fields", len(have))
	}
	res := apply(t, s, "k", guest.Update{If: fields, Add: add, Return: names, Quota: guest.Quota{Fields: n}, Once: true})
	for _, name := range names {
		if res.Fields[name] != "2" {
			t.Fatalf("%s is %q", name, res.Fields[name])
		}
	}
	apply(t, s, "k", guest.Update{Unset: names[:n/2]})
	if have := get(t, s, "k"); len(have) != n/2 {
		t.Fatalf("%d fields", len(have))
	}
}

// A TTL below the resolution of Redis is a TTL.
func TestShortTTL(t *testing.T) {
	s := redisstore.New(server.Client(), patient(t))
	apply(t, s, "k", guest.Update{Set: guest.Fields{"a": "1"}, TTL: time.Nanosecond})
	eventually(t, "the record expires", func() bool { return len(get(t, s, "k")) == 0 })
}
