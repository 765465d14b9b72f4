package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// A claim is interrupted before each of its steps in turn, and the next request finishes it.
func TestACrashAtAnyStep(t *testing.T) {
	t.Parallel()
	crash := errors.New("the process died")
	finishers := map[string]func(t *testing.T, s *site, b *browser){
		"the claimer's retry": func(t *testing.T, s *site, b *browser) {
			waiting := len(b.cookies()) > 0
			if c := b.login("ann"); c.Err != "" || c.Receipt.Claimed != waiting {
				t.Errorf("%+v", c)
			}
		},
		"the account's next request": func(t *testing.T, s *site, b *browser) {
			b.user = "ann"
			s.guests = nil // another process, which knows nothing of the failure
			other := newSite(t, func(c *guest.Config) { c.Store = s.store })
			req := httptest.NewRequest("GET", "/page", nil)
			req.Header.Set("User", "ann")
			res, _ := b.request("GET", "/static")
			req.Header.Set("Cookie", res.Request.Header.Get("Cookie"))
			w := httptest.NewRecorder()
			other.guests.Middleware(other.mux).ServeHTTP(w, req)
			if !strings.Contains(w.Body.String(), `"tea":2`) {
				t.Errorf("%s", w.Body)
			}
			s.guests = other.guests
		},
		"a late write": func(t *testing.T, s *site, b *browser) {
			before := b.copy()
			before.add("tea")
			b.login("ann")
		},
		"Recover": func(t *testing.T, s *site, b *browser) {
			if _, err := s.guests.Recover(t.Context()); err != nil {
				t.Error(err)
			}
			b.login("ann") // if the crash came before the guest was frozen, there was nothing to recover
		},
		"four Recovers at once": func(t *testing.T, s *site, b *browser) {
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					if _, err := s.guests.Recover(context.Background()); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			b.login("ann")
		},
	}
	for name, finish := range finishers {
		for step := range 7 {
			for _, after := range []bool{false, true} { // or: the step was done, but the reply is lost
				t.Run(fmt.Sprintf("%s/%d/%v", name, step, after), func(t *testing.T) {
					s := newSite(t, nil)
					b := s.browser()
					b.add("tea")
					b.add("tea")
					b.page()
					calls := 0
					mem := s.store.Store
					s.store.on(func(op, key string, u guest.Update) error {
						if calls++; calls <= step {
							return nil
						}
						if after && op == "update" && calls == step+1 {
							if _, err := mem.Update(context.Background(), key, u); err != nil {
								t.Error(err)
							}
						}
						return crash
					})
					c := b.login("ann")
					s.store.on(nil)
					if done := step == 6; done != (c.Err == "") || c.Receipt.Pending == done {
						t.Errorf("crash at step %d: %+v", step, c)
					}
					finish(t, s, b)
					got := s.account("ann")["tea"]
					if name == "a late write" && got == 3 && step <= 3 && !(step == 3 && after) {
						got-- // it came before the guest was frozen: part of the guest's cart
					}
					if got != 2 {
						t.Errorf("the account has %d cups, want 2", got)
					}
					if s.guests == nil {
						return
					}
					s.guests.Recover(t.Context())
					if n := outbox(t, s.store); n > 0 && step > 3 {
						t.Errorf("%d entries left in the outbox", n)
					}
				})
			}
		}
	}
}

// hooked is an app with an OnClaim, in a bubble: its browser has a cup of tea in its cart.
type hooked struct {
	*bubble
	guests *guest.Manager
	log    *bytes.Buffer
	user   string // who is signed in
	last   claimed

	mu    sync.Mutex
	calls []hookCall
}

type hookCall struct {
	receipt guest.Receipt
	cart    map[string]int64 // the account's, as the hook sees it
}

