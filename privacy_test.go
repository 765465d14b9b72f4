package guest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

func TestForget(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.mux.HandleFunc("POST /forget", func(w http.ResponseWriter, r *http.Request) {
		if err := s.guests.Forget(w, r); err != nil {
			t.Error(err)
		}
	})
	b := s.browser()
	b.add("tea")
	b.page()
	old := b.copy()
	b.request("POST", "/forget")
	if len(b.cookies()) != 0 {
		t.Errorf("cookies %v", b.cookies())
	}
	b.request("POST", "/forget")
	if p := old.page(); len(p.Cart) != 0 {
		t.Errorf("%v", p.Cart)
	}

	b.add("tea") // claimed data are the account's
	b.page()
	old = b.copy()
	b.login("ann")
	thief := old.copy()
	old.request("POST", "/forget")
	if s.account("ann")["tea"] != 1 {
		t.Errorf("%v", s.account("ann"))
	}
	if c := thief.login("eve"); c.Err != guest.ErrClaimed.Error() {
		t.Errorf("forgetting a claimed guest made it claimable again: %+v", c)
	}
}

// A guest that was forgotten stays so. Neither a copy of its cookie nor a ticket finds anything or
// writes anything to it, and a call by its ID says that it is gone.
func TestForgetEndsCopies(t *testing.T) {
	t.Parallel()
	s := ticketSite(t)
	s.mux.HandleFunc("POST /forget", func(w http.ResponseWriter, r *http.Request) {
		if err := s.guests.Forget(w, r); err != nil {
			t.Error(err)
		}
	})
	b := s.browser()
	b.add("tea")
	id := b.page().Guest
	_, ticket := b.request("POST", "/ticket/ann")
	copied := b.copy()
	b.request("POST", "/forget")
	// another process, which remembers nothing
	next := newSite(t, func(c *guest.Config) { c.Store = s.store })
	for _, s := range []*site{s, next} {
		thief := s.browser()
		thief.Jar.SetCookies(mustParse(s.url), copied.Jar.Cookies(mustParse(copied.s.url)))
		thief.add("cup")
		if p := thief.page(); p.Guest == id || p.Cart["tea"] != 0 {
			t.Errorf("the copied cookie is guest %s with %v", p.Guest, p.Cart)
		}
		got, err := Cart.Get(s.guests.AsGuest(t.Context(), id), "tea")
		if !errors.Is(err, guest.ErrGone) || got != 0 {
			t.Errorf("its ID reads %d, %v", got, err)
		}
		_, err = Cart.Add(s.guests.AsGuest(t.Context(), id), "tea", 1)
		if !errors.Is(err, guest.ErrGone) {
			t.Errorf("a write by its ID: %v", err)
		}
	}
	if got := s.browser().open(ticket, "ann", "ann"); !strings.Contains(got, guest.ErrGone.Error()) ||
		len(s.account("ann")) != 0 {
		t.Errorf("the ticket: %s; ann has %v", got, s.account("ann"))
	}
	thief := next.browser()
	thief.Jar.SetCookies(mustParse(next.url), copied.Jar.Cookies(mustParse(copied.s.url)))
	if c := thief.login("eve"); c.Err != "" || c.Receipt.Claimed || len(s.account("eve")) != 0 {
		t.Errorf("a login with the copied cookie: %+v", c)
	}
}

// A write between Forget's two steps is erased with the rest.
func TestForgetUnderWrites(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	b := s.browser()
	b.add("tea")
	id := b.page().Guest
	wrote := 0
	s.store.on(func(op, key string, u guest.Update) error {
		if _, ends := u.Set[".s"]; ends && wrote < 3 {
			wrote++
			_, err := s.store.Store.Update(t.Context(), key, guest.Update{If: guest.Fields{".s": ""},
				Set: guest.Fields{"cart/late": "1"}})
			return err
		}
		return nil
	})
	if err := s.guests.EraseGuest(t.Context(), id); err != nil || wrote == 0 {
		t.Fatal(err, wrote)
	}
	record, err := s.store.Store.Get(t.Context(), "g:"+id)
	if err != nil || record["cart/late"] != "" || record["cart/tea"] != "" || record[".s"] != "c" {
		t.Errorf("%v, %v", record, err)
	}
}

