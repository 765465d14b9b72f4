package guest_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

var (
	walkSeeds = flag.Int("walks", 40, "how many random walks TestWalk takes")
	walkSeed  = flag.Uint64("walk", 0, "the seed of the only walk, or of the first of -walks")
)

// Browsers with real jars send pages, additions, logins, logouts and Forget to two processes, several requests abreast
// and one within another, while the store fails before or after a step. Whatever happens:
//
//   - what was acknowledged to a person is found in the end, once: in the cart of that browser, or in an account that
//     was signed in at it;
//   - no page shows what another person put in, nor what an account took or Forget erased before;
//   - no request makes more than 64 calls of the store, a login twice as many;
//   - every browser ends with one cookie at most.
//
// A seed gives the same walk again: go test -run TestWalk -walk 17 -walks 1 .
func TestWalk(t *testing.T) {
	for i := range uint64(*walkSeeds) {
		seed := *walkSeed + i
		t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { newWalk(t, seed).run(150) }) })
	}
}

type walk struct {
	t         *testing.T
	rnd       *rand.Rand
	store     *spy
	processes []*walkProcess
	people    []*person // one for each browser
	items     map[string]*walkItem
	flaky     bool
	nested    int
	log       []string
	mixed     bool // one process is older, and sets its cookies in another scope
	seed      uint64
}

type walkProcess struct {
	*guest.Manager
	http.Handler
}

// person is somebody at a browser, and all who follow there.
type person struct {
	name string
	jar  http.CookieJar
	user string // signed in as
	to   string // signing in as
}

// walkItem is what was put into a cart: one of each name.
type walkItem struct {
	by        *person
	acked     bool
	owners    map[string]bool // accounts that may have it
	gone      bool            // an account took it, so no guest's page shows it
	forgotten bool            // or Forget erased it
	maybe     bool            // Forget failed, or what erased it was not told
}

var walkURL = mustParse("http://www.shop.test/")

func mustParse(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

func newWalk(t *testing.T, seed uint64) *walk {
	w := &walk{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), items: map[string]*walkItem{}}
	w.store = &spy{Store: memstore.New(memstore.Config{})} // Redis has another clock than the bubble
	for i := range 2 {
		w.processes = append(w.processes, w.process(seed, i == 0 && seed%2 == 1))
	}
	w.mixed, w.seed = seed%2 == 1, seed
	for i := range 3 {
		jar, _ := cookiejar.New(nil)
		w.people = append(w.people, &person{name: string('A' + rune(i)), jar: jar})
	}
	return w
}

func (w *walk) process(seed uint64, older bool) *walkProcess {
	c, former := guest.Cookie{Domain: "shop.test", Insecure: true}, []guest.Cookie{{}}
	if older {
		c, former = guest.Cookie{Insecure: true}, nil
	}
	m, err := guest.New(guest.Config{FormerCookies: former, Cookie: c, Create: guest.Create(seed / 2 % 2),
		Store: flakyStore{w.store, w}, Secrets: [][]byte{secret}, Data: []guest.Kind{Cart},
		Account: func(r *http.Request) string { return r.Header.Get("User") }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/page", func(rw http.ResponseWriter, r *http.Request) {
		cart, err := Cart.All(r.Context())
		answer(rw, cart, err)
	})
	mux.HandleFunc("/nothing", func(rw http.ResponseWriter, r *http.Request) {})
	mux.HandleFunc("POST /add/{item}", func(rw http.ResponseWriter, r *http.Request) {
		_, err := Cart.Add(r.Context(), r.PathValue("item"), 1)
		answer(rw, nil, err)
	})
	mux.HandleFunc("POST /login/{user}", func(rw http.ResponseWriter, r *http.Request) {
		receipt, err := m.Claim(rw, r, r.PathValue("user"))
		answer(rw, receipt, err)
	})
	mux.HandleFunc("POST /forget", func(rw http.ResponseWriter, r *http.Request) { answer(rw, nil, m.Forget(rw, r)) })
	return &walkProcess{m, m.Middleware(mux)}
}

func answer(rw http.ResponseWriter, what any, err error) {
	if err != nil {
		http.Error(rw, err.Error(), http.StatusServiceUnavailable)
		return
	}
	json.NewEncoder(rw).Encode(what)
}