func newHooked(t *testing.T, hook func(n int, ctx context.Context) error) *hooked {
	h := &hooked{log: &bytes.Buffer{}}
	h.guests = newManager(t, guest.Config{
		Account: func(*http.Request) string { return h.user },
		Logger:  slog.New(slog.NewTextHandler(h.log, nil)),
		OnClaim: func(ctx context.Context, r guest.Receipt) error {
			cart, _ := Cart.All(h.guests.As(ctx, r.AccountID))
			h.mu.Lock()
			h.calls = append(h.calls, hookCall{r, cart})
			n := len(h.calls)
			h.mu.Unlock()
			return hook(n, ctx)
		},
	})
	h.bubble = newBubble(h.guests, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/add":
			Cart.Add(r.Context(), "tea", 1)
		case "/login":
			receipt, err := h.guests.Claim(w, r, "ann")
			h.last = claimed{Receipt: receipt}
			if err != nil {
				h.last.Err = err.Error()
			}
		}
	})
	h.get("/add")
	h.get("/")
	return h
}

func (h *hooked) login() claimed {
	h.get("/login")
	return h.last
}

func (h *hooked) cups(t *testing.T) int64 {
	n, err := Cart.Get(h.guests.As(t.Context(), "ann"), "tea")
	if err != nil {
		t.Error(err)
	}
	return n
}

func (h *hooked) seen() []hookCall {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]hookCall{}, h.calls...)
}

func TestOnClaim(t *testing.T) {
	t.Parallel()
	inBubble := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
	}
	inBubble("succeeds", func(t *testing.T) {
		h := newHooked(t, func(int, context.Context) error { return nil })
		c := h.login()
		if c.Err != "" || len(h.seen()) != 1 || h.seen()[0].cart["tea"] != 1 ||
			!reflect.DeepEqual(h.seen()[0].receipt, c.Receipt) {
			t.Errorf("%+v\n%+v", h.seen(), c)
		}
	})
	for name, broken := range map[string]func(ctx context.Context) error{
		"fails":  func(context.Context) error { return errors.New("the database is down") },
		"panics": func(context.Context) error { panic("a bug") },
		"hangs":  func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	} {
		inBubble(name, func(t *testing.T) {
			h := newHooked(t, func(n int, ctx context.Context) error {
				if n <= 2 {
					return broken(ctx)
				}
				return nil
			})
			for range 2 {
				start := time.Now()
				if c := h.login(); c.Err == "" || !c.Receipt.Pending || !c.Receipt.Claimed || len(h.jar) != 1 {
					t.Errorf("%+v, cookies %v", c, h.jar)
				}
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("the login waited for %v", took)
				}
			}
			if h.cups(t) != 1 {
				t.Errorf("the account has %d cups", h.cups(t))
			}
			if n, err := h.guests.Recover(t.Context()); n != 1 || err != nil {
				t.Errorf("Recover: %d, %v", n, err)
			}
			if len(h.seen()) != 3 || !reflect.DeepEqual(h.seen()[0], h.seen()[1]) ||
				!reflect.DeepEqual(h.seen()[0], h.seen()[2]) {
				t.Errorf("the calls differ: %+v", h.seen())
			}
			if c := h.login(); c.Err != "" || len(h.jar) != 0 || len(h.seen()) != 3 || h.cups(t) != 1 {
				t.Errorf("%+v, %d calls, %d cups", c, len(h.seen()), h.cups(t))
			}
		})
	}
	inBubble("is slow, and the visitor clicks twice", func(t *testing.T) {
		h := newHooked(t, func(int, context.Context) error { time.Sleep(time.Second); return nil })
		var wg sync.WaitGroup
		for range 2 {
			r := httptest.NewRequest("POST", "/login", nil)
			for _, c := range h.jar {
				r.AddCookie(c)
			}
			wg.Go(func() {
				if receipt, err := h.guests.Claim(httptest.NewRecorder(), r, "ann"); err != nil ||
					!receipt.Claimed || receipt.Pending {
					t.Errorf("%+v, %v", receipt, err)
				}
			})
		}
		wg.Wait()
		if n := len(h.seen()); n != 1 || h.cups(t) != 1 {
			t.Errorf("%d calls, %d cups", n, h.cups(t))
		}
	})
	inBubble("does not heed its context", func(t *testing.T) {
		release := make(chan struct{})
		h := newHooked(t, func(int, context.Context) error { <-release; return nil })
		for range 3 {
			if c := h.login(); !c.Receipt.Pending {
				t.Errorf("%+v", c)
			}
		}
		if n := len(h.seen()); n != 1 {
			t.Errorf("%d calls pile up", n)
		}
		close(release)
	})
	inBubble("fails at sign-in, and requests wait before they try again", func(t *testing.T) {
		h := newHooked(t, func(int, context.Context) error { return errors.New("no") })
		h.user = "ann"
		for range 5 {
			h.get("/")
		}
		if n := len(h.seen()); n != 1 {
			t.Errorf("%d calls within a second", n)
		}
		if log := h.log.String(); !strings.Contains(log, "a claim is pending") ||
			strings.Contains(log, "ann") || strings.Contains(log, h.seen()[0].receipt.GuestID) {
			t.Errorf("log: %s", log)
		}
		time.Sleep(2 * time.Second)
		h.get("/")
		if n := len(h.seen()); n != 2 {
			t.Errorf("%d calls after two seconds", n)
		}
	})
}

