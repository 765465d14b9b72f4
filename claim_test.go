package guest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/guestkit/guest"
)

func TestManager_Claim(t *testing.T) {
	t.Parallel()

	t.Run("into a new and an existing account", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		b := s.browser()
		b.add("tea")
		b.add("tea")
		b.add("cup")
		b.request("POST", "/theme/dark")
		guestID := b.page().Guest

		c := b.login("ann")
		if c.Err != "" || !c.Receipt.Claimed || c.Receipt.Replayed || c.Receipt.Pending ||
			c.Receipt.ID == "" ||
			c.Receipt.GuestID != guestID || c.Receipt.AccountID != "ann" ||
			time.Since(c.Receipt.At).Abs() > time.Minute {
			t.Errorf("receipt %+v", c)
		}
		moved := guest.KindReceipt{
			Name: "cart", Outcome: guest.Moved, GuestItems: 2, GuestTotal: 3, ResultItems: 2, ResultTotal: 3,
		}
		if k := kept(t, c.Receipt, "cart"); k != moved {
			t.Errorf("cart: %+v", k)
		}
		if k := kept(t, c.Receipt, "theme"); k.Outcome != guest.Moved {
			t.Errorf("theme: %+v", k)
		}
		if got := b.cookies(); len(got) != 0 {
			t.Errorf("guest cookies after the claim: %v", got)
		}
		b.user = "ann"
		if p := b.page(); p.Account != "ann" || p.IsGuest || p.Guest != "" || p.Theme != "dark" ||
			!maps.Equal(p.Cart, map[string]int64{"tea": 2, "cup": 1}) {
			t.Errorf("member's page: %+v", p)
		}

		b.user = "" // logs out: a fresh, empty guest
		if p := b.page(); !p.New || p.Replaced || p.Guest == guestID || len(p.Cart) != 0 ||
			p.Theme != "" {
			t.Errorf("after logging out: %+v", p)
		}
		b.add("tea")
		b.add("pot")
		b.request("POST", "/theme/light")
		c = b.login("ann")
		merged := guest.KindReceipt{
			Name: "cart", Outcome: guest.Merged, GuestItems: 2, GuestTotal: 2,
			AccountItems: 2, AccountTotal: 3, ResultItems: 3, ResultTotal: 5,
		}
		if k := kept(t, c.Receipt, "cart"); k != merged {
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
			t.Errorf("%d entries left in the outbox", n)
		}
	})

	t.Run("by sixteen tabs is done once", func(t *testing.T) {
		t.Parallel()
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
	})

	t.Run("by the first returning request", func(t *testing.T) {
		t.Parallel()
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
	})

	t.Run("without a guest", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		b := s.browser()
		c := b.login("ann") // created by this request: nothing to claim
		if c.Err != "" || c.Receipt.Claimed || c.Receipt.Pending {
			t.Errorf("%+v", c)
		}
		if got := b.cookies(); len(got) != 0 {
			t.Errorf("cookies %v", got)
		}
		if keys := s.store.keys(t, ""); len(keys) != 0 {
			t.Errorf("records %v", keys)
		}
	})

	t.Run("of an empty guest leaves the account alone", func(t *testing.T) {
		t.Parallel()
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
	})

	t.Run("makes a member for the rest of the request", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		s.mux.HandleFunc("POST /signup", func(w http.ResponseWriter, r *http.Request) {
			if _, err := s.guests.Claim(w, r, "ann"); err != nil {
				t.Error(err)
			}
			Cart.Add(r.Context(), "gift", 1)
			n, err := Cart.Get(r.Context(), "tea")
			if v := guest.FromContext(r.Context()); n != 1 || err != nil || v.AccountID() != "ann" ||
				v.IsGuest() {
				t.Errorf("%d, %v, %q", n, err, v.AccountID())
			}
		})
		b := s.browser()
		b.add("tea")
		b.request("POST", "/signup")
		if got := s.account("ann"); !maps.Equal(got, map[string]int64{"tea": 1, "gift": 1}) {
			t.Errorf("%v", got)
		}
	})

	t.Run("takes the siblings too", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		b, parallel := s.browser(), s.browser()
		b.add("tea")
		res, _ := parallel.request("POST", "/add/cup")
		b.Jar.SetCookies(res.Request.URL, res.Cookies())
		if len(b.cookies()) != 2 {
			t.Fatal(b.cookies())
		}
		b.user = "ann"
		if p := b.page(); !maps.Equal(p.Cart, map[string]int64{"tea": 1, "cup": 1}) ||
			len(b.cookies()) != 0 {
			t.Errorf("%+v, cookies %v", p, b.cookies())
		}
	})

	// A late request brings the cookie of a sibling that was absorbed, and signs in. Its response
	// brings no cookie of the claimed guest.
	t.Run("by a sibling that comes late", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		a, _ := s.browser().request("POST", "/add/tea")
		b, _ := s.browser().request("POST", "/add/tea")
		cookies := []*http.Cookie{given(a)[0], given(b)[0]}
		_, body := s.browser().request("GET", "/page", "Cookie", pair(cookies[0])+"; "+pair(cookies[1]))
		var p page
		if err := json.Unmarshal([]byte(body), &p); err != nil {
			t.Fatal(err)
		}
		absorbed := cookies[0]
		if strings.HasSuffix(absorbed.Name, p.Guest[:6]) {
			absorbed = cookies[1]
		}
		late := s.browser()
		res, _ := late.request("POST", "/login/ann", "Cookie", pair(absorbed))
		if c := given(res); len(c) > 0 {
			t.Errorf("the claim's response sets %v", c)
		}
		if c := late.login("bob"); c.Err != "" {
			t.Errorf("another account signs in with this browser: %s", c.Err)
		}
	})

	// The guest's first return is a claim by header token. Its response brings no cookie of the
	// claimed guest either.
	t.Run("by a header token at its return", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, func(c *guest.Config) { c.Header = "Guest" })
		bare := &browser{Client: http.DefaultClient, s: s}
		res, _ := bare.request("POST", "/add/tea")
		res, _ = bare.request("POST", "/login/ann", "Guest", res.Header.Get("Guest"))
		if c := given(res); len(c) > 0 || res.Header.Get("Guest") != "" {
			t.Errorf("the claim's response sets %v, and the header %q", c, res.Header.Get("Guest"))
		}
	})

	t.Run("beside the cookie of a claimed guest", func(t *testing.T) {
		t.Parallel()
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
		for _, cookies := range [][]*http.Cookie{stale.Jar.Cookies(mustParse(s.url)), res.Cookies()} {
			b.Jar.SetCookies(mustParse(next.url), cookies)
		}
		if c := b.login("bob"); c.Err != "" || !c.Receipt.Claimed || c.Receipt.Replayed ||
			len(b.cookies()) != 0 {
			t.Errorf("%+v, cookies %v", c, b.cookies())
		}
		if bob := s.account("bob"); !maps.Equal(bob, map[string]int64{"late": 1}) ||
			s.account("ann")["tea"] != 1 {
			t.Errorf("bob has %v, ann %v", bob, s.account("ann"))
		}
	})

	t.Run("goes on though the client hangs up", func(t *testing.T) {
		t.Parallel()
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
	})

	// An app may keep rows of its own under a new guest's ID. They are moved to the account even if
	// the guest is created and claimed in one request and has no other data. Repeating the claim
	// finds it done.
	t.Run("of an ID that the app asked for", func(t *testing.T) {
		t.Parallel()
		var moved []string
		m := newManager(t, guest.Config{OnClaim: func(_ context.Context, r guest.Receipt) error {
			moved = append(moved, r.GuestID)
			return nil
		}})
		for _, add := range []bool{false, true} {
			moved = nil
			var id string
			cookie := at(m, "", func(w http.ResponseWriter, r *http.Request) {
				id = guest.FromContext(r.Context()).GuestID()
				if add {
					Cart.Add(r.Context(), "tea", 1)
				}
				first, err := m.Claim(w, r, "ann")
				if err != nil || !first.Claimed || first.Replayed || first.GuestID != id {
					t.Errorf("the claim: %+v, %v", first, err)
				}
				again, err := m.Claim(w, r, "ann")
				if err != nil || !again.Replayed || again.ID != first.ID {
					t.Errorf("the claim again: %+v, %v", again, err)
				}
			})
			if len(moved) == 0 || slices.ContainsFunc(moved, func(s string) bool { return s != id }) {
				t.Errorf("rows of %q were moved, not of %q", moved, id)
			}
			if cookie != "" {
				t.Errorf("a claimed guest's cookie is given out: %s", cookie)
			}
		}
		claimedCookie := at(m, "", adds("pot"))
		at(m, claimedCookie, func(w http.ResponseWriter, r *http.Request) { m.Claim(w, r, "bob") })
		// The cookie came back late, and a fresh guest is claimed.
		at(m, claimedCookie, func(w http.ResponseWriter, r *http.Request) {
			Cart.Add(r.Context(), "cup", 1)
			first, err := m.Claim(w, r, "ann")
			again, err2 := m.Claim(w, r, "ann")
			if err != nil || err2 != nil || !first.Claimed || again.ID != first.ID {
				t.Errorf("%+v, %v; again: %+v, %v", first, err, again, err2)
			}
		})
		at(m, claimedCookie, func(w http.ResponseWriter, r *http.Request) { // a double click by bob
			guest.FromContext(r.Context()).GuestID()
			if receipt, err := m.Claim(w, r, "bob"); err != nil || !receipt.Replayed {
				t.Errorf("%+v, %v", receipt, err)
			}
		})
		// A ticket claims another guest; this one stays.
		at(m, "", func(w http.ResponseWriter, r *http.Request) {
			var ticket string
			at(m, "", func(w http.ResponseWriter, r *http.Request) {
				ticket, _ = m.Ticket(r.Context(), "mail", time.Hour)
			})
			guest.FromContext(r.Context()).GuestID()
			if _, err := m.ClaimTicket(w, r, ticket, "mail", "ann"); err != nil {
				t.Error(err)
			}
			if len(w.Header()["Set-Cookie"]) != 1 {
				t.Errorf("the guest whose ID was asked for gets %q", w.Header()["Set-Cookie"])
			}
		})
		// A guest whose ID was not asked for does not count.
		at(m, "", func(w http.ResponseWriter, r *http.Request) {
			guest.FromContext(r.Context()).IsGuest()
			if receipt, err := m.Claim(w, r, "ann"); err != nil || receipt.Claimed {
				t.Errorf("%+v, %v", receipt, err)
			}
		})
	})

	// A receipt without a claim has neither an ID nor a time; it does not show the year 1.
	t.Run("of nothing has a receipt without ID and time", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		b := s.browser()
		b.user = "ann"
		_, body := b.request("POST", "/claim")
		if strings.Contains(body, `"id"`) || strings.Contains(body, `"at"`) ||
			strings.Contains(body, "0001") {
			t.Error(body)
		}
	})
}

