package guest

import (
	"fmt"
	"strconv"
	"strings"
	"time"
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

// A KindReceipt says what became of one kind of data. Items are what a Map or Counters hold; a Value is one item.
// Totals are the sums of the amounts of Counters, else 0.
type KindReceipt struct {
	Name    string `json:"name"`
	Outcome string `json:"outcome"` // Moved, Merged, Kept or Dropped

	GuestItems   int   `json:"guest_items"`   // what the guest held
	GuestTotal   int64 `json:"guest_total"`   //
	AccountItems int   `json:"account_items"` // what the account held before
	AccountTotal int64 `json:"account_total"` //
	ResultItems  int   `json:"result_items"`  // what the account held after
	ResultTotal  int64 `json:"result_total"`  //

	// Items that one side held and the account does not hold now, by rule or quota; and those of the guest that were
	// not taken because of their type, because the kind is Retired, or because the account would have grown over its
	// quota, whose own item of that name stays.
	DroppedItems int `json:"dropped_items"`
}

func (r *KindReceipt) countGuest(k *kind, items map[string]string) {
	r.GuestItems, r.GuestTotal = len(items), k.total(items)
}

func (r *KindReceipt) countAccount(k *kind, items map[string]string) {
	r.AccountItems, r.AccountTotal = len(items), k.total(items)
}

func (r *KindReceipt) countResult(k *kind, items map[string]string) {
	r.ResultItems, r.ResultTotal = len(items), k.total(items)
}

func (r *KindReceipt) countDropped(guest, account, result, refused map[string]string) {
	for item := range guest {
		_, held := result[item]
		if _, not := refused[item]; !held || not {
			r.DroppedItems++
		}
	}
	for item := range account {
		_, inGuest := guest[item]
		if _, ok := result[item]; !ok && !inGuest {
			r.DroppedItems++
		}
	}
}

func (k *kind) total(items map[string]string) (sum int64) {
	if !k.counts {
		return 0
	}
	for _, plain := range items {
		n, _ := decodeAmount(k, plain)
		sum += n
	}
	return sum
}

// What a claim leaves in the account's record is the kinds of its receipt, short enough for Redis's compact
// encoding in the usual case: "name=outcome,7 numbers in base 36 without trailing zeros;…".
var outcomeLetters = map[string]string{Moved: "m", Merged: "x", Kept: "k", Dropped: "d"}

func packKinds(kinds []KindReceipt) string {
	var b strings.Builder
	for _, r := range kinds {
		line := r.Name + "=" + outcomeLetters[r.Outcome]
		for _, n := range r.numbers() {
			line += "," + strconv.FormatInt(n, 36)
		}
		for strings.HasSuffix(line, ",0") {
			line = strings.TrimSuffix(line, ",0")
		}
		b.WriteString(line + ";")
	}
	return b.String()
}

func (r *KindReceipt) numbers() []int64 {
	return []int64{int64(r.GuestItems), int64(r.AccountItems), int64(r.ResultItems), int64(r.DroppedItems), r.GuestTotal, r.AccountTotal, r.ResultTotal}
}

func unpackKinds(s string) (kinds []KindReceipt, err error) {
	for line := range strings.SplitSeq(s, ";") {
		if line == "" {
			continue
		}
		name, rest, _ := strings.Cut(line, "=")
		parts := strings.Split(rest, ",")
		r := KindReceipt{Name: name}
		for outcome, letter := range outcomeLetters {
			if letter == parts[0] {
				r.Outcome = outcome
			}
		}
		var n [7]int64
		for i, p := range parts[1:] {
			if i >= len(n) {
				break
			}
			if n[i], err = strconv.ParseInt(p, 36, 64); err != nil {
				return nil, fmt.Errorf("guest: the marker of a claim does not decode: %w", err)
			}
		}
		r.GuestItems, r.AccountItems, r.ResultItems, r.DroppedItems = int(n[0]), int(n[1]), int(n[2]), int(n[3])
		r.GuestTotal, r.AccountTotal, r.ResultTotal = n[4], n[5], n[6]
		kinds = append(kinds, r)
	}
	return kinds, nil
}
