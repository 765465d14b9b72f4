package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// print prints v as JSON, or calls table.
func (s *session) print(v any, table func(t *tabwriter.Writer)) error {
	if s.json {
		e := json.NewEncoder(s.out)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	t := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	table(t)
	return t.Flush()
}

func row(w io.Writer, cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, c)
	}
	fmt.Fprintln(w)
}

// plain quotes text with characters that a terminal might interpret.
func plain(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// span is a duration in its two largest units.
func span(d time.Duration) string {
	d = d.Round(time.Second)
	units := []struct {
		name string
		d    time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}
	for i, u := range units {
		if d < u.d {
			continue
		}
		text := fmt.Sprintf("%d %s", d/u.d, u.name)
		if i+1 < len(units) {
			if n := d % u.d / units[i+1].d; n > 0 {
				text += fmt.Sprintf(" %d %s", n, units[i+1].name)
			}
		}
		return text
	}
	return "0 s"
}

// size is a number of bytes.
func size(n float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if n < 1024 {
			if unit == "B" {
				return fmt.Sprintf("%.0f B", n)
			}
			return fmt.Sprintf("%.1f %s", n, unit)
		}
		n /= 1024
	}
	return fmt.Sprintf("%.1f TiB", n)
}

// count is a whole number with separators.
func count(n float64) string {
	digits := strconv.FormatFloat(n, 'f', 0, 64)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// A progress is a bar on a terminal. Elsewhere it prints nothing.
type progress struct {
	w       io.Writer // nil: off
	what    string
	percent int
}

func (s *session) progress(what string) *progress {
	p := &progress{what: what, percent: -1}
	if f, ok := s.err.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			p.w = f
		}
	}
	return p
}

const barWidth = 40

func (p *progress) show(done, total int64) {
	percent := 100
	if total > 0 {
		percent = int(min(100, 100*done/total))
	}
	if p.w == nil || percent == p.percent {
		return
	}
	p.percent = percent
	full := percent * barWidth / 100
	fmt.Fprintf(p.w, "\r%s [%s%s] %3d %%", p.what, strings.Repeat("=", full),
		strings.Repeat(" ", barWidth-full), percent)
}

func (p *progress) end() {
	if p.w != nil && p.percent >= 0 {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
