package guest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/guestkit/guest"
)

// replica is one process of an app, with what this version of the app knows.
func replica(t *testing.T, store guest.Store, secrets [][]byte, kinds ...guest.Kind) *guest.Manager {
	t.Helper()
	m, err := guest.New(guest.Config{Store: store, Secrets: secrets, Data: kinds, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// claimBy claims the guest of this cookie through a process.
func claimBy(m *guest.Manager, cookie, account string) (receipt guest.Receipt, err error) {
	at(m, cookie, func(w http.ResponseWriter, r *http.Request) { receipt, err = m.Claim(w, r, account) })
	return receipt, err
}

func record(t *testing.T, store guest.Store, prefix string) guest.Fields {
	t.Helper()
	for key, err := range store.Keys(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		fields, err := store.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		return fields
	}
	return nil
}

// While two versions of an app run, one of them cannot read all that a guest holds. Whichever claims first, everything
// arrives: a claim by the one that cannot is pending until the other finishes it.
func TestARollingDeployLosesNothing(t *testing.T) {
	notes := guest.NewMap("notes", guest.EachItem(guest.PreferGuest[string]))
	secretNotes := guest.NewMap("notes", guest.EachItem(guest.PreferGuest[string])).Encrypted()
	newer := []byte("a newer secret of 32 bytes......")
	both := [][]byte{newer, secret}
	for _, row := range []struct {
		name     string
		old, new func(*testing.T, guest.Store) *guest.Manager
		notes    *guest.Map[string] // of the new one
	}{
		{"the old one lacks a kind",
			func(t *testing.T, s guest.Store) *guest.Manager { return replica(t, s, [][]byte{secret}, Cart) },
			func(t *testing.T, s guest.Store) *guest.Manager { return replica(t, s, [][]byte{secret}, Cart, notes) }, notes},
		{"the old one lacks the secret",
			func(t *testing.T, s guest.Store) *guest.Manager {
				return replica(t, s, [][]byte{secret}, Cart, secretNotes)
			},
			func(t *testing.T, s guest.Store) *guest.Manager { return replica(t, s, both, Cart, secretNotes) }, secretNotes},
		{"the old one encrypts, and meets what is not",
			func(t *testing.T, s guest.Store) *guest.Manager {
				return replica(t, s, [][]byte{secret}, Cart, secretNotes)
			},
			func(t *testing.T, s guest.Store) *guest.Manager { return replica(t, s, [][]byte{secret}, Cart, notes) }, notes},
	} {
		for _, accountHolds := range []bool{false, true} {
			for _, oldFirst := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/the account holds some: %v/the old one first: %v", row.name, accountHolds, oldFirst), func(t *testing.T) {
					store := newStore()
					old, new := row.old(t, store), row.new(t, store)
					ann := new.As(t.Context(), "ann")
					want := map[string]string{"first": "guest", "second": "guest"}
					if accountHolds {
						row.notes.Set(ann, "third", "account")
						row.notes.Set(ann, "first", "account")
						want["third"] = "account"
					}
					var id string
					cookie := at(old, "", func(w http.ResponseWriter, r *http.Request) {
						Cart.Add(r.Context(), "tea", 2)
						id = guest.FromContext(r.Context()).GuestID()
					})
					row.notes.Set(new.AsGuest(t.Context(), id), "first", "guest")
					row.notes.Set(new.AsGuest(t.Context(), id), "second", "guest")
					if oldFirst {
						receipt, err := claimBy(old, cookie, "ann")
						if !errors.Is(err, guest.ErrUnreadable) || !receipt.Pending {
							t.Errorf("the old process answers %v, %+v", err, receipt)
						}
						if n, err := old.Recover(t.Context()); n != 0 || !errors.Is(err, guest.ErrUnreadable) {
							t.Errorf("the old process recovers %d, %v", n, err)
						}
						if n, err := new.Recover(t.Context()); n != 1 || err != nil {
							t.Errorf("the new process recovers %d, %v", n, err)
						}
					} else if receipt, err := claimBy(new, cookie, "ann"); err != nil || receipt.Pending {
						t.Errorf("the new process answers %v, %+v", err, receipt)
					}
					for range 2 { // a repetition by either changes nothing
						for _, m := range []*guest.Manager{old, new} {
							if receipt, err := claimBy(m, cookie, "ann"); err != nil || receipt.Pending {
								t.Errorf("repeated: %v, %+v", err, receipt)
							}
						}
					}
					got, err := row.notes.All(ann)
					if !maps.Equal(got, want) || err != nil {
						t.Errorf("the account holds %v, %v, want %v", got, err, want)
					}
					if n, err := Cart.Get(ann, "tea"); n != 2 || err != nil {
						t.Errorf("%d cups, %v", n, err)
					}
				})
			}
		}
	}
}

