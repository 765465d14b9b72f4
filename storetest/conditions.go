package storetest

import (
	"time"

	"github.com/guestkit/guest"
)

// everything is an update with all steps that change fields.
func everything(cond guest.Fields) guest.Update {
	return guest.Update{
		If:          cond,
		Default:     guest.Fields{"d": "1"},
		Set:         guest.Fields{"a": "changed", "new": "1"},
		Add:         map[string]int64{"n": 1, "m": 1},
		Unset:       []string{"b"},
		UnsetPrefix: []string{"c/"},
		Stamp:       "at",
		TTL:         time.Hour,
		Return:      []string{"n", "none"},
	}
}

var conditions = []testCase{
	{"if", ifSays, func(t *tester) {
		k := t.key("k")
		t.apply(k, guest.Update{If: guest.Fields{"a": "", "b": ""},
			Set: guest.Fields{"a": "1", "b": "2"}})
		t.apply(k, guest.Update{If: guest.Fields{"a": "1", "b": "2", "c": ""},
			Set: guest.Fields{"c": "3"}})
		t.apply(k, guest.Update{If: guest.Fields{"c": "3"}, Set: guest.Fields{"c": "4"}})
		t.holds(k, guest.Fields{"a": "1", "b": "2", "c": "4"})
	}},
	{"if not", duty3, func(t *tester) {
		k := t.key("k")
		all := guest.Fields{"a": "1", "b": "2", "c/d": "3", "n": "7"}
		t.apply(k, guest.Update{Set: all})
		for _, c := range []struct{ cond, answer guest.Fields }{
			{guest.Fields{"a": "2"}, guest.Fields{"a": "1", "n": "7"}},
			{guest.Fields{"a": "1 "}, guest.Fields{"a": "1", "n": "7"}},
			{guest.Fields{"a": ""}, guest.Fields{"a": "1", "n": "7"}},
			{guest.Fields{"x": "1"}, guest.Fields{"n": "7"}},
			{guest.Fields{"a": "1", "b": "3"}, guest.Fields{"a": "1", "b": "2", "n": "7"}},
			{guest.Fields{"a": "0", "b": "2", "x": ""}, guest.Fields{"a": "1", "b": "2", "n": "7"}},
			{guest.Fields{"n": "8"}, guest.Fields{"n": "7"}},
		} {
			t.unmet(k, everything(c.cond), c.answer)
			u := everything(c.cond)
			u.Drop = true
			t.unmet(k, u, c.answer)
		}
		t.holds(k, all)
	}},
	{"if not, no record", duty3, func(t *tester) {
		k := t.key("k")
		t.unmet(k, everything(guest.Fields{"a": "1"}), nil)
		t.holds(k, nil)
	}},
	{"if not, bad input", duty3, func(t *tester) { // conditions come first
		k := t.key("k")
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1", "b": "no number"}})
		u := guest.Update{If: guest.Fields{"a": "2"}, Set: guest.Fields{"c": "3"},
			Add: map[string]int64{"b": 1}, Quota: guest.Quota{Fields: 1}}
		t.unmet(k, u, guest.Fields{"a": "1"})
	}},
	{"not after", afterSays, func(t *tester) {
		k := t.key("k")
		now := t.update(k, guest.Update{Stamp: "at"}).Now
		for _, after := range []time.Duration{time.Minute, 24 * time.Hour} {
			u := guest.Update{NotAfter: now.Add(after), Set: guest.Fields{"a": after.String()}}
			if res := t.update(k, u); !res.Applied || res.Now.Before(now.Add(-time.Second)) {
				t.failf("by the store's clock of %v an update until %v: %+v", now, u.NotAfter, res)
			}
			if have := t.get(k, "a")["a"]; have != after.String() {
				t.failf("an update until %v set the field to %q", u.NotAfter, have)
			}
		}
	}},
	{"too late", duty3, func(t *tester) {
		k := t.key("k")
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1", "b": "2", "n": "7"}})
		now := t.update(k, guest.Update{Stamp: "t"}).Now
		t.pass(5 * time.Millisecond)
		for _, before := range []time.Duration{0, time.Millisecond, time.Hour} {
			u := everything(guest.Fields{"a": "1"})
			u.NotAfter = now.Add(-before)
			res := t.unmet(k, u, guest.Fields{"a": "1", "n": "7"})
			if !res.Now.After(u.NotAfter) {
				t.failf("the update was too late for %v, but the store's clock says %v", u.NotAfter,
					res.Now)
			}
			u = guest.Update{Drop: true, NotAfter: u.NotAfter}
			t.unmet(k, u, nil)
		}
	}},
}
