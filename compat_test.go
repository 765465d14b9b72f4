package guest_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// What a release has written, the next one reads. Before a release, write down what it writes:
//
//	go test -run TestReadsEarlierReleases -write-release v1 .
var writeRelease = flag.String("write-release", "", "write testdata/releases/NAME.json: what this release puts into cookies, tickets and the store")

// A release is what one left behind.
type release struct {
	Open, Buried, Sealed string // cookies: of a guest with data, of one that ann has claimed, of one whose claim by ann is half done
	Ticket               string // of a fourth guest, for "bob@example.com"
	Records              map[string]map[string][]byte
}

func releaseManager(t *testing.T, store guest.Store, onClaim error) *guest.Manager {
	m, err := guest.New(guest.Config{
		Store: store, Secrets: [][]byte{secret}, Data: []guest.Kind{Theme, Cart, Wishes, Email},
		OnClaim: func(context.Context, guest.Receipt) error { return onClaim },
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// at serves a request with this cookie, and returns the cookie for the next one.
func at(m *guest.Manager, cookie string, f func(w http.ResponseWriter, r *http.Request)) string {
	r := httptest.NewRequest("GET", "/", nil)
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	w := httptest.NewRecorder()
	m.Middleware(http.HandlerFunc(f)).ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if c.MaxAge >= 0 {
			cookie = c.Name + "=" + c.Value
		}
	}
	return cookie
}

// leave does what a release leaves behind. Tests' time begins on 2000-01-01, so the cookies are of that day.
func leave(t *testing.T) (left release) {
	store := memstore.New(memstore.Config{})
	m, failing := releaseManager(t, store, nil), releaseManager(t, store, errors.New("the database is down"))
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	newGuest := func(sku string) string {
		cookie := at(m, "", func(w http.ResponseWriter, r *http.Request) {
			_, err := Cart.Add(r.Context(), sku, 2)
			do(err)
			do(Theme.Set(r.Context(), "dark"))
			do(Wishes.Set(r.Context(), sku, wish{"soon"}))
			do(Email.Set(r.Context(), sku+"@example.com"))
		})
		return at(m, cookie, func(w http.ResponseWriter, r *http.Request) {}) // its cookie comes back
	}
	left.Open, left.Buried, left.Sealed = newGuest("open"), newGuest("buried"), newGuest("sealed")
	at(m, left.Buried, func(w http.ResponseWriter, r *http.Request) { _, err := m.Claim(w, r, "ann"); do(err) })
	at(failing, left.Sealed, func(w http.ResponseWriter, r *http.Request) { failing.Claim(w, r, "ann") })
	at(m, newGuest("ticket"), func(w http.ResponseWriter, r *http.Request) {
		var err error
		left.Ticket, err = m.Ticket(r.Context(), "bob@example.com", 30*24*time.Hour)
		do(err)
	})
	left.Records = map[string]map[string][]byte{}
	for key, err := range store.Keys(t.Context(), "") {
		do(err)
		fields, err := store.Get(t.Context(), key)
		do(err)
		left.Records[key] = map[string][]byte{}
		for name, value := range fields {
			left.Records[key][name] = []byte(value)
		}
	}
	return left
}

func TestReadsEarlierReleases(t *testing.T) {
	if *writeRelease != "" {
		synctest.Test(t, func(t *testing.T) {
			text, err := json.MarshalIndent(leave(t), "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join("testdata/releases", *writeRelease+".json"), append(text, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
	files, err := filepath.Glob("testdata/releases/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no releases", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var left release
			if err := json.Unmarshal(text, &left); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) { left.read(t) })
		})
	}
}

// read goes on where the release left off.
func (left release) read(t *testing.T) {
	store := memstore.New(memstore.Config{})
	for key, record := range left.Records {
		fields := guest.Fields{}
		for name, value := range record {
			fields[name] = string(value)
		}
		if _, err := store.Update(t.Context(), key, guest.Update{Set: fields}); err != nil {
			t.Fatal(err)
		}
	}
	m := releaseManager(t, store, nil)
	holds := func(ctx context.Context, what, sku, email string) {
		t.Helper()
		theme, err := Theme.Get(ctx)
		n, err2 := Cart.Get(ctx, sku)
		w, err3 := Wishes.Get(ctx, sku)
		e, err4 := Email.Get(ctx)
		if theme != "dark" || n != 2 || w.Note != "soon" || e != email || errors.Join(err, err2, err3, err4) != nil {
			t.Errorf("%s: theme %q, %d of %s, wish %q, email %q: %v", what, theme, n, sku, w.Note, e, errors.Join(err, err2, err3, err4))
		}
	}
	at(m, left.Open, func(w http.ResponseWriter, r *http.Request) {
		holds(r.Context(), "the guest", "open", "open@example.com")
	})
	at(m, left.Buried, func(w http.ResponseWriter, r *http.Request) {
		if n, err := Cart.Get(r.Context(), "buried"); n != 0 || err != nil || !guest.FromContext(r.Context()).Replaced() {
			t.Errorf("a claimed guest reads %d, %v", n, err)
		}
		receipt, err := m.Claim(w, r, "ann")
		if err != nil || !receipt.Replayed || len(receipt.Kinds) != 4 || receipt.Kinds[1].GuestTotal != 2 {
			t.Errorf("a claim is repeated: %+v, %v", receipt, err)
		}
		if _, err := m.Claim(w, r, "bob"); !errors.Is(err, guest.ErrClaimed) {
			t.Errorf("another account claims the guest: %v", err)
		}
	})
	if n, err := m.Recover(t.Context()); n != 1 || err != nil {
		t.Errorf("%d claims were finished, %v; want 1", n, err)
	}
	for _, sku := range []string{"buried", "sealed"} {
		holds(m.As(t.Context(), "ann"), "ann", sku, "sealed@example.com")
	}
	at(m, "", func(w http.ResponseWriter, r *http.Request) {
		if receipt, err := m.ClaimTicket(w, r, left.Ticket, "bob@example.com", "bob"); err != nil || !receipt.Claimed {
			t.Errorf("the ticket: %+v, %v", receipt, err)
		}
	})
	holds(m.As(t.Context(), "bob"), "bob", "ticket", "ticket@example.com")
	at(m, left.Open, func(w http.ResponseWriter, r *http.Request) {
		if receipt, err := m.Claim(w, r, "cy"); err != nil || !receipt.Claimed || len(receipt.Kinds) != 4 {
			t.Errorf("a claim: %+v, %v", receipt, err)
		}
	})
	holds(m.As(t.Context(), "cy"), "cy", "open", "open@example.com")
}

// A claim does not touch what it cannot know the meaning of.
func TestANewerRecordIsLeftAlone(t *testing.T) {
	store := memstore.New(memstore.Config{})
	m := releaseManager(t, store, nil)
	var id string
	cookie := at(m, "", func(w http.ResponseWriter, r *http.Request) {
		id = guest.FromContext(r.Context()).GuestID()
		Cart.Add(r.Context(), "tea", 1)
	})
	if _, err := store.Update(t.Context(), "g:"+id, guest.Update{Set: guest.Fields{".i": "2aaaaaaaaaaaaa"}}); err != nil {
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
