package guest_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/memstore"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// The tests run on memory, or with -store=redis or -store=cluster on real servers.
var storeFlag = flag.String("store", "memory",
	"what the tests keep records in: memory, redis or cluster")

var long = flag.Bool("long", false, "the long forms: ten times as many hostile requests")

// raceEnabled says that the tests run with the race detector.
var raceEnabled = func() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}()

var shared redis.UniversalClient

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "guest")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	switch *storeFlag {
	case "redis":
		server, err := redistest.Start(dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer server.Close()
		shared = server.Client()
	case "cluster":
		cluster, err := redistest.StartCluster(dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer cluster.Close()
		shared = cluster.Client()
	}
	return m.Run()
}

// newStore returns an empty store that only this test uses.
func newStore() guest.Store {
	if shared == nil {
		return memstore.New(memstore.Config{})
	}
	return redisstore.New(shared, redisstore.Config{Prefix: "test-" + rand.Text()})
}

var (
	secret = []byte("a secret of the tests, 32 bytes+")

	Theme  = guest.NewValue("theme", guest.PreferAccount[string])
	Cart   = guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))
	Wishes = guest.NewMap("wishes", guest.EachItem(guest.PreferAccount[wish]))
	Email  = guest.NewValue("email", guest.PreferGuest[string]).Encrypted()
)

type wish struct {
	Note string `json:"note"`
}

// spy counts what reaches a store, and can make it fail.
type spy struct {
	guest.Store
	calls atomic.Int64
	fail  atomic.Pointer[error]

	mu     sync.Mutex
	before func(op, key string, u guest.Update) error // called before each call
}

func (s *spy) enter(ctx context.Context, op, key string, u guest.Update) error {
	s.calls.Add(1)
	if err := s.fail.Load(); err != nil {
		return *err
	}
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()
	if before != nil {
		return before(op, key, u)
	}
	return ctx.Err()
}

func (s *spy) on(before func(op, key string, u guest.Update) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

func (s *spy) Get(ctx context.Context, key string, names ...string) (guest.Fields, error) {
	if err := s.enter(ctx, "get", key, guest.Update{}); err != nil {
		return nil, err
	}
	return s.Store.Get(ctx, key, names...)
}

func (s *spy) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	if err := s.enter(ctx, "update", key, u); err != nil {
		return guest.Result{}, err
	}
	return s.Store.Update(ctx, key, u)
}

func (s *spy) Keys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return s.Store.Keys(ctx, prefix)
}

// took returns how many calls f made.
func (s *spy) took(f func()) int {
	before := s.calls.Load()
	f()
	return int(s.calls.Load() - before)
}

func (s *spy) down(err error) {
	if err == nil {
		s.fail.Store(nil)
	} else {
		s.fail.Store(&err)
	}
}

