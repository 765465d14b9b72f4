package record

import (
	"strconv"
	"strings"

	"github.com/guestkit/guest/internal/token"
)

// An Owner is who claims a guest: "a:" and the ID of an account; or for a sibling "g:", its ID, "@"
// and when it was created. The zero value is no owner.
type Owner string

// AccountOwner returns the account as an owner.
func AccountOwner(accountID string) Owner { return Owner("a:" + accountID) }

// GuestOwner returns the guest as an owner.
func GuestOwner(t token.Token) Owner {
	return Owner(GuestKey(t.ID) + "@" + strconv.FormatInt(t.CreatedAt, 36))
}

// Guest returns the guest, if the owner is one.
func (o Owner) Guest() (t token.Token, ok bool) {
	id, created, _ := strings.Cut(strings.TrimPrefix(string(o), "g:"), "@")
	if t.ID, ok = token.ParseID(id); !ok || o.IsAccount() {
		return token.Token{}, false
	}
	t.CreatedAt, _ = strconv.ParseInt(created, 36, 64)
	return t, true
}

// Account returns the account's ID, "" if the owner is a guest.
func (o Owner) Account() string {
	id, _ := strings.CutPrefix(string(o), "a:")
	if !o.IsAccount() {
		return ""
	}
	return id
}

// IsAccount reports whether the owner is an account.
func (o Owner) IsAccount() bool { return strings.HasPrefix(string(o), "a:") }

// Key returns the key of the owner's record.
func (o Owner) Key() string {
	if o.IsAccount() {
		return AccountKey(o.Account())
	}
	key, _, _ := strings.Cut(string(o), "@")
	return key
}

// Frozen is the state of a guest whose claim by this owner is under way.
func (o Owner) Frozen() string { return frozen + string(o) }

// Claimed is the state of a guest that this owner has claimed. Of an account it holds only the
// hash, so that nothing of the ID is left once the account is erased.
func (o Owner) Claimed() string {
	if o.IsAccount() {
		return claimed + o.Key()
	}
	return claimed + string(o)
}

// IsClaimed reports whether this is the state of a guest that was claimed or forgotten.
func IsClaimed(state string) bool { return strings.HasPrefix(state, claimed) }

// A Holder is what the state of a frozen or claimed guest says about its owner.
type Holder struct {
	Owner  Owner  // zero if an account has claimed the guest: only the hash is known
	Key    string // of the owner's record; "" if the guest is open or forgotten
	Frozen bool   // the claim is under way
}

// HolderOf reads the state of a guest.
func HolderOf(state string) Holder {
	if o, ok := strings.CutPrefix(state, frozen); ok {
		return Holder{Owner(o), Owner(o).Key(), true}
	}
	o := Owner(strings.TrimPrefix(state, claimed))
	if o.IsAccount() {
		return Holder{Key: string(o)}
	}
	return Holder{o, o.Key(), false}
}

// Sibling returns the guest that absorbs or has absorbed this one, if there is one.
func (h Holder) Sibling() (t token.Token, ok bool) { return h.Owner.Guest() }
