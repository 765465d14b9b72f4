package storetest

import (
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/guestkit/guest"
)

var reading = []testCase{
	{"absent", duty1, func(t *tester) {
		k := t.key("k")
		t.holds(k, nil)
		if have := t.get(k, "a", "b"); len(have) != 0 {
			t.failf("named fields of a record that was never written: %q", have)
		}
	}},
	{"dropped", duty1, func(t *tester) {
		k := t.key("k")
		t.apply(k, guest.Update{Drop: true}) // an absent record may be dropped
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1", ".b": "2"}})
		t.apply(k, guest.Update{Drop: true})
		t.holds(k, nil)
		t.apply(k, guest.Update{If: guest.Fields{"a": ""}, Set: guest.Fields{"c": "3"}})
		t.holds(k, guest.Fields{"c": "3"})
	}},
	{"expired", duty1, func(t *tester) {
		k := t.key("k")
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1", ".b": "2"}, TTL: 20 * time.Millisecond})
		t.gone(k)
		if have := t.get(k, "a", ".b"); len(have) != 0 {
			t.failf("named fields of an expired record: %q", have)
		}
		t.apply(k, guest.Update{If: guest.Fields{"a": ""}, Add: map[string]int64{"a": 5},
			Quota: guest.Quota{Fields: 1}})
		t.holds(k, guest.Fields{"a": "5"})
	}},
	{"get", getSays, func(t *tester) {
		k, other := t.key("k"), t.key("other")
		all := guest.Fields{"a": "1", "b": "2", ".c": "3", "d/e": "4"}
		t.apply(k, guest.Update{Set: all})
		t.apply(other, guest.Update{Set: guest.Fields{"a": "9"}})
		t.holds(k, all)
		for _, c := range []struct {
			names []string
			want  guest.Fields
		}{
			{[]string{"a"}, guest.Fields{"a": "1"}},
			{[]string{"d/e", ".c", "a"}, guest.Fields{"a": "1", ".c": "3", "d/e": "4"}},
			{[]string{"a", "none", "a"}, guest.Fields{"a": "1"}},
			{[]string{"none"}, nil},
			{[]string{"d/"}, nil}, // a name is no prefix
		} {
			if have := t.get(k, c.names...); !maps.Equal(have, c.want) {
				t.failf("Get of %q is %q, want %q", c.names, have, c.want)
			}
		}
	}},
	{"bytes", duty11, func(t *tester) {
		var bytes []byte
		for b := 1; b < 256; b++ {
			bytes = append(bytes, byte(b))
		}
		name := string(bytes)
		k := t.key("k\r\n {}*" + name)
		all := guest.Fields{
			name:                       name + "\x00" + name,
			"\xff":                     "\x00",
			"\r\n":                     "\r\n",
			" ":                        " ",
			"%d[^a]*":                  "nil",
			"é":                        "false",
			strings.Repeat("long", 64): strings.Repeat("\x00\xff", 16<<10),
		}
		t.apply(k, guest.Update{Set: all})
		t.holds(k, all)
		for name, value := range all {
			have := t.apply(k, guest.Update{If: guest.Fields{name: value}, Return: []string{name}})
			if have[name] != value || t.get(k, name)[name] != value {
				t.failf("the field %q came back changed", name)
			}
		}
	}},
	{"many", duty11, func(t *tester) { // more than fits on some stacks
		k := t.key("k")
		all, names := guest.Fields{}, []string(nil)
		for i := range 5000 {
			name := "f" + strconv.Itoa(i)
			all[name] = strconv.Itoa(i)
			names = append(names, name)
		}
		if have := t.apply(k, guest.Update{Set: all, Return: names}); !maps.Equal(have, all) {
			t.failf("%d fields were set, %d returned", len(all), len(have))
		}
		t.holds(k, all)
		if have := t.get(k, names...); !maps.Equal(have, all) {
			t.failf("%d fields were set, %d read by name", len(all), len(have))
		}
		t.apply(k, guest.Update{If: all, Unset: names[1:]})
		t.holds(k, guest.Fields{names[0]: "0"})

		k = t.key("sums") // created, and then added to
		add := map[string]int64{}
		for i, name := range names {
			add[name] = int64(i + 1)
		}
		for times := range 2 {
			sums := guest.Fields{}
			for name, n := range add {
				sums[name] = strconv.FormatInt(n*int64(times+1), 10)
			}
			have := t.apply(k, guest.Update{Default: guest.Fields{".created": strconv.Itoa(times)},
				Add: add, New: times == 0, Once: true, Return: names})
			if !maps.Equal(have, sums) {
				t.failf("%d sums are returned of %d, or are wrong", len(have), len(sums))
			}
		}
	}},
	{"own names", duty11, func(t *tester) {
		k := t.key("k")
		for i := range 3 {
			u := guest.Update{Add: map[string]int64{"a": 1}, Once: true, TTL: time.Hour,
				Quota: guest.Quota{Fields: 1, Bytes: 2}, ReturnAll: true}
			want := guest.Fields{"a": strconv.Itoa(i + 1)}
			if have := t.apply(k, u); !maps.Equal(have, want) {
				t.failf("ReturnAll is %q, want %q", have, want)
			}
			t.holds(k, want)
		}
		t.apply(k, guest.Update{Unset: []string{"a"}, Once: true})
		t.holds(k, nil)
	}},
}

