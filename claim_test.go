package guest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

func TestClaimIntoANewAndAnExistingAccount(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	b.add("tea")
	b.add("tea")
	b.add("cup")
	b.request("POST", "/theme/dark")
	guestID := b.page().Guest

	c := b.login("ann")
	if c.Err != "" || !c.Receipt.Claimed || c.Receipt.Replayed || c.Receipt.Pending || c.Receipt.ID == "" ||
		c.Receipt.GuestID != guestID || c.Receipt.AccountID != "ann" || time.Since(c.Receipt.At).Abs() > time.Minute {
		t.Errorf("receipt %+v", c)
	}
	if k := kept(t, c.Receipt, "cart"); k != (guest.KindReceipt{Name: "cart", Outcome: guest.Moved, GuestItems: 2, GuestTotal: 3, ResultItems: 2, ResultTotal: 3}) {
		t.Errorf("cart: %+v", k)
	}
	if k := kept(t, c.Receipt, "theme"); k.Outcome != guest.Moved {
		t.Errorf("theme: %+v", k)
	}
	if got := b.cookies(); len(got) != 0 {
		t.Errorf("guest cookies after the claim: %v", got)
	}
	b.user = "ann"
	if p := b.page(); p.Account != "ann" || p.IsGuest || p.Guest != "" || p.Theme != "dark" || !maps.Equal(p.Cart, map[string]int64{"tea": 2, "cup": 1}) {
		t.Errorf("member's page: %+v", p)
	}

	b.user = "" // logs out: a fresh, empty guest
	if p := b.page(); !p.New || p.Replaced || p.Guest == guestID || len(p.Cart) != 0 || p.Theme != "" {
		t.Errorf("after logging out: %+v", p)
	}
	b.add("tea")
	b.add("pot")
	b.request("POST", "/theme/light")
	c = b.login("ann")
	if k := kept(t, c.Receipt, "cart"); k != (guest.KindReceipt{Name: "cart", Outcome: guest.Merged, GuestItems: 2, GuestTotal: 2, AccountItems: 2, AccountTotal: 3, ResultItems: 3, ResultTotal: 5}) {
		t.Errorf("cart: %+v", k)
	}
	if k := kept(t, c.Receipt, "theme"); k.Outcome != guest.Kept {
		t.Errorf("theme: %+v", k)
	}
	want := map[string]int64{"tea": 3, "cup": 1, "pot": 1}
	if got := s.account("ann"); !maps.Equal(got, want) {
		t.Errorf("the account holds %v, want %v", got, want)
	}
	b.user = "ann"
	for range 3 { // reloads merge nothing twice
		if p := b.page(); !maps.Equal(p.Cart, want) || p.Theme != "dark" {
			t.Errorf("member's page: %+v", p)
		}
	}
	if n := outbox(t, s.store); n != 0 {
		t.Errorf("%d notes left", n)
	}
}

