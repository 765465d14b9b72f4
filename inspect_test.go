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

func TestInspectToken(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	u, _ := url.Parse(s.url)
	cookie := func() *http.Cookie { return b.Jar.Cookies(u)[0] }
	before := time.Now().Truncate(time.Second)
	b.page()

	fresh := cookie()
	info := s.guests.Inspect().Token(fresh.Name, fresh.Value)
	if info.Verdict != guest.TokenValid || info.Secret != 0 || !info.Provisional || info.Created.Before(before) || info.Issued.Before(before) {
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
	if info := rotated.guests.Inspect().Token("guest", main.Value); info.Verdict != guest.TokenValid || info.Secret != 1 {
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
	for _, junk := range []string{"", "x", ticket, main.Value[:40], strings.Repeat("A", 300)} {
		if info := s.guests.Inspect().Token("guest", junk); info.Verdict != guest.TokenMalformed || info.GuestID != "" {
			t.Errorf("%q: %+v", junk, info)
		}
	}
}

func TestInspectExpiredToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := guest.New(guest.Config{Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Header: "X-Guest"})
		if err != nil {
			t.Fatal(err)
		}
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
		if info := m.Inspect().Token("__Host-Http-guest", token); info.Verdict != guest.TokenExpired || info.Secret != 0 || !info.Expires.Before(time.Now()) {
			t.Errorf("a second after: %+v", info)
		}
	})
}

func TestInspectRecords(t *testing.T) {
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
	if want := `[{"name":"theme","per_item":false,"encrypted":false,"items":1,"bytes":11,"data":"dark"},` +
		`{"name":"cart","per_item":true,"encrypted":false,"items":2,"bytes":18,"data":{"cup":1,"tea":2}}]`; string(got) != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if k := info.Kinds[2]; k.Name != "email" || !k.Encrypted || string(k.Data) != `"ann@example.com"` {
		t.Errorf("%+v", k)
	}
	foreign := newSite(t, func(c *guest.Config) {
		c.Store, c.Secrets, c.Data = s.store, [][]byte{[]byte("another secret of the tests, 32 b")}, nil
	})
	info, err = foreign.guests.Inspect().Guest(t.Context(), id)
	if k := info.Kinds[1]; err != nil || k.Name != "email" || !k.Encrypted || k.Items != 1 || k.Data != nil {
		t.Errorf("without the secret: %+v, %v", info.Kinds, err)
	}
	if k := info.Kinds[0]; k.Name != "cart" || !k.PerItem || string(k.Data) != `{"cup":1,"tea":2}` {
		t.Errorf("a kind that is not declared: %+v", k)
	}

	receipt := b.login("ann").Receipt
	info, err = s.guests.Inspect().Guest(t.Context(), id)
	if err != nil || info.State != guest.StateClaimed || info.AccountID != "" || len(info.Kinds) != 0 || !info.ClaimedAt.Equal(receipt.At) || info.ClaimID != receipt.ID {
		t.Errorf("after the claim: %+v, %v", info, err)
	}
	account, err := s.guests.Inspect().Account(t.Context(), "ann")
	if err != nil || account.Key != info.OwnerKey || account.State != guest.StateOpen || len(account.Claims) != 1 {
		t.Fatalf("%+v, %v", account, err)
	}
	if c := account.Claims[0]; c.ID != receipt.ID || fmt.Sprint(c.Kinds) != fmt.Sprint(receipt.Kinds) || c.At.IsZero() {
		t.Errorf("%+v\nwant the kinds of %+v", c, receipt)
	}
	if info, err := s.guests.Inspect().Account(t.Context(), "nobody"); err != nil || info.State != guest.StateNone {
		t.Errorf("%+v, %v", info, err)
	}
	for _, bad := range []string{"", "ann", id + "A", "g:" + id} {
		if _, err := s.guests.Inspect().Guest(t.Context(), bad); !errors.Is(err, guest.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestInspectTellsClaimsInTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := replica(t, memstore.New(memstore.Config{}), [][]byte{secret}, Cart)
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
}

// A claim is shown where it stopped, and RecoverClaim finishes that one.
func TestInspectPendingClaims(t *testing.T) {
	crash := errors.New("the process died")
	for _, row := range []struct {
		state string
		stop  func(op, key string, u guest.Update) bool // before this call
	}{
		{guest.ClaimStarted, func(op, key string, u guest.Update) bool { return op == "update" && u.Stamp == ".t" }},
		{guest.ClaimFrozen, func(op, key string, u guest.Update) bool { return u.Set[".c"] != "" }},
		{guest.ClaimMerged, func(op, key string, u guest.Update) bool { return strings.HasPrefix(u.Set[".s"], "b") }},
		{guest.ClaimFinished, func(op, key string, u guest.Update) bool { return strings.HasPrefix(key, "o:") && len(u.Unset) > 0 }},
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
			if p.State != row.state || p.GuestID != id || p.AccountID != "ann" || p.SiblingID != "" || p.Age < 0 || p.Age > time.Minute {
				t.Errorf("%+v, want %s", p, row.state)
			}
			info, err := s.guests.Inspect().Guest(t.Context(), id)
			if want := map[string]string{guest.ClaimFrozen: "ann", guest.ClaimMerged: "ann"}[row.state]; err != nil || info.AccountID != want {
				t.Errorf("%+v, %v", info, err)
			}
			finished, err := s.guests.RecoverClaim(t.Context(), p)
			if want := row.state != guest.ClaimStarted; finished != want || err != nil {
				t.Errorf("finished: %v, %v", finished, err)
			}
			if left := outbox(t, s.store); (left == 0) != finished {
				t.Errorf("%d notes left", left)
			}
			if finished && s.account("ann")["tea"] != 1 {
				t.Errorf("the account holds %v", s.account("ann"))
			}
		})
	}
}

func TestEraseGuest(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	b.add("tea")
	id := b.page().Guest
	for _, when := range []string{"once", "again"} {
		if err := s.guests.EraseGuest(t.Context(), id); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if info, err := s.guests.Inspect().Guest(t.Context(), id); info.State != guest.StateForgotten || len(info.Kinds) != 0 || err != nil {
			t.Errorf("%s: %+v, %v", when, info, err)
		}
	}
	b.add("cup")
	if id = b.page().Guest; b.page().Cart["tea"] != 0 {
		t.Error("the erased guest lives on")
	}
	b.login("ann")
	if err := s.guests.EraseGuest(t.Context(), id); err != guest.ErrClaimed || s.account("ann")["cup"] != 1 {
		t.Errorf("a claimed guest: %v, %v", err, s.account("ann"))
	}
	if err := s.guests.EraseGuest(t.Context(), "ann"); !errors.Is(err, guest.ErrInvalid) {
		t.Error(err)
	}
}
