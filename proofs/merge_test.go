package proofs

import (
	"context"
	"maps"
	"net/http/httptest"
	"testing"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
	"pgregory.net/rapid"
)

// shrink is a rule that keeps only items with an even amount.
func shrink(account, guest map[string]int64) map[string]int64 {
	both := map[string]int64{}
	for _, side := range []map[string]int64{account, guest} {
		for item, n := range side {
			if n%2 == 0 {
				both[item] = n
			}
		}
	}
	return both
}

// For any data on both sides and any rule, the account holds the result of the rule, or the guest's
// data if it had none. The receipt counts both sides and the result correctly, and also every item
// that is lost.
func TestMergeRules(t *testing.T) {
	rules := map[string]guest.Merge[map[string]int64]{
		"sum":            guest.EachItem(guest.Sum[int64]),
		"max":            guest.EachItem(guest.Max[int64]),
		"prefer account": guest.PreferAccount[map[string]int64],
		"prefer guest":   guest.PreferGuest[map[string]int64],
		"each, account":  guest.EachItem(guest.PreferAccount[int64]),
		"each, guest":    guest.EachItem(guest.PreferGuest[int64]),
		"shrink":         shrink,
	}
	for name, rule := range rules {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			cart := guest.NewCounters("cart", rule)
			side := rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c", "d", "a/b", "é"}),
				rapid.Int64Range(-5, 5).Filter(func(n int64) bool { return n != 0 }), 0, 6)
			account, visitor := side.Draw(t, "account"), side.Draw(t, "guest")
			m, err := guest.New(guest.Config{
				Store: memstore.New(memstore.Config{}), Secrets: [][]byte{make([]byte, 32)},
				Data: []guest.Kind{cart},
			})
			if err != nil {
				t.Fatal(err)
			}
			as := m.As(context.Background(), "ann")
			for item, n := range account {
				cart.Set(as, item, n)
			}
			w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil)
			r = m.Identify(w, r)
			repeat := httptest.NewRequest("POST", "/", nil) // from a tab with the old cookie
			repeat.AddCookie(w.Result().Cookies()[0])
			for item, n := range visitor {
				cart.Set(r.Context(), item, n)
			}
			preview, err := m.Preview(r.Context(), "ann")
			if err != nil {
				t.Fatal(err)
			}
			receipt, err := m.Claim(w, r, "ann")
			if err != nil {
				t.Fatal(err)
			}
			got, err := cart.All(as)
			if err != nil {
				t.Fatal(err)
			}

			want, outcome := rule(account, visitor), guest.Merged
			maps.DeleteFunc(want, func(_ string, n int64) bool { return n == 0 })
			switch {
			case len(visitor) == 0:
				want = account
			case len(account) == 0:
				want, outcome = visitor, guest.Moved
			case maps.Equal(want, account):
				outcome = guest.Kept
			}
			if !maps.Equal(got, want) {
				t.Fatalf("the account holds %v, want %v", got, want)
			}
			if len(visitor) == 0 {
				if len(receipt.Kinds) != 0 {
					t.Fatalf("%+v", receipt)
				}
				return
			}
			lost := 0
			for item := range union(account, visitor) {
				if _, ok := got[item]; !ok {
					lost++
				}
			}
			said := guest.KindReceipt{
				Name: "cart", Outcome: outcome, DroppedItems: lost,
				GuestItems: len(visitor), GuestTotal: total(visitor),
				AccountItems: len(account), AccountTotal: total(account),
				ResultItems: len(got), ResultTotal: total(got),
			}
			if receipt.Kinds[0] != said || preview.Kinds[0] != said {
				t.Fatalf("receipt %+v\npreview %+v\nwant    %+v", receipt.Kinds[0],
					preview.Kinds[0], said)
			}
			again, err := m.Claim(httptest.NewRecorder(), repeat, "ann")
			if err != nil || !again.Replayed || again.Kinds[0] != said {
				t.Fatalf("repeated: %+v, %v", again, err)
			}
			if got2, _ := cart.All(as); !maps.Equal(got2, got) {
				t.Fatalf("repeating it changed %v to %v", got, got2)
			}
		}))
	}
}

func union(a, b map[string]int64) map[string]int64 {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

func total(items map[string]int64) (sum int64) {
	for _, n := range items {
		sum += n
	}
	return sum
}