func TestClaimIsDoneOnce(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	b.add("tea")
	b.page()
	tabs := make([]*browser, 16)
	for i := range tabs {
		tabs[i] = b.copy()
	}
	var first atomic.Int64
	ids := make([]string, len(tabs))
	var wg sync.WaitGroup
	for i, tab := range tabs {
		wg.Go(func() {
			c := tab.login("ann")
			if c.Err != "" || !c.Receipt.Claimed {
				t.Errorf("%+v", c)
			}
			if !c.Receipt.Replayed {
				first.Add(1)
			}
			if k := kept(t, c.Receipt, "cart"); k.Outcome != guest.Moved || k.ResultTotal != 1 {
				t.Errorf("cart: %+v", k)
			}
			ids[i] = c.Receipt.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("receipts %v", ids)
		}
	}
	if got := s.account("ann"); got["tea"] != 1 {
		t.Errorf("the account holds %v", got)
	}
	old := b.copy()
	if c := old.login("ann"); !c.Receipt.Claimed || !c.Receipt.Replayed || c.Receipt.ID != ids[0] {
		t.Errorf("again: %+v", c)
	}
	if got := s.account("ann"); got["tea"] != 1 {
		t.Errorf("the account holds %v", got)
	}
}

func TestOneAccountWins(t *testing.T) {
	for round := range 20 {
		s := newSite(t, nil)
		b := s.browser()
		b.add("tea")
		b.page()
		var won atomic.Int64
		var wg sync.WaitGroup
		for i := range 8 {
			tab := b.copy()
			wg.Go(func() {
				c := tab.login(fmt.Sprintf("account-%d", i))
				switch {
				case c.Err == "" && c.Receipt.Claimed:
					won.Add(1)
				case c.Err != guest.ErrClaimed.Error():
					t.Errorf("%+v", c)
				case strings.Contains(fmt.Sprint(c), "account-") && c.Receipt.AccountID != fmt.Sprintf("account-%d", i):
					t.Errorf("the owner is disclosed: %+v", c)
				}
			})
		}
		wg.Wait()
		total := int64(0)
		for i := range 8 {
			total += s.account(fmt.Sprintf("account-%d", i))["tea"]
		}
		if won.Load() != 1 || total != 1 {
			t.Fatalf("round %d: %d accounts won, %d of 1 cups of tea are there", round, won.Load(), total)
		}
	}
}

func TestTheOldCookieIsWorthNothing(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	b.add("tea")
	b.page()
	thief := b.copy()
	b.login("ann")
	if p := thief.page(); len(p.Cart) != 0 || p.Theme != "" || !p.Replaced || p.Account != "" {
		t.Errorf("the old cookie reads %+v", p)
	}
	thief.user = "eve"
	if p := thief.page(); len(p.Cart) != 0 || p.Account != "eve" {
		t.Errorf("the old cookie, signed in as another: %+v", p)
	}
	if got := s.account("eve"); len(got) != 0 {
		t.Errorf("eve got %v", got)
	}
	if got := s.account("ann"); got["tea"] != 1 {
		t.Errorf("ann has %v", got)
	}
}

func TestASignedInRequestClaims(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	b.add("tea")
	b.user = "ann" // the app's login knew nothing of guests
	if p := b.page(); p.Cart["tea"] != 1 || p.Account != "ann" {
		t.Errorf("%+v", p)
	}
	if got := b.cookies(); len(got) != 0 {
		t.Errorf("cookies %v", got)
	}

	s = newSite(t, func(c *guest.Config) { c.AutoClaim = func(*http.Request) bool { return false } })
	b = s.browser()
	b.add("tea")
	b.user = "ann"
	if p := b.page(); len(p.Cart) != 0 || len(b.cookies()) != 1 {
		t.Errorf("AutoClaim says no: %+v, cookies %v", p, b.cookies())
	}
	if c := b.login("ann"); !c.Receipt.Claimed || s.account("ann")["tea"] != 1 {
		t.Errorf("AutoClaim says no: %+v", c)
	}
}

func TestAClaimTakesTheSiblingsToo(t *testing.T) {
	s := newSite(t, nil)
	b, parallel := s.browser(), s.browser()
	b.add("tea")
	res, _ := parallel.request("POST", "/add/cup")
	b.Jar.SetCookies(res.Request.URL, res.Cookies())
	if len(b.cookies()) != 2 {
		t.Fatal(b.cookies())
	}
	b.user = "ann"
	if p := b.page(); !maps.Equal(p.Cart, map[string]int64{"tea": 1, "cup": 1}) || len(b.cookies()) != 0 {
		t.Errorf("%+v, cookies %v", p, b.cookies())
	}
}

func TestClaimByTheFirstReturningRequest(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	b.add("tea")
	if c := b.login("ann"); !c.Receipt.Claimed || len(b.cookies()) != 0 {
		t.Errorf("%+v, cookies %v", c, b.cookies())
	}
	b.add("tea")
	b.user = "ann"
	if b.page(); len(b.cookies()) != 0 || s.account("ann")["tea"] != 2 {
		t.Errorf("cookies %v, ann has %v", b.cookies(), s.account("ann"))
	}
}

func TestClaimWithoutAGuest(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	c := b.login("ann") // minted by this very request: nothing to claim
	if c.Err != "" || c.Receipt.Claimed || c.Receipt.Pending {
		t.Errorf("%+v", c)
	}
	if got := b.cookies(); len(got) != 0 {
		t.Errorf("cookies %v", got)
	}
	if keys := s.store.keys(t, ""); len(keys) != 0 {
		t.Errorf("records %v", keys)
	}
}

func TestClaimOfAnEmptyGuestLeavesTheAccountAlone(t *testing.T) {
	s := newSite(t, func(c *guest.Config) { c.Create = guest.OnFirstWrite })
	b := s.browser()
	b.page()
	b.page()
	old := b.copy()
	c := b.login("ann")
	if !c.Receipt.Claimed || len(c.Receipt.Kinds) != 0 || len(b.cookies()) != 0 {
		t.Errorf("%+v", c)
	}
	if keys := s.store.keys(t, "a:"); len(keys) != 0 {
		t.Errorf("records %v", keys)
	}
	if c := old.login("eve"); c.Err != guest.ErrClaimed.Error() {
		t.Errorf("by another account: %+v", c)
	}
}

func TestAMemberForTheRestOfTheRequest(t *testing.T) {
	s := newSite(t, nil)
	s.mux.HandleFunc("POST /signup", func(w http.ResponseWriter, r *http.Request) {
		if _, err := s.guests.Claim(w, r, "ann"); err != nil {
			t.Error(err)
		}
		Cart.Add(r.Context(), "gift", 1)
		n, err := Cart.Get(r.Context(), "tea")
		if v := guest.FromContext(r.Context()); n != 1 || err != nil || v.AccountID() != "ann" || v.IsGuest() {
			t.Errorf("%d, %v, %q", n, err, v.AccountID())
		}
	})
	b := s.browser()
	b.add("tea")
	b.request("POST", "/signup")
	if got := s.account("ann"); !maps.Equal(got, map[string]int64{"tea": 1, "gift": 1}) {
		t.Errorf("%v", got)
	}
}

func TestLateWrites(t *testing.T) {
	setup := func(t *testing.T) (*site, *browser) {
		s := newSite(t, nil)
		b := s.browser()
		b.add("tea")
		b.page()
		old := b.copy()
		b.login("ann")
		return s, old
	}
	t.Run("by the owner", func(t *testing.T) {
		s, old := setup(t)
		old.user = "ann"
		if n := old.add("tea"); n != "2" || s.account("ann")["tea"] != 2 {
			t.Errorf("%s, %v", n, s.account("ann"))
		}
	})
	t.Run("by nobody", func(t *testing.T) {
		s, old := setup(t)
		if n := old.add("tea"); n != "1" {
			t.Errorf("a fresh guest's cart has %s", n)
		}
		if p := old.page(); p.Cart["tea"] != 1 || p.New || p.Replaced {
			t.Errorf("its next page: %+v", p)
		}
		if s.account("ann")["tea"] != 1 {
			t.Errorf("ann has %v", s.account("ann"))
		}
	})
	t.Run("by somebody else", func(t *testing.T) {
		s, old := setup(t)
		old.user = "eve"
		if n := old.add("tea"); n != "1" || s.account("ann")["tea"] != 1 || s.account("eve")["tea"] != 1 {
			t.Errorf("%s, ann %v, eve %v", n, s.account("ann"), s.account("eve"))
		}
	})
	t.Run("by a process that has not seen the claim", func(t *testing.T) {
		s, old := setup(t)
		other := newSite(t, func(c *guest.Config) { c.Store = s.store })
		res, _ := old.request("GET", "/static")
		req := httptest.NewRequest("POST", "/add/tea", nil)
		req.Header.Set("Cookie", res.Request.Header.Get("Cookie"))
		w := httptest.NewRecorder()
		other.guests.Middleware(other.mux).ServeHTTP(w, req)
		if w.Code != 200 || w.Body.String() != "1" || len(w.Result().Cookies()) == 0 {
			t.Errorf("%d %s, cookies %v", w.Code, w.Body, w.Result().Cookies())
		}
		req = httptest.NewRequest("GET", "/add/tea", nil) // its response is not watched
		req.Header.Set("Cookie", res.Request.Header.Get("Cookie"))
		third := newSite(t, func(c *guest.Config) { c.Store = s.store })
		w = httptest.NewRecorder()
		third.guests.Middleware(third.mux).ServeHTTP(w, req)
		if w.Code != 503 || !strings.Contains(w.Body.String(), guest.ErrClaimed.Error()) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
	t.Run("by a stream that outlives the claim", func(t *testing.T) {
		s := newSite(t, nil)
		claimed := make(chan struct{})
		for _, method := range []string{"GET", "POST"} {
			s.mux.HandleFunc(method+" /stream", func(w http.ResponseWriter, r *http.Request) {
				Cart.Add(r.Context(), "tea", 1)
				http.NewResponseController(w).Flush()
				<-claimed
				_, err := Cart.Add(r.Context(), "tea", 1)
				fmt.Fprint(w, errors.Is(err, guest.ErrClaimed))
			})
		}
		b := s.browser()
		b.page()
		b.page()
		var answers []*http.Response
		for _, method := range []string{"GET", "POST"} {
			req, _ := http.NewRequest(method, s.url+"/stream", nil)
			res, err := b.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			answers = append(answers, res)
		}
		b.login("ann")
		close(claimed)
		for _, res := range answers {
			body := make([]byte, 100)
			n, _ := res.Body.Read(body)
			res.Body.Close()
			if string(body[:n]) != "true" {
				t.Errorf("%s: the late write answered %q, want ErrClaimed", res.Request.Method, body[:n])
			}
		}
		if s.account("ann")["tea"] != 2 {
			t.Errorf("ann has %v", s.account("ann"))
		}
	})
}

// A claim is interrupted before each of its steps in turn; whoever comes next finishes it.
func TestACrashAtAnyStep(t *testing.T) {
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
			b.login("ann") // where the crash came before the seal there was nothing to recover
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
						got-- // it came before the seal: part of the guest's cart
					}
					if got != 2 {
						t.Errorf("the account has %d cups, want 2", got)
					}
					if s.guests == nil {
						return
					}
					s.guests.Recover(t.Context())
					if n := outbox(t, s.store); n > 0 && step > 3 {
						t.Errorf("%d notes left", n)
					}
				})
			}
		}
	}
}

