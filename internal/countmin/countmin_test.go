package countmin

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func key(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// allowed returns how many of n calls for a key are allowed.
func allowed(l *Limiter, key []byte, n int) (passed int) {
	for range n {
		if l.Allow(key) {
			passed++
		}
	}
	return passed
}

func TestLimiter_Allow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(time.Minute, 3)
		for _, tt := range []struct {
			after time.Duration
			want  int
		}{
			{0, 3},
			{time.Minute - 1, 0},
			{1, 1},
			{2 * time.Minute, 2},
			{time.Hour, 3},
			{1000 * time.Hour, 3},
		} {
			time.Sleep(tt.after)
			if got := allowed(l, key(1), 10); got != tt.want {
				t.Errorf("%v later: %d of 10 allowed, want %d", tt.after, got, tt.want)
			}
		}
	})
}

// Over a long time a key that always asks gets one every so often, beside its burst.
func TestLimiter_Rate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(10*time.Second, 5)
		passed := 0
		for range 1000 {
			passed += allowed(l, key(1), 1)
			time.Sleep(time.Second)
		}
		if passed != 5+99 {
			t.Errorf("%d allowed in 1000 s, want the burst of 5 and one each 10 s", passed)
		}
	})
}

// The bounds of what New takes: no sum overflows.
func TestLimiter_Bounds(t *testing.T) {
	for _, tt := range []struct {
		every time.Duration
		burst int
		least int // of 100 calls
		most  int
	}{
		{1, 1, 1, 100},
		{time.Hour, 1, 1, 1},
		{math.MaxInt64 / 4, 1, 1, 1},
		{math.MaxInt64 / 4, math.MaxInt, 1, 100},
		{1 << 62, 1 << 62, 1, 100},
		{time.Hour, math.MaxInt, 100, 100},
		{1, math.MaxInt, 100, 100},
	} {
		if got := allowed(New(tt.every, tt.burst), key(1), 100); got < tt.least || got > tt.most {
			t.Errorf("every %v, burst %d: %d of 100 allowed", tt.every, tt.burst, got)
		}
	}
}

// Keys share cells. None ever gets more than its limit by that, and mostly it gets no less.
func TestLimiter_SharedCells(t *testing.T) {
	const burst = 2
	for _, tt := range []struct{ keys, least int }{
		{10_000, 10_000 * burst * 97 / 100},
		{50_000, 0},
	} {
		l, got := New(time.Hour, burst), make([]int, tt.keys)
		rnd, sum := rand.New(rand.NewPCG(1, 1)), 0
		for range 8 * tt.keys {
			i := rnd.IntN(tt.keys)
			if l.Allow(key(uint64(i))) {
				got[i]++
				sum++
			}
		}
		if most := slices.Max(got); most > burst || sum < tt.least {
			t.Errorf("%d keys: one was allowed %d times; all were %d times", tt.keys, most, sum)
		}
	}
}

// A million keys make it neither grow nor forget.
func TestLimiter_Flood(t *testing.T) {
	const n, burst = 1_000_000, 2
	l, passed := New(time.Hour, burst), 0
	var b [8]byte
	allow := func(n uint64) bool {
		binary.BigEndian.PutUint64(b[:], n)
		return l.Allow(b[:])
	}
	victim := uint64(1) << 63
	allow(victim)
	rnd := rand.New(rand.NewPCG(1, 1))
	allocs := testing.AllocsPerRun(n, func() {
		if allow(rnd.Uint64() >> 1) {
			passed++
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations a call: it grows", allocs)
	}
	if first, second := allow(victim), allow(victim); first && second {
		t.Error("the flood made it forget a key")
	}
	// Each time at least one of 2 × 65,536 cells moves on, and burst of these steps fill a cell.
	if most := burst * 2 << 16; passed > most {
		t.Errorf("%d of %d keys were allowed; at most %d together", passed, n, most)
	}
}

// Calls at the same time get the burst together.
func TestLimiter_Concurrent(t *testing.T) {
	const burst = 100
	l := New(time.Hour, burst)
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { passed.Add(int64(allowed(l, key(1), burst))) })
	}
	wg.Wait()
	if n := passed.Load(); n != burst {
		t.Errorf("%d of %d calls at the same time were allowed, want %d", n, 8*burst, burst)
	}
}