func TestManager_Forget(t *testing.T) {
	t.Parallel()

	// Forget erases all guests of the request, or returns an error.
	t.Run("ends all guests of the request", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil).forgetting()
		var cookies []string
		for i := range 12 {
			cookies = append(cookies, s.provisional(fmt.Sprint("sku", i)))
		}
		s.request("POST", "/forget", strings.Join(cookies, "; "))
		for _, key := range s.store.keys(t, "g:") {
			fields, _ := s.store.Get(t.Context(), key)
			for field := range fields {
				if strings.HasPrefix(field, "cart/") {
					t.Errorf("%s is left", field)
				}
			}
		}
	})

	// A tab has the cookie of a guest that was absorbed meanwhile. Forget in that tab erases what
	// is left of it, or returns an error.
	t.Run("of an absorbed guest", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		elder := s.provisional("early")
		mine := s.confirmedCookie("secret")
		s.request("GET", "/page", elder+"; "+mine) // absorbed; the tab's own request is under way
		next := newSite(t, func(c *guest.Config) { c.Store = s.store }).forgetting()
		w := next.request("POST", "/forget", mine)
		t.Logf("%q", w.Header()["Set-Cookie"])
		for _, key := range next.store.keys(t, "g:") {
			if fields, _ := next.store.Get(t.Context(), key); fields["cart/secret"] != "" {
				t.Errorf("Forget reported no error, and %v is kept", fields)
			}
		}
	})

	// A sibling's data were on their way into a guest that is forgotten meanwhile. They are erased
	// with it.
	t.Run("of the elder sibling", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		elder, younger := s.request("POST", "/add/tea", "").Result().Cookies()[0],
			s.request("POST", "/add/cup", "").Result().Cookies()[0]
		tick()
		stop := errors.New("the process died")
		s.store.on(func(op, key string, u guest.Update) error {
			if op == "update" && u.Set["cart/cup"] != "" { // the merge
				return stop
			}
			return nil
		})
		p := page{}
		json.Unmarshal(s.request("GET", "/page",
			elder.Name+"="+elder.Value+"; "+younger.Name+"="+younger.Value).Body.Bytes(), &p)
		s.store.on(nil)
		if err := s.guests.EraseGuest(t.Context(), p.Guest); err != nil {
			t.Fatal(err)
		}
		if _, err := s.guests.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, key := range s.store.keys(t, "") {
			record, _ := s.store.Store.Get(t.Context(), key)
			if strings.HasPrefix(key, "g:") == (record[".s"] == "") || record["cart/cup"] != "" ||
				record["cart/tea"] != "" {
				t.Errorf("%s: %v", key, record)
			}
		}
		if n := outbox(t, s.store); n != 0 {
			t.Errorf("%d entries left in the outbox", n)
		}
	})
}

func TestManager_EraseGuest(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	b := s.browser()
	b.add("tea")
	id := b.page().Guest
	for _, when := range []string{"once", "again"} {
		if err := s.guests.EraseGuest(t.Context(), id); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if info, err := s.guests.Inspect().Guest(t.Context(), id); info.State != guest.StateForgotten ||
			len(info.Kinds) != 0 || err != nil {
			t.Errorf("%s: %+v, %v", when, info, err)
		}
	}
	b.add("cup")
	if id = b.page().Guest; b.page().Cart["tea"] != 0 {
		t.Error("the erased guest lives on")
	}
	b.login("ann")
	if err := s.guests.EraseGuest(t.Context(), id); err != guest.ErrClaimed ||
		s.account("ann")["cup"] != 1 {
		t.Errorf("a claimed guest: %v, %v", err, s.account("ann"))
	}
	if err := s.guests.EraseGuest(t.Context(), "ann"); !errors.Is(err, guest.ErrInvalid) {
		t.Error(err)
	}
}