func (s *spy) keys(t *testing.T, prefix string) (keys []string) {
	t.Helper()
	for key, err := range s.Store.Keys(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	return keys
}

// site is an app on a real server: the shop of the tests.
type site struct {
	t      testing.TB
	guests *guest.Manager
	store  *spy
	server *httptest.Server
	url    string
	mux    *http.ServeMux
	log    *bytes.Buffer
}

// newSite starts an app. The header User says who is signed in, as an app's own session would.
func newSite(t testing.TB, change func(*guest.Config)) *site {
	t.Helper()
	s := &site{t: t, store: &spy{Store: newStore()}, mux: http.NewServeMux(), log: &bytes.Buffer{}}
	cfg := guest.Config{
		Store:   s.store,
		Secrets: [][]byte{secret},
		Data:    []guest.Kind{Theme, Cart, Wishes, Email},
		Account: func(r *http.Request) string { return r.Header.Get("User") },
		Cookie:  guest.Cookie{Insecure: true},
		Logger:  slog.New(slog.NewTextHandler(&locked{w: s.log}, nil)),
	}
	if change != nil {
		change(&cfg)
	}
	if sp, ok := cfg.Store.(*spy); ok {
		s.store = sp
	}
	var err error
	if s.guests, err = guest.New(cfg); err != nil {
		t.Fatal(err)
	}
	s.routes()
	s.server = httptest.NewServer(s.guests.Middleware(s.mux))
	s.url = s.server.URL
	t.Cleanup(s.server.Close)
	return s
}

type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// page is what the site's page shows.
type page struct {
	Guest    string
	Account  string
	IsGuest  bool
	New      bool
	Replaced bool
	Cart     map[string]int64
	Theme    string
	Err      string
}

func (s *site) routes() {
	s.mux.HandleFunc("/static", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "static")
	})
	s.mux.HandleFunc("/page", func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		var p page
		var err error
		if p.Cart, err = Cart.All(ctx); err != nil {
			p.Err = err.Error()
		}
		if p.Theme, err = Theme.Get(ctx); err != nil {
			p.Err = err.Error()
		}
		v := guest.FromContext(ctx)
		p.Guest, p.Account, p.IsGuest, p.New, p.Replaced = v.GuestID(), v.AccountID(), v.IsGuest(),
			v.IsNew(), v.Replaced()
		json.NewEncoder(w).Encode(p)
	})
	s.mux.HandleFunc("/add/{sku}", func(w http.ResponseWriter, r *http.Request) {
		n, err := Cart.Add(r.Context(), r.PathValue("sku"), 1)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, n)
	})
	s.mux.HandleFunc("POST /theme/{theme}", func(w http.ResponseWriter, r *http.Request) {
		if err := Theme.Set(r.Context(), r.PathValue("theme")); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	s.mux.HandleFunc("POST /login/{user}", func(w http.ResponseWriter, r *http.Request) {
		receipt, err := s.guests.Claim(w, r, r.PathValue("user"))
		writeClaim(w, receipt, err)
	})
	s.mux.Handle("/claim", s.guests.ClaimHandler(func(r *http.Request) (string, error) {
		return r.Header.Get("User"), nil
	}))
}

// forgetting adds a route that calls Forget.
func (s *site) forgetting() *site {
	s.mux.HandleFunc("POST /forget", func(w http.ResponseWriter, r *http.Request) {
		if err := s.guests.Forget(w, r); err != nil {
			http.Error(w, err.Error(), 500)
		}
	})
	return s
}

type claimed struct {
	Receipt guest.Receipt
	Err     string
}

func writeClaim(w http.ResponseWriter, receipt guest.Receipt, err error) {
	c := claimed{Receipt: receipt}
	if err != nil {
		c.Err = err.Error()
	}
	json.NewEncoder(w).Encode(c)
}

// account returns the cart of the account.
func (s *site) account(id string) map[string]int64 {
	s.t.Helper()
	cart, err := Cart.All(s.guests.As(context.Background(), id))
	if err != nil {
		s.t.Fatal(err)
	}
	return cart
}

// request sends a request with these cookies, in process.
func (s *site) request(method, path, cookies string) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.Header["Cookie"] = []string{cookies}
	w := httptest.NewRecorder()
	s.guests.Middleware(s.mux).ServeHTTP(w, r)
	if w.Code != 200 {
		s.t.Fatalf("%s %s: %d: %s", method, path, w.Code, w.Body)
	}
	return w
}

// show returns what the page shows to a browser with these cookies.
func (s *site) show(cookie string) (p page) {
	s.t.Helper()
	if err := json.Unmarshal(s.request("GET", "/page", cookie).Body.Bytes(), &p); err != nil {
		s.t.Fatal(err)
	}
	return p
}

// provisional creates a guest with this item in its cart, and returns its provisional cookie.
func (s *site) provisional(sku string) string {
	defer tick()
	return pair(s.request("POST", "/add/"+sku, "").Result().Cookies()[0])
}

// confirmedCookie creates a guest with this item in its cart, confirms it, and returns its main
// cookie.
func (s *site) confirmedCookie(sku string) string {
	s.t.Helper()
	first := s.request("POST", "/add/"+sku, "").Result().Cookies()[0]
	for _, c := range s.request("GET", "/static", first.Name+"="+first.Value).Result().Cookies() {
		if c.Name == "guest" {
			return "guest=" + c.Value
		}
	}
	s.t.Fatal("the guest is not confirmed")
	return ""
}

// browser is a client with a cookie jar of its own.
type browser struct {
	*http.Client
	s    *site
	user string // signed in as
}

func (s *site) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	client := s.server.Client()
	return &browser{Client: &http.Client{Jar: jar, Transport: client.Transport}, s: s}
}

// copy returns another browser with the same cookies: an old tab, or a thief.
func (b *browser) copy() *browser {
	c := b.s.browser()
	c.user = b.user
	u := mustParse(b.s.url)
	c.Jar.SetCookies(u, b.Jar.Cookies(u))
	return c
}