// flakyStore fails now and then, before a step or after it; and while a step is under way, another request comes.
type flakyStore struct {
	guest.Store
	w *walk
}

func (s flakyStore) Get(ctx context.Context, key string, names ...string) (guest.Fields, error) {
	if s.w.between() {
		return nil, errors.New("no answer")
	}
	return s.Store.Get(ctx, key, names...)
}

func (s flakyStore) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	if s.w.between() {
		return guest.Result{}, errors.New("not sent")
	}
	res, err := s.Store.Update(ctx, key, u)
	if s.w.between() && err == nil {
		return guest.Result{}, fmt.Errorf("%w: the reply was lost", guest.ErrUncertain)
	}
	return res, err
}

// between tells whether the store fails here.
func (w *walk) between() bool {
	if !w.flaky {
		return false
	}
	if w.nested < 2 && w.rnd.IntN(12) == 0 {
		w.nested++
		w.step(true)
		w.nested--
	}
	return w.rnd.IntN(25) == 0
}

func (w *walk) run(steps int) {
	for i := range steps {
		w.flaky = w.rnd.IntN(4) > 0
		w.step(false)
		w.flaky = false
		time.Sleep(time.Millisecond << w.rnd.IntN(14))
		if i == 70 && w.mixed {
			w.mixed = false
			w.processes[0] = w.process(w.seed, false)
		}
		if i%50 == 49 && !w.mixed {
			w.quiet()
			time.Sleep(time.Duration(w.rnd.IntN(20*24)) * time.Hour)
		}
	}
	w.quiet()
}

// step is what one person does; within another request nothing that ends what that one is about.
func (w *walk) step(within bool) {
	p := w.people[w.rnd.IntN(len(w.people))]
	switch n := w.rnd.IntN(20); {
	case n < 6:
		w.abreast(p, 1)
	case n < 10:
		w.abreast(p, 2+w.rnd.IntN(4))
	case n == 10 && !within:
		w.abreast(p, 12)
	case n < 13 || within:
		w.take(p, w.page(p, w.cookies(p)))
	case n < 15:
		w.login(p, []string{"ann", "bob", "cat"}[w.rnd.IntN(3)])
	case n < 19:
		w.logout(p)
	default:
		w.forget(p)
	}
}

func (w *walk) cookies(p *person) []*http.Cookie { return p.jar.Cookies(walkURL) }

// take gives the browser the response's cookies. A few responses are lost.
func (w *walk) take(p *person, res *httptest.ResponseRecorder) bool {
	if w.flaky && w.rnd.IntN(20) == 0 {
		w.note("%s: lost", p.name)
		return false
	}
	p.jar.SetCookies(walkURL, res.Result().Cookies())
	return true
}

func (w *walk) note(format string, args ...any) {
	w.log = append(w.log, strings.Repeat("  ", w.nested)+fmt.Sprintf(format, args...))
}

func (w *walk) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\nthe walk:\n%s", fmt.Sprintf(format, args...), strings.Join(w.log[max(0, len(w.log)-60):], "\n"))
}

// send is one request of a person, who is signed in, to any of the processes.
func (w *walk) send(p *person, cookies []*http.Cookie, path, user string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", walkURL.String()+path, nil)
	var names []string
	for _, c := range cookies {
		r.AddCookie(c)
		names = append(names, c.Name)
	}
	r.Header.Set("User", user)
	for _, it := range w.items {
		if it.by == p && user != "" && !it.gone && !it.forgotten {
			it.owners[user] = true // a request that is signed in claims what it brings
		}
	}
	res := httptest.NewRecorder()
	process := w.rnd.IntN(2)
	calls := w.store.took(func() { w.processes[process].ServeHTTP(res, r) })
	w.note("%s: %s as %q at %d with %v: %d %.60q, sets %v", p.name, path, user, process, names, res.Code, res.Body, setNames(res))
	if calls > 128 && !w.flaky {
		w.fail("%d calls", calls)
	}
	return res
}

func setNames(res *httptest.ResponseRecorder) (names []string) {
	for _, c := range res.Result().Cookies() {
		if c.MaxAge < 0 {
			c.Name = "-" + c.Name
		}
		names = append(names, c.Name)
	}
	return names
}

