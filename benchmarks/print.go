package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

var ctx = context.Background()

// A table is one line of a Markdown table, by column.
type table []string

func (s *sheet) printf(format string, args ...any) { fmt.Fprintf(&s.body, format, args...) }

func (s *sheet) print(head table, lines []table) { s.body.WriteString(markdown(head, lines)) }

func markdown(head table, lines []table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(head, " | "), "---|"+strings.Repeat("--:|", len(head)-1))
	for _, line := range lines {
		if strings.HasPrefix(line[0], guestRedis.Name) {
			line[0] = "**" + line[0] + "**"
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(line, " | "))
	}
	return b.String()
}

// heading is the page's head, with how ours stands against its budgets.
func (s *sheet) heading() []byte {
	version := "?"
	if text, err := exec.Command("redis-server", "--version").Output(); err == nil {
		version = regexp.MustCompile(`v=\S+`).FindString(string(text))
	}
	flags := ""
	if *quick {
		flags = " -quick"
	}
	head := fmt.Appendf(nil, `# Benchmarks

![Time in units of the limit](benchmarks.svg)

Printed by one run of

    cd benchmarks && go run .%s -guests %d -flood %d -write

on %s with %s, Redis %s, %d processors, which others use too: load %s at the start and %s at the end.

Times are ratios, never milliseconds. Contenders run in turns on one machine, each round in another order; a figure is the median
of a contender's ratios to the *limit* in the same round, with the quartiles. Turns take a millisecond for *time*, whose quartiles
are those of ten parts of the measurement, and ten milliseconds for the rest. The limit is a handler written by hand that does
the least the work needs. Round trips, commands and bytes are counted on the wire, allocations in
the process. The set-ups are [at the end](#set-ups).
`, flags, *guests, *flood, time.Now().UTC().Format(time.DateOnly), runtime.Version(), strings.TrimPrefix(version, "v="), runtime.NumCPU(), s.load, loadAverage())
	return append(head, s.budgets()...)
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Fields(string(b))[0]
}

func (s *sheet) row(w Work, r Record, c Contender) row {
	for _, one := range s.cells[cell{w, r}] {
		if one.name == c.Name {
			return one
		}
	}
	panic(fmt.Sprint("not measured: ", w, r, c.Name))
}

// budgets says how ours stands against what it is meant to cost.
func (s *sheet) budgets() string {
	var lines []table
	add := func(what, budget string, have float64, most float64, text string) {
		verdict := "kept"
		if have > most {
			verdict = "**over**"
		}
		lines = append(lines, table{what, budget, text, verdict})
	}
	on := func(w Work, r Record) row { return s.row(w, r, guestRedis) }
	cpu := func(r row) float64 { return r.alone.app.median + r.alone.redis.median }

	none := on(None, Small)
	add("known visitor, data untouched: round trips", "0", none.traffic.trips, 0, count(none.traffic.trips))
	add("known visitor, data untouched: processor time, in securecookie checks", "≤ 1.3", cpu(none), 1.3, none.alone.app.String())
	add("the same, if this process does not remember the cookie", "≤ 1.3", s.stranger.app.median, 1.3, s.stranger.app.String())
	best := math.Inf(1)
	for _, peer := range []Contender{scsRedis, gorillaRedis, ginRedis, fiberRedis} {
		best = min(best, s.row(First, Small, peer).alone.time.median)
	}
	first := on(First, Small)
	add("first visit, 100 B saved: round trips", "1", first.traffic.trips, 1, count(first.traffic.trips))
	add("first visit, 100 B saved: time", "≤ the best peer's, "+ratio(best), first.alone.time.median, best, first.alone.time.String())
	for _, w := range []Work{Read, Add} {
		for _, r := range w.records() {
			one := on(w, r)
			what := lower(w.title()) + ", record of " + string(r)
			add(what+": round trips", "1", one.traffic.trips, 1, count(one.traffic.trips))
			add(what+": time", "≤ 1.15", one.alone.time.median, 1.15, one.alone.time.String())
		}
		small, large := on(w, Small).traffic, on(w, Large).traffic
		add(lower(w.title())+": more bytes on the wire with 32 KiB than with 100 B", "0",
			large.out+large.in-small.out-small.in, 0, count(large.out+large.in-small.out-small.in))
	}
	for _, b := range []struct {
		work Work
		most float64
	}{{ID, 35}, {Read, 45}, {Add, 60}} {
		w, most, have := b.work, b.most, on(b.work, Small).allocs
		add(lower(w.title())+": allocations", fmt.Sprintf("≤ %v", most), have, most, count(have))
	}
	add("200 additions, 16 abreast: lost", "0", float64(additions-s.survivors), 0, fmt.Sprint(additions-s.survivors))
	add("a claim: round trips", "≤ 7", s.claimTrips, 7, count(s.claimTrips))
	for _, m := range []struct {
		what string
		footprint
		most float64
	}{{"provisional and empty", s.provisional, 200}, {"with 100 B", s.kept, 450}} {
		add("a guest in Redis, "+m.what+": MEMORY USAGE", fmt.Sprintf("≤ %.0f B", m.most), m.keys, m.most, fmt.Sprintf("%.0f B", m.keys))
		add("a guest in Redis, "+m.what+": used_memory", fmt.Sprintf("≤ %.0f B", m.most), m.perGuest(), m.most, fmt.Sprintf("%.0f B", m.perGuest()))
	}
	return "\n## Ours against its budget\n\n" + markdown(table{"", "budget", "here", ""}, lines) + beyond
}

