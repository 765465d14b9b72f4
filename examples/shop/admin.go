package main

import (
	"bytes"
	"context"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/guestkit/guest"
)

// A tally counts what the hooks tell, since this process started. A site of several processes has
// adapters/promguest for that, and its dashboard.
type tally struct {
	mu      sync.Mutex
	since   time.Time
	minted  int64
	back    int64
	filled  int64
	moved   int64 // claimed, with data
	claims  map[string]int64
	refused map[string]int64
	calls   map[string]int64
}

func newTally() *tally {
	return &tally{since: time.Now(), claims: map[string]int64{}, refused: map[string]int64{}, calls: map[string]int64{}}
}

func (t *tally) hooks() guest.Hooks {
	count := func(n *int64) func(context.Context) {
		return func(context.Context) {
			t.mu.Lock()
			defer t.mu.Unlock()
			*n++
		}
	}
	return guest.Hooks{
		Created:    count(&t.minted),
		Returned:   count(&t.back),
		FirstWrite: count(&t.filled),
		Claimed: func(_ context.Context, r guest.Receipt) {
			t.mu.Lock()
			defer t.mu.Unlock()
			switch {
			case r.Pending:
				t.claims["pending"]++
			case r.Replayed:
				t.claims["replayed"]++
			default:
				t.claims["claimed"]++
				if len(r.Kinds) > 0 {
					t.moved++
				}
			}
		},
		Refused: func(_ context.Context, reason string) {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.refused[reason]++
			if reason != guest.RefusedToken && reason != guest.RefusedCookies {
				t.claims["refused"]++
			}
		},
		StoreCall: func(_ context.Context, op string, _ time.Duration, err error) {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.calls[op]++
			if err != nil {
				t.calls["failed"]++
			}
		},
	}
}

// dashboard is what the page shows.
type dashboard struct {
	Since                  time.Time
	Funnel                 funnel
	Claims, Refused, Calls []bar
}

func (t *tally) dashboard() dashboard {
	t.mu.Lock()
	defer t.mu.Unlock()
	return dashboard{
		Since: t.since,
		Funnel: drawFunnel(
			stage{ID: "minted", Name: "New guests", Count: t.minted},
			stage{ID: "returned", Name: "Came back", Count: t.back},
			stage{ID: "filled", Name: "Kept something", Count: t.filled},
			stage{ID: "moved", Name: "Took it to an account", Count: t.moved},
		),
		Claims: drawBars(
			bar{ID: "claimed", Name: "claimed", Count: t.claims["claimed"]},
			bar{ID: "replayed", Name: "done before", Count: t.claims["replayed"]},
			bar{ID: "pending", Name: "tried, pending", Count: t.claims["pending"], Bad: true},
			bar{ID: "refused", Name: "refused", Count: t.claims["refused"], Bad: true},
		),
		Refused: drawBars(
			bar{ID: "token", Name: "token not ours", Count: t.refused[guest.RefusedToken], Bad: true},
			bar{ID: "cookies", Name: "two cookies", Count: t.refused[guest.RefusedCookies] + t.refused[guest.RefusedAmbiguous], Bad: true},
			bar{ID: "foreign", Name: "from another site", Count: t.refused[guest.RefusedCrossOrigin], Bad: true},
			bar{ID: "others", Name: "another’s guest", Count: t.refused[guest.RefusedClaimed], Bad: true},
			bar{ID: "ticket", Name: "invalid ticket", Count: t.refused[guest.RefusedTicket], Bad: true},
		),
		Calls: drawBars(
			bar{ID: "get", Name: "reads", Count: t.calls["get"]},
			bar{ID: "update", Name: "writes", Count: t.calls["update"]},
			bar{ID: "failed", Name: "failed", Count: t.calls["failed"], Bad: true},
		),
	}
}

// A funnel is drawn from left to right: a block for each stage, as high as its share of the
// largest, and what joins it to the next one.
type funnel struct {
	Stages []stage
	Joins  []string // paths
	Width  int
}

type stage struct {
	ID, Name   string
	Count      int64
	Share      string // of the first stage
	X, Y, W, H float64
	Middle     float64
}

const (
	blockWidth = 190.
	joinWidth  = 106.
	drawnFrom  = 104. // below the words
	drawnHigh  = 168.
)

func drawFunnel(stages ...stage) funnel {
	most := int64(1)
	for _, s := range stages {
		most = max(most, s.Count)
	}
	f := funnel{Stages: stages}
	for i := range stages {
		s := &stages[i]
		s.X, s.W = float64(i)*(blockWidth+joinWidth), blockWidth
		s.H = max(3, drawnHigh*float64(s.Count)/float64(most))
		s.Y = drawnFrom + (drawnHigh-s.H)/2
		s.Middle = s.X + blockWidth/2
		if i == 0 {
			continue
		}
		before := stages[i-1]
		if first := stages[0].Count; first > 0 {
			s.Share = fmt.Sprintf("%.0f %% of new guests", 100*float64(s.Count)/float64(first))
		}
		left, right := before.X+before.W, s.X
		bend := (left + right) / 2
		f.Joins = append(f.Joins, fmt.Sprintf("M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1fV%.1fC%.1f %.1f %.1f %.1f %.1f %.1fZ",
			left, before.Y, bend, before.Y, bend, s.Y, right, s.Y,
			s.Y+s.H, bend, s.Y+s.H, bend, before.Y+before.H, left, before.Y+before.H))
	}
	f.Width = int(float64(len(stages))*(blockWidth+joinWidth) - joinWidth)
	return f
}

// A bar lies, with its name on the left and its count at its end.
type bar struct {
	ID, Name string
	Count    int64
	Bad      bool
	Y, W     float64
}

const longestBar = 170.

func drawBars(bars ...bar) []bar {
	most := max(1, slices.MaxFunc(bars, func(a, b bar) int { return int(a.Count - b.Count) }).Count)
	for i := range bars {
		bars[i].Y = float64(i) * 34
		bars[i].W = max(2, longestBar*float64(bars[i].Count)/float64(most))
	}
	return bars
}

var adminView = template.Must(template.New("admin.html").Funcs(template.FuncMap{
	"asset": asset,
	"add":   func(a, b float64) float64 { return a + b },
}).ParseFS(templateFiles, "templates/admin.html", "templates/icons.html"))

// showAdmin is outside the guests' middleware: who looks at the counts is not counted.
func (s *shop) showAdmin(w http.ResponseWriter, r *http.Request) {
	var b bytes.Buffer
	if err := adminView.Execute(&b, s.tally.dashboard()); err != nil {
		fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Refresh", "3")
	b.WriteTo(w)
}
