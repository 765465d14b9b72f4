package main

import (
	"fmt"
	"strconv"
	"strings"

	"testing"

	"github.com/guestkit/guest/internal/redistest"
	"github.com/redis/go-redis/v9"
)

// Every contender does the work that is timed: it responds with what was saved.
func TestWorks(t *testing.T) {
	server := redistest.Single(t)
	for _, c := range append([]Contender{guestLongBudget, guestLazy}, contenders...) {
		t.Run(c.Name, func(t *testing.T) {
			app := open(t, c, server.Addr)
			if c.Name == bare.Name {
				if text, err := (&browser{}).visit(app, None, ""); text != "ok" || err != nil {
					t.Errorf("answers %q, %v", text, err)
				}
				return
			}
			for _, r := range []Record{Small, Large} {
				if !c.holds(Read, r) {
					continue
				}
				one, other := known(t, app, r), known(t, app, r)
				expect := func(b *browser, w Work, want string) {
					t.Helper()
					if text, err := b.visit(app, w, ""); text != want || err != nil {
						t.Errorf("%s with %s: %s answers %.40q, %v; want %.40q", c.Name, r, w, text,
							err, want)
					}
				}
				expect(one, None, "ok")
				expect(one, Read, theme)
				for n := range 3 {
					expect(one, Add, strconv.Itoa(n+1))
				}
				expect(other, Add, "1")
				expect(one, Read, theme)

				id, err := one.visit(app, ID, "")
				if again, _ := one.visit(app, ID, ""); id != again || len(id) < 20 || err != nil {
					t.Errorf("IDs of one visitor: %q, %q, %v", id, again, err)
				}
				if theirs, _ := other.visit(app, ID, ""); theirs == id {
					t.Errorf("two visitors with the ID %q", id)
				}
			}
			b := &browser{}
			if _, err := b.visit(app, Many, ""); err != nil {
				t.Error(err)
			}
			if text, err := b.visit(app, Add, ""); text != "2" || err != nil {
				t.Errorf("after 20 items, 1 more tea: %q, %v", text, err)
			}
			if text, err := (&browser{}).visit(app, Visit, ""); text != "ok" || err != nil {
				t.Errorf("a first visit answers %q, %v", text, err)
			}
		})
	}
}

// Sixteen tabs add two hundred times: ours and the limit lose no addition.
func TestSurvivors(t *testing.T) {
	server := redistest.Single(t)
	for _, c := range []Contender{guestLongBudget, guestMemory, limit, limitRueidis} {
		if n, err := survivors(open(t, c, server.Addr)); n != additions || err != nil {
			t.Errorf("%s: %d of %d additions, %v", c.Name, n, additions, err)
		}
	}
}