func (b *browser) request(method, path string, header ...string) (*http.Response, string) {
	b.s.t.Helper()
	req, err := http.NewRequest(method, b.s.url+path, nil)
	if err != nil {
		b.s.t.Fatal(err)
	}
	if b.user != "" {
		req.Header.Set("User", b.user)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := b.Do(req)
	if err != nil {
		b.s.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.s.t.Fatal(err)
	}
	return res, string(body)
}

func (b *browser) page() (p page) {
	b.s.t.Helper()
	res, body := b.request("GET", "/page")
	if res.StatusCode != 200 {
		b.s.t.Fatalf("GET /page: %s: %s", res.Status, body)
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		b.s.t.Fatalf("GET /page: %v: %s", err, body)
	}
	return p
}

func (b *browser) add(sku string) string {
	b.s.t.Helper()
	res, body := b.request("POST", "/add/"+sku)
	if res.StatusCode != 200 {
		b.s.t.Fatalf("POST /add: %s: %s", res.Status, body)
	}
	return body
}

func (b *browser) login(user string) (c claimed) {
	b.s.t.Helper()
	_, body := b.request("POST", "/login/"+user)
	if err := json.Unmarshal([]byte(body), &c); err != nil {
		b.s.t.Fatalf("POST /login: %v: %s", err, body)
	}
	return c
}

// cookies returns the names of the guest cookies in the browser.
func (b *browser) cookies() (names []string) {
	u := mustParse(b.s.url)
	for _, c := range b.Jar.Cookies(u) {
		if strings.HasPrefix(c.Name, "guest") {
			names = append(names, c.Name)
		}
	}
	return names
}

// confirmed returns a browser whose guest has come back.
func confirmed(s *site) *browser {
	b := s.browser()
	b.add("tea")
	b.request("GET", "/static")
	return b
}

// cookieHeader sends a request, which confirms a new guest, and returns its Cookie header.
func cookieHeader(b *browser) string {
	res, _ := b.request("GET", "/static")
	return res.Request.Header.Get("Cookie")
}

// jarHeader returns the Cookie header of the cookies in the browser, without a request.
func jarHeader(b *browser) string {
	u := mustParse(b.s.url)
	var all []string
	for _, c := range b.Jar.Cookies(u) {
		all = append(all, pair(c))
	}
	return strings.Join(all, "; ")
}

func pair(c *http.Cookie) string { return c.Name + "=" + c.Value }

// given returns the cookies that a response sets, without those that it clears.
func given(res *http.Response) (cookies []*http.Cookie) {
	for _, c := range res.Cookies() {
		if c.MaxAge > 0 {
			cookies = append(cookies, c)
		}
	}
	return cookies
}

// mainOf returns the main cookie that a response sets, or "".
func mainOf(w *httptest.ResponseRecorder) string {
	for _, c := range w.Result().Cookies() {
		if c.Name == "guest" && c.MaxAge > 0 {
			return pair(c)
		}
	}
	return ""
}

// bubble is a browser inside a synctest bubble.
type bubble struct {
	h   http.Handler
	jar map[string]*http.Cookie // keeps cookies beyond their life
}

func newBubble(m *guest.Manager, h http.HandlerFunc) *bubble {
	return &bubble{h: m.Middleware(h), jar: map[string]*http.Cookie{}}
}

func (b *bubble) get(path string) string {
	r := httptest.NewRequest("GET", path, nil)
	for _, c := range b.jar {
		r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
	}
	w := httptest.NewRecorder()
	b.h.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if c.MaxAge < 0 {
			delete(b.jar, c.Name)
		} else {
			b.jar[c.Name] = c
		}
	}
	return w.Body.String()
}

// visited sends a request with this Cookie header, and returns its visitor and response.
func visited(
	m *guest.Manager, method, cookies string,
) (v *guest.Visitor, w *httptest.ResponseRecorder) {
	r := httptest.NewRequest(method, "/", nil)
	if cookies != "" {
		r.Header["Cookie"] = []string{cookies}
	}
	w = httptest.NewRecorder()
	m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v = guest.FromContext(r.Context())
	})).ServeHTTP(w, r)
	return v, w
}

