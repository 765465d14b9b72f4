package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/guestkit/guest"
)

var limits = []testCase{
	{"quota of fields", duty5, func(t *tester) {
		k := t.key("k")
		q := guest.Quota{Fields: 3}
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1", "b": "2"}, Quota: q})
		t.apply(k, guest.Update{Add: map[string]int64{"n": 1}, Quota: q}) // the third
		for _, u := range []guest.Update{
			{Set: guest.Fields{"c": "1"}},
			{Default: guest.Fields{"c": "1"}},
			{Add: map[string]int64{"m": 1}},
			{Stamp: "t"},
			{Set: guest.Fields{"a": "x", "c": "1", "d": "1"}, Unset: []string{"b"},
				Add: map[string]int64{"n": 1}, TTL: time.Hour},
		} {
			u.Quota = q
			t.refused(k, u, guest.ErrQuota)
		}
		// bytes have no bound
		t.apply(k, guest.Update{Set: guest.Fields{"a": strings.Repeat("x", 1000)}, Quota: q})
		// one for one
		t.apply(k, guest.Update{Set: guest.Fields{"c": "1"}, Unset: []string{"b"}, Quota: q})
		t.apply(k, guest.Update{Set: guest.Fields{"d": "1"}, Add: map[string]int64{"n": -1},
			Quota: q})
		t.refused(t.key("fresh"),
			guest.Update{Set: guest.Fields{"a": "1", "b": "2", "c": "3", "d": "4"}, Quota: q},
			guest.ErrQuota)
	}},
	{"quota of bytes", duty5, func(t *tester) {
		k := t.key("k")
		q := guest.Quota{Bytes: 10}
		t.apply(k, guest.Update{Set: guest.Fields{"ab": "123", "é": "\x00\xff"}, Quota: q}) // 5 + 4
		// exactly 10
		t.apply(k, guest.Update{Set: guest.Fields{"ab": "1234"}, Quota: q})
		for _, u := range []guest.Update{
			{Set: guest.Fields{"ab": "12345"}},
			{Set: guest.Fields{"c": "1"}},
			{Default: guest.Fields{"c": "1"}},
			{Add: map[string]int64{"ab": 8766}}, // 10000
			{Stamp: "ab"},
		} {
			u.Quota = q
			t.refused(k, u, guest.ErrQuota)
		}
		t.apply(k, guest.Update{Add: map[string]int64{"ab": 8765}, Quota: q}) // 9999
		t.apply(k, guest.Update{Set: guest.Fields{"ab": "1", "c": "22"}, Quota: q})
		t.refused(t.key("fresh"), guest.Update{Set: guest.Fields{"a": "1234567890"}, Quota: q},
			guest.ErrQuota)
	}},
	{"quota of both", duty5, func(t *tester) {
		k := t.key("k")
		q := guest.Quota{Fields: 2, Bytes: 8}
		t.apply(k, guest.Update{Set: guest.Fields{"a": "123", "b": "123"}, Quota: q})
		t.refused(k, guest.Update{Set: guest.Fields{"a": "1234"}, Quota: q}, guest.ErrQuota)
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1"}, Quota: q})
		t.refused(k, guest.Update{Set: guest.Fields{"c": "1"}, Quota: q}, guest.ErrQuota)
	}},
	{"quota without dots", duty5, func(t *tester) {
		k := t.key("k")
		q := guest.Quota{Fields: 1, Bytes: 2}
		dots := guest.Fields{".a": strings.Repeat("x", 100), ".b": "1"}
		t.apply(k, guest.Update{Set: dots, Quota: q})
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1"}, Stamp: ".t", Quota: q})
		t.apply(k, guest.Update{Set: guest.Fields{".c": "1"}, Add: map[string]int64{".n": 1},
			Quota: q})
		t.refused(k, guest.Update{Set: guest.Fields{"b": "1"}, Unset: []string{".a", ".b"},
			Quota: q}, guest.ErrQuota)
	}},
	{"quota lowered", duty5, func(t *tester) {
		k := t.key("k")
		all := guest.Fields{"a": "12345", "b": "12345", "c": "12345", "d": "12345"}
		t.apply(k, guest.Update{Set: all})
		q := guest.Quota{Fields: 2, Bytes: 10}
		// as large as it was
		t.apply(k, guest.Update{Set: guest.Fields{".s": "1"}, TTL: time.Hour, Quota: q})
		t.apply(k, guest.Update{Set: guest.Fields{"a": "54321"}, Quota: q})
		// smaller
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1"}, Unset: []string{"b"}, Quota: q})
		t.refused(k, guest.Update{Set: guest.Fields{"e": "123456"}, Quota: q}, guest.ErrQuota)
		t.holds(k, guest.Fields{"a": "1", "c": "12345", "d": "12345", ".s": "1"})
		t.apply(k, guest.Update{Drop: true, Quota: q})
	}},
	{"quota abreast", duty5, func(t *tester) {
		k := t.key("k")
		q := guest.Quota{Fields: 4, Bytes: 24}
		seed := newSeed()
		t.abreast(8, func(i int) error {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for range 25 {
				u := guest.Update{Quota: q, ReturnAll: true, Set: guest.Fields{},
					Add: map[string]int64{}}
				for range 1 + r.IntN(3) {
					u.Set[string(rune('a'+r.IntN(6)))] = strings.Repeat("x", 1+r.IntN(8))
				}
				u.Add["n"] = int64(r.IntN(2000) - 1000)
				u.Unset = []string{string(rune('g' + r.IntN(3)))}
				res, err := t.store.Update(t.Context(), k, u)
				if err != nil && !errors.Is(err, guest.ErrQuota) {
					return fmt.Errorf("an update fails: %w", err)
				}
				n, bytes := load(res.Fields)
				if n > q.Fields || bytes > q.Bytes {
					return fmt.Errorf("a record with a quota of %+v holds %d fields of %d bytes: %q (seed %d)", q, n, bytes, res.Fields, seed)
				}
			}
			return nil
		})
	}},

	{"addition to no number", duty6, func(t *tester) {
		k := t.key("k")
		for _, value := range []string{"x", "1.5", "1e3", "0x10", "12a", "- 1", " 1", "1 ", "nan",
			"inf", "\x00", "--1", "1\n", "９"} {
			t.apply(k, guest.Update{Drop: true})
			t.apply(k, guest.Update{Set: guest.Fields{"n": value, "ok": "1", "b": "2", "c/d": "3"}})
			t.refused(k, guest.Update{Add: map[string]int64{"n": 1}}, guest.ErrInvalid)
			t.refused(k, guest.Update{
				Default: guest.Fields{"d": "1"},
				Set:     guest.Fields{"a": "1", "b": "3"},
				Add:     map[string]int64{"ok": 1, "n": 1, "m": 1},
				Unset:   []string{"c/d"},
				Stamp:   "at",
			}, guest.ErrInvalid)
		}
	}},
	{"addition beyond", duty6, func(t *tester) {
		const most = 1 << 53
		k := t.key("k")
		for _, sign := range []int64{1, -1} {
			for _, c := range []struct {
				have, n int64
				ok      bool
			}{
				{0, most, true},
				{0, most + 1, false},
				{1, most - 1, true},
				{1, most, false},
				{most, 0, true},
				{most, 1, false},
				{most, -1, true},
				{most, -most, true},
				{most - 1, 1, true},
				{most - 1, 2, false},
				{-5, most, true},
				{most, 1 << 62, false},
			} {
				have, n := sign*c.have, sign*c.n
				t.apply(k, guest.Update{Drop: true})
				t.apply(k, guest.Update{Set: guest.Fields{"a": "1"},
					Add: map[string]int64{"n": have}})
				u := guest.Update{Add: map[string]int64{"n": n}, Set: guest.Fields{"a": "2"}}
				if !c.ok {
					t.refused(k, u, guest.ErrInvalid)
					continue
				}
				t.apply(k, u)
				want := guest.Fields{"a": "2"}
				if have+n != 0 {
					want["n"] = strconv.FormatInt(have+n, 10)
				}
				t.holds(k, want)
			}
		}
	}},
	{"reserve", duty10, func(t *tester) {
		k := t.key("k")
		q := guest.Quota{Fields: 1}
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1"}, Quota: q, Reserve: true})
		// a full store, not a full record
		t.refused(k, guest.Update{Set: guest.Fields{"b": "1"}, Quota: q, Reserve: true},
			guest.ErrQuota)
		t.unmet(k, guest.Update{If: guest.Fields{"a": "2"}, Drop: true, Reserve: true},
			guest.Fields{"a": "1"})
		t.apply(k, guest.Update{Set: guest.Fields{".s": "1"}, Unset: []string{"a"}, TTL: time.Hour,
			Once: true, Reserve: true})
		t.holds(k, guest.Fields{".s": "1"})
	}},
}

// load returns the fields and bytes that count against a quota.
func load(f guest.Fields) (n, bytes int) {
	for name, value := range f {
		if !strings.HasPrefix(name, ".") {
			n++
			bytes += len(name) + len(value)
		}
	}
	return n, bytes
}
