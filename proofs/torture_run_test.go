package proofs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/guestkit/guest"
)

var (
	basket = guest.NewCounters("basket", guest.EachItem(guest.Sum[int64]))
	choice = guest.NewValue("choice", guest.PreferGuest[string])
)

// A torture is one run: browsers that write to their guests while these are claimed, over a bad
// network.
type torture struct {
	t       testing.TB
	seed    uint64
	net     *network
	backend backend
	mutate  func(key string, u *guest.Update)
	procs   []*process
	clock   atomic.Int64 // orders the writes
	acked   atomic.Int64

	mu        sync.Mutex
	rnd       *rand.Rand // of the hook
	browsers  []*browser
	hooked    map[string]guest.Receipt // by ID: what OnClaim was called with
	moved     map[string]bool          // by ID: OnClaim has succeeded
	broken    []string                 // broken promises that were seen during the run
	recovered int
	orphans   int // acknowledged late writes whose cookie the tab lost to a later response
}

func (r *torture) violation(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = append(r.broken, fmt.Sprintf(format, args...))
}

// A process is one process of the app.
type process struct {
	guests  *guest.Manager
	store   guest.Store
	handler http.Handler
}

type pageKey struct{}

func (r *torture) process(store guest.Store) *process {
	if r.mutate != nil {
		store = &mutant{store, r.mutate}
	}
	guests, err := guest.New(guest.Config{
		Store:        store,
		Secrets:      [][]byte{[]byte("a secret of the tests, 32 bytes+")},
		Data:         []guest.Kind{basket, choice},
		Account:      func(req *http.Request) string { return req.Header.Get("User") },
		OnClaim:      r.onClaim,
		Cookie:       guest.Cookie{Insecure: true},
		Quota:        guest.Quota{Fields: 10_000, Bytes: 1 << 20},
		ClaimTimeout: 10 * time.Second,
		Logger:       slog.New(slog.DiscardHandler),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	page := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		req.Context().Value(pageKey{}).(http.HandlerFunc)(w, req)
	})
	return &process{guests, store, guests.Middleware(page)}
}

// serve serves one request and returns the cookies of the response.
func (p *process) serve(method, cookies, user string, page http.HandlerFunc) []*http.Cookie {
	req := httptest.NewRequest(method, "/", nil)
	req = req.WithContext(context.WithValue(req.Context(), pageKey{}, page))
	req.Header.Set("Cookie", cookies)
	req.Header.Set("User", user)
	rec := httptest.NewRecorder()
	p.handler.ServeHTTP(rec, req)
	return rec.Result().Cookies()
}

// answers waits until the store answers.
func (p *process) answers(ctx context.Context) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := p.store.Get(ctx, "o:0"); err == nil || ctx.Err() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

var errHook = errors.New("the app's database is away")

func (r *torture) onClaim(_ context.Context, receipt guest.Receipt) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if first, again := r.hooked[receipt.ID]; again && fmt.Sprint(first) != fmt.Sprint(receipt) {
		r.broken = append(r.broken, fmt.Sprintf("OnClaim was called with %+v, then with %+v", first,
			receipt))
	}
	r.hooked[receipt.ID] = receipt
	if r.rnd.IntN(10) == 0 {
		return errHook
	}
	r.moved[receipt.ID] = true
	return nil
}

// A jar has a browser's cookies.
type jar struct {
	mu      sync.Mutex
	cookies map[string]string
}

func (j *jar) header() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return cookieHeader(j.cookies)
}

func cookieHeader(cookies map[string]string) string {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(cookies)) {
		pairs = append(pairs, name+"="+cookies[name])
	}
	return strings.Join(pairs, "; ")
}

func (j *jar) take(cookies []*http.Cookie) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range cookies {
		if c.MaxAge < 0 {
			delete(j.cookies, c.Name)
		} else {
			j.cookies[c.Name] = c.Value
		}
	}
}

// given are the cookies that a response sets.
func given(cookies []*http.Cookie) string {
	set := map[string]string{}
	for _, c := range cookies {
		if c.MaxAge >= 0 {
			set[c.Name] = c.Value
		}
	}
	return cookieHeader(set)
}

type result int

const (
	refused result = iota
	acked
	uncertain
)

// A write is one call of a data method.
type write struct {
	tab        int
	item       string // of basket; "": it sets choice
	value      string // of choice
	begin, end int64
	result     result
	err        error
	landed     string // key of the record that it was sent to
}

func (w *write) String() string {
	what := "adds " + w.item
	if w.item == "" {
		what = "chooses " + w.value
	}
	return fmt.Sprintf("tab %d %s at %d-%d in %s: %v (%v)", w.tab, what, w.begin, w.end, w.landed,
		[...]string{"refused", "acknowledged", "uncertain"}[w.result], w.err)
}

// A claiming is one call of Claim.
type claiming struct {
	account string
	receipt guest.Receipt
	err     error
	died    bool // during the claim, or right after
}

