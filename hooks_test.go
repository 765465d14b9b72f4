package guest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/guestkit/guest"
)

// hookLog records the calls of hooks, in order.
type hookLog struct {
	mu     sync.Mutex
	events []string
}

func (l *hookLog) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, fmt.Sprintf(format, args...))
}

// take returns the calls since it was last asked.
func (l *hookLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	events := l.events
	l.events = nil
	return events
}

func (l *hookLog) expect(t *testing.T, want ...string) {
	t.Helper()
	if got := l.take(); !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

// count counts the calls since it was last asked, in no order.
func (l *hookLog) count() map[string]int {
	n := map[string]int{}
	for _, e := range l.take() {
		n[e]++
	}
	return n
}

func (l *hookLog) hooks() guest.Hooks {
	return guest.Hooks{
		Created:    func(ctx context.Context) { l.add("created") },
		Returned:   func(context.Context) { l.add("returned") },
		FirstWrite: func(context.Context) { l.add("first write") },
		Refused:    func(_ context.Context, reason string) { l.add("refused: %s", reason) },
		Claimed: func(_ context.Context, r guest.Receipt) {
			switch {
			case r.Pending:
				l.add("pending")
			case r.Replayed:
				l.add("replayed")
			default:
				l.add("claimed")
			}
		},
		Stuck: func(context.Context, guest.Receipt, error) { l.add("stuck") },
		StoreCall: func(_ context.Context, op string, d time.Duration, err error) {
			if d < 0 {
				l.add("%s took %v", op, d)
			}
			if err != nil {
				l.add("%s failed: %s", op, guest.StoreErrorClass(err))
			}
		},
	}
}

// newRecordedSite is a site whose hooks are recorded.
func newRecordedSite(t *testing.T, change func(*guest.Config)) (*site, *hookLog) {
	l := &hookLog{}
	return newSite(t, func(c *guest.Config) {
		if change != nil {
			change(c)
		}
		c.Hooks = l.hooks()
	}), l
}

func TestHooks(t *testing.T) {
	t.Parallel()
	s, l := newRecordedSite(t, nil)
	b := s.browser()
	b.add("tea")
	l.expect(t, "created", "first write")
	b.add("tea")
	l.expect(t, "returned")
	b.page()
	b.add("milk")
	l.expect(t)
	old := b.copy()
	s.store.down(errors.New("down"))
	b.login("ann")
	l.expect(t, "get failed: unavailable", "pending")
	s.store.down(nil)
	b.login("ann")
	l.expect(t, "claimed")
	again := old.copy()
	again.login("ann")
	l.expect(t, "replayed")
	old.login("eve")
	l.expect(t, "refused: claimed_by_other")
	forged := s.browser()
	forged.Jar.SetCookies(mustParse(s.url), []*http.Cookie{{Name: "guest", Value: "forged"}})
	forged.page()
	l.expect(t, "refused: invalid_token", "created")
}

func TestHooks_Created(t *testing.T) {
	t.Parallel()

	// A guest whose token was not sent, and that holds nothing, does not count.
	t.Run("only if something comes of the guest", func(t *testing.T) {
		t.Parallel()
		s, l := newRecordedSite(t, nil)
		s.mux.HandleFunc("/public", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=60")
			io.WriteString(w, "for all")
		})
		s.mux.HandleFunc("/add/login/{user}", func(w http.ResponseWriter, r *http.Request) {
			Cart.Add(r.Context(), "tea", 1)
			receipt, err := s.guests.Claim(w, r, r.PathValue("user"))
			writeClaim(w, receipt, err)
		})
		s.mux.HandleFunc("/forget", func(w http.ResponseWriter, r *http.Request) {
			Cart.Add(r.Context(), "tea", 1)
			s.guests.Forget(w, r)
		})
		s.mux.HandleFunc("/silent", func(http.ResponseWriter, *http.Request) {})
		s.mux.HandleFunc("/flush", func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).Flush()
			io.WriteString(w, "later")
		})
		s.mux.HandleFunc("/broken", func(w http.ResponseWriter, r *http.Request) {
			panic(http.ErrAbortHandler)
		})
		for _, tt := range []struct {
			method, path string
			want         []string
		}{
			{"GET", "/page", []string{"created"}},
			{"GET", "/silent", []string{"created"}},
			{"GET", "/flush", []string{"created"}},
			{"POST", "/add/tea", []string{"created", "first write"}},
			{"GET", "/public", nil},
			{"POST", "/login/ann", nil},
			{"GET", "/add/login/bob", []string{"created", "first write", "claimed"}},
			{"GET", "/forget", []string{"created", "first write"}},
			{"HEAD", "/page", nil},
		} {
			s.browser().request(tt.method, tt.path)
			if got := l.take(); !slices.Equal(got, tt.want) {
				t.Errorf("%s %s: %q, want %q", tt.method, tt.path, got, tt.want)
			}
		}
		if _, err := s.browser().Get(s.url + "/broken"); err == nil {
			t.Error("a broken response was whole")
		}
		l.expect(t)

		w := httptest.NewRecorder()
		s.guests.Identify(w, httptest.NewRequest("GET", "/", nil))
		l.expect(t, "created")
	})

	// A hook can ask who the visitor is.
	t.Run("knows the visitor", func(t *testing.T) {
		t.Parallel()
		var mu sync.Mutex
		ids := map[string]string{}
		record := func(event string) func(context.Context) {
			return func(ctx context.Context) {
				mu.Lock()
				defer mu.Unlock()
				ids[event] = guest.FromContext(ctx).GuestID()
			}
		}
		s := newSite(t, func(c *guest.Config) {
			c.Hooks = guest.Hooks{Created: record("created"), Returned: record("returned"),
				FirstWrite: record("first write")}
		})
		b := s.browser()
		id := b.page().Guest
		b.add("tea")
		mu.Lock()
		defer mu.Unlock()
		for _, event := range []string{"created", "returned", "first write"} {
			if ids[event] != id || id == "" {
				t.Errorf("%s: guest %q, want %q", event, ids[event], id)
			}
		}
	})
}

