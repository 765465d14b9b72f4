package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Under load an app and its visitors are processes of their own: this program, started once more.
// So contenders share no heap, and what the visitors allocate is not collected in the app.

// load starts an app with this Redis and pool size, and lets visitors do the work for a turn.
func load(c Contender, redisAddr string, pool int, w Work, visitors int,
	turn time.Duration) (a Answers, err error) {
	self, err := os.Executable()
	if err != nil {
		return a, err
	}
	app := exec.Command(self, "-pool-size", strconv.Itoa(pool), "serve", c.Name, redisAddr)
	app.Stderr = os.Stderr
	alive, err := app.StdinPipe()
	if err != nil {
		return a, err
	}
	out, err := app.StdoutPipe()
	if err != nil {
		return a, err
	}
	if err := app.Start(); err != nil {
		return a, err
	}
	defer func() {
		alive.Close() // which ends the app
		err = errors.Join(err, app.Wait())
	}()
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return a, fmt.Errorf("%s does not serve: %w", c.Name, err)
	}
	crowd := exec.Command(self, "visit", strings.TrimSpace(addr), string(w),
		strconv.Itoa(visitors), turn.String())
	crowd.Stderr = os.Stderr
	answers, err := crowd.Output()
	if err != nil {
		return a, fmt.Errorf("%s, %s: %w", c.Name, w, err)
	}
	return a, json.Unmarshal(answers, &a)
}