func TestWhatExportShowsEraseRemoves(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	ctx := s.guests.As(t.Context(), "ann@example.com")
	Theme.Set(ctx, "dark")
	Email.Set(ctx, "ann@example.com")
	Cart.Add(ctx, "tea", 2)
	Wishes.Set(ctx, "pot", wish{"blue"})
	b := s.browser()
	b.add("cup")
	b.page()
	b.login("ann@example.com")
	got, err := s.guests.Export(ctx)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := json.Marshal(got)
	want := `{"cart":{"cup":1,"tea":2},"email":"ann@example.com","theme":"dark",` +
		`"wishes":{"pot":{"note":"blue"}}}`
	if string(body) != want {
		t.Errorf("%s\nwant %s", body, want)
	}
	for range 2 {
		if err := s.guests.EraseAccount(t.Context(), "ann@example.com"); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.guests.Export(ctx); len(got) != 0 || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	for _, key := range s.store.keys(t, "") {
		fields, _ := s.store.Store.Get(t.Context(), key)
		dump, _ := json.Marshal(fields)
		if strings.Contains(key+string(dump), "ann@") || strings.Contains(string(dump), "tea") {
			t.Errorf("left behind: %s %s", key, dump)
		}
	}
}

func TestErasingAnAccountEndsItsPendingClaims(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	b := s.browser()
	b.add("tea")
	b.page()
	s.store.on(func(op, key string, u guest.Update) error {
		if u.Set[".c"] != "" {
			return http.ErrHandlerTimeout // a crash after the guest was frozen
		}
		return nil
	})
	b.login("ann")
	s.store.on(nil)
	if err := s.guests.EraseAccount(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	b.login("ann")
	s.guests.Recover(t.Context())
	if got := s.account("ann"); len(got) != 0 || outbox(t, s.store) != 0 {
		t.Errorf("erased data came back: %v", got)
	}
}

// An account is erased while a claim is under way, before each of its calls of the store. What the
// claim brings is erased too, if the outbox had its entry. A claim that begins later is not
// affected.
func TestErasingAnAccountWhileAClaimIsUnderWay(t *testing.T) {
	t.Parallel()
	for _, known := range []bool{false, true} { // the account has a record
		// another process goes on with a claim whose guest is frozen
		for _, recovers := range []bool{false, true} {
			for step := 1; step <= 8; step++ {
				name := fmt.Sprintf("a known account: %v/recovers: %v/before call %d", known, recovers, step)
				t.Run(name, func(t *testing.T) {
					mem := newStore()
					store := &spy{Store: mem}
					claimer, m := replica(t, store, Cart),
						replica(t, mem, Cart)
					newGuest := func() string {
						return at(m, "", adds("tea"))
					}
					if known {
						claimBy(m, newGuest(), "ann")
						Cart.Add(m.As(t.Context(), "ann"), "cup", 1)
					}
					cookie := newGuest()
					if recovers {
						store.on(func(op, key string, u guest.Update) error {
							if u.Set[".c"] != "" {
								return http.ErrHandlerTimeout
							}
							return nil
						})
						if receipt, err := claimBy(claimer, cookie, "ann"); err == nil || !receipt.Pending {
							t.Fatal(receipt, err)
						}
					}
					calls, entered := 0, recovers
					store.on(func(op, key string, u guest.Update) error {
						if strings.HasPrefix(key, "o:") && !entered && calls+1 < step {
							entered = true
						}
						if calls++; calls == step {
							if err := m.EraseAccount(t.Context(), "ann"); err != nil {
								t.Error(err)
							}
						}
						return nil
					})
					receipt, err := claimBy(claimer, cookie, "ann")
					if err != nil || receipt.Pending {
						t.Errorf("%+v, %v", receipt, err)
					}
					if calls < step {
						if err := m.EraseAccount(t.Context(), "ann"); err != nil {
							t.Error(err)
						}
					}
					store.on(nil)
					claimer.Recover(t.Context())
					got, err := Cart.All(m.As(t.Context(), "ann"))
					if err != nil || (entered || step > calls) && len(got) > 0 || got["cup"] > 0 ||
						got["tea"] > 1 {
						t.Errorf("erased data came back: %v, %v", got, err)
					}
					if n := outbox(t, store); n > 0 {
						t.Errorf("%d entries left in the outbox", n)
					}
				})
			}
		}
	}
}

// An account is erased although this process cannot read the data that a guest was bringing to it.
func TestErasingAnAccountDropsWhatThisProcessCannotRead(t *testing.T) {
	t.Parallel()
	store := newStore()
	notes := guest.NewMap("notes", guest.EachItem(guest.PreferGuest[string]))
	new, old := replica(t, store, Cart, notes), replica(t, store, Cart)
	cookie := at(new, "", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 1)
		notes.Set(r.Context(), "a", "x")
	})
	if receipt, err := claimBy(old, cookie, "ann"); !errors.Is(err, guest.ErrUnreadable) ||
		!receipt.Pending {
		t.Fatalf("%+v, %v", receipt, err)
	}
	if err := old.EraseAccount(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*guest.Manager{old, new} {
		if n, err := m.Recover(t.Context()); n != 0 || err != nil {
			t.Errorf("%d claims were left, %v", n, err)
		}
		claimBy(m, cookie, "ann")
	}
	if got, err := new.Export(new.As(t.Context(), "ann")); len(got) != 0 || err != nil {
		t.Errorf("erased data came back: %s, %v", got, err)
	}
}

// A claimer died long before it froze the guest. EraseAccount does not go on with that claim: the
// guest is the visitor's.
func TestErasingAnAccountLeavesAnOpenGuestAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &spy{Store: memstore.New(memstore.Config{})}
		m := replica(t, store, Cart)
		cookie := at(m, "", adds("tea"))
		store.on(func(op, key string, u guest.Update) error {
			if u.Stamp == ".t" {
				return http.ErrHandlerTimeout // died before it froze the guest
			}
			return nil
		})
		claimBy(m, cookie, "ann")
		store.on(nil)
		time.Sleep(61 * time.Second)
		if err := m.EraseAccount(t.Context(), "ann"); err != nil {
			t.Fatal(err)
		}
		at(m, cookie, func(w http.ResponseWriter, r *http.Request) {
			if n, err := Cart.Get(r.Context(), "tea"); n != 1 || err != nil {
				t.Errorf("the guest's cart holds %d, %v", n, err)
			}
		})
	})
}