func TestPendingClaims(t *testing.T) {
	t.Parallel()

	// After an outage a claim does not wait long. A hook that fails is called less and less often.
	t.Run("come back soon after an outage", func(t *testing.T) {
		t.Parallel()
		for _, tt := range []struct {
			name   string
			outage bool
			within time.Duration
		}{{"the store was down", true, 10 * time.Second}, {"OnClaim failed", false, time.Hour}} {
			synctest.Test(t, func(t *testing.T) {
				failing := true
				store := &spy{Store: memstore.New(memstore.Config{})}
				m := newManager(t, guest.Config{
					Store:   store,
					Account: func(r *http.Request) string { return strings.TrimPrefix(r.URL.Path, "/") },
					OnClaim: func(context.Context, guest.Receipt) error {
						if failing && !tt.outage {
							return errors.New("no")
						}
						return nil
					},
				})
				claims := 0
				b := newBubble(m, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/" {
						Cart.Add(r.Context(), "tea", 1)
					}
				})
				b.get("/")
				if tt.outage {
					store.down(errors.New("down"))
				}
				for range 60 * 60 { // an hour of a page a second
					before := store.calls.Load()
					b.get("/ann")
					if store.calls.Load() > before {
						claims++
					}
					time.Sleep(time.Second)
				}
				failing = false
				store.down(nil)
				start := time.Now()
				for len(b.jar) > 0 {
					b.get("/ann")
					time.Sleep(time.Second)
				}
				if took := time.Since(start); took > tt.within+2*time.Second {
					t.Errorf("%s: the claim came back after %v", tt.name, took)
				}
				if !tt.outage && claims > 20 {
					t.Errorf("%s: %d tries in an hour", tt.name, claims)
				}
			})
		}
	})

	// A pending claim goes on with the owner's next request, even if a page of a signed-out tab has
	// looked at the guest meanwhile.
	t.Run("go on though a tab looked at the guest", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		mine := s.confirmedCookie("tea")
		s.store.on(func(op, key string, u guest.Update) error {
			if strings.HasPrefix(key, "a:") {
				return errors.New("no answer")
			}
			return nil
		})
		s.request("POST", "/login/ann", mine)
		s.store.on(nil)
		s.show(mine) // was sent before
		time.Sleep(1100 * time.Millisecond)
		r := httptest.NewRequest("GET", "/static", nil)
		r.Header.Set("Cookie", mine)
		r.Header.Set("User", "ann")
		w := httptest.NewRecorder()
		s.guests.Middleware(s.mux).ServeHTTP(w, r)
		if s.account("ann")["tea"] != 1 {
			t.Errorf("ann has %v, and the response says %q", s.account("ann"), w.Header()["Set-Cookie"])
		}
	})

	// While a guest is frozen, its cookie no longer reads its data.
	t.Run("keep the guest's data from its cookie", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		b := s.browser()
		b.add("tea")
		b.request("POST", "/theme/dark")
		old := b.copy()
		s.store.on(func(op, key string, u guest.Update) error {
			if u.Set[".c"] != "" {
				return errors.New("the process died")
			}
			return nil
		})
		if c := b.login("ann"); !c.Receipt.Pending {
			t.Fatalf("%+v", c)
		}
		s.store.on(nil)
		s.mux.HandleFunc("GET /theme", func(w http.ResponseWriter, r *http.Request) {
			theme, err := Theme.Get(r.Context())
			fmt.Fprint(w, theme, err)
		})
		if _, body := old.request("GET", "/theme"); body != "<nil>" {
			t.Errorf("the old cookie reads %q", body)
		}
		if got := s.account("ann"); len(got) != 0 {
			t.Fatalf("ann has %v already", got)
		}
		next := newSite(t, func(c *guest.Config) { c.Store = s.store })
		req := httptest.NewRequest("POST", "/add/cup", nil)
		req.Header.Set("Cookie", cookieHeader(b))
		w := httptest.NewRecorder()
		next.guests.Middleware(next.mux).ServeHTTP(w, req)
		if got := s.account("ann"); got["tea"] != 1 || got["cup"] != 0 || w.Body.String() != "1" {
			t.Errorf("after a late write: %s, ann has %v", w.Body, got)
		}
	})

	t.Run("a paused claimer freezes nothing", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			store := &spy{Store: memstore.New(memstore.Config{})}
			m := newManager(t, guest.Config{Store: store, ClaimTimeout: time.Hour})
			b := newBubble(m, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/claim" {
					receipt, err := m.Claim(w, r, "ann")
					fmt.Fprint(w, receipt.Claimed, err)
					return
				}
				Cart.Add(r.Context(), "tea", 1)
			})
			b.get("/add")
			b.get("/add")
			paused, entries := false, 0
			store.on(func(op, key string, u guest.Update) error {
				if strings.HasPrefix(key, "o:") && u.Stamp != "" {
					entries++
				}
				if !u.NotAfter.IsZero() && !paused {
					paused = true
					time.Sleep(61 * time.Second) // after it wrote its entry, before it freezes the guest
				}
				return nil
			})
			if got := b.get("/claim"); got != "true <nil>" || entries != 2 {
				t.Errorf("%s with %d entries; want a second entry, and success", got, entries)
			}
		})
	})
}

