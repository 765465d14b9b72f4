// Command benchmarks compares package guest with the session libraries for Go, and with handlers
// that do the same by hand, with a Redis client and securecookie and nothing else. All take part in
// one run on one Redis, which the command starts and stops itself.
//
//	go run .              # about twenty-five minutes; prints Markdown
//	go run . -quick       # about five minutes
//	go run . -only load   # one part
//	go run . -write       # also writes docs/benchmarks.md, docs/benchmarks.svg and docs/load.svg
//
// It needs redis-server.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/guestkit/guest/internal/redistest"
	"github.com/redis/go-redis/v9"
)

var (
	quick = flag.Bool("quick", false, "measure for about five minutes, with wider spreads")
	only  = flag.String("only", "",
		"measure one part: works, once, memory, tcp, load, pool or scale")
	write = flag.Bool("write", false,
		"write docs/benchmarks.md, docs/benchmarks.svg and docs/load.svg of this checkout")
	guests = flag.Int("guests", 100_000, "guests to fill Redis and memstore with")
	flood  = flag.Int("flood", 1_000_000, "empty guests to flood memstore with")
)

func main() {
	flag.Parse()
	do := run
	switch args := flag.Args(); {
	case len(args) == 3 && args[0] == "serve":
		do = func() error { return serve(args[1], args[2]) }
	case len(args) == 5 && args[0] == "visit":
		do = func() error { return visit(args[1], args[2], args[3], args[4]) }
	}
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	s, err := newSheet()
	if err != nil {
		return err
	}
	defer s.close()
	for _, part := range []struct {
		name string
		do   func() error
	}{
		{"works", s.works}, {"once", s.once}, {"memory", s.memory}, {"tcp", s.overTCP},
		{"load", s.underLoad}, {"pool", s.pools}, {"scale", s.scale}, {"set-ups", s.setups},
	} {
		if *only != "" && *only != part.name {
			continue
		}
		fmt.Fprintln(os.Stderr, part.name, "…")
		if err := part.do(); err != nil {
			return err
		}
	}
	if *only != "" {
		_, err := s.body.WriteTo(os.Stdout)
		return err
	}
	page := append(s.heading(), s.body.Bytes()...)
	os.Stdout.Write(page)
	if !*write {
		return nil
	}
	if err := os.WriteFile("../docs/benchmarks.md", page, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile("../docs/load.svg", s.loadChart(), 0o644); err != nil {
		return err
	}
	return os.WriteFile("../docs/benchmarks.svg", s.chart(), 0o644)
}

// A sheet is one run: its servers, its contenders, its results, and what it prints of them.
type sheet struct {
	body   bytes.Buffer
	began  string // the load average then
	dir    string
	server *redistest.Server
	rdb    *redis.Client
	direct map[string]App   // by the contender's name
	wired  map[string]App   // the same, each on its own wire: rueidis sends a PING now and then
	wires  map[string]*wire // of these, and by latency
	cells  map[cell][]row
	loads  map[setting][]loaded // of ours, scs and Fiber, in this order

	stranger          result    // ours
	survivors         int       // of ours, the fewest
	claimTrips        float64   // the most
	provisional, kept footprint // a guest without data and with 100 B
}

// A cell is a table; a row is one contender's in it.
type cell struct {
	work   Work
	record Record
}

type row struct {
	name            string
	alone, together result // one request at a time; sixteen
	allocs          float64
	traffic         traffic
}

func newSheet() (*sheet, error) {
	s := &sheet{began: loadAverage(), direct: map[string]App{}, wired: map[string]App{},
		wires: map[string]*wire{}, cells: map[cell][]row{},
		loads: map[setting][]loaded{}}
	var err error
	if s.dir, err = os.MkdirTemp("", "benchmarks"); err != nil {
		return nil, err
	}
	if s.server, err = redistest.Start(s.dir); err != nil {
		return nil, err
	}
	s.rdb = s.server.Client()
	for _, c := range append([]Contender{guestLongBudget}, contenders...) {
		if s.direct[c.Name], err = c.Open(s.server.Addr); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		if s.wires[c.Name], err = newWire(s.server.Addr, 0); err != nil {
			return nil, err
		}
		if s.wired[c.Name], err = c.Open(s.wires[c.Name].addr()); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	return s, nil
}

func (s *sheet) close() {
	for _, apps := range []map[string]App{s.direct, s.wired} {
		for _, app := range apps {
			app.Close()
		}
	}
	for _, w := range s.wires {
		w.Close()
	}
	s.server.Close()
	os.RemoveAll(s.dir)
}

func (s *sheet) effort() effort {
	if *quick {
		return effort{bursts: 250, turn: 5 * time.Millisecond, rounds: 9}
	}
	return effort{bursts: 1000, turn: 10 * time.Millisecond, rounds: 21}
}

// works fills the cells: every work with every record, by all contenders that can do it.
func (s *sheet) works() error {
	for _, w := range measured {
		for _, r := range w.records() {
			rows, err := s.race(w, r)
			if err != nil {
				return fmt.Errorf("%s with %s: %w", w, r, err)
			}
			s.cells[cell{w, r}] = rows
		}
	}
	if err := s.strangers(); err != nil {
		return err
	}
	s.printCells()
	return nil
}

// strangers races visitors whose cookies this process has not verified lately. Ours remembers those
// of at most 16,384 visitors: two for each place of a table, which the hash of the ID selects.
func (s *sheet) strangers() error {
	const many = 60_000
	var runners []runner
	for _, c := range []Contender{limit, guestRedis} {
		list, err := calls(s.direct[c.Name], None, Small, many)
		if err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		runners = append(runners, runner{name: c.Name, renew: func(n int) ([]Call, error) {
			next := make([]Call, n)
			for i := range next {
				next[i] = list[i%many]
			}
			if n < many { // continue with the others in the next turn
				list = append(list[n:], list[:n]...)
			}
			return next, nil
		}})
	}
	results, err := race(s.rdb, runners, 0, 1, s.effort())
	if err != nil {
		return err
	}
	s.stranger = results[1]
	return nil
}

func (s *sheet) race(w Work, r Record) (rows []row, err error) {
	var runners []runner
	base := 0
	for _, c := range contenders {
		if !c.holds(w, r) {
			continue
		}
		list, err := calls(s.direct[c.Name], w, r, tabs)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		if c.Name == limit.Name {
			base = len(runners)
		}
		one := row{name: c.Name, allocs: allocations(func() { list[0].Do() })}
		if one.traffic, err = s.traffic(c.Name, w, r); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		rows, runners = append(rows, one), append(runners, runner{name: c.Name, calls: list})
	}
	for abreast, put := range map[int]func(*row, result){
		1:    func(r *row, one result) { r.alone = one },
		tabs: func(r *row, one result) { r.together = one },
	} {
		results, err := race(s.rdb, runners, base, abreast, s.effort())
		if err != nil {
			return nil, err
		}
		for i := range rows {
			put(&rows[i], results[i])
		}
	}
	return rows, nil
}

// traffic counts what a contender's request sends; some send more now and then, so it is a mean.
func (s *sheet) traffic(name string, w Work, r Record) (traffic, error) {
	list, err := calls(s.wired[name], w, r, 4)
	if err != nil {
		return traffic{}, err
	}
	return s.wires[name].traffic(20, func(i int) error { return do(list[i%len(list)]) })
}

// once measures what is done once, or what only ours can do.
func (s *sheet) once() error {
	s.printf("\n## 200 additions, 16 abreast\n\nOne visitor's tabs add to one cart at once, and each addition succeeds. " +
		"The table shows what the cart holds then.\n\n")
	rounds := 5
	if *quick {
		rounds = 2
	}
	var lines []table
	for _, c := range contenders {
		if !c.holds(Add, Small) {
			continue
		}
		low, high := additions+1, -1
		for range rounds {
			n, err := survivors(s.direct[c.Name])
			if err != nil {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
			low, high = min(low, n), max(high, n)
		}
		if c.Name == guestRedis.Name {
			s.survivors = low
		}
		text := fmt.Sprint(low)
		if high > low {
			text = fmt.Sprintf("%d–%d", low, high)
		}
		lines = append(lines, table{c.Name, text})
	}
	s.print(table{"", fmt.Sprintf("of %d", additions)}, lines)
	return s.ours()
}

// ours races claims and a prefetch with the limit's addition and read.
func (s *sheet) ours() error {
	s.printf("\n## A claim, and four kinds at once\n\nThe others have neither. " +
		"The table says in which unit a time is.\n\n")
	var lines []table
	e := s.effort()
	e.rounds, e.bursts = min(e.rounds, 15), min(e.bursts, 100) // each takes far longer to prepare
	app := s.direct[guestRedis.Name]
	for _, r := range []Record{Small, Large} {
		for _, existing := range []bool{false, true} {
			what := "a claim into a new account, " + string(r)
			if existing {
				what = "a claim into an account with data, " + string(r)
			}
			adds, err := calls(s.direct[limit.Name], Add, Small, 1)
			if err != nil {
				return err
			}
			results, err := race(s.rdb, []runner{{name: limit.Name, calls: adds},
				{name: what, renew: func(n int) ([]Call, error) {
					return claims(app, r, existing,
						n)
				}}}, 0, 1, e)
			if err != nil {
				return err
			}
			have, err := claimTraffic(s.wires[guestRedis.Name], s.wired[guestRedis.Name], r,
				existing)
			if err != nil {
				return err
			}
			s.claimTrips = max(s.claimTrips, have.trips)
			lines = append(lines,
				table{what, results[1].time.String() + " of the limit's additions",
					count(have.trips), count(have.commands), wireBytes(have)})
		}
	}
	reads, err := calls(s.direct[limit.Name], Read, Small, 1)
	if err != nil {
		return err
	}
	four, err := calls(app, Prefetch, Small, 1)
	if err != nil {
		return err
	}
	results, err := race(s.rdb,
		[]runner{{name: limit.Name, calls: reads}, {name: "prefetch", calls: four}}, 0, 1, e)
	if err != nil {
		return err
	}
	have, err := s.traffic(guestRedis.Name, Prefetch, Small)
	if err != nil {
		return err
	}
	lines = append(lines,
		table{"Prefetch of four values, then read all four",
			results[1].time.String() + " of the limit's reads of one", count(have.trips),
			count(have.commands), wireBytes(have)})
	s.print(table{"", "time", "round trips", "commands", "bytes out / in"}, lines)
	return nil
}

func (s *sheet) memory() error {
	n := 8192
	if *quick {
		n = 1024
	}
	s.printf("\n## Memory in Redis\n\nWhat `used_memory` grows by for each of %s visitors with 100 B, and what `MEMORY USAGE` says of their keys.\n\n", thousands(n))
	var lines []table
	line := func(name string, app App, works ...Work) (footprint, error) {
		f, err := footprintOf(s.rdb, app, n, works...)
		if err != nil {
			return f, fmt.Errorf("%s: %w", name, err)
		}
		lines = append(lines,
			table{name, fmt.Sprintf("%.0f B", f.perGuest()), fmt.Sprintf("%.0f B", f.keys)})
		return f, nil
	}
	for _, c := range []Contender{limit, guestRedis, scsRedis, gorillaRedis, ginRedis, fiberRedis} {
		f, err := line(c.Name, s.direct[c.Name], First)
		if err != nil {
			return err
		}
		if c.Name == guestRedis.Name {
			s.kept = f
		}
	}
	var err error
	if s.provisional, err = line(guestRedis.Name+": provisional and empty",
		s.direct[guestLongBudget.Name], Visit); err != nil {
		return err
	}
	if _, err = line(guestRedis.Name+": 100 B, then 8 additions", s.direct[guestLongBudget.Name],
		First, None, Add, Add, Add, Add, Add, Add, Add, Add); err != nil {
		return err
	}
	s.print(table{"", "used_memory", "MEMORY USAGE"}, lines)
	return s.rdb.FlushAll(ctx).Err()
}

func (s *sheet) scale() error {
	n, some := *guests, min(*guests, 10_000)
	s.printf("\n## Scale\n\n### Shards\n\nThe same %s guests on a Redis Cluster: a first visit that saves 100 B, its return, an addition, a read; four commands each.\n\n", thousands(some))
	var lines []table
	for _, shardCount := range []int{1, 2, 4, 8} {
		commands, err := shards(shardCount, some)
		if err != nil {
			return fmt.Errorf("%d shards: %w", shardCount, err)
		}
		low, high, sum := commands[0], int64(0), int64(0)
		for _, c := range commands {
			low, high, sum = min(low, c), max(high, c), sum+c
		}
		lines = append(lines, table{fmt.Sprint(shardCount), thousands(int(sum)),
			fmt.Sprintf("%s–%s", thousands(int(low)), thousands(int(high))),
			fmt.Sprintf("%.1f %%", 100*float64(high)/float64(sum))})
	}
	s.print(table{"shards", "commands", "a shard", "the busiest has"}, lines)

	s.printf("\n### Ten million guests in Redis\n\nMeasured with %s, extrapolated with the growth of Redis's tables of keys.\n\n", thousands(n))
	lines = nil
	for _, kind := range []struct {
		name  string
		works []Work
	}{{"provisional and empty", []Work{Visit}}, {"with 100 B", []Work{First, None}}} {
		f, err := footprintOf(s.rdb, s.direct[guestLongBudget.Name], n, kind.works...)
		if err != nil {
			return err
		}
		lines = append(lines, table{kind.name, fmt.Sprintf("%.0f B", f.perGuest()),
			fmt.Sprintf("%.2f GB", f.at(1e7)/1e9)})
	}
	if err := s.rdb.FlushAll(ctx).Err(); err != nil {
		return err
	}
	s.print(table{"", "a guest", "ten million"}, lines)

	m, err := inMemory(s.rdb, n, *flood, s.effort())
	if err != nil {
		return err
	}
	s.printf("\n### In memory\n\nmemstore with %s guests of 100 B.\n\n", thousands(m.guests))
	s.print(table{"", ""}, []table{
		{"heap a guest", fmt.Sprintf("%.0f B", m.bytes)},
		{"a read, 16 abreast, in units of one among 1,000 guests", m.readSlow.String()},
		{"an addition, the same", m.addSlow.String()},
		{"pauses of the garbage collector meanwhile: 99th percentile, longest",
			fmt.Sprintf("%v, %v", m.pauseP99.Round(time.Microsecond),
				m.pauseMax.Round(time.Microsecond))},
		{fmt.Sprintf("a store of 64 MiB with %s guests with data, after %s empty ones came: with data left", thousands(m.before), thousands(m.flood)), thousands(m.left)},
		{"empty ones left, the rest made room", thousands(m.emptyLeft)},
	})
	return nil
}