var steps = []testCase{
	{"order", stepsSays, func(t *tester) {
		k := t.key("k")
		t.apply(k, guest.Update{Set: guest.Fields{"b": "old", "n": "1", "gone": "x"}})
		have := t.apply(k, guest.Update{
			If:      guest.Fields{"b": "old", "n": "1", "a": "", "gone": "x"},
			Default: guest.Fields{"a": "default"},
			Set:     guest.Fields{"b": "new"},
			Add:     map[string]int64{"n": 41},
			Unset:   []string{"gone"},
			Stamp:   ".t",
			TTL:     time.Hour,
			Return:  []string{"a", "b", "n", "gone"},
		})
		want := guest.Fields{"a": "default", "b": "new", "n": "42"}
		if !maps.Equal(have, want) {
			t.failf("the update returned %q, want %q", have, want)
		}
		want[".t"] = t.get(k, ".t")[".t"]
		t.holds(k, want)
	}},
	{"drop", dropSays, func(t *tester) {
		k := t.key("k")
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1", "b": "2"}})
		have := t.apply(k, guest.Update{
			If: guest.Fields{"a": "1"}, Drop: true,
			Default: guest.Fields{"c": "1"}, Set: guest.Fields{"a": "2"},
			Add: map[string]int64{"n": 1}, Stamp: ".t", TTL: time.Hour,
			Return: []string{"a", "c", "n"},
		})
		if len(have) != 0 {
			t.failf("dropping returned %q", have)
		}
		t.holds(k, nil)
	}},
	{"default", defaultSays, func(t *tester) {
		k := t.key("k")
		t.apply(k, guest.Update{Default: guest.Fields{"a": "1"}})
		have := t.apply(k, guest.Update{Default: guest.Fields{"a": "2", "b": "3"},
			Return: []string{"a", "b"}})
		if want := (guest.Fields{"a": "1", "b": "3"}); !maps.Equal(have, want) {
			t.failf("the update returned %q, want %q", have, want)
		}
		t.holds(k, guest.Fields{"a": "1", "b": "3"})
	}},
	{"set", stepsSays, func(t *tester) {
		k := t.key("k")
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1", "b": "2"}})
		t.apply(k, guest.Update{Set: guest.Fields{"b": "3", "c": "4"}})
		t.holds(k, guest.Fields{"a": "1", "b": "3", "c": "4"})
	}},
	{"add", addSays, func(t *tester) {
		k := t.key("k")
		for _, c := range []struct {
			n    int64
			want string
		}{{5, "5"}, {-7, "-2"}, {0, "-2"}, {2, ""}, {0, ""}, {-3, "-3"}, {3, ""},
			{1e15, "1000000000000000"}} {
			have := t.apply(k, guest.Update{Add: map[string]int64{"n": c.n}, Return: []string{"n"}})
			if got, ok := have["n"]; got != c.want || ok != (c.want != "") {
				t.failf("after an addition of %d the field is %q, want %q", c.n, have, c.want)
			}
			if got, ok := t.get(k)["n"]; got != c.want || ok != (c.want != "") {
				t.failf("after an addition of %d the field reads %q, want %q", c.n, got, c.want)
			}
		}
		t.apply(k, guest.Update{Set: guest.Fields{"n": "12", "z": "-1"}})
		t.apply(k, guest.Update{Add: map[string]int64{"n": 1, "m": -1, "z": 1}})
		t.holds(k, guest.Fields{"n": "13", "m": "-1"})
	}},
	// removes this field, and no field whose name begins with its name
	{"add to 0", addSays, func(t *tester) {
		k := t.key("k")
		t.apply(k, guest.Update{
			Set: guest.Fields{"cart/": "1", "cart/a": "2", "cart/a/": "3", "cart/a/b": "4"}})
		t.apply(k, guest.Update{Add: map[string]int64{"cart/a/": -3}})
		t.holds(k, guest.Fields{"cart/": "1", "cart/a": "2", "cart/a/b": "4"})
		t.apply(k, guest.Update{Add: map[string]int64{"cart/": -1, "cart/a": 1}, Once: true,
			Return: []string{"cart/"}})
		t.holds(k, guest.Fields{"cart/a": "3", "cart/a/b": "4"})
		t.apply(k, guest.Update{Add: map[string]int64{"cart/": 0}})
		t.holds(k, guest.Fields{"cart/a": "3", "cart/a/b": "4"})
	}},
	{"unset", unsetSays, func(t *tester) {
		t.removes(func(names []string) guest.Update { return guest.Update{Unset: names} },
			[]removal{
				{[]string{"none", "none/", "c", "%w/", "a/", ".cart/", ".", "cart/b/"}, slashed},
				{[]string{"cart/"}, []string{"cart", "cart/a", "cart/a/", "cart/a/b", "cart/b/c",
					"carts/a", "car", "%w/x", "a/x", ".cart/a"}},
				{[]string{"cart/a/", "cart/", "car"},
					[]string{"cart", "cart/a", "cart/a/b", "cart/b/c",
						"carts/a", "%w/x", "a/x", ".cart/a"}},
				{[]string{"cart", ".cart/a"}, []string{"cart/", "cart/a", "cart/a/", "cart/a/b",
					"cart/b/c", "carts/a", "car", "%w/x", "a/x"}},
				{slashed, nil},
			})
	}},
	{"unset prefix", prefixSays, func(t *tester) {
		t.removes(func(names []string) guest.Update { return guest.Update{UnsetPrefix: names} },
			[]removal{
				{[]string{"none", "none/", "%a/", "cart/b/c/", "a/x/", "x"}, slashed},
				{[]string{"cart/"}, []string{"cart", "carts/a", "car", "%w/x", "a/x", ".cart/a"}},
				{[]string{"cart/a"}, []string{"cart", "cart/", "cart/b/c", "carts/a", "car", "%w/x",
					"a/x", ".cart/a"}},
				{[]string{"cart/b/", "%w/", "."}, []string{"cart", "cart/", "cart/a", "cart/a/",
					"cart/a/b", "carts/a", "car", "a/x"}},
				{[]string{"cart/", "cart/a", "carts"},
					[]string{"cart", "car", "%w/x", "a/x", ".cart/a"}},
				{[]string{"car", "a", "%", ".cart/a"}, nil},
				{[]string{""}, nil},
			})
	}},
	{"unset and unset prefix", prefixSays, func(t *tester) { // in one update, with all other steps
		k := t.key("k")
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1", "a/": "2", "a/b": "3", "b/": "4",
			"b/c": "5", "n/": "6", "n/m": "7"}})
		have := t.apply(k, guest.Update{
			Default:     guest.Fields{"d": "1"},
			Set:         guest.Fields{"c": "1"},
			Add:         map[string]int64{"n/": -6},
			Unset:       []string{"a/"},
			UnsetPrefix: []string{"b/"},
			Quota:       guest.Quota{Fields: 5}, // exactly as many as are left
			Once:        true,
			Return:      []string{"a/", "a/b", "b/", "b/c", "n/", "n/m"},
		})
		if want := (guest.Fields{"a/b": "3", "n/m": "7"}); !maps.Equal(have, want) {
			t.failf("the update returned %q, want %q", have, want)
		}
		t.holds(k, guest.Fields{"a": "1", "a/b": "3", "c": "1", "d": "1", "n/m": "7"})
		t.refused(k, guest.Update{Set: guest.Fields{"e": "1"}, Unset: []string{"n/"},
			UnsetPrefix: []string{"b/"}, Quota: guest.Quota{Fields: 5}}, guest.ErrQuota)
	}},
	{"stamp", stampSays, func(t *tester) {
		k := t.key("k")
		t.apply(k, guest.Update{Set: guest.Fields{"at": "old"}})
		res := t.update(k, guest.Update{Stamp: "at", Return: []string{"at"}})
		want := strconv.FormatInt(res.Now.UnixMilli(), 10)
		if res.Fields["at"] != want || res.Now.Year() < 2000 {
			t.failf("the stamp is %q, the store's clock %v (%s ms)", res.Fields["at"], res.Now,
				want)
		}
		t.holds(k, guest.Fields{"at": want})
	}},
	{"now", nowSays, func(t *tester) {
		k := t.key("k")
		for _, u := range []guest.Update{
			{Stamp: "at"},
			{NotAfter: time.Now().AddDate(1, 0, 0)},
			{NotAfter: time.Unix(1, 0)},
			{Drop: true, Stamp: "at"},
		} {
			if now := t.update(k, u).Now; now.Year() < 2000 ||
				!now.Equal(now.Truncate(time.Millisecond)) {
				t.failf("Result.Now is %v after %+v", now, u)
			}
		}
	}},
	{"return", returnSays, func(t *tester) {
		k := t.key("k")
		if have := t.apply(k, guest.Update{ReturnAll: true}); len(have) != 0 {
			t.failf("all fields of no record are %q", have)
		}
		t.apply(k, guest.Update{Set: guest.Fields{"a": "1", "b": "2", ".c": "3"}})
		have := t.apply(k, guest.Update{If: guest.Fields{"a": "1"}, Set: guest.Fields{"b": "5"},
			Return: []string{"b", ".c", "none", "b"}})
		if want := (guest.Fields{"b": "5", ".c": "3"}); !maps.Equal(have, want) {
			t.failf("the update returned %q, want %q", have, want)
		}
		have = t.apply(k, guest.Update{Add: map[string]int64{"a": 1}, ReturnAll: true})
		if want := (guest.Fields{"a": "2", "b": "5", ".c": "3"}); !maps.Equal(have, want) {
			t.failf("with ReturnAll the update returned %q, want %q", have, want)
		}
	}},
}

// slashed are field names of which some begin with others, with and without a slash.
var slashed = []string{"cart", "cart/", "cart/a", "cart/a/", "cart/a/b", "cart/b/c", "carts/a",
	"car", "%w/x", "a/x", ".cart/a"}

// A removal has names of fields or prefixes, and what is left of slashed.
type removal struct{ names, left []string }

func (t *tester) removes(update func(names []string) guest.Update, removals []removal) {
	t.Helper()
	for i, r := range removals {
		k := t.key(strconv.Itoa(i))
		all, want := guest.Fields{}, guest.Fields{}
		for i, name := range slashed {
			all[name] = strconv.Itoa(i)
		}
		for _, name := range r.left {
			want[name] = all[name]
		}
		t.apply(k, guest.Update{Set: all})
		t.apply(k, update(r.names))
		if have := t.get(k); !maps.Equal(have, want) {
			t.failf("after %+v the record holds %q, want %q", update(r.names), have, want)
		}
	}
}