func TestHooks_Claimed(t *testing.T) {
	t.Parallel()

	// The request that finishes a claim calls the hook, once: the same account's, Recover, or a
	// write that finds the guest frozen.
	t.Run("is called where the claim is finished", func(t *testing.T) {
		t.Parallel()
		for _, tt := range []struct {
			name   string
			finish func(*site, *browser)
		}{
			{"login", func(s *site, b *browser) { b.login("ann") }},
			{"Recover", func(s *site, b *browser) { s.guests.Recover(t.Context()) }},
			{"a write", func(s *site, b *browser) { b.copy().add("milk") }},
		} {
			t.Run(tt.name, func(t *testing.T) {
				s, l := newRecordedSite(t, nil)
				b := s.browser()
				b.add("tea")
				b.page()
				l.take()
				s.store.on(func(op, key string, u guest.Update) error {
					if u.Set[".c"] != "" { // frozen, not merged
						return os.ErrDeadlineExceeded
					}
					return nil
				})
				b.login("ann")
				l.expect(t, "update failed: timeout", "pending")
				s.store.on(nil)
				tt.finish(s, b)
				if got := l.count(); got["claimed"] != 1 || got["replayed"] != 0 {
					t.Errorf("finished: %v", got)
				}
				s.guests.Recover(t.Context())
				l.expect(t)
			})
		}
	})

	// A double click: the request that leaves the tombstone has claimed the guest, the other finds
	// it done.
	t.Run("is called by one of two claimers", func(t *testing.T) {
		t.Parallel()
		s, l := newRecordedSite(t, nil)
		b := s.browser()
		b.add("tea")
		b.page()
		twin := b.copy()
		l.take()
		reached, release := make(chan struct{}), make(chan struct{})
		var first atomic.Bool
		s.store.on(func(op, key string, u guest.Update) error {
			if strings.HasPrefix(u.Set[".s"], "c") {
				if first.CompareAndSwap(false, true) {
					close(reached)
					<-release
				}
			}
			return nil
		})
		slow := make(chan claimed)
		go func() { slow <- b.login("ann") }()
		<-reached
		twin.login("ann")
		l.expect(t, "claimed")
		close(release)
		if c := <-slow; c.Err != "" || !c.Receipt.Claimed {
			t.Errorf("%+v", c)
		}
		l.expect(t, "replayed")
	})
}

// Many requests of one browser, at two processes, make one call.
func TestHooksAreCalledOnce(t *testing.T) {
	t.Parallel()
	store := newStore()
	l := &hookLog{}
	var sites []*site
	for range 2 {
		sites = append(sites, newSite(t, func(c *guest.Config) {
			c.Store, c.Hooks = &spy{Store: store}, l.hooks()
		}))
	}
	b := sites[0].browser()
	b.page()
	if got := l.count(); got["created"] != 1 || len(got) != 1 {
		t.Fatal(got)
	}
	cookie := cookieHeader(b)
	all := func(method, path string) {
		var wg sync.WaitGroup
		for i := range 16 {
			s := sites[i%2]
			wg.Go(func() {
				req, _ := http.NewRequest(method, s.url+path, nil)
				req.Header.Set("Cookie", cookie)
				res, err := s.server.Client().Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			})
		}
		wg.Wait()
	}
	all("GET", "/page") // each finds the guest provisional
	if got := l.count(); got["returned"] != 1 || len(got) != 1 {
		t.Errorf("sixteen first returns: %v", got)
	}
	all("POST", "/add/tea")
	if got := l.count(); got["first write"] != 1 || len(got) != 1 {
		t.Errorf("sixteen first additions: %v", got)
	}
	all("POST", "/login/ann")
	// A request that found the guest frozen may finish another's claim before its own: then all
	// sixteen find it done.
	if got := l.count(); got["claimed"] != 1 || got["replayed"] != 15 && got["replayed"] != 16 ||
		len(got) != 2 {
		t.Errorf("sixteen logins: %v", got)
	}
}

