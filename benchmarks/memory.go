package main

import (
	"context"
	"fmt"
	"math"
	"math/bits"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// A footprint is the memory of a Redis that holds guests.
type footprint struct {
	guests int
	bytes  float64 // the growth of used_memory
	keys   float64 // the sum of MEMORY USAGE of the keys, for each guest
}

func (f footprint) perGuest() float64 { return f.bytes / float64(f.guests) }

// footprintOf empties Redis, lets n visitors do these works one after the other, and measures.
func footprintOf(rdb *redis.Client, app App, n int, works ...Work) (f footprint, err error) {
	ctx := context.Background()
	if err := crowd(app, 10*tabs, works...); err != nil { // connects
		return f, err
	}
	if err := rdb.FlushAll(ctx).Err(); err != nil {
		return f, err
	}
	before, err := usedMemory(rdb)
	if err != nil {
		return f, err
	}
	if err := crowd(app, n, works...); err != nil {
		return f, err
	}
	after, err := usedMemory(rdb)
	if err != nil {
		return f, err
	}
	const sample = 1000
	sum, looked := int64(0), 0
	keys := rdb.Scan(ctx, 0, "*", 1000).Iterator()
	for keys.Next(ctx) && looked < sample {
		m, err := rdb.MemoryUsage(ctx, keys.Val(), 0).Result()
		if err != nil {
			return f, err
		}
		sum += m
		looked++
	}
	if err := keys.Err(); err != nil {
		return f, err
	}
	return footprint{n, float64(after - before), float64(sum) / float64(max(1, looked))}, nil
}

// at extrapolates to another number of guests. Redis's two tables of keys have 8 bytes for each
// bucket and double in size, so they do not grow in proportion.
func (f footprint) at(guests float64) float64 {
	tables := func(n float64) float64 {
		return 2 * 8 * math.Pow(2, float64(bits.Len64(uint64(n-1))))
	}
	return (f.bytes-tables(float64(f.guests)))/float64(f.guests)*guests + tables(guests)
}

// crowd lets n new visitors do these works, sixteen at a time.
func crowd(app App, n int, works ...Work) error {
	var left atomic.Int64
	left.Store(int64(n))
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range tabs {
		wg.Go(func() {
			for left.Add(-1) >= 0 && failed.Load() == nil {
				b := &browser{}
				for _, w := range works {
					if _, err := b.visit(app, w, ""); err != nil {
						failed.Store(&err)
					}
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return fmt.Errorf("a crowd of %d: %w", n, *err)
	}
	return nil
}

var usedLine = regexp.MustCompile(`(?m)^used_memory:(\d+)`)

// usedMemory closes all other connections first, because their buffers count. Clients open new
// ones.
func usedMemory(rdb *redis.Client) (used int64, err error) {
	ctx := context.Background()
	conn := rdb.Conn()
	defer conn.Close()
	if err := conn.ClientKillByFilter(ctx, "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
		return 0, err
	}
	info, err := conn.Info(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	if m := usedLine.FindStringSubmatch(info); m != nil {
		used, err = strconv.ParseInt(m[1], 10, 64)
	}
	return used, err
}