// After an outage a claim does not wait long; a hook that fails is asked less and less often.
func TestPendingClaimsComeBack(t *testing.T) {
	for _, tt := range []struct {
		name   string
		outage bool
		within time.Duration
	}{{"the store was down", true, 10 * time.Second}, {"OnClaim failed", false, time.Hour}} {
		synctest.Test(t, func(t *testing.T) {
			failing := true
			store := &spy{Store: memstore.New(memstore.Config{})}
			m, _ := guest.New(guest.Config{
				Store: store, Secrets: [][]byte{secret}, Data: []guest.Kind{Cart},
				Account: func(r *http.Request) string { return strings.TrimPrefix(r.URL.Path, "/") },
				OnClaim: func(context.Context, guest.Receipt) error {
					if failing && !tt.outage {
						return errors.New("no")
					}
					return nil
				},
			})
			claims := 0
			b := &bubble{jar: map[string]*http.Cookie{}, h: m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/" {
					Cart.Add(r.Context(), "tea", 1)
				}
			}))}
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
}

func TestAPausedClaimerSealsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &spy{Store: memstore.New(memstore.Config{})}
		m, _ := guest.New(guest.Config{Store: store, Secrets: [][]byte{secret}, Data: []guest.Kind{Cart}, ClaimTimeout: time.Hour})
		b := &bubble{jar: map[string]*http.Cookie{}}
		b.h = m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/claim" {
				receipt, err := m.Claim(w, r, "ann")
				fmt.Fprint(w, receipt.Claimed, err)
				return
			}
			Cart.Add(r.Context(), "tea", 1)
		}))
		b.get("/add")
		b.get("/add")
		paused, notes := false, 0
		store.on(func(op, key string, u guest.Update) error {
			if strings.HasPrefix(key, "o:") && u.Stamp != "" {
				notes++
			}
			if !u.NotAfter.IsZero() && !paused {
				paused = true
				time.Sleep(61 * time.Second) // between its note and its seal
			}
			return nil
		})
		if got := b.get("/claim"); got != "true <nil>" || notes != 2 {
			t.Errorf("%s with %d notes; want it to note again and succeed", got, notes)
		}
	})
}