func TestHooks_Refused(t *testing.T) {
	t.Parallel()
	s, l := newRecordedSite(t, nil)
	s.mux.HandleFunc("POST /ticket/{user}", func(w http.ResponseWriter, r *http.Request) {
		s.guests.ClaimTicket(w, r, "no ticket", "ann@example.com", r.PathValue("user"))
	})
	s.mux.HandleFunc("POST /preview/{user}", func(w http.ResponseWriter, r *http.Request) {
		s.guests.Preview(r.Context(), r.PathValue("user"))
	})
	first, second := s.browser(), s.browser()
	for _, b := range []*browser{first, second} {
		b.page()
		b.page()
	}
	l.take()
	two := cookieHeader(first) + "; " + cookieHeader(second)
	for _, tt := range []struct {
		path   string
		header []string
		want   []string
	}{
		{"/add/tea", []string{"Cookie", "guest=forged", "Sec-Fetch-Site", "same-origin"},
			[]string{"refused: " + guest.RefusedToken, "created", "first write"}},
		{"/login/ann", []string{"Cookie", two}, []string{"refused: " + guest.RefusedCookies,
			"refused: " + guest.RefusedAmbiguous}},
		{"/login/ann", []string{"Cookie", cookieHeader(first), "Sec-Fetch-Site", "cross-site"},
			[]string{"refused: " + guest.RefusedCrossOrigin}},
		{"/claim", []string{"Cookie", cookieHeader(first), "Sec-Fetch-Site", "cross-site"},
			[]string{"refused: " + guest.RefusedCrossOrigin}},
		{"/ticket/ann", []string{"Cookie", cookieHeader(first)},
			[]string{"refused: " + guest.RefusedTicket}},
		// A preview is no claim.
		{"/preview/ann", []string{"Cookie", cookieHeader(first), "Sec-Fetch-Site", "cross-site"}, nil},
	} {
		s.browser().request("POST", tt.path, tt.header...)
		if got := l.take(); !slices.Equal(got, tt.want) {
			t.Errorf("%s %v: %q, want %q", tt.path, tt.header, got, tt.want)
		}
	}
}

// The context of a hook has the visitor, and the hook may ask it who it is.
func TestHooks_RefusedAsksTheVisitor(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := newSite(t, func(c *guest.Config) {
		c.Hooks.Refused = func(ctx context.Context, _ string) {
			if guest.FromContext(ctx).IsGuest() {
				asked.Add(1)
			}
		}
	})
	s.forgetting().mux.HandleFunc("POST /ask-ticket", func(w http.ResponseWriter, r *http.Request) {
		s.guests.Ticket(r.Context(), "ann@example.com", time.Minute)
	})
	first, b := s.browser(), s.browser()
	first.page()
	first.page()
	cookie := cookieHeader(first)
	b.Timeout = 10 * time.Second
	for i, path := range []string{"/login/ann", "/forget", "/ask-ticket"} {
		b.request("POST", path, "Cookie", cookie, "Sec-Fetch-Site", "cross-site")
		if got := asked.Load(); got != int64(i+1) {
			t.Errorf("after %s the hook has met %d guests, want %d", path, got, i+1)
		}
	}
}

func TestHooks_And(t *testing.T) {
	t.Parallel()
	var a, b hookLog
	both := a.hooks().And(guest.Hooks{}).And(b.hooks())
	ctx := t.Context()
	both.Created(ctx)
	both.Returned(ctx)
	both.FirstWrite(ctx)
	both.Refused(ctx, "why")
	both.Claimed(ctx, guest.Receipt{})
	both.Stuck(ctx, guest.Receipt{}, nil)
	both.StoreCall(ctx, "get", time.Second, guest.ErrQuota)
	want := []string{"created", "returned", "first write", "refused: why", "claimed", "stuck",
		"get failed: quota"}
	a.expect(t, want...)
	b.expect(t, want...)

	var none guest.Hooks
	none = none.And(guest.Hooks{})
	if none.Created != nil || none.Returned != nil || none.FirstWrite != nil || none.Refused != nil ||
		none.Claimed != nil ||
		none.Stuck != nil || none.StoreCall != nil {
		t.Error("nothing and nothing is something")
	}
}

func TestStoreErrorClass(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"":            nil,
		"quota":       fmt.Errorf("too much: %w", guest.ErrQuota),
		"invalid":     fmt.Errorf("no number: %w", guest.ErrInvalid),
		"uncertain":   fmt.Errorf("%w: %w", guest.ErrUncertain, context.DeadlineExceeded),
		"canceled":    context.Canceled,
		"timeout":     fmt.Errorf("no answer: %w", os.ErrDeadlineExceeded),
		"unavailable": errors.New("connection refused"),
	} {
		if got := guest.StoreErrorClass(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
	if got := guest.StoreErrorClass(context.DeadlineExceeded); got != "timeout" {
		t.Errorf("a deadline: %q", got)
	}
}