// A struct of the new version has one field more. The old one claims, and its rule returns items as they were: their
// bytes stay, with the field that it does not know. What it makes anew, it makes of what it knows.
func TestAnOlderTypeKeepsTheBytesOfWhatItsRuleReturnedUnchanged(t *testing.T) {
	type older struct {
		Colour string `json:"colour"`
	}
	type newer struct {
		Colour string `json:"colour"`
		Size   string `json:"size"`
	}
	pick := func(account, guest older) older { // neither changes
		if guest.Colour == "red" {
			return guest
		}
		return account
	}
	shout := func(account, guest older) older { return older{account.Colour + "!"} }
	for name, row := range map[string]struct {
		rule           guest.Merge[older]
		account, guest newer
		want           newer
	}{
		"the account's":         {pick, newer{"blue", "XL"}, newer{"green", "S"}, newer{"blue", "XL"}},
		"the guest's":           {pick, newer{"blue", "XL"}, newer{"red", "S"}, newer{"red", "S"}},
		"equal, as it sees it":  {pick, newer{"red", "XL"}, newer{"red", "S"}, newer{"red", "XL"}},
		"something new of both": {shout, newer{"blue", "XL"}, newer{"red", "S"}, newer{"blue!", ""}},
	} {
		for _, sealed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/sealed: %v", name, sealed), func(t *testing.T) {
				store := newStore()
				oldValue, newValue := guest.NewValue("look", row.rule), guest.NewValue("look", guest.PreferAccount[newer])
				oldMap, newMap := guest.NewMap("looks", guest.EachItem(row.rule)), guest.NewMap("looks", guest.PreferAccount[map[string]newer])
				if sealed {
					oldValue, newValue, oldMap, newMap = oldValue.Encrypted(), newValue.Encrypted(), oldMap.Encrypted(), newMap.Encrypted()
				}
				old := replica(t, store, [][]byte{secret}, oldValue, oldMap)
				new := replica(t, store, [][]byte{secret}, newValue, newMap)
				ann := new.As(t.Context(), "ann")
				newValue.Set(ann, row.account)
				newMap.Set(ann, "pot", row.account)
				newMap.Set(ann, "mine", row.account)
				cookie := at(new, "", func(w http.ResponseWriter, r *http.Request) {
					newValue.Set(r.Context(), row.guest)
					newMap.Set(r.Context(), "pot", row.guest)
					newMap.Set(r.Context(), "yours", row.guest)
				})
				receipt, err := claimBy(old, cookie, "ann")
				if err != nil {
					t.Fatal(err)
				}
				if got, err := newValue.Get(ann); got != row.want || err != nil {
					t.Errorf("the value is %+v, %v, want %+v", got, err, row.want)
				}
				got, err := newMap.All(ann)
				if want := map[string]newer{"pot": row.want, "mine": row.account, "yours": row.guest}; !maps.Equal(got, want) || err != nil {
					t.Errorf("the map is %+v, %v, want %+v", got, err, want)
				}
				if k := kept(t, receipt, "look"); (k.Outcome == guest.Kept) != (row.want == row.account) {
					t.Errorf("the receipt: %+v", k)
				}
			})
		}
	}
}

// An amount that another release wrote in another way keeps its bytes too.
func TestAnUnchangedAmountKeepsItsBytes(t *testing.T) {
	store := newStore()
	m := replica(t, store, [][]byte{secret}, Cart)
	Cart.Add(m.As(t.Context(), "ann"), "cup", 1)
	cookie := at(m, "", func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), "tea", 1) })
	for key := range store.Keys(t.Context(), "a:") {
		store.Update(t.Context(), key, guest.Update{Set: guest.Fields{"cart/cup": "+01"}})
	}
	if _, err := claimBy(m, cookie, "ann"); err != nil {
		t.Fatal(err)
	}
	if got := record(t, store, "a:"); got["cart/cup"] != "+01" || got["cart/tea"] != "1" {
		t.Errorf("%v", got)
	}
}

