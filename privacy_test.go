package guest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

func TestForget(t *testing.T) {
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

func TestWhatExportShowsEraseRemoves(t *testing.T) {
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
	if want := `{"cart":{"cup":1,"tea":2},"email":"ann@example.com","theme":"dark","wishes":{"pot":{"note":"blue"}}}`; string(body) != want {
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
	s := newSite(t, nil)
	b := s.browser()
	b.add("tea")
	b.page()
	s.store.on(func(op, key string, u guest.Update) error {
		if u.Set[".c"] != "" {
			return http.ErrHandlerTimeout // a crash after the seal
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

// A guest that was forgotten stays so: neither a copy of its cookie nor a ticket finds anything or writes anything to it,
// and its ID says that it is gone.
func TestForgetEndsCopies(t *testing.T) {
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
	next := newSite(t, func(c *guest.Config) { c.Store = s.store }) // another process, which remembers nothing
	for _, s := range []*site{s, next} {
		thief := s.browser()
		thief.Jar.SetCookies(mustURL(t, s.url), copied.Jar.Cookies(mustURL(t, copied.s.url)))
		thief.add("cup")
		if p := thief.page(); p.Guest == id || p.Cart["tea"] != 0 {
			t.Errorf("the copied cookie is guest %s with %v", p.Guest, p.Cart)
		}
		if got, err := Cart.Get(s.guests.AsGuest(t.Context(), id), "tea"); !errors.Is(err, guest.ErrGone) || got != 0 {
			t.Errorf("its ID reads %d, %v", got, err)
		}
		if _, err := Cart.Add(s.guests.AsGuest(t.Context(), id), "tea", 1); !errors.Is(err, guest.ErrGone) {
			t.Errorf("a write by its ID: %v", err)
		}
	}
	if got := s.browser().open(ticket, "ann", "ann"); !strings.Contains(got, guest.ErrGone.Error()) || len(s.account("ann")) != 0 {
		t.Errorf("the ticket: %s; ann has %v", got, s.account("ann"))
	}
	thief := next.browser()
	thief.Jar.SetCookies(mustURL(t, next.url), copied.Jar.Cookies(mustURL(t, copied.s.url)))
	if c := thief.login("eve"); c.Err != "" || c.Receipt.Claimed || len(s.account("eve")) != 0 {
		t.Errorf("a login with the copied cookie: %+v", c)
	}
}

// A write between Forget's two steps is erased with the rest.
func TestForgetUnderWrites(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	b.add("tea")
	id := b.page().Guest
	wrote := 0
	s.store.on(func(op, key string, u guest.Update) error {
		if _, ends := u.Set[".s"]; ends && wrote < 3 {
			wrote++
			_, err := s.store.Store.Update(t.Context(), key, guest.Update{If: guest.Fields{".s": ""}, Set: guest.Fields{"cart/late": "1"}})
			return err
		}
		return nil
	})
	if err := s.guests.EraseGuest(t.Context(), id); err != nil || wrote == 0 {
		t.Fatal(err, wrote)
	}
	record, err := s.store.Store.Get(t.Context(), "g:"+id)
	if err != nil || record["cart/late"] != "" || record["cart/tea"] != "" || record[".s"] != "b" {
		t.Errorf("%v, %v", record, err)
	}
}

// A sibling whose data were on their way into a guest that is forgotten meanwhile goes with it.
func TestForgettingTheElderSibling(t *testing.T) {
	s := newSite(t, nil)
	elder, younger := s.request("POST", "/add/tea", "").Result().Cookies()[0], s.request("POST", "/add/cup", "").Result().Cookies()[0]
	tick()
	stop := errors.New("the process died")
	s.store.on(func(op, key string, u guest.Update) error {
		if op == "update" && u.Set["cart/cup"] != "" { // the merge
			return stop
		}
		return nil
	})
	p := page{}
	json.Unmarshal(s.request("GET", "/page", elder.Name+"="+elder.Value+"; "+younger.Name+"="+younger.Value).Body.Bytes(), &p)
	s.store.on(nil)
	if err := s.guests.EraseGuest(t.Context(), p.Guest); err != nil {
		t.Fatal(err)
	}
	if _, err := s.guests.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, key := range s.store.keys(t, "") {
		record, _ := s.store.Store.Get(t.Context(), key)
		if strings.HasPrefix(key, "g:") == (record[".s"] == "") || record["cart/cup"] != "" || record["cart/tea"] != "" {
			t.Errorf("%s: %v", key, record)
		}
	}
	if n := outbox(t, s.store); n != 0 {
		t.Errorf("%d entries left in the outbox", n)
	}
}

// A background job that acts on a claimed guest is told, rather than shown an empty cart.
func TestAsGuestOfAClaimedGuest(t *testing.T) {
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

// What cannot be read does not keep the rest from whoever asks for their data.
func TestExportLeavesOutWhatItCannotRead(t *testing.T) {
	Addresses := guest.NewMap("addresses", guest.EachItem(guest.PreferGuest[string])).Encrypted()
	data := func(c *guest.Config) { c.Data = append(c.Data, Addresses) }
	s := newSite(t, data)
	ctx := s.guests.As(t.Context(), "ann")
	for _, err := range []error{Theme.Set(ctx, "dark"), Email.Set(ctx, "ann@example.com"), Addresses.Set(ctx, "home", "High Street"), Addresses.Set(ctx, "work", "Low Street")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	account := s.store.keys(t, "a:")[0]
	record, _ := s.store.Store.Get(t.Context(), account)
	swapped := guest.Fields{"addresses/home": record["addresses/work"]} // somebody wrote to the store
	if _, err := s.store.Store.Update(t.Context(), account, guest.Update{Set: swapped}); err != nil {
		t.Fatal(err)
	}
	all, err := s.guests.Export(ctx)
	if !errors.Is(err, guest.ErrUnreadable) || !strings.Contains(err.Error(), "addresses") || strings.Contains(err.Error(), "email") {
		t.Errorf("the error: %v", err)
	}
	if string(all["theme"]) != `"dark"` || string(all["email"]) != `"ann@example.com"` || string(all["addresses"]) != `{"work":"Low Street"}` {
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

// An account is erased while a claim is under way, before each of its calls to the store: what the claim brings is erased
// too, if the outbox knew of it. A claim that begins later is another matter.
func TestErasingAnAccountWhileAClaimIsUnderWay(t *testing.T) {
	for _, known := range []bool{false, true} { // the account has a record
		for _, recovers := range []bool{false, true} { // another process goes on with a claim whose guest is frozen
			for step := 1; step <= 8; step++ {
				t.Run(fmt.Sprintf("a known account: %v/recovers: %v/before call %d", known, recovers, step), func(t *testing.T) {
					mem := newStore()
					store := &spy{Store: mem}
					claimer, m := replica(t, store, [][]byte{secret}, Cart), replica(t, mem, [][]byte{secret}, Cart)
					newGuest := func() string {
						return at(m, "", func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), "tea", 1) })
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
					calls, noted := 0, recovers
					store.on(func(op, key string, u guest.Update) error {
						if strings.HasPrefix(key, "o:") && !noted && calls+1 < step {
							noted = true
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
					if err != nil || (noted || step > calls) && len(got) > 0 || got["cup"] > 0 || got["tea"] > 1 {
						t.Errorf("erased data came back: %v, %v", got, err)
					}
					if n := outbox(t, store); n > 0 {
						t.Errorf("%d notes left", n)
					}
				})
			}
		}
	}
}

// A claim whose claimer died long before it froze the guest is not taken up by EraseAccount: the guest is the visitor's.
func TestErasingAnAccountLeavesAnOpenGuestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &spy{Store: memstore.New(memstore.Config{})}
		m := replica(t, store, [][]byte{secret}, Cart)
		cookie := at(m, "", func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), "tea", 1) })
		store.on(func(op, key string, u guest.Update) error {
			if u.Stamp == ".t" {
				return http.ErrHandlerTimeout // died before the seal
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

// A browser with more first cookies than one response clears is left by its visitor, by Forget or by a login and logout.
// What the next person keeps there is theirs: it goes neither into what was forgotten nor into the first one's account.
func TestTheNextPersonAtTheBrowser(t *testing.T) {
	for _, n := range []int{4, 8, 12, 30} {
		for _, end := range []string{"forget", "login"} {
			for _, processes := range []int{1, 2} {
				t.Run(fmt.Sprint(n, " cookies/", end, "/processes: ", processes), func(t *testing.T) {
					s := newSite(t, nil)
					s.mux.HandleFunc("POST /forget", func(w http.ResponseWriter, r *http.Request) {
						if err := s.guests.Forget(w, r); err != nil {
							t.Error(err)
						}
					})
					b := s.browser()
					for i := range n {
						c := s.request("POST", fmt.Sprint("/add/first", i), "").Result().Cookies()[0]
						b.Jar.SetCookies(mustURL(t, s.url), []*http.Cookie{{Name: c.Name, Value: c.Value}})
					}
					stolen := b.copy()
					tick()
					if end == "forget" {
						b.request("POST", "/forget")
					} else {
						b.login("ann")
					}
					tick()
					if processes == 2 {
						next := newSite(t, func(c *guest.Config) { c.Store = s.store })
						jar := b.Jar.Cookies(mustURL(t, s.url))
						b = next.browser()
						b.Jar.SetCookies(mustURL(t, next.url), jar)
					}
					for i := range 3 {
						b.add(fmt.Sprint("next", i))
					}
					for range n {
						b.page()
					}
					p := b.page()
					for i := range 3 {
						if p.Cart[fmt.Sprint("next", i)] != 1 {
							t.Errorf("the next person has %v", p.Cart)
							break
						}
					}
					for sku := range s.account("ann") {
						if strings.HasPrefix(sku, "next") {
							t.Errorf("the first one's account has the next person's %s", sku)
						}
					}
					if end == "forget" {
						for range n {
							if p := stolen.page(); len(p.Cart) != 0 {
								t.Fatalf("a copy of the forgotten cookies reads %v", p.Cart)
							}
						}
					}
					if got := b.cookies(); len(got) > 2 { // for two minutes a guest that follows another keeps its own spare cookie
						t.Errorf("cookies %v", got)
					}
				})
			}
		}
	}
}
