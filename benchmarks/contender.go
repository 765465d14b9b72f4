package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// A Contender keeps data for visitors in its own way.
type Contender struct {
	Name  string
	Setup string // how it is set up, in one line
	Open  func(redisAddr string) (App, error)
	// Holds reports whether it can do this work; nil: all that every contender can do.
	Holds func(Work, Record) bool
}

func (c Contender) holds(w Work, r Record) bool { return c.Holds == nil || c.Holds(w, r) }

// The contenders: the floors, ours, and the other libraries.
var contenders = []Contender{
	bare, limit, limitRueidis,
	guestRedis, guestAuto, guestMemory,
	scsRedis, scsMemory, gorillaRedis, gorillaCookie, ginRedis, fiberRedis,
}

// A Work is what a request does: the path that an App serves for it.
type Work string

const (
	Visit Work = "/visit" // a first visit, nothing saved
	First Work = "/first" // a first visit, 100 B saved
	Many  Work = "/many"  // a first visit, 20 items put into a cart
	None  Work = "/none"  // a known visitor, data untouched
	ID    Work = "/id"    // responds with the visitor's ID
	Read  Work = "/read"  // responds with the 100 B that First saved
	Add   Work = "/add"   // adds 1 to a cart, responds with the amount
	Blob  Work = "/blob"  // saves 32 KiB more: the large record
)

// measured are the works of the tables; Blob only prepares.
var measured = []Work{Visit, First, Many, None, ID, Read, Add}

func (w Work) title() string {
	return map[Work]string{
		Visit: "First visit, nothing saved",
		First: "First visit, 100 B saved",
		Many:  "First visit, 20 items put into a cart",
		None:  "Known visitor, data untouched",
		ID:    "Known visitor, only the ID",
		Read:  "Read one key of 100 B",
		Add:   "Add 1 to a cart",
	}[w]
}

// known reports whether the work is that of a returning visitor with a record.
func (w Work) known() bool { return w != Visit && w != First && w != Many }

func (w Work) method() string {
	if w == Add || w == First || w == Many || w == Blob {
		return http.MethodPost
	}
	return http.MethodGet
}

// A Record is how much a known visitor's record holds: 100 B under one key, or 32 KiB more under
// another.
type Record string

const (
	Small Record = "100 B"
	Large Record = "32 KiB"
)

func (w Work) records() []Record {
	if w.known() {
		return []Record{Small, Large}
	}
	return []Record{Small}
}

var (
	theme = strings.Repeat("t", 100)
	blob  = strings.Repeat("b", 32<<10)

	// The 20 items of Many, and how many of each.
	items = map[string]int64{"tea": 1}
)

func init() {
	for i := range 19 {
		items[fmt.Sprint("item-", i)] = 1
	}
}

const cookieLife = 30 * 24 * time.Hour

// 20 is go-redis's default on two processors.
var poolSize = flag.Int("pool-size", 20, "connections to Redis that a contender may have")

var secret = []byte("a secret of the benchmarks, 32 B")

// An App serves the works of one contender.
type App interface {
	Site
	// Serve serves over TCP until the listener is closed.
	Serve(net.Listener) error
	Close()
}

// A Site answers requests: an App in this process, or another process over a connection.
type Site interface {
	// Prepare returns a request to serve any number of times, one after the other.
	Prepare(w Work, query, cookies string) Call
}

// A Call is a request that can be served again and again.
type Call interface {
	// Do serves it. Its result is valid until the next Do.
	Do() (status int, setCookies []string, body []byte)
}

// pages is the App of a contender on net/http: the handlers by path, inside the contender's
// middleware.
type pages struct {
	http.Handler
	close func()
}

// routes serves a path by its handler, at the cost of one look-up.
type routes map[Work]http.HandlerFunc

func (t routes) ServeHTTP(w http.ResponseWriter, r *http.Request) { t[Work(r.URL.Path)](w, r) }

func (p pages) Close() { p.close() }

func (p pages) Serve(l net.Listener) error { return http.Serve(l, p.Handler) }

// clientIsThere can be cancelled, as the context of net/http's requests can; contexts that cannot
// are cheaper.
var clientIsThere, _ = context.WithCancel(context.Background())

func (p pages) Prepare(w Work, query, cookies string) Call {
	c := &pageCall{handler: p.Handler, base: *(&http.Request{
		Method: w.method(), URL: &url.URL{Path: string(w), RawQuery: query}, Host: "shop.example",
		RemoteAddr: "192.0.2.1:1234",
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
		Body: http.NoBody,
	}).WithContext(clientIsThere), header: http.Header{}}
	if cookies != "" {
		c.base.Header.Set("Cookie", cookies)
	}
	return c
}

// pageCall is a request to a net/http handler, and its http.ResponseWriter. It allocates nothing of
// its own.
type pageCall struct {
	handler   http.Handler
	base, req http.Request
	header    http.Header
	status    int
	body      bytes.Buffer
}

func (c *pageCall) Do() (int, []string, []byte) {
	clear(c.header)
	c.body.Reset()
	c.status = http.StatusOK
	c.req = c.base // gorilla/sessions leaves its context in the request
	c.handler.ServeHTTP(c, &c.req)
	return c.status, c.header["Set-Cookie"], c.body.Bytes()
}

func (c *pageCall) Header() http.Header         { return c.header }
func (c *pageCall) Write(b []byte) (int, error) { return c.body.Write(b) }

// as net/http's own
func (c *pageCall) WriteString(s string) (int, error) { return c.body.WriteString(s) }
func (c *pageCall) WriteHeader(status int)            { c.status = status }

// A browser is one visitor's cookies. It may send several requests at once, as tabs do.
type browser struct {
	mu      sync.Mutex
	cookies map[string]string
}

func (b *browser) header() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var pairs []string
	for name, value := range b.cookies {
		pairs = append(pairs, name+"="+value)
	}
	return strings.Join(pairs, "; ")
}

// visit sends a request and keeps the cookies of the answer.
func (b *browser) visit(site Site, w Work, query string) (string, error) {
	status, lines, body := site.Prepare(w, query, b.header()).Do()
	if status != http.StatusOK {
		return "", fmt.Errorf("%s: status %d: %s", w, status, body)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, line := range lines {
		c, err := http.ParseSetCookie(line)
		if err != nil {
			return "", err
		}
		if b.cookies == nil {
			b.cookies = map[string]string{}
		}
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c.Value
		}
	}
	return string(body), nil
}

// newKnown returns a visitor with a record whose cookie has come back.
func newKnown(site Site, r Record) (*browser, error) {
	b := &browser{}
	works := []Work{First, None, None}
	if r == Large {
		works = []Work{First, Blob, None}
	}
	for _, w := range works {
		if _, err := b.visit(site, w, ""); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// calls prepares the work for n visitors of an app.
func calls(app App, w Work, r Record, n int) ([]Call, error) {
	list := make([]Call, n)
	for i := range list {
		b := &browser{}
		if w.known() {
			var err error
			if b, err = newKnown(app, r); err != nil {
				return nil, err
			}
		}
		list[i] = app.Prepare(w, "", b.header())
		if status, _, body := list[i].Do(); status != http.StatusOK {
			return nil, fmt.Errorf("%s: status %d: %s", w, status, body)
		}
	}
	return list, nil
}
