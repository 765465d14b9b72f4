package record

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest/internal/token"
)

func TestKeys(t *testing.T) {
	id := token.NewID()
	key := GuestKey(id)
	if want := "g:" + id.String(); key != want || GuestID(key) != id.String() || !IsGuest(key) {
		t.Errorf("the key of guest %v is %q", id, key)
	}
	for _, account := range []string{"ann@example.com", strings.Repeat("x", 512), "\x00", "a:b"} {
		key := AccountKey(account)
		if len(key) != len("a:")+43 || IsGuest(key) || strings.Contains(key, account) {
			t.Errorf("the key of account %.20q is %q", account, key)
		}
	}
	if AccountKey("ann") == AccountKey("Ann") {
		t.Error("the keys of accounts do not tell them apart")
	}
	shards := map[string]bool{}
	for range 1000 {
		shards[OutboxOf(GuestKey(token.NewID()))] = true
	}
	all := map[string]bool{}
	for shard := range OutboxShards {
		all[OutboxKey(shard)] = true
	}
	if len(all) != OutboxShards || !maps.Equal(shards, all) {
		t.Errorf("the entries of 1000 guests are in %v, of %v", shards, all)
	}
}

func TestOwner(t *testing.T) {
	guest := token.Token{ID: token.NewID(), CreatedAt: 1_700_000_000_123}
	for _, tt := range []struct {
		name      string
		owner     Owner
		account   string
		isAccount bool
		isGuest   bool
		key       string
	}{
		{"an account", AccountOwner("ann"), "ann", true, false, AccountKey("ann")},
		{"an account with our separators", AccountOwner("g:a/b@c"), "g:a/b@c", true, false,
			AccountKey("g:a/b@c")},
		{"a guest", GuestOwner(guest), "", false, true, GuestKey(guest.ID)},
		{"none", "", "", false, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := tt.owner
			got, isGuest := o.Guest()
			if o.Account() != tt.account || o.IsAccount() != tt.isAccount || isGuest != tt.isGuest {
				t.Errorf("account %q, %v; guest %v", o.Account(), o.IsAccount(), isGuest)
			}
			if isGuest && got != guest {
				t.Errorf("the guest %+v, want %+v", got, guest)
			}
			if o.Key() != tt.key {
				t.Errorf("the key %q, want %q", o.Key(), tt.key)
			}
			if IsClaimed(o.Frozen()) || !IsClaimed(o.Claimed()) {
				t.Errorf("claimed: %v while frozen, %v when claimed", IsClaimed(o.Frozen()),
					IsClaimed(o.Claimed()))
			}
		})
	}
	unusedBits := Owner("g:" + strings.Repeat("A", 21) + "B@1")
	for _, broken := range []Owner{"g:", "g:short@1", "x", unusedBits} {
		if got, ok := broken.Guest(); ok {
			t.Errorf("%q is the guest %+v", broken, got)
		}
	}
}

// A guest that a sibling has absorbed leads to that one, before and after the claim is done.
func TestHolderOf_Sibling(t *testing.T) {
	sibling := token.Token{ID: token.NewID(), CreatedAt: 1_700_000_000_123}
	o := GuestOwner(sibling)
	for state, frozen := range map[string]bool{o.Frozen(): true, o.Claimed(): false} {
		h := HolderOf(state)
		if got, ok := h.Sibling(); !ok || got != sibling || h.Frozen != frozen || h.Key != o.Key() {
			t.Errorf("%+v of %q, and its sibling %+v, %v", h, state, got, ok)
		}
	}
	for _, state := range []string{
		"", Forgotten, AccountOwner("ann").Frozen(), AccountOwner("ann").Claimed(),
	} {
		if got, ok := HolderOf(state).Sibling(); ok {
			t.Errorf("a guest of state %q has the sibling %+v", state, got)
		}
	}
}

func TestOutboxEntry(t *testing.T) {
	for _, owner := range []Owner{
		AccountOwner("ann"), AccountOwner("a/b/c"), GuestOwner(token.Token{ID: token.NewID()}),
	} {
		want := OutboxEntry{GuestKey(token.NewID()), NewIncarnation(), owner}
		if got, ok := ParseOutboxEntry(want.Field()); !ok || got != want {
			t.Errorf("%q is %+v, %v, want %+v", want.Field(), got, ok, want)
		}
	}
	for _, field := range []string{"", "g:x", "g:x/1i"} {
		if got, ok := ParseOutboxEntry(field); ok {
			t.Errorf("%q is the entry %+v", field, got)
		}
	}
}

func TestIsNewer(t *testing.T) {
	for incarnation, want := range map[string]bool{
		"": false, NewIncarnation(): false, "1": false, "2aaaaaaaaaaaaa": true, "0aaaaaaaaaaaaa": true,
	} {
		if got := IsNewer(Fields{Incarnation: incarnation}); got != want {
			t.Errorf("a record of incarnation %q is newer: %v", incarnation, got)
		}
	}
	if a, b := NewIncarnation(), NewIncarnation(); a == b || len(a) != 14 {
		t.Errorf("incarnations %q and %q", a, b)
	}
}

func TestDataOf(t *testing.T) {
	got := DataOf(Fields{
		"theme": "1", "cart/tea": "2",
		Incarnation: "1i", State: Forgotten, ".new": "x", "": "3", "empty": "",
	})
	if want := (Fields{"theme": "1", "cart/tea": "2"}); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestTime(t *testing.T) {
	for stamp, want := range map[string]time.Time{
		"1700000000123": time.Date(2023, 11, 14, 22, 13, 20, 123e6, time.UTC),
		"1":             time.UnixMilli(1).UTC(),
		"0":             {}, "-1": {}, "": {}, "x": {}, "1.5": {},
	} {
		if got := Time(stamp); got != want {
			t.Errorf("%q is %v, want %v", stamp, got, want)
		}
	}
}
