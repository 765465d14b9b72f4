package outages

import (
	"cmp"
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

var long = flag.Bool("long", false,
	"one fault at a time, more pages and kills, 20,000 additions, and the losses of failovers: some minutes")

func init() { redis.SetLogger(&logging.VoidLogger{}) } // broken connections are what we test

// A place is a Redis that a fault can happen to.
type place struct {
	rdb    redis.UniversalClient // of the site
	wire   *redistest.Faults     // what rdb dials through
	config redisstore.Config

	breaks func()
	enough func() bool // the crowd has seen enough of the fault; nil: when it has its last page
	mends  func()      // returns when Redis could serve again
}

// A fault is an event that happens to Redis.
type fault struct {
	name  string
	place func(testing.TB) *place
	opens bool // the breaker must open; with longDeadlines no other fault may open it
	calm  bool // visitors notice nothing: every page is complete
	reads bool // reads still work
	probe bool // the first call that is sent when Redis serves again succeeds
}

// longDeadlines are for faults that need no deadline, so that a busy machine does not matter.
var longDeadlines = redisstore.Config{MinTimeout: 20 * time.Second}

// In each fault pages keep their status, visitors keep their cookies, guests and themes, and carts
// hold each acknowledged addition once. While the circuit breaker is open, only its probe sends
// commands. When Redis is back, the site works again.
func TestOutages(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			if !*long {
				t.Parallel()
			}
			f.test(t)
		})
	}
}

func (f fault) test(t *testing.T) {
	at := f.place(t)
	site := newSite(t, redisstore.New(at.rdb, at.config))
	pages := 30
	if *long {
		pages = 300
	}

	var crowd []*visitor
	for i := range 4 {
		v := site.newVisitor()
		v.settle(fmt.Sprint("theme", i))
		crowd = append(crowd, v)
	}
	first := crowd[0]
	healthy := median(measure(100, func() time.Duration { return first.visit().took }))
	report := fmt.Sprintf("healthy %s", ms(healthy))

	at.breaks()
	broken := true
	defer func() {
		if broken {
			at.mends()
		}
	}()
	report += fmt.Sprintf("; in trouble the first page %s", ms(first.visit().took))

	// A crowd of known visitors, and new ones.
	newcomers := []*visitor{site.newVisitor(), site.newVisitor()}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	var whole, open int
	for i, v := range slices.Concat(crowd, newcomers) {
		pages := pages
		if i >= len(crowd) {
			pages = 3
		}
		wg.Go(func() {
			for n := 0; n < pages || i < len(crowd) && at.enough != nil && !at.enough(); n++ {
				p := v.visit()
				mu.Lock()
				took = append(took, p.took)
				switch {
				case p.whole():
					whole++
				case f.calm:
					t.Errorf("a page lacks something: %+v", p)
				case p.open():
					open++
				}
				if f.reads && p.Read != done {
					t.Errorf("a read: %s", p.Read)
				}
				if at.config == longDeadlines && !f.opens && p.open() {
					t.Error("the breaker is open though Redis answers")
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	n := len(took)
	report += fmt.Sprintf(
		", then of %d pages (%d whole, %d with the breaker open) half within %s, 99 of 100 within %s, all within %s",
		n, whole, open, ms(took[n/2]), ms(took[n*99/100]), ms(took[n-1]))

	// While the breaker is open, a page sends no command. One visitor at a time, so that all on the
	// wire is from this page or the probe.
	if f.opens {
		var open []time.Duration // how long pages took
		eventually(t, "the breaker opens", func() bool {
			before := at.wire.Counts()
			p := first.visit()
			after := at.wire.Counts()
			if p.open() {
				open = append(open, p.took)
				for _, name := range []string{"HMGET", "HGETALL", "EVALSHA", "EVAL"} { // not the probe's
					if n := after.Names[name] - before.Names[name]; n > 0 {
						t.Errorf("with the breaker open, %d × %s was sent", n, name)
					}
				}
			}
			return len(open) == 100
		})
		m := median(open)
		report += fmt.Sprintf("; while open %s (%+.2f ms, %.2f times healthy)", ms(m),
			float64(m-healthy)/1e6, float64(m)/float64(healthy))
	}

	broken = false
	at.mends()
	start := time.Now()
	failed := 0
	eventually(t, "recovery", func() bool {
		p := first.visit()
		failed += p.failedCalls()
		return p.whole()
	})
	report += fmt.Sprintf("; whole again after %s", time.Since(start).Round(time.Millisecond))
	if failed > 0 {
		report += fmt.Sprintf(" and %d failed calls", failed)
	}
	if f.probe && failed > 0 {
		t.Errorf("Redis serves again, and %d calls failed", failed)
	}

	for _, v := range newcomers { // now their cookies come back, and the visitors become known
		eventually(t, "a newcomer", func() bool { return v.visit().whole() })
		v.visit()
		v.known = true
	}
	for _, v := range slices.Concat(crowd, newcomers) {
		v.verify()
	}
	t.Logf("%s\nthe store's errors:\n%s", report, site.errors())
}

func measure(n int, f func() time.Duration) (all []time.Duration) {
	for range n {
		all = append(all, f())
	}
	return all
}

func median[T cmp.Ordered](all []T) T {
	slices.Sort(all)
	return all[len(all)/2]
}
