package promguest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/adapters/promguest"
	"github.com/guestkit/guest/memstore"
)

var Cart = guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))

// A store that can be down.
type store struct {
	guest.Store
	down atomic.Bool
}

var errDown = errors.New("down")

func (s *store) Get(ctx context.Context, key string, names ...string) (guest.Fields, error) {
	if s.down.Load() {
		return nil, errDown
	}
	return s.Store.Get(ctx, key, names...)
}

func (s *store) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	if s.down.Load() {
		return guest.Result{}, errDown
	}
	return s.Store.Update(ctx, key, u)
}

func (s *store) Keys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return s.Store.Keys(ctx, prefix)
}

// A site with a page, a cart, a login and /metrics.
type site struct {
	*testing.T
	url   string
	store *store
}

func newSite(t *testing.T) *site {
	registry := prometheus.NewRegistry()
	hooks, err := promguest.New(registry)
	if err != nil {
		t.Fatal(err)
	}
	memory := memstore.New(memstore.Config{})
	if err := promguest.Lost(registry, memory.Lost); err != nil {
		t.Fatal(err)
	}
	s := &site{T: t, store: &store{Store: memory}}
	guests, err := guest.New(guest.Config{
		Store:   s.store,
		Secrets: [][]byte{[]byte("a secret of the tests, 32 bytes+")},
		Data:    []guest.Kind{Cart},
		Cookie:  guest.Cookie{Insecure: true},
		Logger:  slog.New(slog.DiscardHandler),
		Hooks:   hooks,
	})
	if err != nil {
		t.Fatal(err)
	}
	pages := http.NewServeMux()
	pages.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello")
	})
	pages.HandleFunc("POST /cart", func(w http.ResponseWriter, r *http.Request) {
		if _, err := Cart.Add(r.Context(), "tea", 1); err != nil {
			http.Error(w, "not now", http.StatusServiceUnavailable)
		}
	})
	pages.HandleFunc("POST /login/{user}", func(w http.ResponseWriter, r *http.Request) {
		guests.Claim(w, r, r.PathValue("user"))
	})
	mux := http.NewServeMux()
	mux.Handle("/", guests.Middleware(pages))
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

type visitor struct {
	*site
	client *http.Client
}

func (s *site) visitor() visitor {
	jar, _ := cookiejar.New(nil)
	return visitor{s, &http.Client{Jar: jar}}
}

func (v visitor) send(method, path string) {
	v.Helper()
	req, _ := http.NewRequest(method, v.url+path, nil)
	res, err := v.client.Do(req)
	if err != nil {
		v.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
}

func (v visitor) cookies(set ...*http.Cookie) []*http.Cookie {
	u, _ := url.Parse(v.url)
	if set != nil {
		v.client.Jar.SetCookies(u, set)
	}
	return v.client.Jar.Cookies(u)
}

// metrics returns what /metrics serves: the series that are not 0, without the histogram's buckets
// and sums, and all names.
func (s *site) metrics() (values map[string]string, names map[string]bool) {
	s.Helper()
	res, err := http.Get(s.url + "/metrics")
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.Fatal(err)
	}
	values, names = map[string]string{}, map[string]bool{}
	for line := range strings.Lines(string(text)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if series == "#" {
			continue
		}
		if i := strings.LastIndex(line, " "); i >= 0 {
			series, value = line[:i], strings.TrimSpace(line[i:])
		}
		name, _, _ := strings.Cut(series, "{")
		names[name] = true
		if value != "0" && !strings.HasSuffix(name, "_bucket") && !strings.HasSuffix(name, "_sum") {
			values[series] = value
		}
	}
	return values, names
}

// play is a day at the site: of three visitors two return, and one fills a cart and signs in.
func (s *site) play() {
	s.Helper()
	ann, bob, cleo := s.visitor(), s.visitor(), s.visitor()
	for _, v := range []visitor{ann, bob, cleo} {
		v.send("GET", "/") // 3 updates: the records of new guests
	}
	bob.send("GET", "/")      // update: returned
	bob.send("GET", "/")      // known
	ann.send("POST", "/cart") // update: returned; update: the cart
	ann.send("POST", "/cart") // update
	thief := s.visitor()
	thief.cookies(ann.cookies()...)

	s.store.down.Store(true)
	ann.send("POST", "/cart")      // update fails
	ann.send("POST", "/login/ann") // get fails: pending
	s.store.down.Store(false)

	// read, add outbox entry, freeze, read account, merge, leave tombstone, remove entry
	ann.send("POST", "/login/ann")
	again := s.visitor()
	again.cookies(thief.cookies()...)
	again.send("POST", "/login/ann") // get, get: replayed
	thief.send("POST", "/login/eve") // get: refused

	forger := s.visitor()
	forger.cookies(&http.Cookie{Name: "guest", Value: "forged"})
	forger.send("GET", "/") // a token refused; update: a fourth guest
}

