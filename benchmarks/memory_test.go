package main

import (
	"testing"

	"github.com/guestkit/guest/internal/redistest"
)

// used_memory and MEMORY USAGE agree about a guest, except for the tables of keys.
func TestFootprint(t *testing.T) {
	server := redistest.Single(t)
	app := open(t, guestLongBudget, server.Addr)
	for range 3 {
		f, err := footprintOf(server.Client(), app, 1024, First)
		if err != nil {
			t.Fatal(err)
		}
		if more := f.perGuest() - f.keys; more < 16 || more > 100 {
			t.Errorf("used_memory says %.0f B a guest, MEMORY USAGE %.0f", f.perGuest(), f.keys)
		}
		if f.keys > 450 {
			t.Errorf("a guest with 100 B takes %.0f B, at most 450", f.keys)
		}
		if same := f.at(1024) / 1024; same < f.perGuest()-0.01 || same > f.perGuest()+0.01 {
			t.Errorf("extrapolated to as many as were measured: %.1f B, not %.1f", same,
				f.perGuest())
		}
	}
}