func TestOneAccountWins(t *testing.T) {
	t.Parallel()
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
				case strings.Contains(fmt.Sprint(c), "account-") &&
					c.Receipt.AccountID != fmt.Sprintf("account-%d", i):
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
	t.Parallel()
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

func TestClaimFromAnotherSiteIsRefused(t *testing.T) {
	t.Parallel()
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

func TestAccountIDs(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	ids := []string{"1", "a{b}c", "with/slash/and@at", "x\x00y", "é", strings.Repeat("k", 512)}
	for _, id := range ids {
		r := httptest.NewRequest("POST", "/", nil)
		w := httptest.NewRecorder()
		s.guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			Cart.Add(r.Context(), "tea", 1)
			if receipt, err := s.guests.Claim(w, r, id); err != nil || !receipt.Claimed ||
				receipt.AccountID != id {
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

func TestConfig_AutoClaim(t *testing.T) {
	t.Parallel()

	t.Run("a signed-in request claims", func(t *testing.T) {
		t.Parallel()
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
	})

	// AutoClaim is asked when there are an account and a guest, and not otherwise; an explicit
	// claim does not ask it.
	t.Run("is asked when there are an account and a guest", func(t *testing.T) {
		t.Parallel()
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
			res, _ := b.request("GET", "/page", "Acts-For", "customer")
			if lines := res.Header["Set-Cookie"]; len(lines) != 0 {
				t.Errorf("the agent's cookie changes: %q", lines)
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
	})
}

// Code that has only a context claims, claims by ticket and forgets as code that has the request
// does.
func TestManager_ClaimContext(t *testing.T) {
	t.Parallel()

	t.Run("as with the request", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, func(c *guest.Config) { c.AutoClaim = func(*http.Request) bool { return false } })
		var late func(context.Context)
		s.mux.HandleFunc("/login-late", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "the header is sent")
			http.NewResponseController(w).Flush()
			late(r.Context())
		})
		s.mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
			receipt, err := s.guests.ClaimContext(r.Context(), r.FormValue("user"))
			writeClaim(w, receipt, err)
		})
		s.mux.HandleFunc("/ticket", func(w http.ResponseWriter, r *http.Request) {
			ticket, _ := s.guests.Ticket(r.Context(), "a@example.org", time.Hour)
			io.WriteString(w, ticket)
		})
		s.mux.HandleFunc("/redeem", func(w http.ResponseWriter, r *http.Request) {
			receipt, err := s.guests.ClaimTicketContext(r.Context(), r.FormValue("ticket"), "a@example.org",
				r.FormValue("user"))
			writeClaim(w, receipt, err)
		})
		s.mux.HandleFunc("/forget", func(w http.ResponseWriter, r *http.Request) {
			if err := s.guests.ForgetContext(r.Context()); err != nil {
				t.Error(err)
			}
		})

		for _, method := range []string{"GET", "POST"} { // the response of the first is not watched
			t.Run("claim by "+method, func(t *testing.T) {
				b := s.browser()
				b.add("tea")
				b.page()
				res, _ := b.request(method, "/login?user="+method)
				if got := s.account(method); got["tea"] != 1 {
					t.Errorf("the account holds %v", got)
				}
				if c := b.cookies(); len(c) != 0 {
					t.Errorf("cookies %v after %v", c, res.Header)
				}
			})
		}
		t.Run("a guest of this very request", func(t *testing.T) {
			b := s.browser()
			b.request("POST", "/login?user=newcomer")
			if c := b.cookies(); len(c) != 0 {
				t.Errorf("cookies %v", c)
			}
		})
		t.Run("another site's page", func(t *testing.T) {
			b := s.browser()
			b.add("tea")
			_, body := b.request("POST", "/login?user=mallory", "Sec-Fetch-Site", "cross-site")
			if got := s.account("mallory"); len(got) != 0 {
				t.Errorf("the account holds %v: %s", got, body)
			}
		})
		t.Run("after the header", func(t *testing.T) {
			b := s.browser()
			b.add("tea")
			b.page()
			late = func(ctx context.Context) {
				if r, err := s.guests.ClaimContext(ctx, "late"); err != nil || !r.Claimed {
					t.Errorf("%+v, %v", r, err)
				}
			}
			b.request("POST", "/login-late")
			if got := s.account("late"); got["tea"] != 1 {
				t.Errorf("the account holds %v", got)
			}
			if p := b.page(); len(p.Cart) != 0 || !p.Replaced {
				t.Errorf("the old cookie shows %+v", p)
			}
		})
		t.Run("ticket", func(t *testing.T) {
			b := s.browser()
			b.add("tea")
			_, ticket := b.request("GET", "/ticket")
			b.request("GET", "/redeem?user=ticket&ticket="+ticket)
			if got := s.account("ticket"); got["tea"] != 1 {
				t.Errorf("the account holds %v", got)
			}
			if c := b.cookies(); len(c) != 0 {
				t.Errorf("cookies %v", c)
			}
		})
		t.Run("forget", func(t *testing.T) {
			b := s.browser()
			b.add("tea")
			id := b.page().Guest
			b.request("GET", "/forget")
			if c := b.cookies(); len(c) != 0 {
				t.Errorf("cookies %v", c)
			}
			if cart, err := Cart.All(s.guests.AsGuest(t.Context(), id)); !errors.Is(err, guest.ErrGone) ||
				len(cart) != 0 {
				t.Errorf("cart %v, %v", cart, err)
			}
		})
	})

	// The contexts of As and AsGuest come with no request, so they have no guest to claim.
	t.Run("of no request", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		b := s.browser()
		b.add("tea")
		id := b.page().Guest
		for name, ctx := range map[string]context.Context{
			"As": s.guests.As(t.Context(), "ann"), "AsGuest": s.guests.AsGuest(t.Context(), id),
			"none": t.Context(),
		} {
			_, claim := s.guests.ClaimContext(ctx, "bob")
			_, ticket := s.guests.ClaimTicketContext(ctx, "t", "a", "bob")
			for _, err := range []error{claim, ticket, s.guests.ForgetContext(ctx)} {
				if err != guest.ErrNoVisitor {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	})

	// A claim keeps no string of its caller: fasthttp reuses the memory of its strings after the
	// request, and the context may live longer.
	t.Run("keeps no string of its caller", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		buffer := []byte("ann")
		var ctx context.Context
		s.mux.HandleFunc("/login-borrowed", func(w http.ResponseWriter, r *http.Request) {
			ctx = context.WithoutCancel(r.Context())
			if _, err := s.guests.ClaimContext(ctx, unsafe.String(&buffer[0], len(buffer))); err != nil {
				t.Error(err)
			}
		})
		b := s.browser()
		b.add("tea")
		b.request("POST", "/login-borrowed")
		copy(buffer, "bob")
		if _, err := Cart.Add(ctx, "tea", 1); err != nil {
			t.Error(err)
		}
		if got := s.account("ann"); got["tea"] != 2 {
			t.Errorf("ann has %v, bob %v", got, s.account("bob"))
		}
	})
}

func TestManager_ClaimHandler(t *testing.T) {
	t.Parallel()
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

	c := newSite(t, func(c *guest.Config) {
		c.Store = s.store
		c.AutoClaim = func(*http.Request) bool { return false }
	})
	cb := c.browser()
	cb.add("tea")
	cb.page()
	tab := cb.copy()
	cb.user, tab.user = "ann", "eve"
	body := status(cb, "POST", 200)
	for _, want := range []string{
		`"id":"`, `"guest_id":"`, `"account_id":"ann"`, `"claimed":true`,
		`"replayed":false`, `"outcome":"`, `"guest_items":1`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
	if body := status(tab, "POST", 409); strings.Contains(body, "ann\"") {
		t.Errorf("the owner is disclosed: %s", body)
	}
}

// Any request to the claim handler gets one of its responses. A guest is claimed only by a POST of
// this site that has the guest's cookie, for the account that the app named.
func FuzzClaimRequest(f *testing.F) {
	for _, seed := range []struct{ method, site, origin, contentType, body string }{
		{"POST", "", "", "application/x-www-form-urlencoded", "user=ann"},
		{"POST", "same-origin", "http://example.com", "application/x-www-form-urlencoded",
			"user=a%00b%7B"},
		{"POST", "cross-site", "null", "multipart/form-data; boundary=x",
			"--x\r\nContent-Disposition: form-data; name=user\r\n\r\nann\r\n--x--"},
		{"GET", "none", "", "", ""},
		{"post", "", "http://[::1", "multipart/form-data", "--"},
		{"POST", "", "", "application/x-www-form-urlencoded", "user=" + strings.Repeat("k", 600)},
		{"POST", "", "", "application/x-www-form-urlencoded", "user=%zz;&&=="},
	} {
		f.Add(seed.method, seed.site, seed.origin, seed.contentType, seed.body)
	}
	f.Fuzz(func(t *testing.T, method, site, origin, contentType, body string) {
		m := newManager(t, guest.Config{Cookie: guest.Cookie{Insecure: true}})
		var named string
		claim := m.ClaimHandler(func(r *http.Request) (string, error) {
			named = r.FormValue("user")
			return named, nil
		})
		first := httptest.NewRecorder()
		m.Middleware(adds("tea")).
			ServeHTTP(first, httptest.NewRequest("GET", "/", nil))

		r := httptest.NewRequest("GET", "/", strings.NewReader(body))
		r.Method = method
		r.Header.Set("Content-Type", contentType)
		r.Header["Sec-Fetch-Site"] = []string{site}
		r.Header["Origin"] = []string{origin}
		r.AddCookie(first.Result().Cookies()[0])
		w := httptest.NewRecorder()
		m.Middleware(claim).ServeHTTP(w, r)
		switch w.Code {
		case 200, 401, 403, 405:
		default:
			t.Errorf("%d: %s", w.Code, w.Body)
		}
		var receipt guest.Receipt
		if w.Code == 200 {
			if err := json.Unmarshal(w.Body.Bytes(), &receipt); err != nil || !receipt.Claimed {
				t.Errorf("%v: %s", err, w.Body)
			}
		}
		crossOrigin := site != "" && site != "same-origin" && site != "none"
		if receipt.Claimed && (method != "POST" || crossOrigin || named == "" || len(named) > 512) {
			t.Errorf("%s of %q by %q: %+v", method, site, named, receipt)
		}
		if named != "" && len(named) <= 512 {
			cart, err := Cart.All(m.As(t.Context(), named))
			if err != nil || (len(cart) == 1) != receipt.Claimed {
				t.Errorf("%q has %v, %v; %+v", named, cart, err, receipt)
			}
		}
	})
}

func TestManager_Preview(t *testing.T) {
	t.Parallel()
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

func TestWith(t *testing.T) {
	t.Parallel()
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

func TestLateWrites(t *testing.T) {
	t.Parallel()
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
	t.Run("signed out", func(t *testing.T) {
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
	t.Run("by another account", func(t *testing.T) {
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

// Responses may arrive in another order than their requests were sent. None takes the visitor's new
// guest away.
func TestLateResponses(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T) (*site, *browser) {
		s := newSite(t, nil)
		b := s.browser()
		b.add("tea")
		b.page()
		return s, b
	}
	// send returns the cookies of a response that the browser has not received yet.
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
	take := func(b *browser, cookies []*http.Cookie) { b.Jar.SetCookies(mustParse(b.s.url), cookies) }

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
		if p := b.page(); !maps.Equal(p.Cart, map[string]int64{"tea": 1, "u": 1, "v": 1}) ||
			len(b.cookies()) != 0 {
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

// The provisional cookie that guards a successor against late responses is cleared when no such
// response can be under way any more.
func TestTheProvisionalCookieOfASuccessorGoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, guest.Config{})
		b := newBubble(m, func(w http.ResponseWriter, r *http.Request) {
			Cart.Add(r.Context(), "tea", 1)
			if r.URL.Path == "/login" {
				m.Claim(w, r, "ann")
			}
		})
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
