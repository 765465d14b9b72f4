package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The chart has a panel for each of these works, all on one logarithmic scale. Bars begin at the
// limit: contenders that take longer go to the right, others to the left.
var panels = []struct {
	cell
	title string
}{
	{cell{First, Small}, "First visit, 100 B saved"},
	{cell{None, Small}, "Known visitor, data untouched"},
	{cell{Read, Small}, "Read one key of a 100 B record"},
	{cell{Read, Large}, "Read one key of a 32 KiB record"},
	{cell{Add, Small}, "Add to a cart, 100 B record"},
	{cell{Add, Large}, "Add to a cart, 32 KiB record"},
}

const (
	chartWidth  = 980
	panelGap    = 24
	panelWidth  = 300 // two columns, beside the names
	barHeight   = 15
	barGap      = 5
	namesWidth  = 215
	titleHeight = 34
	leastShown  = 0.01
	mostShown   = 1000.0
)

// chart draws the time of one request after the other, in units of the limit.
func (s *sheet) chart() []byte {
	var names []string
	for _, c := range contenders {
		if c.Name != bare.Name {
			names = append(names, c.Name)
		}
	}
	panelHeight := titleHeight + len(names)*(barHeight+barGap) + 24
	top := 62
	height := top + (len(panels)+1)/2*(panelHeight+panelGap) + 6

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="system-ui, sans-serif" font-size="12" fill="#222">`+"\n", chartWidth, height, chartWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", chartWidth, height)
	fmt.Fprintf(&b, `<text x="16" y="26" font-size="17" font-weight="600">Time of a request, in units of the limit</text>`+"\n")
	fmt.Fprintf(&b, `<text x="16" y="45" fill="#555">1 is the limit: a handler that does the same by hand, with go-redis and securecookie. Right of it is slower, left of it faster. Logarithmic scale.</text>`+"\n")
	for i, p := range panels {
		left := 16 + namesWidth + i%2*(panelWidth+panelGap+80)
		y := top + i/2*(panelHeight+panelGap)
		s.panel(&b, p.cell, p.title, names, left, y, i%2 == 0)
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

func (s *sheet) panel(b *strings.Builder, c cell, title string, names []string, left, top int,
	withNames bool) {
	at := func(x float64) int {
		x = math.Log10(math.Min(math.Max(x, leastShown),
			mostShown)/leastShown) / math.Log10(mostShown/leastShown)
		return left + int(math.Round(x*panelWidth))
	}
	times := map[string]float64{}
	for _, r := range s.cells[c] {
		times[r.name] = r.alone.time.median
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" font-size="13" font-weight="600">%s</text>`+"\n", left, top+14, html.EscapeString(title))
	bottom := top + titleHeight + len(names)*(barHeight+barGap)
	for _, tick := range []float64{0.01, 0.1, 1, 10, 100, 1000} {
		color := "#e3e3e3"
		if tick == 1 {
			color = "#888"
		}
		fmt.Fprintf(b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s"/>`, at(tick), top+titleHeight-8, at(tick), bottom, color)
		fmt.Fprintf(b, `<text x="%d" y="%d" fill="#666" font-size="11" text-anchor="middle">%g</text>`+"\n", at(tick), bottom+14, tick)
	}
	for i, name := range names {
		y := top + titleHeight + i*(barHeight+barGap)
		weight, color := "normal", "#a9b4c0"
		switch name {
		case guestRedis.Name, guestMemory.Name:
			weight, color = "600", "#1f6f8b"
		case limit.Name, limitRueidis.Name:
			color = "#6b7785"
		}
		if withNames {
			fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end" font-weight="%s">%s</text>`, left-10, y+12, weight, html.EscapeString(name))
		}
		x, measured := times[name]
		switch {
		case !measured && c.record == Large:
			fmt.Fprintf(b, `<text x="%d" y="%d" fill="#777">cannot: over 4 KiB</text>`+"\n", at(1)+5, y+12)
			continue
		case !measured:
			fmt.Fprintf(b, `<text x="%d" y="%d" fill="#777">–</text>`+"\n", at(1)+5, y+12)
			continue
		}
		text := ratio(x)
		if c.work == None && x < 0.5 {
			text += " (does not look)"
		}
		from, to := at(min(x, 1)), at(max(x, 1))
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`, from, y, max(2, to-from), barHeight, color)
		fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="%s">%s</text>`+"\n", max(to, from+2)+5, y+12, weight, text)
	}
}

// loadChart draws the additions a second of each setting. It is narrow, so that a phone shows its
// text large enough. Settings with the same latency have one scale.
func (s *sheet) loadChart() []byte {
	const (
		width, left, longest = 480, 120, 200
		titleHeight, bar     = 30, 18
	)
	var b strings.Builder
	y := 60
	for _, t := range settings {
		scale := 1.0
		for other, results := range s.loads {
			for _, l := range results {
				if other.latency == t.latency {
					scale = max(scale, l.median(rate))
				}
			}
		}
		fmt.Fprintf(&b, `<text x="16" y="%d" font-size="14" font-weight="600">%s</text>`+"\n", y+20, t.title())
		y += titleHeight
		for _, l := range s.loads[t] {
			weight, color := "normal", "#a9b4c0"
			if l.name == guestRedis.Name {
				weight, color = "600", "#1f6f8b"
			}
			length := max(2, int(l.median(rate)/scale*longest))
			fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" font-weight="%s">%s</text>`, left-8, y+14, weight, html.EscapeString(strings.TrimSuffix(l.name, " on Redis")))
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`, left, y, length, bar, color)
			fmt.Fprintf(&b, `<text x="%d" y="%d" font-weight="%s">%s</text>`+"\n", left+length+6, y+14, weight, l.succeeded())
			y += bar + 4
		}
		y += 8
	}
	y += 8
	head := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="system-ui, sans-serif" font-size="13" fill="#222">`+"\n", width, y, width, y) +
		fmt.Sprintf(`<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, y) +
		`<text x="16" y="28" font-size="17" font-weight="600">Additions to carts a second</text>` + "\n" +
		`<text x="16" y="48" fill="#555">Those that succeeded. Longer bars are better.</text>` + "\n"
	return []byte(head + b.String() + "</svg>\n")
}
