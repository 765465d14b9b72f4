package memstore

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/storetest"
)

func TestContract(t *testing.T) {
	open := func(*testing.T) guest.Store { return New(Config{}) }
	t.Run("bubble", func(t *testing.T) { storetest.RunIn(t, synctest.Test, open) })
	t.Run("clock", func(t *testing.T) { storetest.Run(t, open) })
}

// The contract holds in a store that is always full of empty guests, too.
func TestContractWhenFull(t *testing.T) {
	s := New(Config{MaxBytes: 2 << 20})
	var n atomic.Int64
	flood := func(t *testing.T, guests int) {
		for range guests {
			apply(t, s, "flood"+strconv.FormatInt(n.Add(1), 10), emptyGuest)
		}
	}
	flood(t, 8000)
	storetest.Run(t, func(t *testing.T) guest.Store {
		flood(t, 200)
		return s
	})
	if s.Bytes() < s.max/2 {
		t.Errorf("the store holds only %d bytes", s.Bytes())
	}
	sound(t, s)
}

var emptyGuest = guest.Update{Set: guest.Fields{".i": "0123456789abcdef"}, TTL: time.Hour}

func update(t testing.TB, s *Store, key string, u guest.Update) (guest.Result, error) {
	t.Helper()
	return s.Update(t.Context(), key, u)
}

func apply(t testing.TB, s *Store, key string, u guest.Update) guest.Fields {
	t.Helper()
	res, err := update(t, s, key, u)
	if err != nil || !res.Applied {
		t.Fatalf("the update of %s answers %+v, %v", key, res, err)
	}
	return res.Fields
}

func get(t testing.TB, s *Store, key string) guest.Fields {
	t.Helper()
	have, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return have
}

// sound checks the store's counts and queues.
func sound(t testing.TB, s *Store) {
	t.Helper()
	var bytes, held int64
	for i := range s.shards {
		sh := &s.shards[i]
		if queued := len(sh.empty) + len(sh.kept); queued != len(sh.records) {
			t.Errorf("%d records are queued, %d held", queued, len(sh.records))
		}
		for empty, q := range map[bool]queue{true: sh.empty, false: sh.kept} {
			for i, r := range q {
				if r.index != i || r.empty != empty || sh.records[r.key] != r ||
					i > 0 && r.expires < q[(i-1)/2].expires {
					t.Errorf("%+v is out of place, at %d", r, i)
				}
				if want := r.fields.empty() && r.expires != never; r.empty != want {
					t.Errorf("%+v may be evicted: %t", r, r.empty)
				}
				if r.size != sizeOf(r.key, r.fields) {
					t.Errorf("%+v takes %d bytes", r, sizeOf(r.key, r.fields))
				}
				bytes += r.size
				if !r.empty {
					held += r.size
				}
			}
		}
	}
	if s.Bytes() != bytes || s.held.Load() != held {
		t.Errorf("the store counts %d bytes, %d of them held; they are %d and %d", s.Bytes(),
			s.held.Load(), bytes, held)
	}
}

func TestNotAfterTheMillisecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		now := time.Now()
		apply(t, s, "k", guest.Update{Set: guest.Fields{"a": "1"}, NotAfter: now})
		time.Sleep(time.Millisecond - time.Nanosecond)
		apply(t, s, "k", guest.Update{Set: guest.Fields{"a": "2"}, NotAfter: now})
		time.Sleep(1 * time.Nanosecond)
		if res, err := update(t, s, "k",
			guest.Update{Set: guest.Fields{"a": "3"}, NotAfter: now}); res.Applied || err != nil {
			t.Errorf("a millisecond late: %+v, %v", res, err)
		}
	})
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		// a TTL is no shorter for beginning late in a millisecond
		time.Sleep(time.Millisecond - time.Nanosecond)
		for key, ttl := range map[string]time.Duration{"short": 1, "hour": time.Hour,
			"month": 30 * 24 * time.Hour, "longest": 1<<63 - 1, "ever": 0} {
			apply(t, s, key, guest.Update{Set: guest.Fields{"a": "1"}, TTL: ttl})
		}
		apply(t, s, "hour", guest.Update{TTL: time.Minute})
		there := func(want ...string) {
			t.Helper()
			sound(t, s)
			var have []string
			for _, key := range []string{"short", "hour", "month", "longest", "ever"} {
				if len(get(t, s, key)) > 0 {
					have = append(have, key)
				}
			}
			if fmt.Sprint(have) != fmt.Sprint(want) {
				t.Errorf("after %v %v are there, want %v", time.Now(), have, want)
			}
		}
		there("short", "hour", "month", "longest", "ever")
		time.Sleep(time.Hour - 1)
		there("hour", "month", "longest", "ever")
		time.Sleep(time.Millisecond)
		there("month", "longest", "ever")
		apply(t, s, "month", guest.Update{TTL: 60 * 24 * time.Hour})
		time.Sleep(59 * 24 * time.Hour)
		there("month", "longest", "ever")
		time.Sleep(100 * 365 * 24 * time.Hour)
		there("longest", "ever")
	})
}

