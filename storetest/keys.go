package storetest

import (
	"slices"
	"strconv"
	"strings"

	"github.com/guestkit/guest"
)

var keys = []testCase{
	{"keys", keysSays, func(t *tester) {
		set := guest.Update{Set: guest.Fields{"a": "1"}}
		var want []string
		for i := range 50 {
			want = append(want, t.key("in:"+strconv.Itoa(i)))
			t.apply(want[i], set)
			t.apply(t.key("out:"+strconv.Itoa(i)), set)
		}
		t.apply(t.key("in:dropped"), set)
		t.apply(t.key("in:dropped"), guest.Update{Drop: true})
		t.lists("in:", want)
		t.lists("in:7", []string{t.key("in:7")})
		t.lists("none", nil)
	}},
	{"keys by pattern", keysSays, func(t *tester) { // a prefix is not a pattern
		const odd = `*?[a-b]^\{x}%` + "\xff\n é"
		want := []string{t.key(odd), t.key(odd + "1"), t.key(odd + odd)}
		near := t.key(strings.Replace(odd, "?", "x", 1)) // which the pattern would match
		for _, key := range append(want, near, t.key("x"+odd)) {
			t.apply(key, guest.Update{Set: guest.Fields{"a": "1"}})
		}
		t.lists(odd, want)
		t.lists("*", append(want, near))
		t.lists("?", nil)
		t.lists(`\*`, nil)
	}},
	{"keys stopped", keysSays, func(t *tester) {
		for i := range 20 {
			t.apply(t.key(strconv.Itoa(i)), guest.Update{Set: guest.Fields{"a": "1"}})
		}
		for most := 1; most < 20; most *= 3 {
			n := 0
			for _, err := range t.store.Keys(t.Context(), t.prefix) {
				if err != nil {
					t.failf("Keys: %v", err)
				}
				if n++; n == most {
					break
				}
			}
			if n != most {
				t.failf("of 20 keys %d were yielded", n)
			}
		}
	}},
	{"keys at work", keysSays, func(t *tester) { // the loop's body may use the store
		for i := range 20 {
			t.apply(t.key(strconv.Itoa(i)), guest.Update{Set: guest.Fields{"a": "1"}})
		}
		for key, err := range t.store.Keys(t.Context(), t.prefix) {
			if err != nil {
				t.failf("Keys: %v", err)
			}
			t.apply(key, guest.Update{Set: guest.Fields{"b": "1"}})
			t.apply(key, guest.Update{Drop: true})
		}
		t.lists("", nil)
	}},
}

// lists checks that Keys yields these keys, and no others.
func (t *tester) lists(prefix string, want []string) {
	t.Helper()
	var have []string
	for key, err := range t.store.Keys(t.Context(), t.prefix+prefix) {
		if err != nil {
			t.failf("Keys: %v", err)
		}
		have = append(have, key)
	}
	slices.Sort(have)
	have = slices.Compact(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.failf("the keys that begin with %q are %q, want %q", prefix, have, want)
	}
}
