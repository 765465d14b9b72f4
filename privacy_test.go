package guest_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/guestkit/guest"
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
		if strings.HasPrefix(key, "a:") {
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
