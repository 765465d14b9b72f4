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
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(head, " | "),
		"---|"+strings.Repeat("--:|", len(head)-1))
	for _, line := range lines {
		if strings.HasPrefix(line[0], guestRedis.Name) {
			line[0] = "**" + line[0] + "**"
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(line, " | "))
	}
	return b.String()
}

// heading is the page's head, with a comparison of ours and its budgets.
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

Times are ratios, except [under load](#under-load). The unit, 1, is the time of the *limit*: a
handler that does the same work by hand, with go-redis and securecookie and nothing else. Contenders
run in turns on one machine, in another order in each round. A figure is the median of a contender's
ratios to the limit in the same round, with the quartiles. A turn takes a millisecond for *time*,
whose quartiles are those of ten parts of the measurement, one to two seconds over TCP and under
load, and ten milliseconds for the rest. Round trips, commands and bytes are counted on the wire,
allocations in the process. The set-ups are [at the end](#set-ups).
`, flags, *guests, *flood, time.Now().UTC().Format(time.DateOnly), runtime.Version(), strings.TrimPrefix(version, "v="), runtime.NumCPU(), s.began, loadAverage())
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

// budgets compares ours with its budgets.
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
	add("known visitor, data untouched: round trips", "0", none.traffic.trips, 0,
		count(none.traffic.trips))
	add("known visitor, data untouched: processor time, in securecookie checks", "≤ 1.3", cpu(none),
		1.3, none.alone.app.String())
	add("the same, if this process does not remember the cookie", "≤ 1.8", s.stranger.app.median,
		1.8, s.stranger.app.String())
	first := on(First, Small)
	add("first visit, 100 B saved: round trips", "1", first.traffic.trips, 1,
		count(first.traffic.trips))
	add("first visit, 100 B saved: time", "≤ 1.25", first.alone.time.median, 1.25,
		first.alone.time.String())
	many := on(Many, Small)
	add("first visit, 20 items put into a cart: round trips", "1", many.traffic.trips, 1,
		count(many.traffic.trips))
	add("first visit, 20 items put into a cart: time", "≤ 2", many.alone.time.median, 2,
		many.alone.time.String())
	most := map[Work]float64{Read: 1.15, Add: 1.40}
	for _, w := range []Work{Read, Add} {
		for _, r := range w.records() {
			one := on(w, r)
			what := lower(w.title()) + ", record of " + string(r)
			add(what+": round trips", "1", one.traffic.trips, 1, count(one.traffic.trips))
			add(what+": time", fmt.Sprintf("≤ %.2f", most[w]), one.alone.time.median, most[w],
				one.alone.time.String())
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
	add("200 additions, 16 abreast: lost", "0", float64(additions-s.survivors), 0,
		fmt.Sprint(additions-s.survivors))
	add("a claim: round trips", "≤ 7", s.claimTrips, 7, count(s.claimTrips))
	for _, t := range []struct {
		setting
		least float64
	}{{manyVisitors, 1.3}, {farRedis, 1.5}} {
		ours, scs := s.loads[t.setting][0], s.loads[t.setting][1]
		share, text := ours.failed()
		add("additions with "+t.title()+": failed answers", "0", share, 0, text)
		more := ours.over(scs, rate) // at least, so both are negated
		add("additions with "+t.title()+": rate, in units of scs's", fmt.Sprintf("≥ %v", t.least),
			-more.median, -t.least, more.String())
	}
	for _, m := range []struct {
		what string
		footprint
		most float64
	}{{"provisional and empty", s.provisional, 200}, {"with 100 B", s.kept, 450}} {
		add("a guest in Redis, "+m.what+": MEMORY USAGE", fmt.Sprintf("≤ %.0f B", m.most), m.keys,
			m.most, fmt.Sprintf("%.0f B", m.keys))
		add("a guest in Redis, "+m.what+": used_memory", fmt.Sprintf("≤ %.0f B", m.most),
			m.perGuest(), m.most, fmt.Sprintf("%.0f B", m.perGuest()))
	}
	return "\n## Ours against its budget\n\n" + markdown(table{"", "budget", "here", ""}, lines) +
		beyond
}

// beyond says what ours does and the others do not.
const beyond = `
What ours does in addition to the others, and what that costs:

- *An addition*: the limit's script increments in any case. Ours first checks whether the guest was
  claimed meanwhile, whether this addition was applied before (replies get lost), and whether the
  record stays within its quota, in a script that can be read. The rest of the extra time is spent
  in this process, which sends the condition, the default and the operation's ID. Verifying the
  cookie costs less than in the limit.
- *A first visit*: ours signs the cookie, so that later pages need no Redis to recognise the visitor.
  scs and Fiber send a random one and look it up at every request. Ours also creates the record only
  if there is none, where they overwrite it (SET).
- *A cookie that the process does not remember* takes one securecookie check, in addition to what
  every request takes behind the middleware; that is the figure of a remembered one.
`

func (s *sheet) printCells() {
	s.printf(`
## Side by side

*time* is that of one request after the other, *16 abreast* that of a request among sixteen. *CPU*
is processor time, of this process and of Redis, in units of what the limit takes of both together.
Where the visitor is known and no data are touched, the limit is only a securecookie check.
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
				lines = append(lines,
					table{one.name, one.alone.time.String(), one.together.time.String(),
						one.alone.app.String(), cpuText(one.alone.redis), count(one.allocs),
						count(one.traffic.trips),
						count(one.traffic.commands), wireBytes(one.traffic)})
			}
			s.print(table{"", "time", "16 abreast", "CPU", "CPU of Redis", "allocations",
				"round trips", "commands", "bytes out / in"}, lines)
			if w == None && r == Small {
				s.printf("\nThe visitors here are sixteen who keep coming back. Ours remembers the cookies "+
					"that it verified last, of at most 16,384 visitors. With 60,000 in turns, most of which it "+
					"does not remember, its time is %s.\n", s.stranger.time)
			}
		}
	}
	s.printf("\ngorilla/sessions and gin-contrib/sessions do no work for a visitor that no handler asks about; " +
		"scs and Fiber always do.\n")
}

func cpuText(f figure) string {
	if f.high < 0.005 {
		return "0"
	}
	return f.String()
}

func lower(title string) string { return strings.ToLower(title[:1]) + title[1:] }

// count prints a whole number, or a mean of whole numbers.
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
		"session: `theme`, 100 B; `cart/tea`, a number; in the large one `blob`, 32 KiB.\n\n", *poolSize)
	for _, c := range contenders {
		s.printf("- **%s**: %s.\n", c.Name, c.Setup)
	}
	return nil
}