func TestANoteThatLedNowhereIsStruckAfterTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &spy{Store: memstore.New(memstore.Config{})}
		m, _ := guest.New(guest.Config{Store: store, Secrets: [][]byte{secret}, Data: []guest.Kind{Cart}})
		var id string
		b := &bubble{jar: map[string]*http.Cookie{}}
		b.h = m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/claim" {
				m.Claim(w, r, "ann")
				return
			}
			Cart.Add(r.Context(), "tea", 1)
			id = guest.FromContext(r.Context()).GuestID()
		}))
		b.get("/add")
		b.get("/add")
		store.on(func(op, key string, u guest.Update) error {
			if u.Set != nil { // the seal
				return errors.New("the process died")
			}
			return nil
		})
		b.get("/claim")
		store.on(nil)
		for _, wait := range []time.Duration{0, 9 * time.Minute} {
			time.Sleep(wait)
			if n, err := m.Recover(t.Context()); n != 0 || err != nil || outbox(t, store) != 1 {
				t.Errorf("after %v: %d finished, %v, %d notes", wait, n, err, outbox(t, store))
			}
		}
		time.Sleep(time.Minute)
		m.Recover(t.Context())
		if n := outbox(t, store); n != 0 {
			t.Errorf("%d notes", n)
		}
		if n, _ := Cart.Get(m.AsGuest(t.Context(), id), "tea"); n != 2 {
			t.Errorf("the guest has %d", n)
		}
	})
}

// The outbox removes the entry that is over, and not those that its name begins: "team/" begins "team/ann".
func TestAnAccountIDThatEndsInASlashTakesNoOtherEntryAlong(t *testing.T) {
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
	dies(func(key string, u guest.Update) bool { return strings.HasPrefix(key, "g:") && !u.NotAfter.IsZero() })
	b.login("team%2F") // has only noted it
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
				if _, err := s.store.Store.Update(t.Context(), key, guest.Update{Set: guest.Fields{field: "1"}}); err != nil { // 1970
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
	if n, err := s.guests.Recover(t.Context()); n != 1 || err != nil || s.account("team/ann")["tea"] != 1 {
		t.Errorf("%d finished, %v: the account holds %v", n, err, s.account("team/ann"))
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
	var err error
	h.guests, err = guest.New(guest.Config{
		Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Data: []guest.Kind{Cart},
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
	if err != nil {
		t.Fatal(err)
	}
	h.bubble = &bubble{jar: map[string]*http.Cookie{}, h: h.guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
	}))}
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
	inBubble := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
	}
	inBubble("succeeds", func(t *testing.T) {
		h := newHooked(t, func(int, context.Context) error { return nil })
		c := h.login()
		if c.Err != "" || len(h.seen()) != 1 || h.seen()[0].cart["tea"] != 1 || !reflect.DeepEqual(h.seen()[0].receipt, c.Receipt) {
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
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("the login waited for %v", took)
				}
			}
			if h.cups(t) != 1 {
				t.Errorf("the account has %d cups", h.cups(t))
			}
			if n, err := h.guests.Recover(t.Context()); n != 1 || err != nil {
				t.Errorf("Recover: %d, %v", n, err)
			}
			if len(h.seen()) != 3 || !reflect.DeepEqual(h.seen()[0], h.seen()[1]) || !reflect.DeepEqual(h.seen()[0], h.seen()[2]) {
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
				if receipt, err := h.guests.Claim(httptest.NewRecorder(), r, "ann"); err != nil || !receipt.Claimed || receipt.Pending {
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
		if log := h.log.String(); !strings.Contains(log, "a claim is pending") || strings.Contains(log, "ann") || strings.Contains(log, h.seen()[0].receipt.GuestID) {
			t.Errorf("log: %s", log)
		}
		time.Sleep(2 * time.Second)
		h.get("/")
		if n := len(h.seen()); n != 2 {
			t.Errorf("%d calls after two seconds", n)
		}
	})
}

func TestAStuckClaimIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stuck []guest.Receipt
		m, _ := guest.New(guest.Config{
			Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Data: []guest.Kind{Cart},
			OnClaim: func(context.Context, guest.Receipt) error { return errors.New("no") },
			Hooks:   guest.Hooks{Stuck: func(_ context.Context, r guest.Receipt, err error) { stuck = append(stuck, r) }},
		})
		b := &bubble{jar: map[string]*http.Cookie{}, h: m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			Cart.Add(r.Context(), "tea", 1)
			m.Claim(w, r, "ann")
		}))}
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
}

func TestClaimFromAnotherSiteIsRefused(t *testing.T) {
	s := newSite(t, nil)
	for _, header := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Origin", "https://evil.example"},
	} {
		b := s.browser()
		b.add("tea")
		b.page()
		_, body := b.request("POST", "/login/ann", header...)
		var c claimed
		json.Unmarshal([]byte(body), &c)
		if c.Err != guest.ErrCrossOrigin.Error() || c.Receipt.Claimed || len(b.cookies()) != 1 {
			t.Errorf("%v: %s, cookies %v", header, body, b.cookies())
		}
		b.user = "ann" // nor by being signed in
		b.request("POST", "/add/cup", header...)
		b.user = ""
		if p := b.page(); p.Cart["tea"] != 1 {
			t.Errorf("%v: the guest's cart is %v", header, p.Cart)
		}
	}
	if got := s.account("ann"); got["tea"] != 0 {
		t.Errorf("the account holds %v", got)
	}
}

