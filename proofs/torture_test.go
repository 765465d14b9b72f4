package proofs

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest/internal/redistest"
)

var (
	long = flag.Bool("long", false,
		"torture the library with 104,000 writes, and look at 4,000 histories: about a minute")
	seed = flag.Uint64("seed", 0,
		"repeat what a test did and lost, if not its timing, with the seed that it has printed; 0: a random one")
)

func seedOf() uint64 {
	if *seed != 0 {
		return *seed
	}
	return rand.Uint64N(1 << 32)
}

const loss = 0.07 // of the requests, and as much of the replies

// Several processes write to guests and claim them, while requests and replies are lost, processes
// and servers stop, and slots move. In the end every promise was kept. See -long.
func TestTorture(t *testing.T) {
	server := redistest.Single(t)
	persistent := redistest.Single(t, "--appendonly", "yes", "--appendfsync", "always")
	cluster := redistest.Cluster(t)
	often := 200 * time.Millisecond
	if *long {
		often = 700 * time.Millisecond
	}
	for _, form := range []struct {
		name        string
		open        func(testing.TB, *network) backend
		short, long int // acknowledged writes
	}{
		{"memory", memoryBackend, 4_000, 24_000},
		{"single", singleBackend(server), 2_000, 8_000},
		{"killed", killed(persistent, often), 2_000, 12_000},
		{"flushed", flushed(server), 1_000, 12_000},
		{"cluster", clusterBackend(cluster), 2_000, 24_000},
		{"resharded", resharded(cluster), 2_000, 24_000},
	} {
		t.Run(form.name, func(t *testing.T) {
			target, limit := form.short, time.Minute
			if *long {
				target, limit = form.long, 10*time.Minute
			}
			broken := run(t, seedOf(), target, loss, limit, form.open, nil)
			if len(broken) > 0 {
				t.Errorf("%d promises broken:\n%s", len(broken),
					strings.Join(broken[:min(3, len(broken))], "\n\n"))
			}
		})
	}
}

// With each of these faults, the library must break a promise.
func TestTortureHasTeeth(t *testing.T) {
	for name, mutate := range mutants {
		t.Run(name, func(t *testing.T) {
			first := seedOf()
			for try := range uint64(10) {
				if broken := run(t, first+try, 500, loss, time.Minute, memoryBackend,
					mutate); len(broken) > 0 {
					t.Logf("caught: %d promises broken: %s", len(broken), firstLine(broken[0]))
					return
				}
			}
			t.Error("not caught")
		})
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return fmt.Sprintf("%.300s", line)
}