// A browser begins with one guest, which is claimed while two tabs write.
type browser struct {
	r        *torture
	n        int
	origin   string // key of that guest
	old      string // its cookies
	account  string // A
	other    string // B
	jars     [2]*jar
	follow   bool // its second tab is signed in once its first claim is done
	signedIn atomic.Bool

	mu     sync.Mutex
	writes []*write
	claims []claiming
	given  map[string]string // the cookies of each guest that it was ever given
	left   [2]string         // what its jars hold in the end
	due    map[int][]string  // who claims after how many writes
	done   int               // writes
	wg     sync.WaitGroup    // claims
}

const (
	writesOfTab = 12
	tabs        = 2
)

func (r *torture) pick(rnd *rand.Rand) *process { return r.procs[rnd.IntN(len(r.procs))] }

// browse runs one browser.
func (r *torture) browse(ctx context.Context, n int) {
	rnd := rand.New(rand.NewPCG(r.seed, uint64(n)))
	b := &browser{r: r, n: n, follow: rnd.IntN(3) == 0, given: map[string]string{},
		due: map[int][]string{}}
	b.account, b.other = fmt.Sprint("A", n), fmt.Sprint("B", n)
	if n/3%2 == 0 {
		b.account = fmt.Sprint("A", n/3*3) // one user with three devices
	}
	r.mu.Lock()
	r.browsers = append(r.browsers, b)
	r.mu.Unlock()
	if rnd.IntN(10) > 0 {
		for _, account := range []string{b.account, b.account, b.other} {
			at := 2 + rnd.IntN(tabs*writesOfTab) // the first write creates the guest
			b.due[at] = append(b.due[at], account)
		}
	}

	b.jars[0] = &jar{cookies: map[string]string{}}
	b.write(ctx, rnd, 0, "")
	b.jars[1] = b.jars[0]
	p := r.pick(rnd)
	b.jars[0].take(p.serve("GET", b.jars[0].header(), "",
		func(http.ResponseWriter, *http.Request) {}))
	b.old = b.jars[0].header()
	if rnd.IntN(2) == 0 {
		b.jars[1] = &jar{cookies: maps.Clone(b.jars[0].cookies)}
	}

	var wg sync.WaitGroup
	for tab := range tabs {
		rnd := rand.New(rand.NewPCG(r.seed+1+uint64(tab), uint64(n)))
		wg.Go(func() {
			for range writesOfTab {
				if ctx.Err() != nil {
					return
				}
				user := ""
				if tab == 1 && b.follow && b.signedIn.Load() {
					user = b.account
				}
				b.write(ctx, rnd, tab, user)
			}
		})
	}
	wg.Go(func() { // another device of the account's owner
		rnd := rand.New(rand.NewPCG(r.seed+3, uint64(n)))
		for range writesOfTab / 3 {
			b.deviceWrites(ctx, rnd)
		}
	})
	wg.Wait()
	b.wg.Wait()
	b.left = [2]string{b.jars[0].header(), b.jars[1].header()}
}

// plan chooses what a write writes.
func (b *browser) plan(rnd *rand.Rand, tab int) *write {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := &write{tab: tab}
	name := fmt.Sprintf("%d.%d.%d", b.n, tab, len(b.writes))
	switch x := rnd.IntN(10); {
	case x < 6:
		w.item = name
	case x < 8:
		w.item = "common." + b.account
	default:
		w.value = name
	}
	b.writes = append(b.writes, w)
	return w
}

func (w *write) do(ctx context.Context, r *torture) {
	w.begin = r.clock.Add(1)
	if w.item != "" {
		_, w.err = basket.Add(ctx, w.item, 1)
	} else {
		w.err = choice.Set(ctx, w.value)
	}
	w.end = r.clock.Add(1)
	switch {
	case w.err == nil:
		w.result = acked
		r.acked.Add(1)
	case errors.Is(w.err, guest.ErrUncertain):
		w.result = uncertain
		w.end = math.MaxInt64 // it may still be on its way
	case errors.Is(w.err, guest.ErrUnavailable), errors.Is(w.err, guest.ErrClaimed):
	default:
		r.violation("a write fails with %v", w.err)
	}
}

func (b *browser) write(ctx context.Context, rnd *rand.Rand, tab int, user string) {
	w := b.plan(rnd, tab)
	p := b.r.pick(rnd)
	method, stream := "POST", false
	switch rnd.IntN(20) {
	case 0:
		method = "GET"
	case 1:
		stream = true
	}
	jar := b.jars[tab]
	cookies := p.serve(method, jar.header(), user,
		func(res http.ResponseWriter, req *http.Request) {
			if stream {
				res.(http.Flusher).Flush()
			}
			w.do(req.Context(), b.r)
			v := guest.FromContext(req.Context())
			if account, id := v.AccountID(), v.GuestID(); account != "" {
				w.landed = accountKey(account)
			} else if id != "" {
				w.landed = "g:" + id
			}
		})
	jar.take(cookies)

	b.mu.Lock()
	if b.origin == "" {
		b.origin = w.landed
	}
	if set := given(cookies); set != "" {
		b.given[w.landed] = set
	}
	if w.result == acked && strings.HasPrefix(w.landed, "g:") && b.given[w.landed] == "" {
		b.r.violation("the browser has no cookie of the guest that it wrote to: %v", w)
	}
	b.done++
	due := b.due[b.done]
	b.mu.Unlock()
	for _, account := range due {
		rnd := rand.New(rand.NewPCG(rnd.Uint64(), 0))
		b.wg.Go(func() { b.claim(rnd, account) })
	}
	if errors.Is(w.err, guest.ErrUnavailable) {
		p.answers(ctx)
	}
}

