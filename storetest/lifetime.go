package storetest

import (
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/guestkit/guest"
)

// A case waits for a short life to end. The life is doubled if the store was too slow for a
// meaningful result.
func shortLives(yield func(time.Duration) bool) {
	for d := 30 * time.Millisecond; yield(d); d *= 2 {
	}
}

var lifetime = []testCase{
	{"ttl", duty7, func(t *tester) {
		k := t.key("k")
		t.lives(k, guest.Update{Set: guest.Fields{"a": "1", ".b": "2"},
			TTL: 100 * time.Millisecond})
	}},
	{"ttl lengthens", duty7, func(t *tester) {
		k := t.key("k")
		for short := range shortLives {
			t.apply(k, guest.Update{Drop: true})
			t.apply(k, guest.Update{Set: guest.Fields{"a": "1"}, TTL: short})
			if t.update(k, guest.Update{If: guest.Fields{"a": "1"}, TTL: time.Hour}).Applied {
				t.pass(2 * short)
				t.holds(k, guest.Fields{"a": "1"})
				return
			}
			t.tooSlow(short)
		}
	}},
	{"ttl never shortens", duty7, func(t *tester) {
		const short = 20 * time.Millisecond
		k := t.key("k")
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1"}, TTL: time.Hour})
		t.apply(k, guest.Update{TTL: short})
		t.apply(k, guest.Update{Set: guest.Fields{"b": "2"}, TTL: short, Once: true})
		t.pass(2 * short)
		t.holds(k, guest.Fields{"a": "1", "b": "2"})
	}},
	{"no ttl", duty7, func(t *tester) {
		const short = 20 * time.Millisecond
		k := t.key("k")
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1"}})
		t.apply(k, guest.Update{Set: guest.Fields{"b": "2"}, TTL: short}) // shorter than for ever
		t.pass(2 * short)
		t.holds(k, guest.Fields{"a": "1", "b": "2"})
	}},
	{"no ttl after another life", duty7, func(t *tester) {
		const short = 20 * time.Millisecond
		dropped, expired := t.key("dropped"), t.key("expired")
		t.apply(dropped, guest.Update{Set: guest.Fields{"a": "1"}, TTL: 2 * short})
		t.apply(dropped, guest.Update{Drop: true})
		t.apply(dropped, guest.Update{Set: guest.Fields{"b": "2"}})
		t.apply(expired, guest.Update{Set: guest.Fields{"a": "1"}, TTL: short})
		t.gone(expired)
		t.apply(expired, guest.Update{Set: guest.Fields{"b": "2"}})
		t.pass(3 * short)
		t.holds(dropped, guest.Fields{"b": "2"})
		t.holds(expired, guest.Fields{"b": "2"})
	}},
	{"the longest ttl", duty7, func(t *tester) {
		old, made := t.key("old"), t.key("made")
		t.apply(old, guest.Update{Set: guest.Fields{"a": "1"}, TTL: time.Hour})
		for _, k := range []string{old, made} {
			t.apply(k, guest.Update{Set: guest.Fields{"a": "1"}, TTL: math.MaxInt64})
			t.holds(k, guest.Fields{"a": "1"})
		}
	}},
	{"ttl after another life", duty7, func(t *tester) { // that one was for ever
		k := t.key("k")
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1"}})
		t.apply(k, guest.Update{Drop: true})
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1"}, TTL: 20 * time.Millisecond})
		t.gone(k)
	}},
	{"update without ttl", ttlSays, func(t *tester) {
		k := t.key("k")
		for short := range shortLives {
			t.apply(k, guest.Update{Drop: true})
			t.apply(k, guest.Update{Set: guest.Fields{"a": "1"}, TTL: short})
			if t.update(k, guest.Update{If: guest.Fields{"a": "1"}, Set: guest.Fields{"b": "2"},
				Add: map[string]int64{"n": 1}}).Applied {
				t.gone(k)
				return
			}
			t.tooSlow(short)
		}
	}},
	{"kept ttl", duty7, func(t *tester) {
		const short = 20 * time.Millisecond
		k, made := t.key("k"), t.key("made")
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1"}})
		t.apply(k, guest.Update{Set: guest.Fields{"b": "2"}, Once: true, TTL: short, KeepTTL: true})
		t.apply(made, guest.Update{Set: guest.Fields{"a": "1"}, Once: true, TTL: short,
			KeepTTL: true})
		t.gone(made)
		t.pass(2 * short)
		t.holds(k, guest.Fields{"a": "1", "b": "2"})
	}},
	{"kept ttl is not lengthened", duty7, func(t *tester) {
		// one that counts, and one that does not
		for _, first := range []guest.Fields{{"a": "1"}, {".a": "1"}} {
			k := t.key("k" + slices.Collect(maps.Keys(first))[0])
			for short := range shortLives {
				t.apply(k, guest.Update{Drop: true})
				t.apply(k, guest.Update{Set: first, TTL: short})
				if t.update(k, guest.Update{If: first, Set: guest.Fields{"b": "2"}, TTL: time.Hour,
					KeepTTL: true}).Applied {
					t.gone(k)
					break
				}
				t.tooSlow(short)
			}
		}
	}},
	// if a fault falls between a write and its TTL, the record lives for ever
	{"ttl in the same step", duty7, func(t *tester) {
		k := t.key("k")
		for range 20 {
			t.apply(k, guest.Update{Add: map[string]int64{"n": 1}, TTL: 2 * time.Millisecond})
			time.Sleep(time.Millisecond)
		}
		t.gone(k)
	}},

	{"ttl of an unmet update", duty3, func(t *tester) {
		t.keepsTTL(guest.Update{If: guest.Fields{"a": "y"}, Set: guest.Fields{"b": "1"}}, nil)
	}},
	{"ttl of a late update", duty3, func(t *tester) {
		t.keepsTTL(guest.Update{NotAfter: time.Unix(1, 0), Set: guest.Fields{"b": "1"}}, nil)
	}},
	{"ttl over quota", duty5, func(t *tester) {
		t.keepsTTL(guest.Update{Set: guest.Fields{"b": "1", "c": "1"},
			Quota: guest.Quota{Fields: 1}}, guest.ErrQuota)
	}},
	{"ttl of invalid input", duty6, func(t *tester) {
		t.keepsTTL(guest.Update{Set: guest.Fields{"b": "1"}, Add: map[string]int64{"a": 1}},
			guest.ErrInvalid)
	}},
}

