package guest

import (
	"strconv"
	"strings"
	"time"

	"github.com/guestkit/guest/internal/record"
)

// A Receipt says what a claim did. Its JSON form is in snake case.
type Receipt struct {
	ID        string        `json:"id,omitempty"`       // of the claim; every repetition of it has the same: the idempotency key
	GuestID   string        `json:"guest_id,omitempty"` // the guest that was claimed
	AccountID string        `json:"account_id"`         // by this account
	At        time.Time     `json:"at,omitzero"`        // when it was claimed, by the store's clock
	Kinds     []KindReceipt `json:"kinds"`              // what became of the guest's data; empty if it had none, or if it is Replayed and long done

	Claimed  bool `json:"claimed"`  // the guest is the account's; false: there was no guest to claim, or see Pending
	Replayed bool `json:"replayed"` // an earlier claim did it, this one changed nothing
	Pending  bool `json:"pending"`  // not everything is done yet; the guest is kept and the claim tried again
}

// noReceipt is of a claim that found no guest.
func noReceipt(accountID string) Receipt {
	return Receipt{AccountID: accountID, Kinds: []KindReceipt{}}
}

// What became of a kind of data in a claim.
const (
	Moved   = "moved"   // the account had none: the guest's data became the account's
	Merged  = "merged"  // the merge rule made something new of both
	Kept    = "kept"    // the merge rule chose the account's data as they were
	Dropped = "dropped" // the guest's were not taken: they are of another type than the account's, or their kind is Retired
)

// A KindReceipt says what became of one kind of data. Items are what a Map or Counters hold; a
// Value is one item. Totals are the sums of the amounts of Counters, else 0.
type KindReceipt struct {
	Name    string `json:"name"`
	Outcome string `json:"outcome"` // Moved, Merged, Kept or Dropped

	GuestItems   int   `json:"guest_items"`   // what the guest held
	GuestTotal   int64 `json:"guest_total"`   //
	AccountItems int   `json:"account_items"` // what the account held before
	AccountTotal int64 `json:"account_total"` //
	ResultItems  int   `json:"result_items"`  // what the account held after
	ResultTotal  int64 `json:"result_total"`  //

	// Items that one side held and the account does not hold now, by rule or quota; and those of
	// the guest that were not taken because of their type, because the kind is Retired, or because
	// the account would have grown over its quota, whose own item of that name stays.
	DroppedItems int `json:"dropped_items"`
}

// What a marker keeps of a receipt is its kinds, with semicolons between them: the name, "=", a
// letter for the outcome, and 7 numbers in base 36, with commas between them. A 0 is empty, and the
// commas at the end are left out.
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
	return []int64{int64(r.GuestItems), int64(r.AccountItems), int64(r.ResultItems), int64(r.DroppedItems), r.GuestTotal, r.AccountTotal, r.ResultTotal}
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
		r.GuestItems, r.AccountItems, r.ResultItems, r.DroppedItems = int(n[0]), int(n[1]), int(n[2]), int(n[3])
		r.GuestTotal, r.AccountTotal, r.ResultTotal = n[4], n[5], n[6]
		kinds = append(kinds, r)
	}
	return kinds, nil
}