// serve is the process of an app. It prints its address, and ends with its standard input.
func serve(name, redisAddr string) error {
	i := slices.IndexFunc(contenders, func(c Contender) bool { return c.Name == name })
	if i < 0 {
		return fmt.Errorf("no contender %q", name)
	}
	app, err := contenders[i].Open(redisAddr)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	log.SetOutput(io.Discard) // peers log each failure
	fmt.Println(l.Addr())
	go app.Serve(l)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// A loaded is a contender under load: what its visitors got in each round.
type loaded struct {
	name   string
	rounds []Answers
}

// loads puts the contenders under load in turns, in another order in each round.
func loads(list []Contender, redisAddr string, pool int, w Work, visitors, rounds int) ([]loaded,
	error) {
	turn := 2 * time.Second
	if *quick {
		turn = time.Second
	}
	results := make([]loaded, len(list))
	for range rounds {
		for _, i := range rand.Perm(len(list)) {
			a, err := load(list[i], redisAddr, pool, w, visitors, turn)
			if err != nil {
				return nil, err
			}
			if a.Failed > 0 {
				fmt.Fprintf(os.Stderr, "%s: %d of %d answers failed, one with %s\n", list[i].Name,
					a.Failed, a.All, strings.TrimSpace(a.Fault))
			}
			results[i].name = list[i].Name
			results[i].rounds = append(results[i].rounds, a)
		}
	}
	return results, nil
}

func rate(a Answers) float64 { return a.Rate }
func p50(a Answers) float64  { return float64(a.P50) }
func p99(a Answers) float64  { return float64(a.P99) }

func (l loaded) median(of func(Answers) float64) float64 {
	var all []float64
	for _, a := range l.rounds {
		all = append(all, of(a))
	}
	return middle(all)
}

// over returns a figure in units of the base's in the same round.
func (l loaded) over(base loaded, of func(Answers) float64) figure {
	var ratios []float64
	for i, a := range l.rounds {
		ratios = append(ratios, of(a)/of(base.rounds[i]))
	}
	return figureOf(ratios)
}

// succeeded is the median rate, and the share of failed answers if any failed.
func (l loaded) succeeded() string {
	text := thousands(int(l.median(rate)))
	if share, failed := l.failed(); share > 0 {
		text += ", " + failed + " failed"
	}
	return text
}

// failed is the share of failed answers. It is never rounded to 0.
func (l loaded) failed() (share float64, text string) {
	all, failed := 0, 0
	for _, a := range l.rounds {
		all, failed = all+a.All, failed+a.Failed
	}
	if failed == 0 {
		return 0, "0"
	}
	share = float64(failed) / float64(all)
	if share > 0.1 {
		return share, fmt.Sprintf("%.0f %%", 100*share)
	}
	return share, fmt.Sprintf("%.2g %%", 100*share)
}

// overTCP compares all contenders with sixteen visitors, in units of the limit.
func (s *sheet) overTCP() error {
	rounds, works := 5, []Work{None, Read, Add}
	if *quick {
		rounds, works = 1, []Work{Read}
	}
	s.printf("\n## Over TCP\n\nSixteen visitors with 100 B, each with a connection of its own. " +
		"The rate of answers and their 99th percentile are in units of the limit's.\n")
	for _, w := range works {
		var list []Contender
		base := 0
		for _, c := range contenders {
			if c.Name == limit.Name {
				base = len(list)
			}
			if c.holds(w, Small) {
				list = append(list, c)
			}
		}
		results, err := loads(list, s.server.Addr, *poolSize, w, tabs, rounds)
		if err != nil {
			return err
		}
		var lines []table
		for _, l := range results {
			if share, text := l.failed(); share > 0 {
				return fmt.Errorf("%s over TCP: %s of the answers failed", l.name, text)
			}
			lines = append(lines, table{l.name, l.over(results[base], rate).String(),
				l.over(results[base], p99).String()})
		}
		s.printf("\n### %s, over TCP\n\n", w.title())
		s.print(table{"", "rate", "p99"}, lines)
	}
	return nil
}

// A setting is a load that contenders are compared under.
type setting struct {
	visitors int
	latency  time.Duration // of Redis, added
}

var (
	manyVisitors = setting{1000, 0}
	farRedis     = setting{100, 50 * time.Millisecond}
	settings     = []setting{{16, 0}, {64, 0}, {256, 0}, manyVisitors, {100, 5 * time.Millisecond},
		farRedis}
)

func (t setting) title() string {
	text := thousands(t.visitors) + " connections"
	if t.latency > 0 {
		text += fmt.Sprintf(", Redis %d ms away", t.latency.Milliseconds())
	}
	return text
}

// redisAt returns the address of a Redis that is as far away.
func (s *sheet) redisAt(latency time.Duration) (string, error) {
	if latency == 0 {
		return s.server.Addr, nil
	}
	name := latency.String()
	if s.wires[name] == nil {
		var err error
		if s.wires[name], err = newWire(s.server.Addr, latency); err != nil {
			return "", err
		}
	}
	return s.wires[name].addr(), nil
}

// underLoad measures additions to carts in the settings.
func (s *sheet) underLoad() error {
	rounds := 5
	if *quick {
		rounds = 3
	}
	s.printf(`
## Under load

![Additions a second under load](load.svg)

Each connection is that of one visitor, who adds 1 to its cart as soon as the last addition was
answered. These are absolute figures, which another machine changes: the additions a second that
succeeded; how many times as many as scs's, in the same round; and their median time and 99th
percentile. An answer failed if its status is not 2xx, if its amount did not grow, or if it did not
come within ten seconds. App, visitors and Redis share the processors. Each app has a pool of %d
connections to Redis. Where Redis is some milliseconds away, each of its replies comes that much
later.
`, *poolSize)
	for _, t := range settings {
		addr, err := s.redisAt(t.latency)
		if err != nil {
			return err
		}
		results, err := loads([]Contender{guestRedis, scsRedis, fiberRedis}, addr, *poolSize,
			Add, t.visitors, rounds)
		if err != nil {
			return err
		}
		s.loads[t] = results
		var lines []table
		for _, l := range results {
			_, failed := l.failed()
			lines = append(lines, table{l.name, thousands(int(l.median(rate))),
				l.over(results[1], rate).String(), milliseconds(l.median(p50)),
				milliseconds(l.median(p99)), failed})
		}
		s.printf("\n### %s\n\n", t.title())
		s.print(table{"", "additions a second", "in units of scs's", "p50", "p99", "failed"}, lines)
	}
	return s.rdb.FlushAll(ctx).Err()
}

func milliseconds(d float64) string {
	switch {
	case d == 0: // no answer succeeded
		return "–"
	case d < 1e7:
		return fmt.Sprintf("%.1f ms", d/1e6)
	}
	return fmt.Sprintf("%.0f ms", d/1e6)
}

// pools measures what a larger pool of connections to Redis gives ours.
func (s *sheet) pools() error {
	const visitors = 256
	rounds := 3
	if *quick {
		rounds = 1
	}
	s.printf(`
## How many connections to Redis

The additions a second of %s with %d visitors, by its `+"`PoolSize`"+`. A connection has one
addition under way at a time, so 100 connections and 50 ms give at most 100 / 0.05 s = 2,000 a
second.

`, guestRedis.Name, visitors)
	var lines []table
	for _, pool := range []int{20, 50, 100, 200} {
		line := table{strconv.Itoa(pool)}
		for _, latency := range []time.Duration{0, 5 * time.Millisecond, 50 * time.Millisecond} {
			addr, err := s.redisAt(latency)
			if err != nil {
				return err
			}
			results, err := loads([]Contender{guestRedis}, addr, pool, Add, visitors, rounds)
			if err != nil {
				return err
			}
			line = append(line, results[0].succeeded())
		}
		lines = append(lines, line)
	}
	s.print(table{"`PoolSize`", "Redis beside the app", "5 ms away", "50 ms away"}, lines)
	return s.rdb.FlushAll(ctx).Err()
}
