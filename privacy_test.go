package guest_test

import (
	"encoding/json"
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
	if len(b.cookies()) != 0 || len(s.store.keys(t, "")) != 0 {
		t.Errorf("cookies %v, records %v", b.cookies(), s.store.keys(t, ""))
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