// What ours sends to Redis, exactly. Reading and adding send the same bytes with the large record,
// because data are stored as fields.
func TestTraffic(t *testing.T) {
	server := redistest.Single(t)
	w, err := newWire(server.Addr, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	eager, lazy := open(t, guestLongBudget, w.addr()), open(t, guestLazy, w.addr())
	for _, tt := range []struct {
		app  App
		work Work
		want float64 // round trips, and commands
	}{
		{eager, Visit, 1},
		{lazy, Visit, 0},
		{eager, First, 1},
		{lazy, First, 1},
		{eager, Many, 1},
		{lazy, Many, 1},
		{eager, None, 0},
		{eager, ID, 0},
		{eager, Read, 1},
		{eager, Add, 1},
		{eager, Prefetch, 1},
	} {
		bytes := map[Record]float64{}
		for _, r := range tt.work.records() {
			list, err := calls(tt.app, tt.work, r, 2) // connects, and loads the script
			if err != nil {
				t.Fatal(err)
			}
			have, err := w.traffic(8, func(i int) error { return do(list[i%2]) })
			if err != nil || have.trips != tt.want || have.commands != tt.want {
				t.Errorf("%s with %s: %v round trips, %v commands, want %v: %v", tt.work, r,
					have.trips, have.commands, tt.want, err)
			}
			bytes[r] = have.out + have.in
		}
		if tt.work != Prefetch && tt.work.known() && bytes[Small] != bytes[Large] {
			t.Errorf("%s: %v bytes with the small record, %v with the large one", tt.work,
				bytes[Small], bytes[Large])
		}
	}
	for _, r := range []Record{Small, Large} {
		for _, existing := range []bool{false, true} {
			have, err := claimTraffic(w, eager, r, existing)
			if err != nil || have.trips > 7 || have.commands != have.trips {
				t.Errorf("a claim with %s, existing account %v: %v round trips, %v commands, want at most 7: %v", r, existing, have.trips, have.commands, err)
			}
			t.Logf("a claim with %s, existing account %v: %v round trips", r, existing, have.trips)
		}
	}
}

// All allocations of a known visitor's request with ours. If a figure rises, there must be a reason.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates on its own account")
	}
	server := redistest.Single(t)
	for _, c := range []Contender{guestLongBudget, guestMemory} {
		app := open(t, c, server.Addr)
		for work, most := range map[Work]float64{None: 5, ID: 5, Read: 27, Add: 42} {
			for _, r := range work.records() {
				list, err := calls(app, work, r, 1)
				if err != nil {
					t.Fatal(err)
				}
				if n := allocations(func() { list[0].Do() }); n > most {
					t.Errorf("%s, %s with %s: %v allocations, at most %v", c.Name, work, r, n, most)
				}
			}
		}
	}
}

// The wire counts round trips, commands and bytes correctly, for a client of which they are known.
func TestWire(t *testing.T) {
	server := redistest.Single(t)
	w, err := newWire(server.Addr, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	rdb := newClient(w.addr())
	t.Cleanup(func() { rdb.Close() })
	if err := rdb.Set(t.Context(), "k", strings.Repeat("x", 100), 0).Err(); err != nil {
		t.Fatal(err)
	}
	have, err := w.traffic(3, func(int) error { return rdb.Get(t.Context(), "k").Err() })
	want := traffic{1, 1, float64(len("*2\r\n$3\r\nget\r\n$1\r\nk\r\n")),
		float64(len("$100\r\n\r\n") + 100)}
	if err != nil || have != want {
		t.Errorf("GET: %+v, %v; want %+v", have, err, want)
	}
	pipeline := func(int) error {
		_, err := rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			p.Get(t.Context(), "k")
			p.Get(t.Context(), "k")
			return nil
		})
		return err
	}
	if err := pipeline(0); err != nil { // go-redis uses separate connections for pipelines
		t.Fatal(err)
	}
	have, err = w.traffic(3, pipeline)
	if err != nil || have.trips != 1 || have.commands != 2 {
		t.Errorf("two GETs in a pipeline: %+v, %v", have, err)
	}
}

func open(t testing.TB, c Contender, addr string) App {
	t.Helper()
	app, err := c.Open(addr)
	if err != nil {
		t.Fatal(c.Name, err)
	}
	t.Cleanup(app.Close)
	return app
}

func known(t testing.TB, app App, r Record) *browser {
	t.Helper()
	b, err := newKnown(app, r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The same works for benchstat: go test -bench . -count 10 | tee new.txt, then benchstat -col /with
// new.txt.
func BenchmarkWork(b *testing.B) {
	server := redistest.Single(b)
	for _, w := range measured {
		for _, r := range w.records() {
			for _, c := range contenders {
				if !c.holds(w, r) {
					continue
				}
				name := fmt.Sprintf("%s/record=%s/with=%s", strings.TrimPrefix(string(w), "/"), r,
					c.Name)
				b.Run(strings.ReplaceAll(name, " ", "_"), func(b *testing.B) {
					app := open(b, c, server.Addr)
					list, err := calls(app, w, r, 1)
					if err != nil {
						b.Fatal(err)
					}
					b.ReportAllocs()
					for b.Loop() {
						if status, _, body := list[0].Do(); status != 200 {
							b.Fatal(status, string(body))
						}
					}
				})
			}
		}
	}
}