func TestClaimHandler(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	b.add("tea")
	b.page()
	status := func(b *browser, method string, want int, header ...string) string {
		t.Helper()
		res, body := b.request(method, "/claim", header...)
		if res.StatusCode != want {
			t.Errorf("%s /claim %v: %s: %s; want %d", method, header, res.Status, body, want)
		}
		return body
	}
	status(b, "GET", 405)
	status(b, "POST", 401)
	b.user = "ann"
	status(b, "POST", 403, "Sec-Fetch-Site", "cross-site")
	s.store.down(errors.New("down"))
	if body := status(b, "POST", 503); !strings.Contains(body, `"pending":true`) {
		t.Errorf("%s", body)
	}
	s.store.down(nil)

	c := newSite(t, func(c *guest.Config) { c.Store = s.store; c.AutoClaim = func(*http.Request) bool { return false } })
	cb := c.browser()
	cb.add("tea")
	cb.page()
	tab := cb.copy()
	cb.user, tab.user = "ann", "eve"
	body := status(cb, "POST", 200)
	for _, want := range []string{`"id":"`, `"guest_id":"`, `"account_id":"ann"`, `"claimed":true`, `"replayed":false`, `"outcome":"`, `"guest_items":1`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
	if body := status(tab, "POST", 409); strings.Contains(body, "ann\"") {
		t.Errorf("the owner is disclosed: %s", body)
	}
}

func TestRulesForOneClaim(t *testing.T) {
	s := newSite(t, nil)
	s.mux.HandleFunc("POST /checkout", func(w http.ResponseWriter, r *http.Request) {
		receipt, err := s.guests.Claim(w, r, "ann",
			guest.With(Theme, guest.PreferGuest[string]),
			guest.With(Cart, guest.EachItem(guest.Max[int64])))
		writeClaim(w, receipt, err)
	})
	ann := s.guests.As(t.Context(), "ann")
	Theme.Set(ann, "dark")
	Cart.Add(ann, "tea", 3)
	b := s.browser()
	b.add("tea")
	b.request("POST", "/theme/light")
	b.request("POST", "/checkout")
	theme, _ := Theme.Get(ann)
	if got := s.account("ann"); theme != "light" || got["tea"] != 3 {
		t.Errorf("%s, %v", theme, got)
	}
}

func TestPreviewSaysWhatAClaimDoes(t *testing.T) {
	s := newSite(t, nil)
	var preview guest.Receipt
	s.mux.HandleFunc("GET /preview", func(w http.ResponseWriter, r *http.Request) {
		var err error
		if preview, err = s.guests.Preview(r.Context(), "ann"); err != nil {
			t.Error(err)
		}
	})
	Cart.Add(s.guests.As(t.Context(), "ann"), "tea", 3)
	b := s.browser()
	b.add("tea")
	b.request("POST", "/theme/light")
	b.request("GET", "/preview")
	if got := s.account("ann"); preview.Claimed || got["tea"] != 3 || b.page().Cart["tea"] != 1 {
		t.Errorf("the preview changed something: %+v, %v", preview, got)
	}
	c := b.login("ann")
	if !reflect.DeepEqual(preview.Kinds, c.Receipt.Kinds) || preview.GuestID != c.Receipt.GuestID {
		t.Errorf("preview %+v\nclaim   %+v", preview.Kinds, c.Receipt.Kinds)
	}
}

func TestAMergeRuleThatPanics(t *testing.T) {
	broken := guest.NewValue("broken", func(account, guest int) int { panic("a bug") })
	s := newSite(t, func(c *guest.Config) { c.Data = append(c.Data, broken) })
	s.mux.HandleFunc("POST /broken", func(w http.ResponseWriter, r *http.Request) { broken.Set(r.Context(), 1) })
	broken.Set(s.guests.As(t.Context(), "ann"), 2)
	b := s.browser()
	b.add("tea")
	b.request("POST", "/broken")
	c := b.login("ann")
	if !c.Receipt.Pending || !strings.Contains(c.Err, `data "broken": the merge rule panicked: a bug`) {
		t.Errorf("%+v", c)
	}
	if got := s.account("ann"); len(got) != 0 {
		t.Errorf("half of it was merged: %v", got)
	}
	mended := newSite(t, func(c *guest.Config) {
		c.Store, c.Data = s.store, append(c.Data, guest.NewValue("broken", guest.PreferAccount[int]))
	})
	if n, err := mended.guests.Recover(t.Context()); n != 1 || err != nil || mended.account("ann")["tea"] != 1 {
		t.Errorf("with a mended rule: %d, %v, %v", n, err, mended.account("ann"))
	}
}

func TestAFullAccountTakesNoMoreThanTwiceItsQuota(t *testing.T) {
	s := newSite(t, func(c *guest.Config) { c.Quota = guest.Quota{Fields: 5} })
	var c claimed
	for round := range 3 {
		b := s.browser()
		for i := range 5 {
			b.add(fmt.Sprintf("item-%d-%d", round, i))
		}
		c = b.login("ann")
	}
	if k := kept(t, c.Receipt, "cart"); k.GuestItems != 5 || k.AccountItems != 10 || k.ResultItems != 10 || k.DroppedItems != 5 {
		t.Errorf("the third claim: %+v", k)
	}
	if got := s.account("ann"); len(got) != 10 {
		t.Errorf("%d items", len(got))
	}
}

// An item that grows is as good as a new one: a rule that joins texts does not bring an account over twice its quota.
func TestItemsThatGrowInAClaimKeepWithinTwiceTheQuota(t *testing.T) {
	join := func(account, guest string) string { return account + guest }
	notes := guest.NewMap("notes", guest.EachItem(join))
	draft := guest.NewValue("draft", join)
	m, err := guest.New(guest.Config{
		Store: newStore(), Secrets: [][]byte{secret}, Data: []guest.Kind{notes, draft}, Quota: guest.Quota{Bytes: 16 << 10},
	})
	if err != nil {
		t.Fatal(err)
	}
	ann := m.As(t.Context(), "ann")
	var refused int
	for i := range 64 {
		cookie := at(m, "", func(w http.ResponseWriter, r *http.Request) {
			for _, item := range []string{"a", "b", "c"} {
				if err := notes.Set(r.Context(), item, strings.Repeat("x", 4<<10)); err != nil {
					t.Fatal(err)
				}
			}
			if err := draft.Set(r.Context(), strings.Repeat("y", 3<<10)); err != nil {
				t.Fatal(err)
			}
		})
		receipt, err := claimBy(m, cookie, "ann")
		if err != nil {
			t.Fatal(err)
		}
		items, err := notes.All(ann)
		text, err2 := draft.Get(ann)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		size := len(text) + len(items["a"]) + len(items["b"]) + len(items["c"])
		if size > 32<<10 {
			t.Fatalf("after %d claims the account holds %d bytes; twice its quota are %d", i+1, size, 32<<10)
		}
		for _, k := range receipt.Kinds {
			refused += k.DroppedItems
		}
		if k := kept(t, receipt, "notes"); i == 63 && (k.DroppedItems != 3 || k.ResultItems != 3) {
			t.Errorf("the last receipt: %+v", k)
		}
	}
	if refused < 200 {
		t.Errorf("the receipts count %d items that were not taken", refused)
	}
}

func TestAccountIDs(t *testing.T) {
	s := newSite(t, nil)
	ids := []string{"1", "a{b}c", "with/slash/and@at", "x\x00y", "é", strings.Repeat("k", 512)}
	for _, id := range ids {
		r := httptest.NewRequest("POST", "/", nil)
		w := httptest.NewRecorder()
		s.guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			Cart.Add(r.Context(), "tea", 1)
			if receipt, err := s.guests.Claim(w, r, id); err != nil || !receipt.Claimed || receipt.AccountID != id {
				t.Errorf("%q: %+v, %v", id, receipt, err)
			}
		})).ServeHTTP(w, r)
		if got := s.account(id); got["tea"] != 1 {
			t.Errorf("%q: %v", id, got)
		}
	}
	for _, id := range []string{"", strings.Repeat("k", 1<<20)} {
		r := httptest.NewRequest("POST", "/", nil)
		if _, err := s.guests.Claim(httptest.NewRecorder(), r, id); !errors.Is(err, guest.ErrInvalid) {
			t.Errorf("%d bytes: %v", len(id), err)
		}
	}
	if keys := s.store.keys(t, "a:"); len(keys) != len(ids) {
		t.Errorf("%d accounts", len(keys))
	}
	for _, key := range s.store.keys(t, "a:") {
		if len(key) != 45 || strings.ContainsAny(key, "{}\x00") {
			t.Errorf("key %q", key)
		}
	}
}