// Whoever writes plaintext into the store puts nothing into a kind that is encrypted.
func TestASealedKindRefusesPlaintext(t *testing.T) {
	store := newStore()
	email := guest.NewValue("email", guest.PreferGuest[string]).Encrypted()
	notes := guest.NewMap("notes", guest.EachItem(guest.PreferGuest[string])).Encrypted()
	m := replica(t, store, [][]byte{secret}, email, notes)
	lenientEmail, lenientNotes := email.InsecureAcceptPlaintext(), notes.InsecureAcceptPlaintext()
	lenient := replica(t, store, [][]byte{secret}, lenientEmail, lenientNotes)
	var id string
	cookie := at(m, "", func(w http.ResponseWriter, r *http.Request) {
		notes.Set(r.Context(), "own", "mine")
		id = guest.FromContext(r.Context()).GuestID()
	})
	if _, err := store.Update(t.Context(), "g:"+id, guest.Update{Set: guest.Fields{"email": `"eve"`, "notes/a": `"planted"`, "notes/b": `"planted"`}}); err != nil {
		t.Fatal(err)
	}

	ctx := m.AsGuest(t.Context(), id)
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, guest.ErrUnreadable) || strings.Contains(err.Error(), "planted") || strings.Contains(err.Error(), "eve") {
			t.Errorf("%s: %v", what, err)
		}
	}
	v, err := email.Get(ctx)
	refused("Value.Get returns "+v, err)
	v, err = notes.Get(ctx, "a")
	refused("Map.Get returns "+v, err)
	all, err := notes.All(ctx)
	refused(fmt.Sprint("Map.All returns ", all), err)
	same := func(s string) (string, error) { return s, nil }
	refused("Value.Update", email.Update(ctx, same))
	refused("Map.Update", notes.Update(ctx, "a", same))
	_, err = m.Preview(ctx, "ann")
	refused("Preview", err)
	if v, err := notes.Get(ctx, "own"); v != "mine" || err != nil {
		t.Errorf("what is encrypted reads %q, %v", v, err)
	}
	receipt, err := claimBy(m, cookie, "ann")
	refused("Claim", err)
	if !receipt.Pending {
		t.Errorf("%+v", receipt)
	}

	// A migration: read in the clear, and encrypted by the claim and by the next write.
	if n, err := lenient.Recover(t.Context()); n != 1 || err != nil {
		t.Fatalf("with InsecureAcceptPlaintext %d claims are finished, %v", n, err)
	}
	ann := m.As(t.Context(), "ann")
	if v, err := email.Get(ann); v != "eve" || err != nil {
		t.Errorf("the claim did not encrypt it: %q, %v", v, err)
	}
	if all, err := notes.All(ann); len(all) != 3 || err != nil {
		t.Errorf("the claim did not encrypt the items: %v, %v", all, err)
	}
	for key := range store.Keys(t.Context(), "a:") {
		store.Update(t.Context(), key, guest.Update{Set: guest.Fields{"email": `"old"`}})
	}
	if v, err := lenientEmail.Get(lenient.As(t.Context(), "ann")); v != "old" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	if err := lenientEmail.Update(lenient.As(t.Context(), "ann"), same); err != nil {
		t.Error(err)
	}
	if v, err := email.Get(ann); v != "old" || err != nil {
		t.Errorf("the write did not encrypt it: %q, %v", v, err)
	}
}

// What was encrypted opens after the kind is no longer.
func TestAKindThatIsNoLongerSealed(t *testing.T) {
	store := newStore()
	plain := guest.NewValue("email", guest.PreferGuest[string])
	sealed := plain.Encrypted()
	before, after := replica(t, store, [][]byte{secret}, sealed), replica(t, store, [][]byte{secret}, plain)
	cookie := at(before, "", func(w http.ResponseWriter, r *http.Request) { sealed.Set(r.Context(), "ann@example.com") })
	if _, err := claimBy(after, cookie, "ann"); err != nil {
		t.Fatal(err)
	}
	if v, err := plain.Get(after.As(t.Context(), "ann")); v != "ann@example.com" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
}

