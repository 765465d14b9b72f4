package outages

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/redisstore"
)

var (
	theme = guest.NewValue("theme", guest.PreferAccount[string])
	cart  = guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))
)

// A site is an app that keeps a theme and a cart, and serves pages even if they cannot be read or
// written.
type site struct {
	t         testing.TB
	url       string
	transport *http.Transport // of all visitors, with a connection for each

	mu   sync.Mutex
	seen map[string]int // errors of the store, without addresses
}

var address = regexp.MustCompile(`\d+\.\d+\.\d+\.\d+:\d+`)

func (s *site) see(err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[address.ReplaceAllString(err.Error(), "…")]++
}

// errors lists what an operator would see in Hooks.StoreCall.
func (s *site) errors() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for text, n := range s.seen {
		lines = append(lines, fmt.Sprintf("%6d × %s", n, text))
	}
	slices.Sort(lines)
	slices.Reverse(lines)
	return strings.Join(lines, "\n")
}

func newSite(t testing.TB, store guest.Store) *site {
	s := &site{t: t, seen: map[string]int{},
		transport: &http.Transport{MaxIdleConnsPerHost: 10_000}}
	guests, err := guest.New(guest.Config{
		Store:   store,
		Secrets: [][]byte{[]byte("a secret of the tests, 32 bytes+")},
		Data:    []guest.Kind{theme, cart},
		Cookie:  guest.Cookie{Insecure: true},
		Quota:   guest.Quota{Fields: 1000, Bytes: 1 << 20},
		Hooks: guest.Hooks{StoreCall: func(ctx context.Context, op string, d time.Duration, err error) {
			s.see(err)
			if calls, ok := ctx.Value(callsKey{}).(*calls); ok {
				calls.add(call{Op: op, Took: d, Outcome: outcomeOf(err)})
			}
		}},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		p := page{GuestID: guest.FromContext(r.Context()).GuestID()}
		var err error
		p.Theme, err = theme.Get(r.Context())
		p.Read = outcomeOf(err)
		_, err = cart.Add(r.Context(), "fern", 1)
		p.Added = outcomeOf(err)
		p.Calls = r.Context().Value(callsKey{}).(*calls).all()
		json.NewEncoder(w).Encode(p)
	})
	mux.HandleFunc("GET /cart", func(w http.ResponseWriter, r *http.Request) {
		n, err := cart.Get(r.Context(), "fern")
		json.NewEncoder(w).Encode(page{Amount: n, Read: outcomeOf(err)})
	})
	mux.HandleFunc("POST /theme", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(
			page{Added: outcomeOf(theme.Set(r.Context(), r.FormValue("theme")))})
	})
	handler := guests.Middleware(mux)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callsKey{}, &calls{})))
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(s.transport.CloseIdleConnections)
	s.url = srv.URL
	return s
}

// A page is a response of the site.
type page struct {
	GuestID string
	Theme   string
	Read    outcome
	Added   outcome
	Amount  int64
	Calls   []call // of the store

	took time.Duration
}

func (p page) whole() bool { return p.Read == done && p.Added == done }

// open reports whether no command was sent because the breaker was open.
func (p page) open() bool {
	for _, c := range p.Calls {
		if c.Outcome != notSent {
			return false
		}
	}
	return len(p.Calls) > 0
}

// failedCalls counts the failed calls that were sent, or that the store tried to send.
func (p page) failedCalls() (n int) {
	for _, c := range p.Calls {
		if c.Outcome != notSent && c.Outcome != done {
			n++
		}
	}
	return n
}

// A call is one call of the store.
type call struct {
	Op      string
	Took    time.Duration
	Outcome outcome
}

type callsKey struct{}

// calls are the store calls of one request.
type calls struct {
	mu   sync.Mutex
	list []call
}

func (c *calls) add(one call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, one)
}

func (c *calls) all() []call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.list
}

type outcome string

