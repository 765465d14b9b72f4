package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// The machine is noisy, and other users work on it. So contenders run in turns, each round in
// another order, and a figure is the median of the ratios to the limit in the same round. The time
// of one request after the other is measured in turns of a millisecond, everything else in turns of
// ten.

// A runner takes part in a race. calls[i] is for the i-th of the goroutines; renew, if set, returns
// n new calls before each turn, because a call works only once.
type runner struct {
	name  string
	calls []Call
	renew func(n int) ([]Call, error)
}

// An effort says how long to measure.
type effort struct {
	bursts int           // of requests one after the other
	turn   time.Duration // of one contender
	rounds int
}

// A turn is what a request took in one turn.
// nanoseconds: on the clock, of this process's CPU, of Redis's
type turn struct{ wall, app, redis float64 }

// A figure is the ratio to the limit, over all rounds.
type figure struct{ median, low, high float64 } // low and high: the quartiles

func (f figure) String() string {
	if f.low == f.high {
		return ratio(f.median)
	}
	return fmt.Sprintf("%s (%s–%s)", ratio(f.median), ratio(f.low), ratio(f.high))
}

func ratio(x float64) string {
	switch {
	case x == 1:
		return "1"
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

func figureOf(ratios []float64) figure {
	slices.Sort(ratios)
	at := func(q float64) float64 { return ratios[int(math.Round(q*float64(len(ratios)-1)))] }
	return figure{at(0.5), at(0.25), at(0.75)}
}

// A result is the result of a race for a contender: its time and its processor time, this process's
// and Redis's, all in units of what the base needs of the same: time, and processor time of both
// together.
type result struct{ time, app, redis figure }

// race runs the runners in turns; base is the index of the one that is 1.
func race(rdb *redis.Client, runners []runner, base, abreast int, e effort) ([]result, error) {
	n := make([]int, len(runners)) // requests a turn
	for i, r := range runners {
		n[i] = 2 * abreast
		for { // until a turn is long enough; this is also the warm-up
			t, err := r.turn(rdb, n[i], abreast)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.name, err)
			}
			if took := t.wall * float64(n[i]); took >= float64(e.turn)/2 || n[i] >= 1<<20 {
				n[i] = max(abreast, int(float64(n[i])*float64(e.turn)/took)/abreast*abreast)
				break
			}
			n[i] *= 2
		}
	}
	var quick []figure
	if abreast == 1 {
		var err error
		if quick, err = alternate(runners, base, e.bursts); err != nil {
			return nil, err
		}
	}
	ratios := make([][3][]float64, len(runners))
	for range e.rounds {
		turns := make([]turn, len(runners))
		for _, i := range rand.Perm(len(runners)) {
			var err error
			if turns[i], err = runners[i].turn(rdb, n[i], abreast); err != nil {
				return nil, fmt.Errorf("%s: %w", runners[i].name, err)
			}
		}
		one := turns[base]
		for i, t := range turns {
			ratios[i][0] = append(ratios[i][0], t.wall/one.wall)
			ratios[i][1] = append(ratios[i][1], t.app/(one.app+one.redis))
			ratios[i][2] = append(ratios[i][2], t.redis/(one.app+one.redis))
		}
	}
	results := make([]result, len(runners))
	for i, r := range ratios {
		results[i] = result{figureOf(r[0]), figureOf(r[1]), figureOf(r[2])}
		if quick != nil {
			results[i].time = quick[i]
		}
	}
	return results, nil
}