// A kind that is gone for good does not hold up claims, and cannot be used.
func TestARetiredKind(t *testing.T) {
	store := newStore()
	notes := guest.NewMap("notes", guest.EachItem(guest.PreferGuest[string])).Encrypted()
	before := replica(t, store, [][]byte{[]byte("a secret that was thrown away...")}, notes)
	undecided, after := replica(t, store, [][]byte{secret}, Cart), replica(t, store, [][]byte{secret}, guest.Retired("notes"), Cart)
	var id string
	cookie := at(undecided, "", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 1)
		id = guest.FromContext(r.Context()).GuestID()
	})
	notes.Set(before.AsGuest(t.Context(), id), "a", "x")
	notes.Set(before.AsGuest(t.Context(), id), "b", "x")
	notes.Set(before.As(t.Context(), "ann"), "b", "y")
	if receipt, err := claimBy(undecided, cookie, "ann"); !errors.Is(err, guest.ErrUnreadable) || !receipt.Pending {
		t.Fatalf("%+v, %v", receipt, err)
	}
	receipt, err := claimBy(after, cookie, "ann")
	want := guest.KindReceipt{Name: "notes", Outcome: guest.Dropped, GuestItems: 2, AccountItems: 1, ResultItems: 1, DroppedItems: 2}
	if err != nil || len(receipt.Kinds) != 2 || kept(t, receipt, "notes") != want {
		t.Errorf("%+v, %v, want %+v", receipt, err, want)
	}
	if n, err := Cart.Get(after.As(t.Context(), "ann"), "tea"); n != 1 || err != nil {
		t.Errorf("%d cups, %v", n, err)
	}
	if got := slices.Sorted(maps.Keys(record(t, store, "a:"))); !slices.Contains(got, "notes/b") || slices.Contains(got, "notes/a") {
		t.Errorf("the account's record holds %v", got)
	}
	if err := notes.Set(after.As(t.Context(), "ann"), "a", "x"); !errors.Is(err, guest.ErrInvalid) {
		t.Errorf("a retired kind is written: %v", err)
	}
	if _, err := guest.New(guest.Config{Store: store, Secrets: [][]byte{secret}, Data: []guest.Kind{guest.Retired("cart"), Cart}}); err == nil {
		t.Error("a kind is in use and retired")
	}
}

// A Value that is a Map now: the guest's field fits no more, and the receipt says so.
func TestDataOfAnotherShapeAreCounted(t *testing.T) {
	store := newStore()
	value, items := guest.NewValue("notes", guest.PreferGuest[string]), guest.NewMap("notes", guest.EachItem(guest.PreferGuest[string]))
	before, after := replica(t, store, [][]byte{secret}, value), replica(t, store, [][]byte{secret}, items)
	cookie := at(before, "", func(w http.ResponseWriter, r *http.Request) { value.Set(r.Context(), "x") })
	receipt, err := claimBy(after, cookie, "ann")
	want := guest.KindReceipt{Name: "notes", Outcome: guest.Dropped, GuestItems: 1, DroppedItems: 1}
	if body, _ := json.Marshal(receipt.Kinds); err != nil || len(receipt.Kinds) != 1 || receipt.Kinds[0] != want {
		t.Errorf("%s, %v", body, err)
	}
}

// An account is erased although nobody can read what a guest was bringing to it.
func TestErasingAnAccountDropsWhatThisProcessCannotRead(t *testing.T) {
	store := newStore()
	notes := guest.NewMap("notes", guest.EachItem(guest.PreferGuest[string]))
	new, old := replica(t, store, [][]byte{secret}, Cart, notes), replica(t, store, [][]byte{secret}, Cart)
	cookie := at(new, "", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 1)
		notes.Set(r.Context(), "a", "x")
	})
	if receipt, err := claimBy(old, cookie, "ann"); !errors.Is(err, guest.ErrUnreadable) || !receipt.Pending {
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