func TestAClientThatHangsUpStopsNeitherWriteNorClaim(t *testing.T) {
	s := newSite(t, nil)
	h := s.guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, hangUp := context.WithCancel(r.Context())
		hangUp()
		r = r.WithContext(ctx)
		if n, err := Cart.Add(r.Context(), "tea", 1); n != 1 || err != nil {
			t.Errorf("the write: %d, %v", n, err)
		}
		if receipt, err := s.guests.Claim(w, r, "ann"); !receipt.Claimed || err != nil {
			t.Errorf("the claim: %+v, %v", receipt, err)
		}
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil))
	if got := s.account("ann"); got["tea"] != 1 {
		t.Errorf("ann has %v", got)
	}
}

// A browser may hold the cookie of a claimed guest beside newer ones: a late response brought it back.
func TestSiblingsOfAClaimedGuest(t *testing.T) {
	s := newSite(t, nil)
	main, early := s.browser(), s.browser()
	main.add("tea")
	tick()
	res, _ := early.request("POST", "/add/early") // in parallel with the first, but its response is late
	main.page()
	stale := main.copy()
	tick() // guests and claims are ordered by the millisecond
	main.login("ann")
	tick()
	late := s.browser() // the next person at this browser
	lateRes, _ := late.request("POST", "/add/late")

	next := newSite(t, func(c *guest.Config) { c.Store = s.store }) // a process that knows nothing of the claim
	b := next.browser()
	for _, cookies := range [][]*http.Cookie{stale.Jar.Cookies(mustURL(t, s.url)), res.Cookies(), lateRes.Cookies()} {
		b.Jar.SetCookies(mustURL(t, next.url), cookies)
	}
	p := b.page()
	if want := map[string]int64{"late": 1}; !maps.Equal(p.Cart, want) || p.New {
		t.Errorf("the next person sees %+v, want %v", p, want)
	}
	if want := map[string]int64{"tea": 1, "early": 1}; !maps.Equal(s.account("ann"), want) {
		t.Errorf("ann has %v, want %v", s.account("ann"), want)
	}
	if got := b.cookies(); len(got) != 1 || got[0] != "guest" {
		t.Errorf("cookies %v", got)
	}
	if p := b.page(); p.Cart["late"] != 1 || p.Replaced {
		t.Errorf("and then %+v", p)
	}
}