// alternate lets the runners take turns of a millisecond, one request after the other: the
// machine's speed changes more slowly than that. The first requests of a turn are not timed,
// because the processor's caches are full of other contenders' data. The quartiles are those of the
// medians of ten parts of the measurement.
func alternate(runners []runner, base, bursts int) ([]figure, error) {
	const parts = 10
	const burst = time.Millisecond
	const cold = 3 // requests
	lists, each := make([][]Call, len(runners)), make([]int, len(runners))
	for i, r := range runners {
		lists[i] = r.calls
		if r.renew != nil {
			var err error
			if lists[i], err = r.renew((cold + 1) * bursts); err != nil {
				return nil, fmt.Errorf("%s: %w", r.name, err)
			}
			each[i] = 1
			continue
		}
		start, n := time.Now(), 0
		for ; time.Since(start) < 10*burst; n++ {
			if err := do(lists[i][0]); err != nil {
				return nil, fmt.Errorf("%s: %w", r.name, err)
			}
		}
		each[i] = max(1, n/10)
	}
	next := make([]int, len(runners))
	serve := func(i, n int) error {
		for range n {
			if err := do(lists[i][next[i]%len(lists[i])]); err != nil {
				return fmt.Errorf("%s: %w", runners[i].name, err)
			}
			next[i]++
		}
		return nil
	}
	runtime.GC()
	ratios := make([][parts][]float64, len(runners))
	took := make([]float64, len(runners))
	for b := range bursts {
		for _, i := range rand.Perm(len(runners)) {
			if err := serve(i, cold); err != nil {
				return nil, err
			}
			start := time.Now()
			if err := serve(i, each[i]); err != nil {
				return nil, err
			}
			took[i] = float64(time.Since(start)) / float64(each[i])
		}
		for i := range runners {
			part := b * parts / bursts
			ratios[i][part] = append(ratios[i][part], took[i]/took[base])
		}
	}
	figures := make([]figure, len(runners))
	for i := range runners {
		var all, middles []float64
		for _, part := range ratios[i] {
			all, middles = append(all, part...), append(middles, middle(part))
		}
		figures[i] = figureOf(middles)
		figures[i].median = middle(all)
	}
	return figures, nil
}

func middle(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// turn serves n requests, in abreast goroutines.
func (r runner) turn(rdb *redis.Client, n, abreast int) (t turn, err error) {
	list := r.calls
	if r.renew != nil {
		if list, err = r.renew(n); err != nil {
			return t, err
		}
	}
	runtime.GC() // every contender begins without the others' garbage
	redisBefore, err := redisCPU(rdb)
	if err != nil {
		return t, err
	}
	appBefore := processCPU()
	start := time.Now()
	var failed sync.Map
	var wg sync.WaitGroup
	for g := range abreast {
		wg.Go(func() {
			mine := list[g : g+1]
			if r.renew != nil {
				mine = list[g*n/abreast : (g+1)*n/abreast]
			}
			for i := range n / abreast {
				if status, _, body := mine[i%len(mine)].Do(); status != 200 {
					failed.Store(status, string(body))
					return
				}
			}
		})
	}
	wg.Wait()
	wall := time.Since(start)
	app := processCPU() - appBefore
	redisAfter, err := redisCPU(rdb)
	if err != nil {
		return t, err
	}
	failed.Range(func(status, body any) bool {
		err = fmt.Errorf("status %v: %v", status, body)
		return false
	})
	per := func(d time.Duration) float64 { return float64(d) / float64(n) }
	return turn{per(wall), per(app), per(redisAfter - redisBefore)}, err
}

func processCPU() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

var cpuLine = regexp.MustCompile(`(?m)^used_cpu_(?:sys|user):([0-9.]+)`)

// redisCPU is the processor time of the Redis process so far.
func redisCPU(rdb *redis.Client) (time.Duration, error) {
	info, err := rdb.Info(context.Background(), "cpu").Result()
	if err != nil {
		return 0, err
	}
	var sum float64
	for _, m := range cpuLine.FindAllStringSubmatch(info, -1) {
		s, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return 0, err
		}
		sum += s
	}
	return time.Duration(sum * float64(time.Second)), nil
}

// allocations returns how many a call makes in this process.
func allocations(do func()) float64 { return testing.AllocsPerRun(500, do) }
