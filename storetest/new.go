package storetest

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/guestkit/guest"
)

// New is only a hint: an update does the same with it and without.
var creation = []testCase{
	{"new", newSays, func(t *tester) {
		for i, u := range someUpdates() {
			t.sameWithNew(fmt.Sprint("absent", i), u, func(string) {})
		}
	}},
	{"new, but there is a record", newSays, func(t *tester) {
		for i, u := range someUpdates() {
			t.sameWithNew(fmt.Sprint("there", i), u, func(k string) {
				t.apply(k, guest.Update{
					Set: guest.Fields{"theme": "dark", "cart/tea": "2", ".m": "1"}, Once: true})
			})
			t.sameWithNew(fmt.Sprint("created", i), u, func(k string) {
				t.apply(k, guest.Update{Default: guest.Fields{".created": "first"},
					Set: guest.Fields{"theme": "dark"}, New: true, Once: true})
			})
			t.sameWithNew(fmt.Sprint("dropped", i), u, func(k string) {
				t.apply(k, guest.Update{Default: guest.Fields{".created": "first"}, New: true})
				t.apply(k, guest.Update{Drop: true})
			})
		}
	}},
	{"new, and then full", duty5, func(t *tester) {
		k := t.key("k")
		full := guest.Quota{Fields: 2, Bytes: 12}
		t.apply(k, guest.Update{Default: guest.Fields{".created": "long enough"},
			Set: guest.Fields{"a": "12345"}, Add: map[string]int64{"n": 7}, Quota: full, New: true})
		t.refused(k, guest.Update{Set: guest.Fields{"b": "1"}, Quota: full}, guest.ErrQuota)
		t.refused(k, guest.Update{Set: guest.Fields{"a": "1234567890"}, Quota: full},
			guest.ErrQuota)
		t.apply(k, guest.Update{Set: guest.Fields{"a": "123456789"}, Quota: full, Once: true})
		t.apply(k, guest.Update{Unset: []string{"n"}, Once: true})
		t.apply(k, guest.Update{Set: guest.Fields{"a": "12345", "b": "12345"}, Quota: full,
			Once: true})
	}},
	{"new abreast", duty2, func(t *tester) {
		for round := range 5 {
			k := t.key("k" + strconv.Itoa(round))
			var seen sync.Map
			t.abreast(abreast, func(i int) error {
				res, err := t.store.Update(t.Context(), k, guest.Update{
					Default: guest.Fields{".created": fmt.Sprint(i)}, Add: map[string]int64{"n": 1},
					Return: []string{"n"}, Once: true, New: true,
				})
				if _, again := seen.LoadOrStore(res.Fields["n"], true); again && err == nil {
					err = fmt.Errorf("two additions returned the sum %q", res.Fields["n"])
				}
				return err
			})
			have := t.get(k)
			if n, err := strconv.Atoi(have[".created"]); have["n"] != strconv.Itoa(abreast) ||
				err != nil || n >= abreast {
				t.failf("%d additions left %q", abreast, have)
			}
		}
	}},
	{"new with ttl", duty7, func(t *tester) {
		k, ever := t.key("k"), t.key("ever")
		const ttl = 50 * time.Millisecond
		t.apply(ever, guest.Update{Default: guest.Fields{".created": "ever"},
			Set: guest.Fields{"a": "1"}, New: true})
		t.lives(k, guest.Update{Default: guest.Fields{".created": "k"}, Set: guest.Fields{"a": "1"},
			TTL: ttl, New: true})
		t.pass(ttl)
		t.holds(ever, guest.Fields{".created": "ever", "a": "1"})
	}},
}

// someUpdates are of all kinds. Each leaves data, because a full store may evict a record without
// data.
func someUpdates() []guest.Update {
	updates := []guest.Update{
		{Set: guest.Fields{"theme": "light", "empty?": "no", ".x": "y"}},
		{Set: guest.Fields{"big": strings.Repeat("x", 63), "bigger": strings.Repeat("x", 64),
			"big as a page": strings.Repeat("\xff", 1<<14)}},
		{Add: map[string]int64{"cart/tea": 1, "cart/cup": -3, "cart/none": 0},
			Return: []string{"cart/tea", "cart/none", "theme"}},
		{Set: guest.Fields{"theme": "light"}, Add: map[string]int64{"cart/tea": 1},
			ReturnAll: true},
		{Add: map[string]int64{"cart/tea": 1 << 53}},
		{Add: map[string]int64{"cart/tea": -1<<53 - 1}},
		{Set: guest.Fields{"a": "1"}, Unset: []string{"theme"}, UnsetPrefix: []string{"cart/"},
			Return: []string{"theme", ".m"}},
		{If: guest.Fields{".s": ""}, Set: guest.Fields{"theme": "light"}, Return: []string{".s"}},
		{If: guest.Fields{"theme": ""}, Set: guest.Fields{"theme": "light"}},
		{If: guest.Fields{"theme": "dark"}, Set: guest.Fields{"theme": "light"},
			Return: []string{"cart/tea"}},
		{NotAfter: time.Unix(1, 0), Set: guest.Fields{"theme": "light"}},
		{Drop: true},
		{Set: guest.Fields{"a": "1", "b": "2", "c": "3"}, Quota: guest.Quota{Fields: 2}},
		{Set: guest.Fields{"a": "1", "b": "2"}, Quota: guest.Quota{Fields: 2, Bytes: 4}},
		{Set: guest.Fields{"a": "1", "b": "2"}, Quota: guest.Quota{Fields: 3, Bytes: 3}},
		{Set: guest.Fields{"theme": "light"}, Reserve: true},
	}
	many := guest.Update{Set: guest.Fields{}}
	for i := range 100 {
		many.Set[fmt.Sprint("many/", i)] = "1"
	}
	return append(updates, many)
}

// sameWithNew checks that an update returns and leaves the same with New as without, each on a
// record that ready has prepared.
func (t *tester) sameWithNew(name string, u guest.Update, ready func(key string)) {
	t.Helper()
	u.Once = true
	u.Default = guest.Fields{".created": "by " + name}
	ready(t.key(name + "-without"))
	ready(t.key(name + "-with"))
	want, wantErr := t.store.Update(t.Context(), t.key(name+"-without"), u)
	u.New = true
	have, haveErr := t.store.Update(t.Context(), t.key(name+"-with"), u)
	for _, err := range []error{guest.ErrQuota, guest.ErrInvalid, nil} {
		if errors.Is(haveErr, err) != errors.Is(wantErr, err) {
			t.failf("with New the error is %v, without %v: %+v", haveErr, wantErr, u)
		}
	}
	if have.Applied != want.Applied || !maps.Equal(have.Fields, want.Fields) ||
		have.Now.IsZero() != want.Now.IsZero() {
		t.failf("with New the answer is %+v, without %+v: %+v", have, want, u)
	}
	if have, want := t.get(t.key(name+"-with")),
		t.get(t.key(name+"-without")); !maps.Equal(have, want) {
		t.failf("with New the record is %q, without %q: %+v", have, want, u)
	}
}
