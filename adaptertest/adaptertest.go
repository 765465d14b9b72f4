// Package adaptertest runs one suite of HTTP scenarios with any way to mount the guest middleware
// in front of an app. An adapter's test is:
//
//	adaptertest.Run(t, adaptertest.Mount{
//		Name: "Gin",
//		App: func(m *guest.Manager) http.Handler { ... },
//	})
//
// Each scenario is served three times over TCP, on HTTP/1.1 and on HTTP/2: by the app without the
// middleware, and with it for a new and for a known visitor. Status, body, headers and the
// abilities of the writer must be the same as without. A new visitor gets exactly one cookie if one
// is due, otherwise none; a known visitor gets none.
package adaptertest

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// A Mount is an app with the routes of [Routes], behind one way of mounting the middleware. It
// recovers from panics with status 500 outside the middleware, and for the path /panic/inside also
// inside it.
type Mount struct {
	Name string // in the first column of the table
	How  string // the line of code that mounts it, for the table

	// App returns the app behind the middleware of m, or without it if m is nil.
	App func(m *guest.Manager) http.Handler

	// Serve serves the app on HTTP/1.1 until it is stopped, if it is not an http.Handler. App is
	// then nil.
	Serve func(m *guest.Manager, ln net.Listener) (stop func())

	// Lacks says which scenarios the framework itself cannot play, and why.
	Lacks map[string]string

	// Cookie is the prefix of the names of the visitor's cookies, for other middleware; "":
	// "guest".
	Cookie string
}

// Cart is the app's data.
var Cart = guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))

// A Result is the result of one scenario.
type Result struct {
	Scenario string
	HTTP2    bool
	Faults   []string // none if it passed
	Lacking  string   // why it was not played
}

// Run plays all scenarios as subtests, and returns the results.
func Run(t *testing.T, mount Mount) (results []Result) {
	for _, http2 := range mount.protocols() {
		name := "HTTP/1.1"
		if http2 {
			name = "HTTP/2"
		}
		t.Run(name, func(t *testing.T) {
			p := mount.start(http2)
			defer p.stop()
			for _, s := range scenarios {
				if s.http1 && http2 {
					continue
				}
				t.Run(s.name, func(t *testing.T) {
					r := p.play(t.Context(), s)
					results = append(results, r)
					if r.Lacking != "" {
						t.Skip(r.Lacking)
					}
					for _, fault := range r.Faults {
						t.Error(fault)
					}
				})
			}
		})
	}
	return results
}

// Play plays all scenarios outside a test, for reports.
func Play(ctx context.Context, mount Mount) (results []Result) {
	for _, http2 := range mount.protocols() {
		p := mount.start(http2)
		for _, s := range scenarios {
			if !s.http1 || !http2 {
				results = append(results, p.play(ctx, s))
			}
		}
		p.stop()
	}
	return results
}

func (mount Mount) protocols() []bool {
	if mount.App == nil {
		return []bool{false}
	}
	return []bool{false, true}
}

// A play serves the app on two servers: with the middleware and without.
type play struct {
	mount   Mount
	http2   bool
	config  guest.Config
	guests  *guest.Manager
	with    server
	without server
}

type server struct {
	url       string
	transport http.RoundTripper
	stop      func()
}

func (mount Mount) start(http2 bool) *play {
	if mount.Cookie == "" {
		mount.Cookie = "guest"
	}
	config := guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("the conformance suite's, 32 bytes")},
		Data:    []guest.Kind{Cart},
		Cookie:  guest.Cookie{Insecure: true},
	}
	m, err := guest.New(config)
	if err != nil {
		panic(err) // the Config is ours
	}
	return &play{mount: mount, http2: http2, config: config, guests: m, with: mount.serve(m, http2),
		without: mount.serve(nil, http2)}
}

