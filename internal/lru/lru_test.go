package lru

import (
	"slices"
	"sync"
	"testing"
)

func TestCache(t *testing.T) {
	var c Cache[int, string]
	if v, ok := c.Get(0); ok || v != "" {
		t.Errorf("an empty cache remembers %q", v)
	}
	c.Delete(0)
	c.Put(1, "a")
	if _, ok := c.Get(0); ok {
		t.Error("it remembers a key that was not written")
	}
	c.Put(1, "b")
	if v, ok := c.Get(1); !ok || v != "b" {
		t.Errorf("after a and then b it remembers %q, %v", v, ok)
	}
	c.Delete(1)
	if v, ok := c.Get(1); ok || v != "" {
		t.Errorf("after Delete it remembers %q", v)
	}
}

// The last keys are remembered, most of those that there is room for, and no more.
func TestCache_Bound(t *testing.T) {
	var c Cache[int, string]
	const many = 10 * buckets
	for i := range many {
		c.Put(i, "c")
		if _, ok := c.Get(i); !ok {
			t.Fatalf("%d is forgotten at once", i)
		}
	}
	known := 0
	for i := range many {
		if v, ok := c.Get(i); ok {
			known++
			if v != "c" {
				t.Errorf("of %d it remembers %q", i, v)
			}
		}
	}
	if known < buckets || known > 2*buckets {
		t.Errorf("it remembers %d of %d, with room for %d", known, many, 2*buckets)
	}
}

// Of three keys in one bucket the two that were written last are remembered, also if one of them was
// written before.
func TestCache_TheOlderMakesWay(t *testing.T) {
	var c Cache[int, string]
	c.Put(0, "")
	var keys []int // of one bucket
	_, first, _ := c.find(0)
	for i := 0; len(keys) < 3; i++ {
		if _, b, _ := c.find(i); b == first {
			keys = append(keys, i)
		}
	}
	a, b, other := keys[0], keys[1], keys[2]
	for _, tt := range []struct{ written, remembered []int }{
		{[]int{a, b}, []int{a, b}},
		{[]int{a, b, other}, []int{b, other}},
		{[]int{a, b, a}, []int{a, b}},
		{[]int{a, b, a, other}, []int{a, other}},
		{[]int{a, b, b, other}, []int{b, other}},
		{[]int{a, a, b}, []int{a, b}},
	} {
		clear(c.buckets)
		for _, key := range tt.written {
			c.Put(key, "c")
		}
		for _, key := range keys {
			want := slices.Contains(tt.remembered, key)
			if _, ok := c.Get(key); ok != want {
				t.Errorf("after %v it remembers %d: %v", tt.written, key, ok)
			}
		}
	}
}

func TestCache_Concurrent(t *testing.T) {
	var c Cache[int, int]
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 1000 {
				c.Put(i, i)
				if v, ok := c.Get(i); ok && v != i {
					t.Errorf("of %d it remembers %d", i, v)
				}
				c.Delete(i)
			}
		})
	}
	wg.Wait()
}