func TestALoginWithTheCookieOfAClaimedGuestBesideItsOwn(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	b.add("tea")
	b.page()
	stale := b.copy()
	tick()
	b.login("ann")
	tick()
	res, _ := s.browser().request("POST", "/add/late")
	next := newSite(t, func(c *guest.Config) { c.Store = s.store })
	b = next.browser()
	for _, cookies := range [][]*http.Cookie{stale.Jar.Cookies(mustURL(t, s.url)), res.Cookies()} {
		b.Jar.SetCookies(mustURL(t, next.url), cookies)
	}
	if c := b.login("bob"); c.Err != "" || !c.Receipt.Claimed || c.Receipt.Replayed || len(b.cookies()) != 0 {
		t.Errorf("%+v, cookies %v", c, b.cookies())
	}
	if bob := s.account("bob"); !maps.Equal(bob, map[string]int64{"late": 1}) || s.account("ann")["tea"] != 1 {
		t.Errorf("bob has %v, ann %v", bob, s.account("ann"))
	}
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

// Markers go when their guests are known to be claimed or gone, so an account does not grow with every login.
func TestMarkersDoNotPileUp(t *testing.T) {
	store := &spy{Store: newStore()}
	m := replica(t, store, [][]byte{secret}, Cart)
	claims := 2000
	if *storeFlag != "memory" || guest.RaceEnabled {
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
	if fields := record(t, store.Store, "a:"); len(fields) > 2+most || fields["cart/tea"] != fmt.Sprint(claims) {
		t.Errorf("%d fields, %s cups", len(fields), fields["cart/tea"])
	}
}

// The marker of a guest that is still frozen stays however many claims follow: without it the guest would be merged again.
func TestTheMarkerOfAPendingClaimStays(t *testing.T) {
	store := newStore()
	m := replica(t, store, [][]byte{secret}, Cart)
	stuck := releaseManager(t, store, errors.New("the database is down"))
	var pending []string
	newGuest := func() string {
		return at(m, "", func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), "tea", 1) })
	}
	for range 3 {
		cookie := newGuest()
		if receipt, err := claimBy(stuck, cookie, "ann"); err == nil || !receipt.Pending || !receipt.Claimed {
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
}

// A claimer that slept while others finished its claim, and their marker was tidied away, merges nothing.
func TestASleepingClaimerDoesNotMergeAgain(t *testing.T) {
	for step := range 8 { // at each of its calls
		t.Run(fmt.Sprint("before call ", step+1), func(t *testing.T) {
			mem := newStore()
			store := &spy{Store: mem}
			sleeper, m := replica(t, store, [][]byte{secret}, Cart), replica(t, mem, [][]byte{secret}, Cart)
			cookie := at(m, "", func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), "tea", 1) })
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
					other := at(m, "", func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), "cup", 1) })
					claimBy(m, other, "ann")
				}
				return nil
			})
			if receipt, err := claimBy(sleeper, cookie, "ann"); err != nil || receipt.Pending || !receipt.Claimed {
				t.Errorf("%+v, %v", receipt, err)
			}
			if n, err := Cart.Get(m.As(t.Context(), "ann"), "tea"); n != 1 || err != nil {
				t.Errorf("%d cups of one guest, %v", n, err)
			}
		})
	}
}

// rewinding is a store that can forget its latest writes, as a server that was rolled back.
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

// A server is rolled back while OnClaim runs. No receipt says that the claim is done while the guest's data are in an open
// guest, or are in two places.
func TestAServerThatIsRolledBackDuringOnClaim(t *testing.T) {
	for n, row := range []struct {
		forgotten string
		cups      int64 // of the account
		hooks     int
	}{
		{"nothing", 1, 1},
		{"the merge", 0, 1}, // see docs/claim.md: nothing tells
		{"the seal and the merge", 1, 2},
		{"and the look at the account", 1, 2},
		{"and the note", 1, 2},
		{"and that the cookie came back", 1, 2},
		{"and the visitor's write", 0, 2},
	} {
		t.Run(row.forgotten, func(t *testing.T) {
			store := &rewinding{Store: newStore()}
			hooks := 0
			m, err := guest.New(guest.Config{
				Store: store, Secrets: [][]byte{secret}, Data: []guest.Kind{Cart}, Logger: slog.New(slog.DiscardHandler),
				OnClaim: func(context.Context, guest.Receipt) error {
					if hooks++; hooks == 1 {
						store.rewind(t, n)
					}
					return nil
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			cookie := at(m, "", func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), "tea", 1) })
			receipt, err := claimBy(m, cookie, "ann")
			if err != nil || !receipt.Claimed || receipt.Pending || hooks != row.hooks {
				t.Errorf("%+v, %v, OnClaim was called %d times", receipt, err, hooks)
			}
			if info, err := m.Inspect().Guest(t.Context(), receipt.GuestID); info.State != guest.StateClaimed || len(info.Kinds) > 0 {
				t.Errorf("the receipt says claimed, and the guest is %+v, %v", info, err)
			}
			if cups, err := Cart.Get(m.As(t.Context(), "ann"), "tea"); cups != row.cups || err != nil {
				t.Errorf("the account has %d cups, %v, want %d", cups, err, row.cups)
			}
		})
	}
}