func TestExactCounts(t *testing.T) {
	s := newSite(t)
	s.play()
	got, _ := s.metrics()
	want := map[string]string{
		`guest_created_total`:                                            "4",
		`guest_returned_total`:                                           "2",
		`guest_first_writes_total`:                                       "1",
		`guest_refused_total{reason="invalid_token"}`:                    "1",
		`guest_refused_total{reason="claimed_by_other"}`:                 "1",
		`guest_claims_total{outcome="claimed"}`:                          "1",
		`guest_claims_total{outcome="replayed"}`:                         "1",
		`guest_claims_total{outcome="pending"}`:                          "1",
		`guest_claims_total{outcome="refused"}`:                          "1",
		`guest_store_call_duration_seconds_count{op="get"}`:              "5",
		`guest_store_call_duration_seconds_count{op="update"}`:           "15",
		`guest_store_call_errors_total{error="unavailable",op="get"}`:    "1",
		`guest_store_call_errors_total{error="unavailable",op="update"}`: "1",
	}
	if !maps.Equal(got, want) {
		for _, series := range slices.Sorted(maps.Keys(got)) {
			t.Log(series, got[series])
		}
		t.Errorf("want %v", want)
	}
}

// Labels have constant values, so the number of series does not depend on the visitors.
func TestNoNewSeries(t *testing.T) {
	series := func(reg *prometheus.Registry) (n int) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			n += len(f.GetMetric())
		}
		return n
	}
	registry := prometheus.NewRegistry()
	hooks, err := promguest.New(registry)
	if err != nil {
		t.Fatal(err)
	}
	before := series(registry)
	ctx := t.Context()
	for _, reason := range []string{guest.RefusedToken, guest.RefusedCookies,
		guest.RefusedAmbiguous, guest.RefusedCrossOrigin, guest.RefusedClaimed,
		guest.RefusedTicket} {
		hooks.Refused(ctx, reason)
	}
	for i, r := range []guest.Receipt{{}, {Replayed: true}, {Pending: true}} {
		r.GuestID, r.AccountID = fmt.Sprint("guest-", i), fmt.Sprint("account-", i)
		hooks.Claimed(ctx, r)
		hooks.Stuck(ctx, r, errDown)
	}
	for _, op := range []string{"get", "update"} {
		for _, err := range []error{nil, guest.ErrQuota, guest.ErrInvalid, guest.ErrUncertain,
			context.Canceled, os.ErrDeadlineExceeded, errDown} {
			hooks.StoreCall(ctx, op, 1, err)
		}
	}
	if after := series(registry); after != before {
		t.Errorf("%d series, then %d", before, after)
	}
}

func TestRegisteredTwice(t *testing.T) {
	registry := prometheus.NewRegistry()
	if err := registry.Register(
		prometheus.NewCounter(
			prometheus.CounterOpts{Name: "guest_claims_total", Help: "another"})); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first try leaves nothing registered
		_, err := promguest.New(registry)
		if err == nil || !strings.Contains(err.Error(), "guest_claims_total") {
			t.Errorf("%v", err)
		}
	}
}

// Each metric on the dashboard is served, and each metric that is served is on the dashboard.
func TestDashboard(t *testing.T) {
	s := newSite(t)
	s.play()
	_, served := s.metrics()
	text, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`guest_[a-z_]+`)
	base := strings.NewReplacer("_bucket", "", "_sum", "", "_count", "")
	shown, ids := map[string]bool{}, map[int]bool{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the ID %d", p.ID)
		}
		ids[p.ID] = true
		if p.GridPos.X+p.GridPos.W > 24 || p.GridPos.W == 0 || p.GridPos.H == 0 {
			t.Errorf("%s is not on the grid: %+v", p.Title, p.GridPos)
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			found := names.FindAllString(target.Expr, -1)
			if len(found) == 0 {
				t.Errorf("%s: no metric of ours in %s", p.Title, target.Expr)
			}
			for _, name := range found {
				if !served[name] {
					t.Errorf("%s: no endpoint serves %s", p.Title, name)
				}
				shown[base.Replace(name)] = true
			}
		}
	}
	for name := range served {
		if !shown[base.Replace(name)] {
			t.Errorf("%s is not on the dashboard", name)
		}
	}
}

func TestLost(t *testing.T) {
	registry := prometheus.NewRegistry()
	if err := promguest.Lost(registry, func() int64 { return 7 }); err != nil {
		t.Fatal(err)
	}
	all, err := registry.Gather()
	if err != nil || len(all) != 1 || all[0].GetName() != "guest_lost_total" ||
		all[0].Metric[0].Counter.GetValue() != 7 {
		t.Errorf("%v, %v", all, err)
	}
	if err := promguest.Lost(registry, func() int64 { return 7 }); err == nil {
		t.Error("it is registered twice")
	}
}
