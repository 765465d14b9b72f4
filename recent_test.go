package guest

import "testing"

func TestRecent(t *testing.T) {
	var r recent[int, string]
	if v, ok := r.get(0); ok || v != "" {
		t.Errorf("an empty one remembers %q", v)
	}
	r.delete(0)
	r.put(1, "a")
	if _, ok := r.get(0); ok {
		t.Error("it remembers what it was not told")
	}
	r.put(1, "b")
	if v, ok := r.get(1); !ok || v != "b" {
		t.Errorf("told a, then b, it remembers %q, %v", v, ok)
	}
	r.delete(1)
	if v, ok := r.get(1); ok || v != "" {
		t.Errorf("deleted, it remembers %q", v)
	}

	// The last ones are remembered, most of those that there is room for, and no more.
	const many = 10 * recentPlaces
	for i := range many {
		r.put(i, "c")
		if _, ok := r.get(i); !ok {
			t.Fatalf("%d is forgotten at once", i)
		}
	}
	known := 0
	for i := range many {
		if v, ok := r.get(i); ok {
			known++
			if v != "c" {
				t.Errorf("of %d it remembers %q", i, v)
			}
		}
	}
	if known < recentPlaces || known > 2*recentPlaces {
		t.Errorf("it remembers %d of %d, with room for %d", known, many, 2*recentPlaces)
	}
}