// abreast adds n items at once: no request knows of another's response.
func (w *walk) abreast(p *person, n int) {
	cookies, user := w.cookies(p), p.user
	responses := map[*walkItem]*httptest.ResponseRecorder{}
	var order []*walkItem
	for range n {
		name := fmt.Sprint(p.name, len(w.items))
		it := &walkItem{by: p, owners: map[string]bool{}}
		w.items[name] = it
		it.owners[user], it.owners[p.to] = true, true
		responses[it] = w.send(p, cookies, "add/"+name, user)
		order = append(order, it)
		time.Sleep(time.Millisecond)
	}
	w.rnd.Shuffle(n, func(i, j int) { order[i], order[j] = order[j], order[i] })
	for _, it := range order {
		it.acked = w.take(p, responses[it]) && responses[it].Code == 200
	}
}

// page looks at the cart, and at who may see it.
func (w *walk) page(p *person, cookies []*http.Cookie) *httptest.ResponseRecorder {
	gone := map[string]bool{}
	for name, it := range w.items {
		gone[name] = it.gone || it.forgotten
	}
	user := p.user
	res := w.send(p, cookies, "page", user)
	for name := range cartOf(res) {
		it := w.items[name]
		if user != "" && !it.owners[user] || user == "" && (it.by != p || gone[name]) {
			w.fail("%s as %q sees %s", p.name, user, name)
		}
	}
	return res
}

func cartOf(res *httptest.ResponseRecorder) (cart map[string]int64) {
	json.Unmarshal(res.Body.Bytes(), &cart)
	return cart
}

func (w *walk) login(p *person, user string) {
	var mine []*walkItem
	for _, it := range w.items {
		if it.by != p || it.gone || it.forgotten {
			continue
		}
		it.owners[user] = true
		if it.acked {
			mine = append(mine, it)
		}
	}
	cookies := w.cookies(p)
	p.to = user
	res := w.send(p, cookies, "login/"+user, p.user)
	p.to = ""
	if res.Code == 200 && len(cookies) <= 8 {
		for _, it := range mine {
			it.gone = true
		}
	}
	if w.take(p, res) {
		p.user = user
	}
}

func (w *walk) logout(p *person) {
	w.note("%s: logs out", p.name)
	p.user = ""
}

func (w *walk) forget(p *person) {
	var mine []*walkItem
	for _, it := range w.items {
		if it.by == p && !it.gone && !it.forgotten {
			mine = append(mine, it)
		}
	}
	cookies := w.cookies(p)
	w.nested += 2 // nothing within it
	res := w.send(p, cookies, "forget", p.user)
	w.nested -= 2
	for _, it := range mine {
		it.maybe = true
		it.forgotten = it.acked && res.Code == 200 && len(cookies) <= 8
	}
	w.take(p, res)
}

// quiet lets everything come to rest, and looks where everything is.
func (w *walk) quiet() {
	w.flaky = false
	w.note("quiet")
	time.Sleep(10 * time.Minute)
	for _, m := range w.processes {
		if _, err := m.Recover(w.t.Context()); err != nil {
			w.fail("Recover: %v", err)
		}
	}
	found := map[string]int64{}
	for i := range 8 {
		if i > 5 { // what is cleared late, or in another scope, has ended or is renewed by then
			time.Sleep(13 * time.Hour)
		}
		for _, p := range w.people {
			w.take(p, w.page(p, w.cookies(p)))
		}
	}
	for _, p := range w.people {
		cookies := w.cookies(p)
		if len(cookies) > 1 {
			w.fail("%s has cookies %v", p.name, cookies)
		}
		if p.user != "" && len(cookies) > 0 {
			w.fail("%s is signed in as %s and has a cookie", p.name, p.user)
		}
		if p.user != "" {
			continue
		}
		for name, n := range cartOf(w.page(p, cookies)) {
			found[name] += n
		}
	}
	for _, user := range []string{"ann", "bob", "cat"} {
		cart, err := Cart.All(w.processes[0].As(w.t.Context(), user))
		if err != nil {
			w.fail("%v", err)
		}
		for name, n := range cart {
			found[name] += n
			if !w.items[name].owners[user] {
				w.fail("%s has %s", user, name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.items)) {
		switch it, n := w.items[name], found[name]; {
		case n > 1 || n == 0 && it.acked && !it.maybe:
			w.fail("%s is found %d times", name, n)
		}
	}
}
