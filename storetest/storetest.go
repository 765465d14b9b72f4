// Package storetest is the contract of [guest.Store] as a test. Any store runs it:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) guest.Store {
//			return mystore.New(...)
//		})
//	}
//
// A case that fails quotes the sentence of the contract that the store breaks. Duties that show
// only in a fault, such as a lost reply or a full store, are left to the store's own tests.
package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/guestkit/guest"
)

// Run runs the contract on the stores that open returns, one for each case. All may be one store,
// or share a server with other data: each case has keys of its own, and drops them. The cases run
// in parallel; Run returns when all are done. On a real clock that takes about a second.
func Run(t *testing.T, open func(t *testing.T) guest.Store) {
	RunIn(t, func(t *testing.T, f func(*testing.T)) { f(t) }, open)
}

// RunIn is Run, but calls bubble to run each case and its open. With synctest.Test as bubble, a
// store that uses time.Now and no network is tested without waiting.
func RunIn(t *testing.T, bubble func(*testing.T, func(*testing.T)),
	open func(t *testing.T) guest.Store) {
	t.Run("contract", func(t *testing.T) { // ends when its parallel subtests have
		for _, c := range cases() {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) { c.test(t, open(t)) })
			})
		}
	})
}

type testCase struct {
	name string
	says string // the sentence of store.go that it enforces
	run  func(*tester)
}

func cases() []testCase {
	var all []testCase
	for _, some := range [][]testCase{reading, conditions, steps, limits, lifetime, concurrency,
		callers, keys, creation, random} {
		all = append(all, some...)
	}
	return all
}

func (c testCase) test(tb testing.TB, store guest.Store) {
	t := &tester{TB: tb, store: store, says: c.says, prefix: "storetest:" + rand.Text() + ":"}
	defer t.dropAll()
	c.run(t)
}

// A tester runs one case. Its methods end the case when it fails; call them only from its
// goroutine.
type tester struct {
	testing.TB
	store  guest.Store
	says   string
	prefix string
	used   map[string]bool
}

// failf ends the case, and prints the sentence that the store breaks.
func (t *tester) failf(format string, args ...any) {
	t.Helper()
	t.Errorf(format+"\nguest.Store says: %s", append(args, t.says)...)
	t.FailNow()
}

// key returns a key of this case, which is dropped when it ends.
func (t *tester) key(name string) string {
	if t.used == nil {
		t.used = map[string]bool{}
	}
	t.used[t.prefix+name] = true
	return t.prefix + name
}

func (t *tester) dropAll() {
	for key := range t.used {
		// clean up: the result does not matter
		t.store.Update(context.Background(), key, guest.Update{Drop: true, Reserve: true})
	}
}

func (t *tester) get(key string, names ...string) guest.Fields {
	t.Helper()
	have, err := t.store.Get(t.Context(), key, names...)
	if err != nil {
		t.failf("Get: %v", err)
	}
	return have
}

// holds checks that the record has these fields and no others.
func (t *tester) holds(key string, want guest.Fields) {
	t.Helper()
	if have := t.get(key); !maps.Equal(have, want) {
		t.failf("the record holds %q, want %q", have, want)
	}
}

func (t *tester) update(key string, u guest.Update) guest.Result {
	t.Helper()
	res, err := t.store.Update(t.Context(), key, u)
	if err != nil {
		t.failf("Update: %v\nof %+v", err, u)
	}
	return res
}

// apply checks that the update is applied, and returns the fields of the result.
func (t *tester) apply(key string, u guest.Update) guest.Fields {
	t.Helper()
	res := t.update(key, u)
	if !res.Applied {
		t.failf("the update was not applied: %+v\nthe record holds %q", u, res.Fields)
	}
	return res.Fields
}

// unmet checks that a condition stops the update: it returns these fields and changes nothing.
func (t *tester) unmet(key string, u guest.Update, want guest.Fields) guest.Result {
	t.Helper()
	before := t.get(key)
	res := t.update(key, u)
	if res.Applied {
		t.failf("the update was applied: %+v\nthe record held %q", u, before)
	}
	if !maps.Equal(res.Fields, want) {
		t.failf("the answer of an update that was not applied is %q, want %q", res.Fields, want)
	}
	t.holds(key, before)
	return res
}

// refused checks that the update fails with this error and changes nothing.
func (t *tester) refused(key string, u guest.Update, want error) {
	t.Helper()
	before := t.get(key)
	res, err := t.store.Update(t.Context(), key, u)
	if !errors.Is(err, want) {
		t.failf("the error is %v, want one that wraps %q\nof %+v\nthe record held %q", err, want, u,
			before)
	}
	if res.Applied {
		t.failf("an update with an error says that it was applied: %+v", u)
	}
	t.holds(key, before)
}

// abreast runs f in n goroutines at once and checks that none returns an error.
func (t *tester) abreast(n int, f func(i int) error) {
	t.Helper()
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.failf("%v", err)
	}
}

const longestWait = 10 * time.Second

// wait polls until ok returns true, and fails the case if it never does.
func (t *tester) wait(what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(longestWait); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.failf("%s: not within %v", what, longestWait)
		}
		runtime.Gosched()
	}
}

func (t *tester) gone(key string) {
	t.Helper()
	t.wait("a record with a TTL expires", func() bool { return len(t.get(key)) == 0 })
}

// pass waits until the store's clock has advanced by d: until a record with this TTL has expired.
func (t *tester) pass(d time.Duration) {
	t.Helper()
	witness := t.key("witness " + rand.Text())
	t.apply(witness, guest.Update{Set: guest.Fields{"a": "1"}, TTL: d})
	t.gone(witness)
}
