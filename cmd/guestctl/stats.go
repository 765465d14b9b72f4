package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"
)

type stats struct {
	Sample         int           `default:"10000" help:"How many guests, and how many accounts, to look into; the rest is extrapolated. 0: all."`
	Rate           int           `default:"20000" help:"How many keys a second Redis is asked about, at most."`
	ProvisionalTTL time.Duration `name:"provisional-ttl" default:"1h" help:"Config.ProvisionalTTL of the app."`
}

func (*stats) Help() string {
	return `Goes through the names of all keys of all masters, one master after the other, a few hundred at a
time, and looks into a sample of the records. On a Redis that other apps share, it passes their
keys, too. The bound of the memory assumes that no record outside the sample is larger than the
largest in it. A key that Redis returns twice while it resizes its table counts twice.`
}

type statsInfo struct {
	Keys     int64        `json:"keys"` // that the command went through
	Masters  int          `json:"masters"`
	Guests   guestStats   `json:"guests"`
	Accounts accountStats `json:"accounts"`
}

type guestStats struct {
	Count       int64  `json:"count"`
	Sampled     int    `json:"sampled"`
	Open        figure `json:"open"`
	Provisional figure `json:"provisional"` // open, and expires within ProvisionalTTL
	WithData    figure `json:"with_data"`
	Frozen      figure `json:"frozen"`
	Tombstones  figure `json:"tombstones"`
	Memory      figure `json:"memory"` // bytes
}

type accountStats struct {
	Count   int64  `json:"count"`
	Sampled int    `json:"sampled"`
	Memory  figure `json:"memory"`
}

func (c *stats) Validate() error {
	if c.Sample < 0 || c.Rate < 1 {
		return errors.New("--sample is 0 or more, --rate 1 or more")
	}
	return nil
}

func (c *stats) Run(s *session) error {
	rdb, _, err := s.open()
	if err != nil {
		return err
	}
	masters, err := mastersOf(s.ctx, rdb)
	if err != nil {
		return err
	}
	most := c.Sample
	if most == 0 {
		most = int(^uint(0) >> 1)
	}
	pace := &pace{rate: c.Rate, start: time.Now()}
	guests, accounts := newSample(most), newSample(most)
	info := statsInfo{Masters: len(masters)}
	bar := s.progress("keys")
	defer bar.end()
	if info.Keys, err = c.names(s, masters, pace, bar, guests, accounts); err != nil {
		return err
	}
	bar.end()
	bar = s.progress("records")
	defer bar.end()
	if err := c.guests(s, rdb, pace, bar, guests, &info.Guests); err != nil {
		return err
	}
	if err := c.accounts(s, rdb, pace, bar, accounts, &info.Accounts); err != nil {
		return err
	}
	bar.end()
	return s.print(info, func(t *tabwriter.Writer) { c.table(t, info) })
}

func mastersOf(ctx context.Context, rdb redis.UniversalClient) ([]*redis.Client, error) {
	switch rdb := rdb.(type) {
	case *redis.Client:
		return []*redis.Client{rdb}, nil
	case *redis.ClusterClient:
		var mu sync.Mutex
		var masters []*redis.Client
		err := rdb.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			masters = append(masters, node)
			return nil
		})
		slices.SortFunc(masters, func(a, b *redis.Client) int {
			return strings.Compare(a.Options().Addr, b.Options().Addr)
		})
		return masters, err
	}
	return nil, fmt.Errorf("no list of the masters of a %T", rdb)
}

// scanCount is the number of keys that Redis looks at in one step: few enough not to delay other
// commands.
const scanCount = 500