func TestManager_Recover(t *testing.T) {
	t.Parallel()

	t.Run("removes an entry that led nowhere after ten minutes", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			store := &spy{Store: memstore.New(memstore.Config{})}
			m := newManager(t, guest.Config{Store: store})
			var id string
			b := newBubble(m, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/claim" {
					m.Claim(w, r, "ann")
					return
				}
				Cart.Add(r.Context(), "tea", 1)
				id = guest.FromContext(r.Context()).GuestID()
			})
			b.get("/add")
			b.get("/add")
			store.on(func(op, key string, u guest.Update) error {
				if u.Set != nil { // it freezes the guest
					return errors.New("the process died")
				}
				return nil
			})
			b.get("/claim")
			store.on(nil)
			for _, wait := range []time.Duration{0, 9 * time.Minute} {
				time.Sleep(wait)
				if n, err := m.Recover(t.Context()); n != 0 || err != nil || outbox(t, store) != 1 {
					t.Errorf("after %v: %d finished, %v, %d entries", wait, n, err, outbox(t, store))
				}
			}
			time.Sleep(time.Minute)
			m.Recover(t.Context())
			if n := outbox(t, store); n != 0 {
				t.Errorf("%d entries", n)
			}
			if n, _ := Cart.Get(m.AsGuest(t.Context(), id), "tea"); n != 2 {
				t.Errorf("the guest has %d", n)
			}
		})
	})

	// A process dies between its outbox entry and the freezing of a guest that has no record, and the
	// next claim gives the guest another incarnation. The first entry is of no claim that happened.
	t.Run("does not count an entry of another incarnation", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			store := &spy{Store: memstore.New(memstore.Config{})}
			m := newManager(t, guest.Config{Store: store, Create: guest.OnFirstWrite})
			cookie := at(m, "", func(w http.ResponseWriter, r *http.Request) {
				guest.FromContext(r.Context()).GuestID() // its cookie is all that there is of it
			})
			claim := func() { // outside the middleware, which would store the guest
				r := httptest.NewRequest("POST", "/", nil)
				r.Header.Set("Cookie", cookie)
				m.Claim(httptest.NewRecorder(), r, "ann")
			}
			store.on(func(op, key string, u guest.Update) error {
				if u.Set[".s"] != "" {
					return errors.New("the process died")
				}
				return nil
			})
			claim()
			store.on(nil)
			claim()
			for range 2 {
				if n, err := m.Recover(t.Context()); n != 0 || err != nil {
					t.Errorf("%d finished, %v, with %d entries", n, err, outbox(t, store))
				}
			}
			if n := outbox(t, store); n != 1 {
				t.Errorf("%d entries, want that of the process that died", n)
			}
			time.Sleep(11 * time.Minute)
			if n, err := m.Recover(t.Context()); n != 0 || err != nil || outbox(t, store) != 0 {
				t.Errorf("later: %d finished, %v, %d entries", n, err, outbox(t, store))
			}
		})
	})

	// The outbox removes the entry that is done, and no entry whose name begins with that one's:
	// "team/" begins "team/ann".
	t.Run("removes an entry alone, of an account whose ID ends in a slash", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		b := s.browser()
		b.add("tea")
		b.page()
		dies := func(at func(key string, u guest.Update) bool) {
			s.store.on(func(op, key string, u guest.Update) error {
				if at(key, u) {
					return errors.New("the process died")
				}
				return nil
			})
		}
		dies(func(key string, u guest.Update) bool {
			return strings.HasPrefix(key, "g:") && !u.NotAfter.IsZero()
		})
		b.login("team%2F") // has only written its entry
		dies(func(key string, u guest.Update) bool { return u.Set[".c"] != "" })
		b.login("team%2Fann") // the guest is hers, its data are not yet
		if n := outbox(t, s.store); n != 2 {
			t.Fatalf("%d entries, want one of each account", n)
		}
		aged := 0
		for _, key := range s.store.keys(t, "o:") {
			entries, err := s.store.Store.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			for field := range entries {
				if strings.HasSuffix(field, "a:team/") {
					aged++
					// of the year 1970
					u := guest.Update{Set: guest.Fields{field: "1"}}
					if _, err := s.store.Store.Update(t.Context(), key, u); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if n, err := s.guests.Recover(t.Context()); n != 0 || err == nil || aged != 1 {
			t.Errorf("while the account cannot be reached: %d finished, %v", n, err)
		}
		if n := outbox(t, s.store); n != 1 {
			t.Errorf("%d entries, want that of the claim under way", n)
		}
		s.store.on(nil)
		if n, err := s.guests.Recover(t.Context()); n != 1 || err != nil ||
			s.account("team/ann")["tea"] != 1 {
			t.Errorf("%d finished, %v: the account holds %v", n, err, s.account("team/ann"))
		}
	})

	t.Run("reports a claim that is stuck for a day", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var stuck []guest.Receipt
			m := newManager(t, guest.Config{
				OnClaim: func(context.Context, guest.Receipt) error { return errors.New("no") },
				Hooks: guest.Hooks{Stuck: func(_ context.Context, r guest.Receipt, err error) {
					stuck = append(stuck, r)
				}},
			})
			b := newBubble(m, func(w http.ResponseWriter, r *http.Request) {
				Cart.Add(r.Context(), "tea", 1)
				m.Claim(w, r, "ann")
			})
			b.get("/")
			m.Recover(t.Context())
			if len(stuck) != 0 {
				t.Errorf("stuck at once: %+v", stuck)
			}
			time.Sleep(25 * time.Hour)
			m.Recover(t.Context())
			if len(stuck) != 1 || stuck[0].AccountID != "ann" || !stuck[0].Pending {
				t.Errorf("%+v", stuck)
			}
		})
	})
}