func (b *browser) deviceWrites(ctx context.Context, rnd *rand.Rand) {
	w := b.plan(rnd, tabs)
	p := b.r.pick(rnd)
	w.do(p.guests.As(ctx, b.account), b.r)
	w.landed = accountKey(b.account)
	if errors.Is(w.err, guest.ErrUnavailable) {
		p.answers(ctx)
	}
}

// dying returns a process that stops within its next few store calls.
func (r *torture) dying(rnd *rand.Rand) *process {
	m := &mortal{Store: r.pick(rnd).store, arrives: rnd.IntN(2) == 0}
	m.calls.Store(1 + rnd.Int64N(10))
	return r.process(m)
}

// claim signs in with the old cookie. A third of the processes stop during it.
func (b *browser) claim(rnd *rand.Rand, account string) {
	c := claiming{account: account}
	p := b.r.pick(rnd)
	if rnd.IntN(3) == 0 {
		c.died = true
		p = b.r.dying(rnd)
	}
	cookies := p.serve("POST", b.old, "", func(res http.ResponseWriter, req *http.Request) {
		c.receipt, c.err = p.guests.Claim(res, req, account)
	})
	if c.err == nil && account == b.account {
		b.signedIn.Store(true)
	}
	if rnd.IntN(2) == 0 { // this very browser
		b.jars[0].take(cookies)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.claims = append(b.claims, c)
}

// storm runs browsers until this many writes are acknowledged.
func (r *torture) storm(ctx context.Context, target int) {
	var wg sync.WaitGroup
	var n atomic.Int64
	for range 8 {
		wg.Go(func() {
			for r.acked.Load() < int64(target) && ctx.Err() == nil {
				r.browse(ctx, int(n.Add(1)-1))
			}
		})
	}
	over, stop := context.WithCancel(ctx)
	var meanwhile sync.WaitGroup
	if r.backend.disturb != nil {
		meanwhile.Go(func() {
			done := r.backend.disturb(over, r)
			r.t.Logf("%d %s", done, r.backend.what)
		})
	}
	meanwhile.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for over.Err() == nil {
			n, _ := r.procs[0].guests.Recover(over)
			r.recovered += n
			select {
			case <-tick.C:
			case <-over.Done():
			}
		}
	})
	wg.Wait()
	stop()
	meanwhile.Wait()
}

// recover finishes the claims that are left, when the network loses nothing any more.
func (r *torture) recover(ctx context.Context) {
	p := r.process(r.backend.clean)
	p.answers(ctx)
	var err error
	for range 100 { // OnClaim fails sometimes
		var n int
		n, err = p.guests.Recover(ctx)
		r.recovered += n
		if n == 0 && err == nil {
			// Only outbox entries of claims that froze no guest are left. They are removed after
			// ten minutes.
			if _, err = r.process(
				&later{r.backend.clean, 11 * time.Minute}).guests.Recover(ctx); err != nil {
				r.violation("Recover: %v", err)
			}
			return
		}
	}
	r.violation("Recover does not come to an end: %v", err)
}

func newTorture(t testing.TB, seed uint64, loss float64, open func(testing.TB, *network) backend,
	mutate func(string, *guest.Update)) *torture {
	r := &torture{
		t: t, seed: seed, net: newNetwork(seed, loss), mutate: mutate,
		rnd:    rand.New(rand.NewPCG(seed, 0)),
		hooked: map[string]guest.Receipt{}, moved: map[string]bool{},
	}
	r.backend = open(t, r.net)
	for range 3 {
		r.procs = append(r.procs, r.process(r.backend.store()))
	}
	return r
}

// run runs a torture and returns the broken promises.
func run(t testing.TB, seed uint64, target int, loss float64, limit time.Duration,
	open func(testing.TB, *network) backend, mutate func(string, *guest.Update)) []string {
	start := time.Now()
	r := newTorture(t, seed, loss, open, mutate)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	r.storm(ctx, target)
	if ctx.Err() != nil {
		t.Errorf("seed %d: only %d of %d writes within %v", seed, r.acked.Load(), target, limit)
	}
	r.net.calmDown()
	r.recover(t.Context())
	r.check(t.Context())
	t.Logf("seed %d, %v; %v: %v", seed, r.net, time.Since(start).Round(time.Millisecond), r)
	return r.broken
}
