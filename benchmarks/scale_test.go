package main

import "testing"

// A guest's commands go to one shard, and a shard gets only those of its own guests: four for each.
func TestShards(t *testing.T) {
	const guests = 200
	commands, err := shards(2, guests)
	if err != nil {
		t.Fatal(err)
	}
	sum := int64(0)
	for i, n := range commands {
		if sum += n; n%4 != 0 || n < guests {
			t.Errorf("shard %d of 2 gets %d commands of %d guests", i, n, guests)
		}
	}
	if sum != 4*guests {
		t.Errorf("%d commands, want %d", sum, 4*guests)
	}
}

// Guests without data make room, and no guest with data is evicted.
func TestFlood(t *testing.T) {
	var m memoryTest
	if err := m.flooded(500, 5000, 1<<20); err != nil {
		t.Fatal(err)
	}
	if m.left != 500 || m.emptyLeft == 0 || m.emptyLeft >= 5000 {
		t.Errorf("with data %d of 500 are left, without %d of 5000", m.left, m.emptyLeft)
	}
}