func (mount Mount) serve(m *guest.Manager, http2 bool) server {
	if mount.App == nil {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		client, stop := &http.Transport{}, mount.Serve(m, ln)
		return server{"http://" + ln.Addr().String(), client, func() {
			client.CloseIdleConnections() // some servers wait for them
			stop()
		}}
	}
	s := httptest.NewUnstartedServer(mount.App(m))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // panics that are not recovered
	s.EnableHTTP2 = http2
	if !http2 {
		s.TLS = &tls.Config{NextProtos: []string{"http/1.1"}}
	}
	s.StartTLS()
	return server{s.URL, s.Client().Transport, s.Close}
}

func (p *play) stop() {
	p.with.stop()
	p.without.stop()
}

// eventLimit is how long to wait for an event that should happen at once.
const eventLimit = 10 * time.Second

func (p *play) play(ctx context.Context, s scenario) Result {
	r := Result{Scenario: s.name, HTTP2: p.http2, Lacking: p.mount.Lacks[s.name]}
	if r.Lacking != "" {
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, eventLimit)
	defer cancel()
	fault := func(format string, args ...any) {
		r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
	}
	if s.act != nil {
		s.act(ctx, p, fault)
	} else {
		p.compare(ctx, s, fault)
	}
	return r
}

// A browser is a client of one server, with a cookie jar.
type browser struct {
	server
	*http.Client
}

func (s server) browser() browser {
	jar, _ := cookiejar.New(nil) // the error is always nil
	return browser{s, &http.Client{
		Jar:       jar,
		Transport: s.transport,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}}
}

// known returns the browser of a visitor whose cookie has come back.
func (s server) known(ctx context.Context) browser {
	b := s.browser()
	for range 3 {
		b.do(ctx, "GET", "/whoami")
	}
	return b
}

// An answer is a response as a client sees it.
type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

func (b browser) do(ctx context.Context, method, path string, header ...string) (a answer) {
	req, err := http.NewRequestWithContext(ctx, method, b.url+path, nil)
	if err != nil {
		return answer{err: err}
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := b.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(body), err}
}

// sets returns the Set-Cookie lines that give the visitor a cookie.
func (p *play) sets(header http.Header) (lines []string) {
	for _, line := range header["Set-Cookie"] {
		c, err := http.ParseSetCookie(line)
		if err == nil && strings.HasPrefix(c.Name, p.mount.Cookie) && c.MaxAge >= 0 &&
			c.Value != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// InTable checks that the table between two marks in a Markdown file has this mount's row with
// these results. With UPDATE=1 in the environment it writes the row.
func InTable(t *testing.T, file string, mount Mount, results []Result) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	row := mount.row(results)
	if strings.Contains(string(text), row) {
		return
	}
	if os.Getenv("UPDATE") == "" {
		t.Errorf("%s does not have this row; run the test with UPDATE=1:\n%s", file, row)
		return
	}
	before, rest, ok1 := strings.Cut(string(text), "<!-- mounts -->\n")
	table, after, ok2 := strings.Cut(rest, "<!-- /mounts -->")
	if !ok1 || !ok2 {
		t.Fatalf("%s has no marks <!-- mounts --> and <!-- /mounts -->", file)
	}
	var old string
	for line := range strings.Lines(table) {
		if strings.HasPrefix(line, "| "+mount.Name+" |") {
			old = line
		}
	}
	if old == "" {
		table += row
	} else {
		table = strings.Replace(table, old, row, 1)
	}
	out := before + "<!-- mounts -->\n" + table + "<!-- /mounts -->" + after
	if err := os.WriteFile(file, []byte(out), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (mount Mount) row(results []Result) string {
	var played, passed [2]int
	var lacks []string
	for _, r := range results {
		i := 0
		if r.HTTP2 {
			i = 1
		}
		if r.Lacking != "" {
			if i == 0 {
				lacks = append(lacks, r.Scenario+": "+r.Lacking)
			}
			continue
		}
		played[i]++
		if len(r.Faults) == 0 {
			passed[i]++
		}
	}
	cell := func(i int) string {
		if played[i] == 0 {
			return "–"
		}
		return fmt.Sprintf("%d of %d", passed[i], played[i])
	}
	return fmt.Sprintf("| %s | `%s` | %s | %s | %s |\n", mount.Name, mount.How, cell(0), cell(1), strings.Join(lacks, "; "))
}