// A server is rolled back while a claimer sleeps before its merge, and gives out again the generation
// that the sleeper has read: to a merge of the same guest, and the account looks as it did.
func TestAGenerationThatIsGivenOutAgain(t *testing.T) {
	store := &rewinding{Store: newStore()}
	asleep := &spy{Store: store}
	sleeper, m := replica(t, asleep, [][]byte{secret}, Cart), replica(t, store, [][]byte{secret}, Cart)
	newGuest := func() string {
		return at(m, "", func(_ http.ResponseWriter, r *http.Request) {
			Cart.Add(r.Context(), "tea", 1)
		})
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
}

// tick waits for the next millisecond.
func tick() {
	for now := time.Now().UnixMilli(); time.Now().UnixMilli() == now; {
		runtime.Gosched()
	}
}

func mustURL(t *testing.T, s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// Between its seal and its burial the guest's data are not the cookie's any more.
func TestASealedGuest(t *testing.T) {
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
}

// Responses may be taken in another order than their requests were sent; none takes the visitor's new guest away.
func TestLateResponses(t *testing.T) {
	setup := func(t *testing.T) (*site, *browser) {
		s := newSite(t, nil)
		b := s.browser()
		b.add("tea")
		b.page()
		return s, b
	}
	// send returns the cookies of a response that the browser has not taken yet.
	send := func(b *browser, path string) []*http.Cookie {
		req, _ := http.NewRequest("POST", b.s.url+path, nil)
		req.Header.Set("Cookie", cookieHeader(b))
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.Cookies()
	}
	take := func(b *browser, cookies []*http.Cookie) { b.Jar.SetCookies(mustURL(t, b.s.url), cookies) }

	t.Run("of another tab", func(t *testing.T) {
		s, b := setup(t)
		b.copy().login("ann") // its response is lost
		slow := send(b, "/add/x")
		b.add("y")
		b.add("z")
		take(b, slow)
		if p := b.page(); !maps.Equal(p.Cart, map[string]int64{"x": 1, "y": 1, "z": 1}) {
			t.Errorf("%+v", p)
		}
		if s.account("ann")["tea"] != 1 {
			t.Errorf("ann has %v", s.account("ann"))
		}
	})
	t.Run("of the claim", func(t *testing.T) {
		_, b := setup(t)
		login := send(b, "/login/ann")
		b.add("u")
		b.add("v")
		take(b, login)
		if p := b.page(); !maps.Equal(p.Cart, map[string]int64{"u": 1, "v": 1}) {
			t.Errorf("%+v", p)
		}
		b.user = "ann"
		if p := b.page(); !maps.Equal(p.Cart, map[string]int64{"tea": 1, "u": 1, "v": 1}) || len(b.cookies()) != 0 {
			t.Errorf("%+v, cookies %v", p, b.cookies())
		}
	})
	t.Run("from before the next guest", func(t *testing.T) {
		_, b := setup(t)
		before := b.copy()
		b.login("ann")
		slow := send(before, "/add/x")
		b.add("y")
		b.add("z")
		take(b, slow)
		if p := b.page(); !maps.Equal(p.Cart, map[string]int64{"x": 1, "y": 1, "z": 1}) {
			t.Errorf("%+v", p)
		}
	})
}

// The second cookie that guards against late responses goes when none can be under way any more.
func TestTheSpareCookieOfAnHeirGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := guest.New(guest.Config{Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Data: []guest.Kind{Cart}})
		b := &bubble{jar: map[string]*http.Cookie{}, h: m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			Cart.Add(r.Context(), "tea", 1)
			if r.URL.Path == "/login" {
				m.Claim(w, r, "ann")
			}
		}))}
		b.get("/")
		b.get("/")
		old := maps.Clone(b.jar)
		b.get("/login")
		b.jar = old
		b.get("/")
		b.get("/")
		if len(b.jar) != 2 {
			t.Errorf("cookies %v", b.jar)
		}
		time.Sleep(3 * time.Minute)
		b.get("/")
		if len(b.jar) != 1 || b.jar["__Host-Http-guest"] == nil {
			t.Errorf("cookies %v", b.jar)
		}
	})
}

func cookieHeader(b *browser) string {
	res, _ := b.request("GET", "/static")
	return res.Request.Header.Get("Cookie")
}

// AutoClaim is asked when there are an account and a guest, and not otherwise; an explicit claim does not ask it.
func TestAutoClaim(t *testing.T) {
	asked := 0
	s := newSite(t, func(c *guest.Config) {
		c.AutoClaim = func(r *http.Request) bool { asked++; return r.Header.Get("Acts-For") == "" }
	})
	b := s.browser()
	b.page() // a new guest, no account
	b.add("tea")
	member := s.browser()
	member.user = "cid"
	member.page() // an account, no guest
	if asked != 0 {
		t.Errorf("asked %d times too often", asked)
	}
	b.user = "customer" // an agent logs in as a customer
	for range 2 {
		if res, _ := b.request("GET", "/page", "Acts-For", "customer"); len(res.Header["Set-Cookie"]) != 0 {
			t.Errorf("the agent's cookie changes: %q", res.Header["Set-Cookie"])
		}
	}
	if got := s.account("customer"); asked != 2 || len(got) != 0 {
		t.Errorf("asked %d times; the customer has %v", asked, got)
	}
	b.user = ""
	if p := b.page(); p.Cart["tea"] != 1 {
		t.Errorf("afterwards the agent's own cart is %v", p.Cart)
	}
	b.user = "ann"
	if b.page(); s.account("ann")["tea"] != 1 || asked != 3 {
		t.Errorf("a member: asked %d times, %v", asked, s.account("ann"))
	}
	other := s.browser()
	other.add("cup")
	if c := other.login("bob"); !c.Receipt.Claimed || asked != 3 {
		t.Errorf("an explicit claim: %+v, asked %d times", c, asked)
	}
}

// A receipt without a claim has neither an ID nor a time, rather than those of the year 1.
func TestReceiptOfNoClaimAsJSON(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	b.user = "ann"
	_, body := b.request("POST", "/claim")
	if strings.Contains(body, `"id"`) || strings.Contains(body, `"at"`) || strings.Contains(body, "0001") {
		t.Error(body)
	}
}

// What the app's own functions say may hold IDs and data, so the log only tells that they said something. The caller gets
// all of it.
func TestTheLogTellsNothingOfTheApp(t *testing.T) {
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

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
