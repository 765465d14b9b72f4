package lru

import "testing"

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