// newManager makes a Manager. By default it has a store in memory, the tests' secret, a cart, and
// no log.
func newManager(t testing.TB, c guest.Config) *guest.Manager {
	t.Helper()
	if c.Store == nil {
		c.Store = memstore.New(memstore.Config{})
	}
	if c.Secrets == nil {
		c.Secrets = [][]byte{secret}
	}
	if c.Data == nil {
		c.Data = []guest.Kind{Cart}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := guest.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// adds returns a handler that adds one of the item to the cart.
func adds(sku string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), sku, 1) }
}

// at serves a request with this cookie, and returns the cookie for the next one.
func at(m *guest.Manager, cookie string, f func(w http.ResponseWriter, r *http.Request)) string {
	r := httptest.NewRequest("GET", "/", nil)
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	w := httptest.NewRecorder()
	m.Middleware(http.HandlerFunc(f)).ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if c.MaxAge >= 0 {
			cookie = c.Name + "=" + c.Value
		}
	}
	return cookie
}

// claimBy claims the guest of this cookie through a process.
func claimBy(m *guest.Manager, cookie, account string) (receipt guest.Receipt, err error) {
	at(m, cookie, func(w http.ResponseWriter, r *http.Request) {
		receipt, err = m.Claim(w, r, account)
	})
	return receipt, err
}

// replica is one process of an app, with what this version of the app knows.
func replica(t *testing.T, store guest.Store, kinds ...guest.Kind) *guest.Manager {
	t.Helper()
	return newManager(t, guest.Config{Store: store, Data: kinds})
}

func releaseManager(t *testing.T, store guest.Store, onClaim error) *guest.Manager {
	return newManager(t, guest.Config{
		Store: store, Data: []guest.Kind{Theme, Cart, Wishes, Email},
		OnClaim: func(context.Context, guest.Receipt) error { return onClaim },
	})
}

// scopes returns a function that makes Managers on one store. Their cookies have the scope c, and
// had the former ones.
func scopes(t *testing.T) func(c guest.Cookie, former ...guest.Cookie) *guest.Manager {
	store := newStore()
	return func(c guest.Cookie, former ...guest.Cookie) *guest.Manager {
		c.Insecure = true
		return newManager(t, guest.Config{Store: store, Cookie: c, FormerCookies: former})
	}
}

// kept returns what the receipt says of one kind.
func kept(t testing.TB, r guest.Receipt, name string) guest.KindReceipt {
	t.Helper()
	for _, k := range r.Kinds {
		if k.Name == name {
			return k
		}
	}
	t.Fatalf("the receipt has no kind %q: %+v", name, r)
	return guest.KindReceipt{}
}

// outbox counts the entries of the outbox.
func outbox(t testing.TB, store guest.Store) (entries int) {
	for key, err := range store.Keys(t.Context(), "o:") {
		if err != nil {
			t.Fatal(err)
		}
		fields, err := store.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		entries += len(fields)
	}
	return entries
}

func record(t *testing.T, store guest.Store, prefix string) guest.Fields {
	t.Helper()
	for key, err := range store.Keys(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		fields, err := store.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		return fields
	}
	return nil
}

// markersIn returns how many markers a record holds, and their bytes.
func markersIn(t *testing.T, store guest.Store, prefix string) (n, bytes int) {
	t.Helper()
	for name, value := range record(t, store, prefix) {
		if strings.HasPrefix(name, ".c") && name != ".c" {
			n++
			bytes += len(name) + len(value)
		}
	}
	return n, bytes
}

// rewinding is a store that can undo its latest writes, like a server that was rolled back.
type rewinding struct {
	guest.Store
	log []struct {
		key    string
		before guest.Fields
	}
}

func (s *rewinding) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	before, err := s.Store.Get(ctx, key)
	if err != nil {
		return guest.Result{}, err
	}
	s.log = append(s.log, struct {
		key    string
		before guest.Fields
	}{key, before})
	return s.Store.Update(ctx, key, u)
}

func (s *rewinding) rewind(t *testing.T, n int) {
	for range min(n, len(s.log)) {
		last := s.log[len(s.log)-1]
		s.log = s.log[:len(s.log)-1]
		for _, u := range []guest.Update{{Drop: true}, {Set: last.before}} {
			if _, err := s.Store.Update(context.Background(), last.key, u); err != nil {
				t.Error(err)
			}
		}
	}
	tick() // a server that was rolled back has started anew
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func mustParse(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

// tick waits for the next millisecond.
func tick() {
	for now := time.Now().UnixMilli(); time.Now().UnixMilli() == now; {
		runtime.Gosched()
	}
}
