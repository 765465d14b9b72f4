package storetest

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"time"

	"github.com/guestkit/guest"
)

// callers are cases about what a caller may do before and after a call.
var callers = []testCase{
	{"cancelled", duty8, func(t *tester) {
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer cancel()
		k, fresh := t.key("k"), t.key("fresh")
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1", "b": "2", "n": "7"}})
		for ctx, want := range map[context.Context]error{cancelled: context.Canceled,
			late: context.DeadlineExceeded} {
			for _, u := range []guest.Update{everything(nil), {Drop: true},
				{Add: map[string]int64{"n": 1}, Once: true, Reserve: true}} {
				for _, key := range []string{k, fresh} {
					if res, err := t.store.Update(ctx, key, u); !errors.Is(err, want) ||
						res.Applied {
						t.failf("Update returns %+v, %v; want %v", res, err, want)
					}
				}
			}
			if have, err := t.store.Get(ctx, k); !errors.Is(err, want) || len(have) != 0 {
				t.failf("Get returns %q, %v; want %v", have, err, want)
			}
			yields := 0
			for key, err := range t.store.Keys(ctx, t.prefix) {
				if yields++; !errors.Is(err, want) || yields > 1 {
					t.failf("Keys yields %q, %v; want %v and no more", key, err, want)
				}
			}
			if yields != 1 {
				t.failf("Keys yields nothing, want %v", want)
			}
			t.holds(k, guest.Fields{"a": "1", "b": "2", "n": "7"})
			t.holds(fresh, nil)
		}
	}},
	{"returned maps", duty9, func(t *tester) {
		k := t.key("k")
		all := guest.Fields{"a": "1", "b": "2"}
		t.apply(k, guest.Update{Set: maps.Clone(all)})
		for _, read := range []func() guest.Fields{
			func() guest.Fields { return t.get(k) },
			func() guest.Fields { return t.get(k, "a", "b") },
			func() guest.Fields { return t.apply(k, guest.Update{ReturnAll: true}) },
			func() guest.Fields { return t.apply(k, guest.Update{Return: []string{"a", "b"}}) },
			func() guest.Fields {
				return t.apply(k, guest.Update{Set: guest.Fields{"b": "2"}, ReturnAll: true})
			},
			func() guest.Fields {
				return t.update(k, guest.Update{If: guest.Fields{"a": "0"},
					Return: []string{"b"}}).Fields
			},
		} {
			mine, other := read(), read()
			if !maps.Equal(mine, all) {
				t.failf("the store answers %q, want %q", mine, all)
			}
			mine["a"] = "changed"
			mine["new"] = "1"
			delete(mine, "b")
			if !maps.Equal(other, all) {
				t.failf("two answers are one map: %q", other)
			}
			if next := read(); !maps.Equal(next, all) {
				t.failf("after a change to what was returned the store answers %q", next)
			}
			t.holds(k, all)
		}
	}},
	// neither store nor caller keeps a map of the other's
	{"the caller's update", duty9, func(t *tester) {
		k := t.key("k")
		u := func() guest.Update {
			return guest.Update{
				If:          guest.Fields{"x": ""},
				Default:     guest.Fields{"a": "1"},
				Set:         guest.Fields{"b": "2"},
				Add:         map[string]int64{"n": 3},
				Unset:       []string{"y"},
				UnsetPrefix: []string{"z/"},
				Return:      []string{"b", "a"},
			}
		}
		mine := u()
		t.apply(k, mine)
		if !reflect.DeepEqual(mine, u()) {
			t.failf("the store changed the caller's update to %+v", mine)
		}
		mine.If["x"], mine.Default["a"], mine.Set["b"], mine.Add["n"] = "1", "9", "9", 9
		mine.Unset[0], mine.UnsetPrefix[0], mine.Return[0] = "b", "a", "n"
		mine.Set["new"] = "9"
		t.holds(k, guest.Fields{"a": "1", "b": "2", "n": "3"})
	}},
}