const (
	done      outcome = ""
	notSent   outcome = "not sent"    // the breaker is open
	uncertain outcome = "uncertain"   // applied once or not at all
	refused   outcome = "unavailable" // no record has changed
)

func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return done
	case errors.Is(err, redisstore.ErrCircuitOpen):
		return notSent
	case errors.Is(err, guest.ErrUncertain):
		return uncertain
	case errors.Is(err, guest.ErrUnavailable):
		return refused
	}
	return outcome(err.Error()) // an error that an outage must not cause
}

// A visitor is a browser: it keeps its cookies, and what pages have acknowledged.
type visitor struct {
	site   *site
	client *http.Client
	theme  string
	known  bool // its cookie has come back: no response has a reason to set another
	id     string

	mu               sync.Mutex
	acked, uncertain int64
}

func (s *site) newVisitor() *visitor {
	jar, _ := cookiejar.New(nil)
	return &visitor{site: s,
		client: &http.Client{Transport: s.transport, Jar: jar, Timeout: time.Minute}}
}

// fetch fetches a page, which must arrive complete, with status 200, and without a cookie if the
// visitor is known.
func (v *visitor) fetch(method, path string, form url.Values) (p page) {
	v.site.t.Helper()
	start := time.Now()
	var res *http.Response
	var err error
	if method == "POST" {
		res, err = v.client.PostForm(v.site.url+path, form)
	} else {
		res, err = v.client.Get(v.site.url + path)
	}
	if err != nil {
		v.site.t.Fatalf("%s: %v", path, err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil || res.StatusCode != http.StatusOK {
		v.site.t.Fatalf("%s: status %d, %v", path, res.StatusCode, err)
	}
	p.took = time.Since(start)
	if set := res.Header.Values("Set-Cookie"); v.known && len(set) > 0 {
		v.site.t.Errorf("%s replaces a cookie: %q", path, set)
	}
	return p
}

// visit fetches the page that reads the theme and adds to the cart.
func (v *visitor) visit() page {
	v.site.t.Helper()
	p := v.fetch("GET", "/", nil)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.id == "" {
		v.id = p.GuestID
	}
	if p.GuestID != v.id || p.GuestID == "" {
		v.site.t.Errorf("the visitor was guest %q and is %q", v.id, p.GuestID)
	}
	if p.Read == done && p.Theme != v.theme {
		v.site.t.Errorf("the theme is %q, not %q", p.Theme, v.theme)
	}
	for _, o := range []outcome{p.Read, p.Added} {
		switch o {
		case done, notSent, uncertain, refused:
		default:
			v.site.t.Errorf("the page says: %s", o)
		}
	}
	switch p.Added {
	case done:
		v.acked++
	case uncertain:
		v.uncertain++
	}
	return p
}

// settle makes the visitor known, with a theme of its own, before anything goes wrong.
func (v *visitor) settle(name string) {
	v.site.t.Helper()
	eventually(v.site.t, "a calm site", func() bool { return v.visit().whole() })
	eventually(v.site.t, "the cookie comes back", func() bool {
		p := v.visit()
		return p.whole() && len(p.Calls) == 2
	})
	eventually(v.site.t, "a theme", func() bool {
		return v.fetch("POST", "/theme", url.Values{"theme": {name}}).Added == done
	})
	v.theme, v.known = name, true
}

// verify compares what the store holds with what was acknowledged.
func (v *visitor) verify() {
	v.site.t.Helper()
	var p page
	eventually(v.site.t, "the cart", func() bool {
		p = v.fetch("GET", "/cart", nil)
		return p.Read == done
	})
	if p.Amount < v.acked || p.Amount > v.acked+v.uncertain {
		v.site.t.Errorf("the cart holds %d; %d additions were acknowledged, %d uncertain", p.Amount,
			v.acked, v.uncertain)
	}
	// checks theme and guest
	eventually(v.site.t, "a whole page", func() bool { return v.visit().whole() })
}

// eventually polls until f holds.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !f(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("not in time: ", what)
		}
	}
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }
