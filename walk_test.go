package guest_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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

// Browsers with real jars send pages, additions, logins, logouts and Forget to two processes,
// several requests abreast and one within another, while the store fails before or after a step.
// Whatever happens:
//
//   - what was acknowledged to a person is found in the end, once: in the cart of that browser,
//     or in an account that was signed in at it; of items added in one step all or none;
//   - no page shows what another person put in, nor what an account took or Forget erased before;
//   - no request makes more than 64 calls of the store, a login twice as many;
//   - every browser ends with one cookie at most.
//
// A seed gives the same walk again: go test -run TestWalk -walk 17 -walks 1 .
func TestWalk(t *testing.T) {
	t.Parallel()
	for i := range uint64(*walkSeeds) {
		seed := *walkSeed + i
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { newWalk(t, seed).run(150) })
		})
	}
}

type walk struct {
	t         *testing.T
	rnd       *rand.Rand
	store     *spy
	processes []*walkProcess
	people    []*person // one for each browser
	items     map[string]*walkItem
	together  [][]string // names of items that were added in one step
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

// person is one person at a browser, and all who use it afterwards.
type person struct {
	name string
	jar  http.CookieJar
	user string // signed in as
	to   string // signing in as
}

// walkItem is an item that was put into a cart, one of each name.
type walkItem struct {
	by        *person
	acked     bool
	owners    map[string]bool // accounts that may have it
	gone      bool            // an account took it, so no guest's page shows it
	forgotten bool            // or Forget erased it
	maybe     bool            // Forget was asked to erase it
}

var walkURL = mustParse("http://www.shop.test/")

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
	m := newManager(w.t, guest.Config{
		FormerCookies: former, Cookie: c, Create: guest.Create(seed / 2 % 2),
		Store:   flakyStore{w.store, w},
		Account: func(r *http.Request) string { return r.Header.Get("User") },
	})
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
	mux.HandleFunc("POST /addall/{items}", func(rw http.ResponseWriter, r *http.Request) {
		amounts := map[string]int64{}
		for _, item := range strings.Split(r.PathValue("items"), "+") {
			amounts[item] = 1
		}
		_, err := Cart.AddAll(r.Context(), amounts)
		answer(rw, nil, err)
	})
	mux.HandleFunc("POST /login/{user}", func(rw http.ResponseWriter, r *http.Request) {
		receipt, err := m.Claim(rw, r, r.PathValue("user"))
		answer(rw, receipt, err)
	})
	mux.HandleFunc("POST /forget", func(rw http.ResponseWriter, r *http.Request) {
		answer(rw, nil, m.Forget(rw, r))
	})
	return &walkProcess{m, m.Middleware(mux)}
}

func answer(rw http.ResponseWriter, what any, err error) {
	if err != nil {
		http.Error(rw, err.Error(), http.StatusServiceUnavailable)
		return
	}
	json.NewEncoder(rw).Encode(what)
}

// flakyStore fails now and then, before a step or after it; and while a step is under way, another
// request comes.
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

// between reports whether the store fails here.
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

// step is what one person does. Within another request it is nothing that ends what that request is
// about.
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
		w.logf("%s: lost", p.name)
		return false
	}
	p.jar.SetCookies(walkURL, res.Result().Cookies())
	return true
}

func (w *walk) logf(format string, args ...any) {
	w.log = append(w.log, strings.Repeat("  ", w.nested)+fmt.Sprintf(format, args...))
}

func (w *walk) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\nthe walk:\n%s", fmt.Sprintf(format, args...),
		strings.Join(w.log[max(0, len(w.log)-60):], "\n"))
}

// send sends one request of a person, signed in as user, to any of the processes.
func (w *walk) send(
	p *person, cookies []*http.Cookie, path, user string,
) *httptest.ResponseRecorder {
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
	w.logf("%s: %s as %q at %d with %v: %d %.60q, sets %v", p.name, path, user, process, names,
		res.Code, res.Body, setNames(res))
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

// abreast adds an item, or three in one step, by each of n requests at once: no request knows of
// another's response.
func (w *walk) abreast(p *person, n int) {
	cookies, user := w.cookies(p), p.user
	type addition struct {
		items    []string
		response *httptest.ResponseRecorder
	}
	var additions []addition
	for range n {
		path, items := "add/", make([]string, 1)
		if w.rnd.IntN(4) == 0 {
			path, items = "addall/", make([]string, 3)
		}
		for i := range items {
			items[i] = fmt.Sprint(p.name, len(w.items))
			w.items[items[i]] = &walkItem{by: p, owners: map[string]bool{user: true, p.to: true}}
		}
		w.together = append(w.together, items)
		res := w.send(p, cookies, path+strings.Join(items, "+"), user)
		additions = append(additions, addition{items, res})
		time.Sleep(time.Millisecond)
	}
	w.rnd.Shuffle(n, func(i, j int) { additions[i], additions[j] = additions[j], additions[i] })
	for _, a := range additions {
		acked := w.take(p, a.response) && a.response.Code == 200
		for _, name := range a.items {
			w.items[name].acked = acked
		}
	}
}

// page looks at the cart, and checks who may see it.
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
	w.logf("%s: logs out", p.name)
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
	w.logf("quiet")
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
	for _, items := range w.together {
		for _, name := range items {
			if found[name] != found[items[0]] {
				w.fail("of %v, added in one step, a part is found: %v", items, found)
			}
		}
	}
}

func TestConcurrentCalls(t *testing.T) {
	t.Parallel()

	// All that a handler may call with a context, at once, by many goroutines, and after the
	// response.
	t.Run("everything at once in one request", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, func(c *guest.Config) {
			c.Header = "Guest"
			c.FormerCookies = []guest.Cookie{{Path: "/x"}}
			c.Quota = guest.Quota{Fields: 10_000, Bytes: 10 << 20} // ann gets what a hundred requests bring
		})
		var wg sync.WaitGroup
		acked := map[string]int{}
		var mu sync.Mutex
		s.mux.HandleFunc("/all", func(w http.ResponseWriter, r *http.Request) {
			ctx := r.Context()
			n := r.Header.Get("N")
			for i, f := range []func(){
				func() { s.guests.Ticket(ctx, "a", time.Minute) },
				func() { s.guests.Preview(ctx, "ann") },
				func() { s.guests.Export(ctx) },
				func() { guest.FromContext(ctx).GuestID() },
				func() { guest.FromContext(ctx).Replaced() },
				func() { guest.Prefetch(ctx, Cart) },
				func() { Cart.All(ctx) },
			} {
				for range 2 {
					wg.Go(func() { f() })
				}
				wg.Go(func() {
					sku := fmt.Sprint(n, "-", i)
					if _, err := Cart.Add(ctx, sku, 1); err == nil {
						mu.Lock()
						acked[sku]++
						mu.Unlock()
					}
				})
			}
			if strings.HasSuffix(n, "c") {
				s.guests.Claim(w, r, "ann")
			}
			if strings.HasSuffix(n, "f") {
				s.guests.Forget(w, r)
			}
		})
		for i := range 300 {
			cookies := ""
			if i%2 == 1 {
				cookies = s.confirmedCookie(fmt.Sprint("old", i))
			}
			n := fmt.Sprint(i, []string{"c", "f", "-"}[i%3])
			r := httptest.NewRequest([]string{"GET", "POST"}[i/2%2], "/all", nil)
			r.Header.Set("N", n)
			if cookies != "" {
				r.Header.Set("Cookie", cookies)
			}
			if i%5 == 0 {
				r.Header.Set("Guest", "")
			}
			w := httptest.NewRecorder()
			s.guests.Middleware(s.mux).ServeHTTP(w, r)
			wg.Wait()
			if strings.HasSuffix(n, "f") {
				continue
			}
			has := map[string]int64{}
			for sku, c := range s.account("ann") {
				has[sku] += c
			}
			jar := map[string]string{}
			if cookies != "" {
				jar["guest"] = cookies
			}
			for _, c := range w.Result().Cookies() {
				jar[c.Name] = pair(c)
				if c.MaxAge < 0 {
					delete(jar, c.Name)
				}
			}
			var all []string
			for _, c := range jar {
				all = append(all, c)
			}
			for sku, c := range s.show(strings.Join(all, "; ")).Cart {
				has[sku] += c
			}
			for j := range 7 {
				sku := fmt.Sprint(n, "-", j)
				if int64(acked[sku]) != has[sku] {
					t.Errorf("request %s %s with %q: %s acknowledged %d, found %d", n, r.Method, cookies, sku,
						acked[sku], has[sku])
				}
			}
		}
	})

	// A write that was acknowledged is kept, even if another goroutine of the handler claims
	// meanwhile, or sends a public page.
	t.Run("a write beside a claim", func(t *testing.T) {
		t.Parallel()
		for _, end := range []string{"claim", "public", "forget"} {
			t.Run(end, func(t *testing.T) {
				s := newSite(t, nil)
				var claim func()
				s.mux.HandleFunc("/both", func(w http.ResponseWriter, r *http.Request) {
					done := make(chan bool)
					claim = func() {
						switch end {
						case "claim":
							s.guests.Claim(w, r, "ann")
						case "public":
							w.Header().Set("Cache-Control", "public")
							w.WriteHeader(200)
						case "forget":
							s.guests.Forget(w, r)
						}
					}
					go func() {
						defer close(done)
						_, err := Cart.Add(r.Context(), "tea", 1)
						if err != nil {
							io.WriteString(w, err.Error())
						}
					}()
					<-done
				})
				s.store.on(func(op, key string, u guest.Update) error {
					if c := claim; c != nil && strings.HasPrefix(key, "g:") {
						claim = nil
						c()
					}
					return nil
				})
				w := s.request("POST", "/both", "")
				var found int
				if s.account("ann")["tea"] == 1 {
					found++
				}
				for _, c := range w.Result().Cookies() {
					if s.show(pair(c)).Cart["tea"] == 1 {
						found++
					}
				}
				if w.Body.Len() == 0 && found != 1 {
					t.Errorf("acknowledged, and found %d times; cookies %q", found, w.Header()["Set-Cookie"])
				}
			})
		}
	})
}

// What a release has written, the next one reads. Before a release, write down what it writes:
//
//	go test -run TestReadsEarlierReleases -write-release v1 .
var writeRelease = flag.String("write-release", "",
	"write testdata/releases/NAME.json: what this release puts into cookies, tickets and the store")

// A release is what one release left behind.
type release struct {
	// cookies: of a guest with data, of one that ann has claimed, of one whose claim by ann is half
	// done
	Open, Claimed, Frozen string
	Ticket                string // of a fourth guest, for "bob@example.com"
	Records               map[string]map[string][]byte
}

// leave writes what a release leaves behind. The time of a synctest bubble begins on 2000-01-01, so
// the cookies are of that day.
func leave(t *testing.T) (left release) {
	store := memstore.New(memstore.Config{})
	m, failing := releaseManager(t, store, nil),
		releaseManager(t, store, errors.New("the database is down"))
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	newGuest := func(sku string) string {
		cookie := at(m, "", func(w http.ResponseWriter, r *http.Request) {
			_, err := Cart.Add(r.Context(), sku, 2)
			do(err)
			do(Theme.Set(r.Context(), "dark"))
			do(Wishes.Set(r.Context(), sku, wish{"soon"}))
			do(Email.Set(r.Context(), sku+"@example.com"))
		})
		return at(m, cookie, func(w http.ResponseWriter, r *http.Request) {}) // its cookie comes back
	}
	left.Open, left.Claimed, left.Frozen = newGuest("open"), newGuest("claimed"), newGuest("frozen")
	at(m, left.Claimed, func(w http.ResponseWriter, r *http.Request) {
		_, err := m.Claim(w, r, "ann")
		do(err)
	})
	at(failing, left.Frozen, func(w http.ResponseWriter, r *http.Request) {
		failing.Claim(w, r, "ann")
	})
	at(m, newGuest("ticket"), func(w http.ResponseWriter, r *http.Request) {
		var err error
		left.Ticket, err = m.Ticket(r.Context(), "bob@example.com", 30*24*time.Hour)
		do(err)
	})
	left.Records = map[string]map[string][]byte{}
	for key, err := range store.Keys(t.Context(), "") {
		do(err)
		fields, err := store.Get(t.Context(), key)
		do(err)
		left.Records[key] = map[string][]byte{}
		for name, value := range fields {
			left.Records[key][name] = []byte(value)
		}
	}
	return left
}

func TestReadsEarlierReleases(t *testing.T) {
	t.Parallel()
	if *writeRelease != "" {
		synctest.Test(t, func(t *testing.T) {
			text, err := json.MarshalIndent(leave(t), "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata/releases", *writeRelease+".json")
			if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
	files, err := filepath.Glob("testdata/releases/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no releases", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var left release
			if err := json.Unmarshal(text, &left); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) { left.read(t) })
		})
	}
}

// read goes on where the release left off.
func (left release) read(t *testing.T) {
	store := memstore.New(memstore.Config{})
	for key, record := range left.Records {
		fields := guest.Fields{}
		for name, value := range record {
			fields[name] = string(value)
		}
		if _, err := store.Update(t.Context(), key, guest.Update{Set: fields}); err != nil {
			t.Fatal(err)
		}
	}
	m := releaseManager(t, store, nil)
	holds := func(ctx context.Context, what, sku, email string) {
		t.Helper()
		theme, err := Theme.Get(ctx)
		n, err2 := Cart.Get(ctx, sku)
		w, err3 := Wishes.Get(ctx, sku)
		e, err4 := Email.Get(ctx)
		if theme != "dark" || n != 2 || w.Note != "soon" || e != email ||
			errors.Join(err, err2, err3, err4) != nil {
			t.Errorf("%s: theme %q, %d of %s, wish %q, email %q: %v", what, theme, n, sku, w.Note, e,
				errors.Join(err, err2, err3, err4))
		}
	}
	at(m, left.Open, func(w http.ResponseWriter, r *http.Request) {
		holds(r.Context(), "the guest", "open", "open@example.com")
	})
	at(m, left.Claimed, func(w http.ResponseWriter, r *http.Request) {
		if n, err := Cart.Get(r.Context(), "claimed"); n != 0 || err != nil ||
			!guest.FromContext(r.Context()).Replaced() {
			t.Errorf("a claimed guest reads %d, %v", n, err)
		}
		receipt, err := m.Claim(w, r, "ann")
		if err != nil || !receipt.Replayed || len(receipt.Kinds) != 4 ||
			receipt.Kinds[1].GuestTotal != 2 {
			t.Errorf("a claim is repeated: %+v, %v", receipt, err)
		}
		if _, err := m.Claim(w, r, "bob"); !errors.Is(err, guest.ErrClaimed) {
			t.Errorf("another account claims the guest: %v", err)
		}
	})
	if n, err := m.Recover(t.Context()); n != 1 || err != nil {
		t.Errorf("%d claims were finished, %v; want 1", n, err)
	}
	for _, sku := range []string{"claimed", "frozen"} {
		holds(m.As(t.Context(), "ann"), "ann", sku, "frozen@example.com")
	}
	at(m, "", func(w http.ResponseWriter, r *http.Request) {
		if receipt, err := m.ClaimTicket(w, r, left.Ticket, "bob@example.com", "bob"); err != nil ||
			!receipt.Claimed {
			t.Errorf("the ticket: %+v, %v", receipt, err)
		}
	})
	holds(m.As(t.Context(), "bob"), "bob", "ticket", "ticket@example.com")
	at(m, left.Open, func(w http.ResponseWriter, r *http.Request) {
		if receipt, err := m.Claim(w, r, "cy"); err != nil || !receipt.Claimed ||
			len(receipt.Kinds) != 4 {
			t.Errorf("a claim: %+v, %v", receipt, err)
		}
	})
	holds(m.As(t.Context(), "cy"), "cy", "open", "open@example.com")
}

// garbled is a store whose records another program has written to: its answers hold these fields,
// whatever was written.
type garbled struct {
	guest.Store
	guest, account, outbox guest.Fields
	faults                 []string
}

func (g *garbled) mix(fields guest.Fields, key string, names []string) guest.Fields {
	mixed := maps.Clone(fields)
	if mixed == nil {
		mixed = guest.Fields{}
	}
	others := map[string]guest.Fields{"g": g.guest, "a": g.account, "o": g.outbox}
	for name, value := range others[key[:min(1, len(key))]] {
		if names == nil || slices.Contains(names, name) {
			mixed[name] = value
		}
	}
	return mixed
}

func (g *garbled) Get(ctx context.Context, key string, names ...string) (guest.Fields, error) {
	fields, err := g.Store.Get(ctx, key, names...)
	return g.mix(fields, key, names), err
}

func (g *garbled) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	for name := range u.Set {
		if name == "" || u.Set[name] == "" {
			g.faults = append(g.faults, name)
		}
	}
	res, err := g.Store.Update(ctx, key, u)
	names := append(slices.Collect(maps.Keys(u.If)), u.Return...)
	if u.ReturnAll {
		names = nil
	}
	res.Fields = g.mix(res.Fields, key, names)
	return res, err
}