// Expired records are removed from memory even if they are not read: writes sweep.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		const n = 5000
		for i := range n {
			apply(t, s, "old"+strconv.Itoa(i),
				guest.Update{Set: guest.Fields{"a": "1"}, TTL: time.Minute})
			apply(t, s, "older"+strconv.Itoa(i), emptyGuest)
		}
		apply(t, s, "member", guest.Update{Set: guest.Fields{"a": "1"}})
		time.Sleep(2 * time.Hour)
		for key, err := range s.Keys(t.Context(), "") {
			if key != "member" || err != nil {
				t.Fatalf("Keys yields %q, %v", key, err)
			}
		}
		for i := range n {
			before := s.Len()
			apply(t, s, "new"+strconv.Itoa(i), emptyGuest)
			if swept := before + 1 - s.Len(); swept > 4 {
				t.Fatalf("one write swept %d records", swept)
			}
		}
		if have := s.Len(); have != n+1 {
			t.Errorf("%d records are held, want %d", have, n+1)
		}
		sound(t, s)
	})
}

func TestNoGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	s := New(Config{MaxBytes: 1 << 20})
	for i := range 10_000 {
		apply(t, s, strconv.Itoa(i), emptyGuest)
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines are new", n-before)
	}
}

// A flood of guests without data neither evicts nor refuses a guest with data, and no write has to
// do much work.
func TestFlood(t *testing.T) {
	const maxBytes, members, flood = 8 << 20, 2000, 300_000
	s := New(Config{MaxBytes: maxBytes})
	data := func(i int) guest.Fields {
		return guest.Fields{".i": "0123456789abcdef", "theme": "dark",
			"cart/" + strconv.Itoa(i): "1", "note": strings.Repeat("x", i%200+1)}
	}
	for i := range members {
		apply(t, s, "g:data"+strconv.Itoa(i), guest.Update{Set: data(i), TTL: 30 * 24 * time.Hour})
	}
	for i := range flood {
		sampled := i%100 == 0
		before := 0
		if sampled {
			before = s.Len()
		}
		apply(t, s, "g:empty"+strconv.Itoa(i), emptyGuest)
		if s.Bytes() > maxBytes {
			t.Fatalf("%d bytes are held, at most %d may be", s.Bytes(), maxBytes)
		}
		if sampled {
			if gone := before + 1 - s.Len(); gone > 3 {
				t.Fatalf("one write evicted %d records", gone)
			}
			// In the middle of it a guest with data is written.
			apply(t, s, "g:data"+strconv.Itoa(i/100%members),
				guest.Update{Add: map[string]int64{"n": 1}})
		}
	}
	if n := s.Len(); n < members*5 {
		t.Errorf("only %d records are held", n)
	}
	for i := range members {
		key, want := "g:data"+strconv.Itoa(i), data(i)
		have := get(t, s, key)
		delete(have, "n")
		if !maps.Equal(have, want) {
			t.Fatalf("%s holds %q, want %q", key, have, want)
		}
		apply(t, s, key, guest.Update{Set: guest.Fields{"more": strings.Repeat("y", 300)}})
	}
	if s.Bytes() > maxBytes {
		t.Errorf("%d bytes are held, at most %d may be", s.Bytes(), maxBytes)
	}
	sound(t, s)
}

// The same with parallel writers, while guests with data are added and grow.
func TestFloodAbreast(t *testing.T) {
	const maxBytes, writers, each = 2 << 20, 8, 4000
	s := New(Config{MaxBytes: maxBytes})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				key := fmt.Sprintf("%d:%d", w, i)
				if _, err := s.Update(t.Context(), key, emptyGuest); err != nil {
					t.Error(err)
				}
				if i%20 == 0 {
					u := guest.Update{Set: guest.Fields{"a": strings.Repeat("x", i%100+1)},
						TTL: time.Hour}
					if _, err := s.Update(t.Context(), "data"+key, u); err != nil {
						t.Error(err)
					}
				}
				if n := s.Bytes(); n > maxBytes {
					t.Errorf("%d bytes are held", n)
				}
			}
		})
	}
	wg.Wait()
	for w := range writers {
		for i := 0; i < each; i += 20 {
			key := fmt.Sprintf("data%d:%d", w, i)
			if have := get(t, s, key)["a"]; len(have) != i%100+1 {
				t.Fatalf("%s holds %q", key, have)
			}
		}
	}
	sound(t, s)
}

func TestEvictionOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{MaxBytes: 256 << 10})
		kept := map[string]guest.Update{
			"data":      {Set: guest.Fields{"a": "1"}, TTL: time.Minute},
			"tombstone": {Set: guest.Fields{".i": "1", ".s": "c"}, TTL: time.Minute},
			"member":    {Set: guest.Fields{".c1": "1"}},
			// with Config.AccountTTL
			"expiring": {Set: guest.Fields{".c1": "1"}, TTL: time.Minute},
			"filled":   {Set: guest.Fields{".i": "1", "late": "1"}},
			"returned": {TTL: 30 * 24 * time.Hour},
		}
		for _, key := range []string{"filled", "returned", "emptied", "first"} {
			apply(t, s, key, emptyGuest)
		}
		for key, u := range kept {
			apply(t, s, key, u)
		}
		apply(t, s, "emptied", guest.Update{Set: guest.Fields{"a": "1"}})
		apply(t, s, "emptied", guest.Update{Unset: []string{"a"}})
		for i := range 20_000 { // all of which expire later than the first, and before "returned"
			time.Sleep(time.Millisecond)
			apply(t, s, "flood"+strconv.Itoa(i), emptyGuest)
			if i == 10_000 {
				apply(t, s, "second", guest.Update{Set: guest.Fields{".i": "1"}, TTL: time.Hour})
			}
		}
		for key := range kept {
			if len(get(t, s, key)) == 0 {
				t.Errorf("%q was evicted", key)
			}
		}
		for _, key := range []string{"first", "emptied", "second", "flood0"} {
			if len(get(t, s, key)) > 0 {
				t.Errorf("%q was not evicted before younger ones", key)
			}
		}
		sound(t, s)
	})
}

// Expired records in other shards make room, and are removed before any guest is evicted there.
func TestExpiredMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{MaxBytes: 64 << 10})
		fill := func(name string, ttl time.Duration) (n int) {
			for ; ; n++ {
				_, err := update(t, s, name+strconv.Itoa(n),
					guest.Update{Set: guest.Fields{"a": "1"}, TTL: ttl})
				if errors.Is(err, ErrFull) {
					return n
				}
			}
		}
		n := fill("old", time.Minute)
		time.Sleep(time.Minute)
		if again := fill("new", time.Hour); again < n-1 {
			t.Errorf("after %d records have expired there is room for %d", n, again)
		}
		sound(t, s)
	})
}

func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{MaxBytes: 1 << 20})
		value := strings.Repeat("x", 100)
		var keys []string
		var full error
		for i := 0; full == nil; i++ {
			key := "k" + strconv.Itoa(i)
			if _, full = update(t, s, key,
				guest.Update{Set: guest.Fields{"a": value}, TTL: time.Hour}); full == nil {
				keys = append(keys, key)
			}
		}
		if !errors.Is(full, ErrFull) || !strings.Contains(full.Error(), "MaxBytes") ||
			!strings.Contains(full.Error(), "redisstore") {
			t.Errorf("the error is %v", full)
		}
		if n := len(keys); n < 1000 {
			t.Fatalf("full after %d records", n)
		}
		bytes, n := s.Bytes(), s.Len()
		s.max = bytes // full to the last byte
		large := value + value
		for _, u := range []guest.Update{
			{Set: guest.Fields{"a": large}, TTL: 100 * time.Hour},
			{Set: guest.Fields{"b": large}},
			{Default: guest.Fields{"b": large}},
			{Add: map[string]int64{"n": 1}, Set: guest.Fields{"b": large}, Unset: []string{"a"},
				Stamp: "at"},
		} {
			for _, key := range []string{keys[0], "fresh"} {
				if _, err := update(t, s, key, u); !errors.Is(err, ErrFull) {
					t.Errorf("%+v of a full store: %v", u, err)
				}
			}
		}
		if _, err := update(t, s, "empty", emptyGuest); !errors.Is(err, ErrFull) {
			t.Errorf("a new guest in a full store: %v", err)
		}
		if s.Bytes() != bytes || s.Len() != n {
			t.Errorf("refused updates changed %d records of %d bytes to %d of %d", n, bytes,
				s.Len(), s.Bytes())
		}
		for _, key := range keys {
			if have := get(t, s, key); !maps.Equal(have, guest.Fields{"a": value}) {
				t.Fatalf("%s holds %q", key, have)
			}
		}
		sound(t, s)

		// no larger
		apply(t, s, keys[0], guest.Update{Set: guest.Fields{"a": value[1:]}, TTL: 2 * time.Hour})
		apply(t, s, keys[1], guest.Update{Set: guest.Fields{".s": "f1", ".t": "1"},
			TTL: 2 * time.Hour, Reserve: true})
		if s.Bytes() <= bytes {
			t.Errorf("a reserved update left %d bytes", s.Bytes())
		}
		apply(t, s, keys[1], guest.Update{Set: guest.Fields{".s": "c1"}, Unset: []string{"a"},
			Reserve: true})
		apply(t, s, keys[2], guest.Update{Drop: true})
		apply(t, s, "fresh", guest.Update{Set: guest.Fields{"a": "1"}})
		time.Sleep(time.Hour)
		if _, err := update(t, s, "fresh",
			guest.Update{Set: guest.Fields{"b": value}}); err != nil {
			t.Errorf("after the others have expired: %v", err)
		}
		if len(get(t, s, keys[0])) == 0 || len(get(t, s, keys[1])) == 0 {
			t.Error("what should live longer has expired")
		}
		sound(t, s)
	})
}

