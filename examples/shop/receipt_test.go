package main

import (
	"strings"
	"testing"

	"github.com/guestkit/guest"
)

func TestReceiptInWords(t *testing.T) {
	cart := func(outcome string, guests, account, result int64) guest.KindReceipt {
		return guest.KindReceipt{Name: "cart", Outcome: outcome, GuestTotal: guests, AccountTotal: account, ResultTotal: result}
	}
	wishes := func(outcome string, guests, account, result int) guest.KindReceipt {
		return guest.KindReceipt{Name: "wishes", Outcome: outcome, GuestItems: guests, AccountItems: account, ResultItems: result}
	}
	theme := func(outcome string) guest.KindReceipt { return guest.KindReceipt{Name: "theme", Outcome: outcome} }

	for _, test := range []struct {
		what  string
		kinds []guest.KindReceipt
		want  string
	}{
		{"no guest was here before", nil, ""},
		{"the first item", []guest.KindReceipt{cart(guest.Moved, 1, 0, 1)}, "Your item moved to your account."},
		{"items to a new account", []guest.KindReceipt{cart(guest.Moved, 3, 0, 3)}, "Your 3 items moved to your account."},
		{"items on top", []guest.KindReceipt{cart(guest.Merged, 3, 2, 5)}, "3 items from this browser were added to the 2 you had."},
		{"one on top of one", []guest.KindReceipt{cart(guest.Merged, 1, 1, 2)}, "1 item from this browser was added to the one you had."},
		{"one on top of many", []guest.KindReceipt{cart(guest.Merged, 1, 9, 10)}, "1 item from this browser was added to the 9 you had."},
		{"some did not fit", []guest.KindReceipt{cart(guest.Merged, 5, 2, 6)}, "4 items from this browser were added to the 2 you had. 1 item did not fit."},
		{"some of a new cart did not fit", []guest.KindReceipt{cart(guest.Moved, 5, 0, 3)}, "Your 3 items moved to your account. 2 items did not fit."},
		{"none fitted", []guest.KindReceipt{cart(guest.Merged, 2, 7, 7)}, "2 items did not fit."},
		{"a new wish list", []guest.KindReceipt{wishes(guest.Moved, 2, 0, 2)}, "Your wish list came along, with 2 plants."},
		{"a wish", []guest.KindReceipt{wishes(guest.Moved, 1, 0, 1)}, "Your wish list came along, with 1 plant."},
		{"new wishes", []guest.KindReceipt{wishes(guest.Merged, 3, 4, 6)}, "2 plants were added to your wish list."},
		{"a new wish", []guest.KindReceipt{wishes(guest.Merged, 1, 4, 5)}, "1 plant was added to your wish list."},
		{"the same wishes, earlier", []guest.KindReceipt{wishes(guest.Merged, 2, 2, 2)}, ""},
		{"the same wishes", []guest.KindReceipt{wishes(guest.Kept, 2, 2, 2)}, ""},
		{"a theme", []guest.KindReceipt{theme(guest.Moved)}, "Your theme was kept."},
		{"two themes", []guest.KindReceipt{theme(guest.Kept)}, "Your account’s own theme is back."},
		{"a theme that another version wrote", []guest.KindReceipt{theme(guest.Dropped)}, ""},
		{"a cart that another version wrote", []guest.KindReceipt{cart(guest.Dropped, 3, 2, 2)}, "3 items did not fit."},
		{"data of another version", []guest.KindReceipt{{Name: "coupons", Outcome: guest.Moved}}, ""},
		{
			"everything",
			[]guest.KindReceipt{cart(guest.Merged, 3, 2, 5), wishes(guest.Merged, 1, 1, 2), theme(guest.Kept)},
			"3 items from this browser were added to the 2 you had. 1 plant was added to your wish list. Your account’s own theme is back.",
		},
	} {
		t.Run(test.what, func(t *testing.T) {
			if got := strings.Join(inWords(guest.Receipt{Claimed: true, Kinds: test.kinds}), " "); got != test.want {
				t.Errorf("\n got %q\nwant %q", got, test.want)
			}
		})
	}

	t.Run("pending", func(t *testing.T) {
		pending := guest.Receipt{Pending: true, Kinds: []guest.KindReceipt{cart(guest.Moved, 3, 0, 3)}}
		if got, want := strings.Join(inWords(pending), " "), "Your cart is on its way: it will be here in a moment."; got != want {
			t.Errorf("\n got %q\nwant %q", got, want)
		}
	})
}