// An error of the app's own functions may hold IDs and data, so the log has only the fact of it.
// The caller gets all of it.
func TestTheLogTellsNothingOfTheApp(t *testing.T) {
	t.Parallel()
	const private = "ann@example.com has no row"
	for name, hook := range map[string]func(context.Context, guest.Receipt) error{
		"an error": func(context.Context, guest.Receipt) error { return errors.New(private) },
		"a panic":  func(context.Context, guest.Receipt) error { panic(private) },
	} {
		s := newSite(t, func(c *guest.Config) { c.OnClaim = hook })
		b := s.browser()
		b.add("tea")
		c := b.login("ann")
		if !strings.Contains(c.Err, private) || !c.Receipt.Pending {
			t.Errorf("%s: the caller gets %q", name, c.Err)
		}
		var background bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		next := newSite(t, func(c *guest.Config) { // has logged nothing yet
			c.OnClaim, c.Store = hook, s.store
			c.Logger = slog.New(slog.NewTextHandler(writerFunc(func(line []byte) (int, error) {
				cancel() // so that Run ends
				return background.Write(line)
			}), nil))
		})
		next.guests.Run(ctx, time.Hour)
		for _, log := range []string{s.log.String(), background.String()} {
			if !strings.Contains(log, "OnClaim") || strings.Contains(log, "ann@") {
				t.Errorf("%s: the log: %s", name, log)
			}
		}
	}
}

