package guest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/guestkit/guest"
)

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

// site is an app on a real server: the tests' shop.
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

// page is what the site's pages show.
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
	s.mux.HandleFunc("/static", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "static") })
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
		p.Guest, p.Account, p.IsGuest, p.New, p.Replaced = v.GuestID(), v.AccountID(), v.IsGuest(), v.IsNew(), v.Replaced()
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
	s.mux.Handle("/claim", s.guests.ClaimHandler(func(r *http.Request) (string, error) { return r.Header.Get("User"), nil }))
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

// copy is the same browser's cookies in another one: an old tab, or a thief.
func (b *browser) copy() *browser {
	c := b.s.browser()
	c.user = b.user
	u, _ := url.Parse(b.s.url)
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

// cookies are the guest cookies in the browser.
func (b *browser) cookies() (names []string) {
	u, _ := url.Parse(b.s.url)
	for _, c := range b.Jar.Cookies(u) {
		if strings.HasPrefix(c.Name, "guest") {
			names = append(names, c.Name)
		}
	}
	return names
}

// account is what the account holds.
func (s *site) account(id string) map[string]int64 {
	s.t.Helper()
	cart, err := Cart.All(s.guests.As(context.Background(), id))
	if err != nil {
		s.t.Fatal(err)
	}
	return cart
}

// kept is a receipt's word on one kind.
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