// A write that cannot get enough room evicts no guest. One that can evicts no more than it needs.
func TestEvictsForAReason(t *testing.T) {
	s := New(Config{MaxBytes: 64 << 10})
	evictable := func() int64 { return s.bytes.Load() - s.held.Load() }
	data := func(n int) guest.Update {
		return guest.Update{Set: guest.Fields{"a": strings.Repeat("x", n)}}
	}
	for i := 0; evictable() < 16<<10; i++ {
		apply(t, s, "empty"+strconv.Itoa(i), emptyGuest)
	}
	for i := 0; s.Bytes() < s.max-2<<10; i++ {
		apply(t, s, "data"+strconv.Itoa(i), data(1<<10))
	}
	before := s.Len()
	for _, size := range []int{64 << 10, 20 << 10} {
		if _, err := update(t, s, "big", data(size)); !errors.Is(err, ErrFull) ||
			s.Len() != before {
			t.Errorf("%d bytes: %v, and %d of %d records are left", size, err, s.Len(), before)
		}
	}
	apply(t, s, "big", data(8<<10))
	if n := evictable(); n < 6<<10 || n > 10<<10 {
		t.Errorf("for 8 KiB all but %d of 16 KiB were evicted", n)
	}
	sound(t, s)
}

func TestIsNotEvictedForItself(t *testing.T) {
	s := New(Config{})
	apply(t, s, "k", emptyGuest)
	s.max = s.Bytes()
	if _, err := update(t, s, "k", guest.Update{Set: guest.Fields{"a": "1"}}); !errors.Is(err,
		ErrFull) {
		t.Errorf("the update answers %v", err)
	}
	if have := get(t, s, "k"); !maps.Equal(have, emptyGuest.Set) {
		t.Errorf("the guest holds %q", have)
	}
	sound(t, s)
	apply(t, s, "k", guest.Update{Set: guest.Fields{"a": "1"}, Reserve: true})
	if have := get(t, s, "k"); len(have) != 2 {
		t.Errorf("the guest holds %q", have)
	}
	sound(t, s)
}

// The counts are right after any updates, and 0 in an empty store.
func TestBooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{MaxBytes: 32 << 10})
		r := rand.New(rand.NewPCG(1, 2))
		for i := range 20_000 {
			u := guest.Update{Drop: r.IntN(20) == 0, Reserve: r.IntN(50) == 0,
				TTL: time.Duration(r.IntN(3)) * time.Second, Set: guest.Fields{}}
			for range r.IntN(3) {
				u.Set[[]string{".i", ".s", "a", "cart/b"}[r.IntN(4)]] = strings.Repeat("x",
					1+r.IntN(100))
			}
			if r.IntN(3) == 0 {
				u.Unset, u.UnsetPrefix = []string{"a", ".s"}, []string{"cart/"}
				delete(u.Set, "a")
			}
			if _, err := update(t, s, strconv.Itoa(r.IntN(300)), u); err != nil &&
				!errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(r.IntN(10)) * time.Millisecond)
			if i%100 == 0 {
				sound(t, s)
			}
		}
		for key := range s.Keys(t.Context(), "") {
			apply(t, s, key, guest.Update{Drop: true})
		}
		time.Sleep(time.Hour)
		for i := range 5000 { // sweep every shard
			apply(t, s, strconv.Itoa(i), guest.Update{Drop: true})
		}
		if s.Bytes() != 0 || s.Len() != 0 {
			t.Errorf("an empty store has %d records of %d bytes", s.Len(), s.Bytes())
		}
	})
}