// keepsTTL checks that an update which is not applied to a record with a="x" leaves its expiry.
func (t *tester) keepsTTL(u guest.Update, want error) {
	k := t.key("k")
	u.TTL = time.Hour
	for short := range shortLives {
		t.apply(k, guest.Update{Drop: true})
		t.apply(k, guest.Update{Set: guest.Fields{"a": "x"}, TTL: short})
		switch res, err := t.store.Update(t.Context(), k, u); {
		case res.Applied && t.get(k, "a")["a"] != "x": // to a new record
			t.tooSlow(short)
			continue
		case res.Applied || !errors.Is(err, want):
			t.failf("the answer is %+v, %v; want %v\nof %+v", res, err, want, u)
		}
		t.gone(k)
		return
	}
}

// tooSlow ends the case if the store was too slow with every life.
func (t *tester) tooSlow(ttl time.Duration) {
	t.Helper()
	if ttl > longestWait {
		t.failf("a record with a TTL of %v was gone at once", ttl)
	}
}

// lives checks that the record which u creates lives as long as u says, and has then expired.
func (t *tester) lives(key string, u guest.Update) {
	t.Helper()
	start := time.Now()
	t.apply(key, u)
	t.gone(key)
	const slack = 2 * time.Millisecond // clocks count milliseconds, and not in step
	if lived := time.Since(start); lived < u.TTL-slack {
		t.failf("a record with a TTL of %v lived for %v", u.TTL, lived)
	}
}