// names goes through all keys, and adds those of records to the samples.
func (c *stats) names(s *session, masters []*redis.Client, pace *pace, bar *progress, guests,
	accounts *sample) (keys int64, err error) {
	var total int64
	sizes := make([]int64, len(masters))
	for i, m := range masters {
		if sizes[i], err = m.DBSize(s.ctx).Result(); err != nil {
			return 0, err
		}
		total += sizes[i]
	}
	var passed int64
	step := min(scanCount, c.Rate)
	prefix := s.Prefix + ":"
	pattern := strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`, `\`, `\\`).Replace(prefix) + "*"
	for i, m := range masters {
		var here int64
		for cursor, first := uint64(0), true; first || cursor != 0; first = false {
			if err := pace.wait(s.ctx, step); err != nil {
				return 0, err
			}
			var page []string
			page, cursor, err = m.Scan(s.ctx, cursor, pattern, int64(step)).Result()
			if err != nil {
				return 0, err
			}
			for _, key := range page {
				switch record := key[len(prefix):]; {
				case strings.HasPrefix(record, "g:"):
					guests.add(key)
				case strings.HasPrefix(record, "a:"):
					accounts.add(key)
				}
			}
			here = min(here+int64(step), sizes[i])
			bar.show(passed+here, total)
		}
		passed += sizes[i]
	}
	return total, nil
}

const batch = 100 // records looked into in one round trip

// look asks about the keys of a sample, a batch at a time. ask adds commands, and returns a
// function that is called with the key's memory once they were answered, unless the record has
// expired meanwhile.
func look(s *session, rdb redis.UniversalClient, pace *pace, bar *progress, of *sample,
	ask func(pipe redis.Pipeliner, key string) (see func(memory int64))) error {
	done := 0
	for keys := range slices.Chunk(of.heap, batch) {
		if err := pace.wait(s.ctx, len(keys)); err != nil {
			return err
		}
		pipe := rdb.Pipeline()
		see, memory := make([]func(int64), len(keys)), make([]*redis.IntCmd, len(keys))
		for i, k := range keys {
			see[i] = ask(pipe, k.key)
			memory[i] = pipe.MemoryUsage(s.ctx, k.key)
		}
		if _, err := pipe.Exec(s.ctx); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		for i := range keys {
			if memory[i].Err() == nil {
				see[i](memory[i].Val())
			}
		}
		done += len(keys)
		bar.show(int64(done), int64(len(of.heap)))
	}
	return nil
}

const fieldState = ".s" // of a guest: begins with f if frozen, with c if claimed; see docs/redis.md

func isData(field string) bool {
	return !strings.HasPrefix(field, ".") && !strings.HasPrefix(field, "!")
}

func (c *stats) guests(s *session, rdb redis.UniversalClient, pace *pace, bar *progress, of *sample,
	g *guestStats) error {
	var open, provisional, withData, frozen, tombstones int
	var bytes []float64
	err := look(s, rdb, pace, bar, of, func(pipe redis.Pipeliner, key string) func(int64) {
		state, names, life := pipe.HGet(s.ctx, key, fieldState), pipe.HKeys(s.ctx, key),
			pipe.PTTL(s.ctx, key)
		return func(memory int64) {
			bytes = append(bytes, float64(memory))
			switch state := state.Val(); {
			case state == "":
				open++
				if life := life.Val(); 0 <= life && life <= c.ProvisionalTTL {
					provisional++
				}
			case state[0] == 'f':
				frozen++
			default:
				tombstones++
			}
			if slices.ContainsFunc(names.Val(), isData) {
				withData++
			}
		}
	})
	if err != nil {
		return err
	}
	n, total := len(bytes), float64(of.total)
	if n == len(of.heap) && int64(n) == of.total { // the sample is complete
		total = float64(n)
	}
	*g = guestStats{of.total, n, share(open, n, total), share(provisional, n, total),
		share(withData, n, total),
		share(frozen, n, total), share(tombstones, n, total), sum(bytes, total)}
	return nil
}

func (c *stats) accounts(s *session, rdb redis.UniversalClient, pace *pace, bar *progress,
	of *sample, a *accountStats) error {
	var bytes []float64
	err := look(s, rdb, pace, bar, of, func(redis.Pipeliner, string) func(int64) {
		return func(memory int64) { bytes = append(bytes, float64(memory)) }
	})
	*a = accountStats{of.total, len(bytes), sum(bytes, float64(of.total))}
	return err
}

func (c *stats) table(t *tabwriter.Writer, info statsInfo) {
	number := func(f figure) string { return count(f.Value) + bound(f, count) }
	bytes := func(f figure) string { return size(f.Value) + bound(f, size) }
	g, a := info.Guests, info.Accounts
	row(t, "guests", count(float64(g.Count)))
	row(t, "  open", number(g.Open))
	row(t, "    provisional", number(g.Provisional),
		"end within "+span(c.ProvisionalTTL)+": their cookie has not come back, or not for long")
	row(t, "  frozen", number(g.Frozen), "being claimed")
	row(t, "  tombstones", number(g.Tombstones), "claimed or forgotten")
	row(t, "  with data", number(g.WithData))
	row(t, "  memory", bytes(g.Memory))
	row(t, "accounts", count(float64(a.Count)))
	row(t, "  memory", bytes(a.Memory))
	row(t)
	masters := "1 server"
	if info.Masters > 1 {
		masters = fmt.Sprint(info.Masters, " masters")
	}
	t.Flush()
	row(t, fmt.Sprintf("Went through %s keys of %s, looked into %s guests and %s accounts.",
		count(float64(info.Keys)), masters, count(float64(g.Sampled)), count(float64(a.Sampled))))
	if int64(g.Sampled) < g.Count || int64(a.Sampled) < a.Count {
		row(t, "± is the bound of the extrapolation: 99 of 100 such samples are within it.")
	}
}

func bound(f figure, format func(float64) string) string {
	if f.PlusMinus == 0 {
		return ""
	}
	return " ± " + format(f.PlusMinus)
}

// A pace limits the number of keys per second.
type pace struct {
	rate  int
	start time.Time
	asked int
}

// wait returns when n more keys may be read.
func (p *pace) wait(ctx context.Context, n int) error {
	due := p.start.Add(time.Duration(float64(p.asked) / float64(p.rate) * float64(time.Second)))
	p.asked += n
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