// beyond says what ours does that what it is compared with does not.
const beyond = `
What ours does beyond what it is compared with, and what that costs:

- *An addition*: the limit's script increments, whatever the record is. Ours asks first whether the guest has been claimed meanwhile,
  whether it has applied this very addition before, as replies get lost, and whether the record stays within its quota
  ([in instructions](redis.md#what-is-stored)). The condition, the default and the operation's ID are on their way to Redis, too.
  Whose cookie it is costs less than the limit's check.
- *A first visit*: ours signs the cookie, so that no later page needs Redis to know its visitor. scs and Fiber send a random one and
  look it up at every request. And ours makes the record only if there is none, as a whole with its life (a script), where
  they overwrite what there may be (SET).
- *A cookie that the process does not remember* takes one securecookie check, and what every request behind the middleware takes:
  see what a remembered one does.
`

func (s *sheet) printCells() {
	s.printf(`
## Side by side

*time* is that of one request after the other, *16 abreast* that of a request among sixteen. *CPU* is processor time, of this process and of Redis,
in units of what the limit takes of both together. Only where the visitor is known and no data are touched the limit is nothing
but a securecookie check.
`)
	for _, w := range measured {
		for _, r := range w.records() {
			title := w.title()
			if w.known() {
				title += ", record of " + string(r)
			}
			s.printf("\n### %s\n\n", title)
			var lines []table
			for _, one := range s.cells[cell{w, r}] {
				lines = append(lines, table{one.name, one.alone.time.String(), one.together.time.String(),
					one.alone.app.String(), cpuText(one.alone.redis), count(one.allocs), count(one.traffic.trips),
					count(one.traffic.commands), wireBytes(one.traffic)})
			}
			s.print(table{"", "time", "16 abreast", "CPU", "CPU of Redis", "allocations", "round trips", "commands", "bytes out / in"}, lines)
			if w == None && r == Small {
				s.printf("\nThe visitors here are sixteen who come again and again. Ours remembers the cookies that it verified last, of at most 16,384 visitors. "+
					"With 60,000 in turns, whom it hardly ever remembers, its time is %s.\n", s.stranger.time)
			}
		}
	}
	s.printf("\ngorilla/sessions and gin-contrib/sessions do not look at a visitor whom no handler asks about; scs and Fiber always do.\n")
}

func cpuText(f figure) string {
	if f.high < 0.005 {
		return "0"
	}
	return f.String()
}

func lower(title string) string { return strings.ToLower(title[:1]) + title[1:] }

// count prints what is a whole number, or the mean of such.
func count(x float64) string {
	if x == math.Trunc(x) {
		return thousands(int(x))
	}
	return strconv.FormatFloat(x, 'f', 1, 64)
}

func wireBytes(t traffic) string {
	return fmt.Sprintf("%s / %s", count(math.Round(t.out)), count(math.Round(t.in)))
}

func thousands(n int) string {
	if n < 0 {
		return "-" + thousands(-n)
	}
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func (s *sheet) setups() error {
	s.printf("\n## Set-ups\n\nEach as its documentation recommends, with a pool of %d connections to the one Redis and a cookie that is Secure, HttpOnly, SameSite=Lax and lives 30 days. The record is one "+
		"session: `theme`, 100 B; `cart/tea`, a number; in the large one `blob`, 32 KiB.\n\n", poolSize)
	for _, c := range contenders {
		s.printf("- **%s**: %s.\n", c.Name, c.Setup)
	}
	return nil
}
