package guest

import (
	"strconv"
	"strings"
	"time"

	"github.com/guestkit/guest/internal/record"
)

// A Receipt says what a claim did. The names of its JSON form are in snake case.
type Receipt struct {
	// ID is the ID of the claim. Every repetition of the claim has the same one, so it is the
	// idempotency key of OnClaim.
	ID string `json:"id,omitempty"`

	GuestID   string    `json:"guest_id,omitempty"` // the guest that was claimed
	AccountID string    `json:"account_id"`         // the account that claims it
	At        time.Time `json:"at,omitzero"`        // when it was claimed, by the store's clock

	// Kinds say what became of the guest's data. Empty if the guest had none, or if the claim is
	// Replayed and was done long ago.
	Kinds []KindReceipt `json:"kinds"`

	// Claimed: the guest's data are the account's. If it is false, there was no guest to claim,
	// unless the claim is Pending.
	Claimed bool `json:"claimed"`

	// Replayed: the guest had been claimed before for this account; this call changed nothing.
	Replayed bool `json:"replayed"`

	// Pending: the claim is not finished. The guest is kept, and the claim is tried again.
	Pending bool `json:"pending"`
}

// noReceipt returns the receipt of a claim that found no guest.
func noReceipt(accountID string) Receipt {
	return Receipt{AccountID: accountID, Kinds: []KindReceipt{}}
}

// What became of a kind of data in a claim.
const (
	Moved  = "moved"  // the account had none: the guest's data became the account's
	Merged = "merged" // the merge rule made something new of both
	Kept   = "kept"   // the merge rule left the account's data as they were

	// Dropped: the guest's data were not taken, because they are of another type than the
	// account's, or because their kind is Retired.
	Dropped = "dropped"
)

// A KindReceipt says what became of one kind of data. The items are those of a Map or Counters; a
// Value is one item. A total is the sum of the amounts of Counters; for other kinds it is 0.
type KindReceipt struct {
	Name    string `json:"name"`
	Outcome string `json:"outcome"` // Moved, Merged, Kept or Dropped

	// What the guest held.
	GuestItems int   `json:"guest_items"`
	GuestTotal int64 `json:"guest_total"`

	// What the account held before the claim.
	AccountItems int   `json:"account_items"`
	AccountTotal int64 `json:"account_total"`

	// What the account held after the claim.
	ResultItems int   `json:"result_items"`
	ResultTotal int64 `json:"result_total"`

	// DroppedItems counts the items that one side held and the account does not hold after the
	// claim, because of the merge rule or the quota. It also counts the guest's items that were not
	// taken while the account keeps its own item of that name: because of their type, of the quota,
	// or because the kind is Retired.
	DroppedItems int `json:"dropped_items"`
}

// A marker keeps the kinds of a receipt, separated by semicolons. Each kind is its name, "=", a
// letter for the outcome, and 7 numbers in base 36, separated by commas. A 0 is written as nothing,
// and commas at the end are left out.
var outcomeLetters = map[string]string{Moved: "m", Merged: "x", Kept: "k", Dropped: "d"}

func packKinds(kinds []KindReceipt) string {
	var packed []string
	for _, r := range kinds {
		var numbers [7]string
		for i, n := range r.numbers() {
			if n != 0 {
				numbers[i] = strconv.FormatInt(n, 36)
			}
		}
		line := r.Name + "=" + outcomeLetters[r.Outcome] + strings.Join(numbers[:], ",")
		packed = append(packed, strings.TrimRight(line, ","))
	}
	return strings.Join(packed, ";")
}

func (r *KindReceipt) numbers() []int64 {
	return []int64{
		int64(r.GuestItems), int64(r.AccountItems), int64(r.ResultItems), int64(r.DroppedItems),
		r.GuestTotal, r.AccountTotal, r.ResultTotal,
	}
}

func unpackKinds(s string) (kinds []KindReceipt, err error) {
	for line := range strings.SplitSeq(s, ";") {
		name, rest, _ := strings.Cut(line, "=")
		if rest == "" {
			return nil, record.ErrMalformed
		}
		r := KindReceipt{Name: name}
		for outcome, letter := range outcomeLetters {
			if letter == rest[:1] {
				r.Outcome = outcome
			}
		}
		var n [7]int64
		for i, number := range strings.SplitN(rest[1:], ",", len(n)) {
			if number == "" {
				continue
			}
			if n[i], err = strconv.ParseInt(number, 36, 64); err != nil {
				return nil, record.ErrMalformed
			}
		}
		r.GuestItems, r.AccountItems, r.ResultItems = int(n[0]), int(n[1]), int(n[2])
		r.DroppedItems = int(n[3])
		r.GuestTotal, r.AccountTotal, r.ResultTotal = n[4], n[5], n[6]
		kinds = append(kinds, r)
	}
	return kinds, nil
}