// Markers are removed when their guests are known to be claimed or gone, so an account's record
// does not grow with every login.
func TestMarkersDoNotPileUp(t *testing.T) {
	t.Parallel()
	store := &spy{Store: newStore()}
	m := replica(t, store, Cart)
	claims := 2000
	if *storeFlag != "memory" || raceEnabled {
		claims = 100
	}
	most, calls := 0, 0
	for range claims {
		at(m, "", func(w http.ResponseWriter, r *http.Request) {
			Cart.Add(r.Context(), "tea", 1)
			calls = max(calls, store.took(func() {
				if receipt, err := m.Claim(w, r, "ann"); err != nil || !receipt.Claimed {
					t.Fatal(receipt, err)
				}
			}))
		})
		n, bytes := markersIn(t, store.Store, "a:")
		if most = max(most, n); most > 10 || bytes > 1000 {
			t.Fatalf("%d markers, %d bytes", n, bytes)
		}
	}
	if calls > 9 {
		t.Errorf("a claim took %d round trips", calls)
	}
	if fields := record(t, store.Store, "a:"); len(fields) > 2+most ||
		fields["cart/tea"] != fmt.Sprint(claims) {
		t.Errorf("%d fields, %s cups", len(fields), fields["cart/tea"])
	}
}

// A marker in an account's record says that a guest was merged into it.
func TestMarkers(t *testing.T) {
	t.Parallel()

	// The marker of a guest that is still frozen stays, however many claims follow. Without it the
	// guest would be merged again.
	t.Run("of pending claims stay", func(t *testing.T) {
		t.Parallel()
		store := newStore()
		m := replica(t, store, Cart)
		stuck := releaseManager(t, store, errors.New("the database is down"))
		var pending []string
		newGuest := func() string {
			return at(m, "", adds("tea"))
		}
		for range 3 {
			cookie := newGuest()
			if receipt, err := claimBy(stuck, cookie, "ann"); err == nil || !receipt.Pending ||
				!receipt.Claimed {
				t.Fatalf("%+v, %v", receipt, err)
			}
			pending = append(pending, cookie)
		}
		for range 100 {
			if receipt, err := claimBy(m, newGuest(), "ann"); err != nil || len(receipt.Kinds) != 1 {
				t.Fatalf("%+v, %v", receipt, err)
			}
		}
		if n, _ := markersIn(t, store, "a:"); n > 13 {
			t.Errorf("%d markers", n)
		}
		for _, cookie := range pending {
			receipt, err := claimBy(m, cookie, "ann")
			if err != nil || len(receipt.Kinds) != 1 || receipt.Kinds[0].GuestTotal != 1 {
				t.Errorf("the retry: %+v, %v", receipt, err)
			}
		}
		if n, err := Cart.Get(m.As(t.Context(), "ann"), "tea"); n != 103 || err != nil {
			t.Errorf("%d cups of 103 guests, %v: a guest was merged twice", n, err)
		}
	})

	// A claimer slept while others finished its claim and their marker was tidied away. It merges
	// nothing.
	t.Run("may be tidied away while a claimer sleeps", func(t *testing.T) {
		t.Parallel()
		for step := range 8 { // at each of its calls
			t.Run(fmt.Sprint("before call ", step+1), func(t *testing.T) {
				mem := newStore()
				store := &spy{Store: mem}
				sleeper, m := replica(t, store, Cart), replica(t, mem, Cart)
				cookie := at(m, "", adds("tea"))
				calls := 0
				store.on(func(op, key string, u guest.Update) error {
					if calls++; calls != step+1 {
						return nil
					}
					receipt, err := claimBy(m, cookie, "ann")
					if err != nil || !receipt.Claimed {
						t.Errorf("%+v, %v", receipt, err)
					}
					for claims := 0; record(t, mem, "a:")[".c"+receipt.ID] != ""; claims++ {
						if claims > 200 {
							t.Fatal("the marker is never tidied away")
						}
						other := at(m, "", adds("cup"))
						claimBy(m, other, "ann")
					}
					return nil
				})
				if receipt, err := claimBy(sleeper, cookie, "ann"); err != nil || receipt.Pending ||
					!receipt.Claimed {
					t.Errorf("%+v, %v", receipt, err)
				}
				if n, err := Cart.Get(m.As(t.Context(), "ann"), "tea"); n != 1 || err != nil {
					t.Errorf("%d cups of one guest, %v", n, err)
				}
			})
		}
	})
}