// The estimate is not below what Go takes, and not far above.
func TestBytesAreHonest(t *testing.T) {
	for name, set := range map[string]func(i int) guest.Fields{
		"empty": func(i int) guest.Fields {
			return guest.Fields{".i": "0123456789abcdef" + strconv.Itoa(i)}
		},
		"cart": func(i int) guest.Fields {
			f := guest.Fields{".i": "0123456789abcdef", "theme": "dark"}
			for n := range i % 20 {
				f["cart/"+strconv.Itoa(n)] = strconv.Itoa(i)
			}
			return f
		},
		"blob": func(i int) guest.Fields {
			return guest.Fields{"a": strings.Repeat("x", 1+i%3000)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{5_000, 20_000} {
				s := New(Config{MaxBytes: 1 << 40})
				before := liveHeap()
				for i := range n {
					apply(t, s, "g:0123456789abcdef"+strconv.Itoa(i),
						guest.Update{Set: set(i), TTL: time.Hour})
				}
				took := float64(liveHeap() - before)
				if ratio := took / float64(s.Bytes()); ratio > 1.02 || ratio < 0.6 {
					t.Errorf("%d records take %.0f bytes, the store says %d: %.2f", n, took,
						s.Bytes(), ratio)
				} else {
					t.Logf("%d records take %.2f of the estimate, %d bytes each", n, ratio,
						s.Bytes()/int64(n))
				}
			}
		})
	}
}

func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkGet(b *testing.B) {
	s := filled(b)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if have, err := s.Get(b.Context(), strconv.Itoa(i%10_000), "theme"); err != nil ||
				len(have) != 1 {
				b.Fatal(have, err)
			}
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	s := filled(b)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			u := guest.Update{Add: map[string]int64{"cart/a": 1}, TTL: time.Hour,
				Quota: guest.Quota{Fields: 256, Bytes: 64 << 10}, Return: []string{"cart/a"}}
			if _, err := s.Update(b.Context(), strconv.Itoa(i%10_000), u); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkFlood writes new guests to a full store: each has to evict one.
func BenchmarkFlood(b *testing.B) {
	s := New(Config{MaxBytes: 8 << 20})
	for i := 0; b.Loop(); i++ {
		if _, err := s.Update(b.Context(), strconv.Itoa(i), emptyGuest); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFull writes new guests to a store that refuses each of them.
func BenchmarkFull(b *testing.B) {
	s := New(Config{MaxBytes: 1 << 20})
	var err error
	for i := 0; err == nil; i++ {
		_, err = s.Update(b.Context(), "data"+strconv.Itoa(i),
			guest.Update{Set: guest.Fields{"a": "1"}})
	}
	for i := 0; b.Loop(); i++ {
		if _, err := s.Update(b.Context(), strconv.Itoa(i), emptyGuest); !errors.Is(err, ErrFull) {
			b.Fatal(err)
		}
	}
}

func filled(b *testing.B) *Store {
	s := New(Config{})
	for i := range 10_000 {
		apply(b, s, strconv.Itoa(i),
			guest.Update{Set: guest.Fields{".i": "0123456789abcdef", "theme": "dark",
				"cart/b": "1"}, TTL: time.Hour})
	}
	return s
}

// A lost cart is a guest that expires with data of its own, once.
func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		for key, fields := range map[string]guest.Fields{
			"g:cart":    {".i": "1", "cart/tea": "1"},
			"g:theme":   {".i": "1", "theme": "dark"},
			"g:empty":   {".i": "1"},
			"g:frozen":  {".i": "1", ".s": "fa:ann", "cart/tea": "1"}, // on its way to ann
			"g:claimed": {".i": "1", ".s": "ca:ann"},
			"a:ann":     {"cart/tea": "1"},
			"g:dropped": {".i": "1", "cart/tea": "1"},
		} {
			apply(t, s, key, guest.Update{Set: fields, TTL: time.Hour})
		}
		apply(t, s, "g:dropped", guest.Update{Drop: true})
		apply(t, s, "g:alive", guest.Update{Set: guest.Fields{"cart/tea": "1"}, TTL: 3 * time.Hour})
		time.Sleep(2 * time.Hour)
		for range 2 {
			for i := range 1000 { // every shard is swept
				apply(t, s, fmt.Sprint("a:", i), guest.Update{Set: guest.Fields{"n": "1"}})
			}
			if n := s.Lost(); n != 2 {
				t.Errorf("%d carts were lost, want 2", n)
			}
		}
	})
}