// An export contains the data that can be read, and its error names the rest.
func TestExportLeavesOutWhatItCannotRead(t *testing.T) {
	t.Parallel()
	Addresses := guest.NewMap("addresses", guest.EachItem(guest.PreferGuest[string])).Encrypted()
	data := func(c *guest.Config) { c.Data = append(c.Data, Addresses) }
	s := newSite(t, data)
	ctx := s.guests.As(t.Context(), "ann")
	for _, err := range []error{
		Theme.Set(ctx, "dark"), Email.Set(ctx, "ann@example.com"),
		Addresses.Set(ctx, "home", "High Street"), Addresses.Set(ctx, "work", "Low Street"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	account := s.store.keys(t, "a:")[0]
	record, _ := s.store.Store.Get(t.Context(), account)
	// an intruder wrote to the store
	swapped := guest.Fields{"addresses/home": record["addresses/work"]}
	if _, err := s.store.Store.Update(t.Context(), account, guest.Update{Set: swapped}); err != nil {
		t.Fatal(err)
	}
	all, err := s.guests.Export(ctx)
	if !errors.Is(err, guest.ErrUnreadable) || !strings.Contains(err.Error(), "addresses") ||
		strings.Contains(err.Error(), "email") {
		t.Errorf("the error: %v", err)
	}
	if string(all["theme"]) != `"dark"` || string(all["email"]) != `"ann@example.com"` ||
		string(all["addresses"]) != `{"work":"Low Street"}` {
		t.Errorf("%s", all)
	}
	other := newSite(t, func(c *guest.Config) {
		data(c)
		c.Store, c.Secrets = s.store, [][]byte{[]byte("another secret of the tests, 32b")}
	})
	all, err = other.guests.Export(other.guests.As(t.Context(), "ann"))
	if !errors.Is(err, guest.ErrUnreadable) || len(all) != 1 || string(all["theme"]) != `"dark"` {
		t.Errorf("without the secret: %s, %v", all, err)
	}
}

// A background job that acts on a claimed guest gets an error rather than an empty cart.
func TestAsGuestOfAClaimedGuest(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	b := s.browser()
	b.add("tea")
	id := b.page().Guest
	b.login("ann")
	ctx := s.guests.AsGuest(t.Context(), id)
	_, all := Cart.All(ctx)
	_, get := Theme.Get(s.guests.AsGuest(t.Context(), id))
	_, add := Cart.Add(s.guests.AsGuest(t.Context(), id), "cup", 1)
	_, export := s.guests.Export(s.guests.AsGuest(t.Context(), id))
	_, again := Cart.Get(ctx, "tea") // the context knows by now
	_, prefetch := guest.Prefetch(s.guests.AsGuest(t.Context(), id), Theme)
	for i, err := range []error{all, get, add, export, again, prefetch} {
		if !errors.Is(err, guest.ErrClaimed) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	for _, id := range []string{"", strings.Repeat("x", 513)} {
		if _, err := Cart.All(s.guests.As(t.Context(), id)); !errors.Is(err, guest.ErrInvalid) {
			t.Errorf("As of an ID of %d bytes: %v", len(id), err)
		}
	}
}

func TestAsGuestOfWhatIsNoID(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	for _, id := range []string{
		"", "x", strings.Repeat("A", 21), strings.Repeat("A", 23),
		strings.Repeat("A", 300), strings.Repeat("\n", 22), strings.Repeat("A", 21) + "B",
	} {
		err := Theme.Set(s.guests.AsGuest(t.Context(), id), "dark")
		if !errors.Is(err, guest.ErrInvalid) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestInspector(t *testing.T) {
	t.Parallel()

	t.Run("Token", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		b := s.browser()
		u, _ := url.Parse(s.url)
		cookie := func() *http.Cookie { return b.Jar.Cookies(u)[0] }
		before := time.Now().Truncate(time.Second)
		b.page()

		fresh := cookie()
		info := s.guests.Inspect().Token(fresh.Name, fresh.Value)
		if info.Verdict != guest.TokenValid || info.Secret != 0 || !info.Provisional ||
			info.Created.Before(before) || info.Issued.Before(before) {
			t.Errorf("a first cookie: %+v", info)
		}
		if want := info.Issued.Add(30 * 24 * time.Hour); !info.Expires.Equal(want) {
			t.Errorf("expires %v, want %v", info.Expires, want)
		}
		p := b.page()
		main := cookie()
		info = s.guests.Inspect().Token("guest", main.Value)
		if info.Verdict != guest.TokenValid || info.Provisional || info.GuestID != p.Guest {
			t.Errorf("a confirmed cookie of %s: %+v", p.Guest, info)
		}

		other := []byte("another secret of the tests, 32 b")
		rotated := newSite(t, func(c *guest.Config) { c.Secrets = [][]byte{other, secret} })
		info = rotated.guests.Inspect().Token("guest", main.Value)
		if info.Verdict != guest.TokenValid || info.Secret != 1 {
			t.Errorf("after a rotation: %+v", info)
		}
		foreign := newSite(t, func(c *guest.Config) { c.Secrets = [][]byte{other} })
		for what, info := range map[string]guest.TokenInfo{
			"another secret": foreign.guests.Inspect().Token("guest", main.Value),
			"another name":   s.guests.Inspect().Token("guest2", main.Value),
		} {
			if info.Verdict != guest.TokenForged || info.Secret != -1 || info.GuestID != p.Guest {
				t.Errorf("%s: %+v", what, info)
			}
		}
		ticket, err := s.guests.Ticket(s.guests.AsGuest(t.Context(), p.Guest), "a", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for _, invalid := range []string{"", "x", ticket, main.Value[:40], strings.Repeat("A", 300)} {
			if info := s.guests.Inspect().Token("guest", invalid); info.Verdict != guest.TokenMalformed ||
				info.GuestID != "" {
				t.Errorf("%q: %+v", invalid, info)
			}
		}
	})

	t.Run("Token that expired", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			m := newManager(t, guest.Config{Header: "X-Guest"})
			h := http.Header{}
			r, _ := http.NewRequest("GET", "https://example.com/", nil)
			r.Header.Set("X-Guest", "")
			m.Begin(h, r).Commit(http.StatusOK)
			token := h.Get("X-Guest")
			time.Sleep(30*24*time.Hour - time.Second)
			if info := m.Inspect().Token("__Host-Http-guest", token); info.Verdict != guest.TokenValid {
				t.Errorf("a second before: %+v", info)
			}
			time.Sleep(2 * time.Second)
			if info := m.Inspect().Token("__Host-Http-guest", token); info.Verdict != guest.TokenExpired ||
				info.Secret != 0 || !info.Expires.Before(time.Now()) {
				t.Errorf("a second after: %+v", info)
			}
		})
	})

	t.Run("Guest and Account", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		b := s.browser()
		b.add("tea")
		b.add("tea")
		b.add("cup")
		b.request("POST", "/theme/dark")
		id := b.page().Guest
		ctx := s.guests.AsGuest(t.Context(), id)
		if err := Email.Set(ctx, "ann@example.com"); err != nil {
			t.Fatal(err)
		}

		calls := s.store.calls.Load()
		info, err := s.guests.Inspect().Guest(t.Context(), id)
		if err != nil || info.State != guest.StateOpen || info.ClaimID == "" || info.Key != "g:"+id {
			t.Fatalf("%+v, %v", info, err)
		}
		if n := s.store.calls.Load() - calls; n != 1 {
			t.Errorf("%d calls, want 1", n)
		}
		got, _ := json.Marshal(info.Kinds[:2])
		want := `[{"name":"theme","per_item":false,"encrypted":false,"items":1,"bytes":11,` +
			`"data":"dark"},{"name":"cart","per_item":true,"encrypted":false,"items":2,"bytes":18,` +
			`"data":{"cup":1,"tea":2}}]`
		if string(got) != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		if k := info.Kinds[2]; k.Name != "email" || !k.Encrypted ||
			string(k.Data) != `"ann@example.com"` {
			t.Errorf("%+v", k)
		}
		foreign := newSite(t, func(c *guest.Config) {
			c.Store, c.Secrets, c.Data = s.store, [][]byte{[]byte("another secret of the tests, 32 b")}, nil
		})
		info, err = foreign.guests.Inspect().Guest(t.Context(), id)
		if k := info.Kinds[1]; err != nil || k.Name != "email" || !k.Encrypted || k.Items != 1 ||
			k.Data != nil {
			t.Errorf("without the secret: %+v, %v", info.Kinds, err)
		}
		if k := info.Kinds[0]; k.Name != "cart" || !k.PerItem || string(k.Data) != `{"cup":1,"tea":2}` {
			t.Errorf("a kind that is not declared: %+v", k)
		}

		receipt := b.login("ann").Receipt
		info, err = s.guests.Inspect().Guest(t.Context(), id)
		if err != nil || info.State != guest.StateClaimed || info.AccountID != "" ||
			len(info.Kinds) != 0 || !info.ClaimedAt.Equal(receipt.At) || info.ClaimID != receipt.ID {
			t.Errorf("after the claim: %+v, %v", info, err)
		}
		account, err := s.guests.Inspect().Account(t.Context(), "ann")
		if err != nil || account.Key != info.OwnerKey || account.State != guest.StateOpen ||
			len(account.Claims) != 1 {
			t.Fatalf("%+v, %v", account, err)
		}
		if c := account.Claims[0]; c.ID != receipt.ID ||
			fmt.Sprint(c.Kinds) != fmt.Sprint(receipt.Kinds) || c.At.IsZero() {
			t.Errorf("%+v\nwant the kinds of %+v", c, receipt)
		}
		if info, err := s.guests.Inspect().Account(t.Context(), "unknown"); err != nil ||
			info.State != guest.StateNone {
			t.Errorf("%+v, %v", info, err)
		}
		for _, bad := range []string{"", "ann", id + "A", "g:" + id} {
			if _, err := s.guests.Inspect().Guest(t.Context(), bad); !errors.Is(err, guest.ErrInvalid) {
				t.Errorf("%q: %v", bad, err)
			}
		}
	})

	t.Run("Account lists claims in their order", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			m := replica(t, memstore.New(memstore.Config{}), Cart)
			var want, got []string
			for range 6 {
				time.Sleep(time.Minute)
				at(m, "", func(w http.ResponseWriter, r *http.Request) {
					Cart.Add(r.Context(), "tea", 1)
					receipt, err := m.Claim(w, r, "ann")
					if err != nil {
						t.Fatal(err)
					}
					want = append(want, receipt.ID)
				})
			}
			account, err := m.Inspect().Account(t.Context(), "ann")
			for _, receipt := range account.Claims {
				got = append(got, receipt.ID)
			}
			if !slices.Equal(got, want) || err != nil {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
		})
	})

	// A claim is shown where it stopped, and RecoverClaim finishes that one.
	t.Run("Pending", func(t *testing.T) {
		t.Parallel()
		crash := errors.New("the process died")
		for _, row := range []struct {
			state string
			stop  func(op, key string, u guest.Update) bool // before this call
		}{
			{guest.ClaimStarted, func(op, key string, u guest.Update) bool {
				return op == "update" && u.Stamp == ".t"
			}},
			{guest.ClaimFrozen, func(op, key string, u guest.Update) bool { return u.Set[".c"] != "" }},
			{guest.ClaimMerged, func(op, key string, u guest.Update) bool {
				return strings.HasPrefix(u.Set[".s"], "c")
			}},
			{guest.ClaimFinished, func(op, key string, u guest.Update) bool {
				return strings.HasPrefix(key, "o:") && len(u.Unset) > 0
			}},
		} {
			t.Run(row.state, func(t *testing.T) {
				s := newSite(t, nil)
				b := s.browser()
				b.add("tea")
				id := b.page().Guest
				s.store.on(func(op, key string, u guest.Update) error {
					if row.stop(op, key, u) {
						return crash
					}
					return nil
				})
				b.login("ann")
				s.store.on(nil)

				pending, err := s.guests.Inspect().Pending(t.Context())
				if err != nil || len(pending) != 1 {
					t.Fatalf("%+v, %v", pending, err)
				}
				p := pending[0]
				if p.State != row.state || p.GuestID != id || p.AccountID != "ann" || p.SiblingID != "" ||
					p.Age < 0 || p.Age > time.Minute {
					t.Errorf("%+v, want %s", p, row.state)
				}
				info, err := s.guests.Inspect().Guest(t.Context(), id)
				want := ""
				if row.state == guest.ClaimFrozen || row.state == guest.ClaimMerged {
					want = "ann"
				}
				if err != nil || info.AccountID != want {
					t.Errorf("%+v, %v", info, err)
				}
				finished, err := s.guests.RecoverClaim(t.Context(), p)
				if want := row.state != guest.ClaimStarted; finished != want || err != nil {
					t.Errorf("finished: %v, %v", finished, err)
				}
				if left := outbox(t, s.store); (left == 0) != finished {
					t.Errorf("%d entries left in the outbox", left)
				}
				if finished && s.account("ann")["tea"] != 1 {
					t.Errorf("the account holds %v", s.account("ann"))
				}
			})
		}
	})
}