// A server of the store is rolled back, and forgets its latest writes.
func TestRollback(t *testing.T) {
	t.Parallel()

	// The server is rolled back while OnClaim runs. No receipt says that the claim is done while
	// the guest's data are in an open guest, or in two places.
	t.Run("during OnClaim", func(t *testing.T) {
		t.Parallel()
		for n, row := range []struct {
			forgotten string
			cups      int64 // of the account
			hooks     int
		}{
			{"nothing", 1, 1},
			{"the merge", 0, 1}, // see docs/claim.md: this goes unnoticed
			{"the freezing and the merge", 1, 2},
			{"and the look at the account", 1, 2},
			{"and the outbox entry", 1, 2},
			{"and that the cookie came back", 1, 2},
			{"and the visitor's write", 0, 2},
		} {
			t.Run(row.forgotten, func(t *testing.T) {
				store := &rewinding{Store: newStore()}
				hooks := 0
				m := newManager(t, guest.Config{
					Store: store,
					OnClaim: func(context.Context, guest.Receipt) error {
						if hooks++; hooks == 1 {
							store.rewind(t, n)
						}
						return nil
					},
				})
				cookie := at(m, "", adds("tea"))
				receipt, err := claimBy(m, cookie, "ann")
				if err != nil || !receipt.Claimed || receipt.Pending || hooks != row.hooks {
					t.Errorf("%+v, %v, OnClaim was called %d times", receipt, err, hooks)
				}
				info, err := m.Inspect().Guest(t.Context(), receipt.GuestID)
				if info.State != guest.StateClaimed || len(info.Kinds) > 0 {
					t.Errorf("the receipt says claimed, and the guest is %+v, %v", info, err)
				}
				if cups, err := Cart.Get(m.As(t.Context(), "ann"), "tea"); cups != row.cups || err != nil {
					t.Errorf("the account has %d cups, %v, want %d", cups, err, row.cups)
				}
			})
		}
	})

	// The server is rolled back while a claimer sleeps before its merge, and gives out again the
	// generation that the claimer has read: to a merge of the same guest, so that the account looks
	// as before.
	t.Run("a generation is given out again", func(t *testing.T) {
		t.Parallel()
		store := &rewinding{Store: newStore()}
		asleep := &spy{Store: store}
		sleeper, m := replica(t, asleep, Cart), replica(t, store, Cart)
		newGuest := func() string {
			return at(m, "", adds("tea"))
		}
		other, cookie := newGuest(), newGuest()
		if receipt, err := claimBy(m, other, "ann"); err != nil || !receipt.Claimed {
			t.Fatalf("%+v, %v", receipt, err)
		}
		account := func() guest.Fields { return record(t, store.Store, "a:") }
		asleep.on(func(op, key string, u guest.Update) error {
			if u.Set[".c"] == "" {
				return nil
			}
			asleep.on(nil)
			seen := account()[".c"]
			for account()["cart/tea"] != "" { // the other's merge is forgotten, and all since then
				store.rewind(t, 1)
			}
			if receipt, err := claimBy(m, cookie, "ann"); err != nil || !receipt.Claimed {
				t.Errorf("%+v, %v", receipt, err)
			}
			if again := account(); again[".c"] != seen || again["cart/tea"] != "1" {
				t.Errorf("%v, want the generation %s", again, seen)
			}
			return nil
		})
		receipt, err := claimBy(sleeper, cookie, "ann")
		if err != nil || !receipt.Claimed || receipt.Pending {
			t.Errorf("%+v, %v", receipt, err)
		}
		if n, err := m.Recover(t.Context()); n != 1 || err != nil {
			t.Errorf("%d claims were finished, %v", n, err)
		}
		if cups := account()["cart/tea"]; cups != "2" {
			t.Errorf("%s cups of two guests", cups)
		}
	})
}

// A claim does not touch a record of a newer form, as it cannot know what its fields mean.
func TestANewerRecordIsLeftAlone(t *testing.T) {
	t.Parallel()
	store := memstore.New(memstore.Config{})
	m := releaseManager(t, store, nil)
	var id string
	cookie := at(m, "", func(w http.ResponseWriter, r *http.Request) {
		id = guest.FromContext(r.Context()).GuestID()
		Cart.Add(r.Context(), "tea", 1)
	})
	if _, err := store.Update(t.Context(), "g:"+
		id, guest.Update{Set: guest.Fields{".i": "2aaaaaaaaaaaaa"}}); err != nil {
		t.Fatal(err)
	}
	at(m, cookie, func(w http.ResponseWriter, r *http.Request) {
		if receipt, err := m.Claim(w, r, "ann"); err == nil || !receipt.Pending {
			t.Errorf("%+v, %v", receipt, err)
		}
	})
	at(m, cookie, func(w http.ResponseWriter, r *http.Request) {
		if n, err := Cart.Get(r.Context(), "tea"); n != 1 || err != nil {
			t.Errorf("the cart holds %d, %v", n, err)
		}
	})
}