// Any bytes in the records of a guest, an account and the outbox: data calls, claims and all that
// operators call return, at worst with an error.
func FuzzStoredFields(f *testing.F) {
	for _, seed := range [][3]string{
		{"", "", ""},
		{"theme\x00\"dark\"\x00cart/tea\x001", "theme\x00\"light\"\x00cart/tea\x00x", "g:a/b/a:c\x001"},
		{"\x00", "\x00x", "\x00"},
		{"x\x00", "x\x00\x00", "//\x00"},
		{"email\x00\x01abc", "email\x00\x01", "g:/\x00\x00"},
		{".s\x00sa:ann\x00.i\x00abc\x00cart\x001", ".c\x0010\x00.cabc\x00x 0 cart=mzzzz", ""},
		{".s\x00bg:AAAAAAAAAAAAAAAAAAAAAA@0\x00.t\x00x", ".s\x00s",
			"g:AAAAAAAAAAAAAAAAAAAAAA/x/g:AAAAAAAAAAAAAAAAAAAAAA@1\x001"},
		{".s\x00s", ".s\x00b", ".s\x00"},
		{"cart/\x001\x00cart\x002\x00wishes/a\x00{}\x00wishes/b\x00null",
			"cart/\xff\x009223372036854775807\x00wishes/a\x00[]", ""},
		{"old/a\x00\x00old\x00", "old\x00\x00old/b\x00", "/\x00"},
		{"cart//\x001\x00cart//a\x002\x00wishes/a/\x00{}\x00wishes/a/b\x00{}",
			"cart//\x00-1\x00cart//a\x001\x00wishes/a/\x00{}",
			"g:a/b/a:team/\x001\x00g:a/b/a:team/ann\x001"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(fuzzStored)
}

func parseFields(s string) guest.Fields { // names and values in turn
	all := guest.Fields{}
	parts := strings.Split(s, "\x00")
	for i := 0; i+1 < len(parts); i += 2 {
		all[parts[i]] = parts[i+1]
	}
	return all
}

func fuzzStored(t *testing.T, guestFields, accountFields, entries string) {
	store := &garbled{Store: memstore.New(memstore.Config{}), guest: parseFields(guestFields),
		account: parseFields(accountFields), outbox: parseFields(entries)}
	m := newManager(t, guest.Config{
		Store: store, Data: []guest.Kind{Theme, Cart, Wishes, Email},
		Cookie: guest.Cookie{Insecure: true},
		Account: func(r *http.Request) string {
			return r.Header.Get("User")
		}, AutoClaim: func(*http.Request) bool { return false },
		ClaimTimeout: time.Minute,
	})
	_, w := visited(m, "GET", "")
	cookie := w.Result().Cookies()[0]
	touch := func(ctx context.Context) {
		Theme.Get(ctx)
		Theme.Update(ctx, func(s string) (string, error) { return s + "!", nil })
		Email.Get(ctx)
		Email.Set(ctx, "ann@example.com")
		Cart.Add(ctx, "tea", 1)
		Cart.All(ctx)
		Wishes.All(ctx)
		Wishes.Set(ctx, "pot", wish{"blue"})
		m.Preview(ctx, "ann")
		m.Export(ctx)
		if ctx, err := guest.Prefetch(ctx, Theme, Cart, Wishes, Email); err == nil {
			Cart.All(ctx)
		}
	}
	for _, path := range []string{"/", "/login", "/forget"} {
		r := httptest.NewRequest("POST", path, nil)
		r.AddCookie(cookie)
		w := httptest.NewRecorder()
		m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			touch(r.Context())
			switch path {
			case "/login":
				receipt, err := m.Claim(w, r, "ann")
				if _, fault := json.Marshal(receipt); fault != nil {
					t.Error(fault)
				}
				if err == nil && receipt.Pending || err != nil && !receipt.Pending &&
					!errors.Is(err, guest.ErrClaimed) {
					t.Errorf("%+v, %v", receipt, err)
				}
				touch(r.Context())
			case "/forget":
				m.Forget(w, r)
			}
		})).ServeHTTP(w, r)
		if w.Code != 200 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	touch(m.As(t.Context(), "ann"))
	touch(m.AsGuest(t.Context(), guestFields))
	m.Recover(t.Context())
	m.EraseAccount(t.Context(), "ann")
	if len(store.faults) > 0 {
		t.Errorf("the library breaks duty 11 of a store: it sets %q", store.faults)
	}
}
