package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/guestkit/guest"
)

const abreast = 16

var concurrency = []testCase{
	{"additions abreast", duty2, func(t *tester) {
		const each = 20
		k := t.key("k")
		// shared by all
		u := guest.Update{Add: map[string]int64{"n": 1, "m": -1}, Once: true,
			Return: []string{"n", "m"}}
		var seen sync.Map
		t.abreast(abreast, func(int) error {
			for range each {
				res, err := t.store.Update(t.Context(), k, u)
				if err != nil {
					return err
				}
				if _, again := seen.LoadOrStore(res.Fields["n"], true); again {
					return fmt.Errorf("two additions returned the sum %q", res.Fields["n"])
				}
				if "-"+res.Fields["n"] != res.Fields["m"] {
					return fmt.Errorf("an update returned half of another one: %q", res.Fields)
				}
			}
			return nil
		})
		n := strconv.Itoa(abreast * each)
		t.holds(k, guest.Fields{"n": n, "m": "-" + n})
	}},
	{"one winner", duty2, func(t *tester) {
		for round := range 5 {
			k := t.key("k" + strconv.Itoa(round))
			var winner atomic.Value
			losers := make([]string, abreast)
			t.abreast(abreast, func(i int) error {
				me := strconv.Itoa(i)
				res, err := t.store.Update(t.Context(), k,
					guest.Update{If: guest.Fields{"won": ""}, Set: guest.Fields{"won": me}})
				if err != nil {
					return err
				}
				if res.Applied && !winner.CompareAndSwap(nil, me) {
					return fmt.Errorf("both %v and %v won", winner.Load(), me)
				}
				if !res.Applied {
					losers[i] = res.Fields["won"]
				}
				return nil
			})
			won := t.get(k, "won")["won"]
			if won == "" || won != winner.Load() {
				t.failf("%v won, but the record says %q", winner.Load(), won)
			}
			for i, seen := range losers {
				if strconv.Itoa(i) != won && seen != won {
					t.failf("%s won, but %d saw %q", won, i, seen)
				}
			}
		}
	}},
	{"compare and set", duty2, func(t *tester) { // a counter without Add
		const each = 5
		k := t.key("k")
		t.apply(k, guest.Update{Set: guest.Fields{"n": "0"}})
		t.abreast(4, func(int) error {
			have := "0"
			for done := 0; done < each; {
				n, err := strconv.Atoi(have)
				if err != nil {
					return fmt.Errorf("the field holds %q: %w", have, err)
				}
				next := strconv.Itoa(n + 1)
				res, err := t.store.Update(t.Context(), k,
					guest.Update{If: guest.Fields{"n": have}, Set: guest.Fields{"n": next}})
				if err != nil {
					return err
				}
				if have = next; res.Applied {
					done++
				} else {
					have = res.Fields["n"]
				}
			}
			return nil
		})
		t.holds(k, guest.Fields{"n": strconv.Itoa(4 * each)})
	}},
	{"no half update", duty2, func(t *tester) {
		k := t.key("k")
		var written atomic.Bool
		t.abreast(4, func(reader int) error {
			if reader == 0 {
				defer written.Store(true)
				return t.writeThrice(k)
			}
			for n := 0; !written.Load(); n++ {
				if n%50 == 0 { // so that the clock of a bubble advances for a writer that waits
					time.Sleep(100 * time.Microsecond)
				}
				var have guest.Fields
				var err error
				switch reader {
				case 1:
					have, err = t.store.Get(t.Context(), k)
				case 2:
					have, err = t.store.Get(t.Context(), k, "a", "b", "n")
				case 3:
					var res guest.Result
					res, err = t.store.Update(t.Context(), k, guest.Update{ReturnAll: true})
					have = res.Fields
				}
				if err != nil {
					return err
				}
				if have["a"] != have["b"] || have["a"] != have["n"] {
					return fmt.Errorf("three fields that are always written together read %q", have)
				}
			}
			return nil
		})
	}},
	{"once", duty4, func(t *tester) {
		k := t.key("k")
		for i := range 40 { // more than a store may remember
			t.apply(k, guest.Update{Add: map[string]int64{"n": 1}, Once: true})
			if have := t.get(k, "n")["n"]; have != strconv.Itoa(i+1) {
				t.failf("after %d additions of 1, each once, the sum is %q", i+1, have)
			}
		}
		t.unmet(k, guest.Update{If: guest.Fields{"n": "1"}, Add: map[string]int64{"n": 1},
			Once: true}, guest.Fields{"n": "40"})
		t.refused(k, guest.Update{Set: guest.Fields{"a": "1"}, Quota: guest.Quota{Fields: 1},
			Once: true}, guest.ErrQuota)
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1"}, Quota: guest.Quota{Fields: 2},
			Once: true})
		t.apply(k, guest.Update{Drop: true, Once: true})
		t.holds(k, nil)
	}},
	{"answers in time", duty4, func(t *tester) { // and truthfully, whenever the deadline passes
		k := t.key("k")
		var done, uncertain int
		for _, d := range []time.Duration{50 * time.Microsecond, 300 * time.Microsecond,
			2 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			start := time.Now()
			_, err := t.store.Update(ctx, k,
				guest.Update{Add: map[string]int64{"n": 1}, Once: true})
			cancel()
			if took := time.Since(start); took > longestWait/2 {
				t.says = duty8
				t.failf("with a deadline of %v a call took %v", d, took)
			}
			switch {
			case err == nil:
				done++
			case errors.Is(err, guest.ErrUncertain):
				uncertain++
			}
		}
		var have guest.Fields
		t.wait("the store answers again", func() bool {
			var err error
			have, err = t.store.Get(t.Context(), k)
			return err == nil
		})
		if n, _ := strconv.Atoi(have["n"]); n < done || n > done+uncertain {
			t.failf("%d additions were done and %d uncertain, but the sum is %d", done,
				uncertain, n)
		}
	}},
}

// writeThrice writes the same number to three fields, again and again, and sometimes drops the
// record.
func (t *tester) writeThrice(key string) error {
	for n := range 100 {
		same := strconv.Itoa(n%10 + 1)
		u := guest.Update{Set: guest.Fields{"a": same, "b": same}, Add: map[string]int64{"n": 1}}
		if n%10 == 9 {
			u = guest.Update{Drop: true}
		}
		if _, err := t.store.Update(t.Context(), key, u); err != nil {
			return err
		}
	}
	return nil
}
