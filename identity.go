package guest

import (
	"errors"
	"slices"
	"time"

	"github.com/guestkit/guest/internal/record"
	"github.com/guestkit/guest/internal/token"
)

// guestState says what the guest is to the request.
type guestState uint8

const (
	noGuest       guestState = iota // none was admitted, or it was given up, claimed or forgotten
	newGuest                        // created by this request; its record is not stored yet
	newGuestSaved                   // created by this request; its record is stored
	knownGuest                      // its token came with the request, or AsGuest named it
)

// guestUse says how much the request has done with a guest that it created.
type guestUse uint8

const (
	unused  guestUse = iota
	idRead           // the handler has read the ID, and may have kept something under it
	written          // guest data were written, or are about to be
)

// An identity is who the visitor of a request is, and which changes of the client's tokens follow
// from that. Its methods are the transitions. They do no I/O and know neither the store nor the
// header: the caller has asked the store, and header.go makes lines of the changes.
type identity struct {
	account  string // "": not signed in. A member may have a guest too, until it is claimed
	state    guestState
	guest    token.Token // zero or outdated if noGuest
	use      guestUse
	replaced bool  // the guest that the request named is claimed or expired
	reported bool  // Hooks.Created was called for the guest
	missing  error // with noGuest: why there is no record; nil: the visitor was not admitted
	changes  tokenChanges
}

// tokenChanges are what the response changes of the tokens that the client has.
type tokenChanges struct {
	send       bool     // send the guest's token, in a provisional or in the main cookie
	clearMain  bool     // clear the main cookie
	clear      []string // clear the provisional cookies of these names
	endHeader  bool     // end the token of a client that uses Config.Header
	unrendered bool     // the lines of the header do not show these changes yet
}

func (id *identity) isNew() bool { return id.state == newGuest || id.state == newGuestSaved }

// guestKey returns the key of the guest's record; "" without a guest.
func (id *identity) guestKey() string {
	if id.state == noGuest {
		return ""
	}
	return record.GuestKey(id.guest.ID)
}

// isGuest reports whether the visitor has this guest.
func (id *identity) isGuest(guest token.ID) bool {
	return id.state != noGuest && id.guest.ID == guest
}

// create makes the visitor a new guest, whose token the response carries.
func (id *identity) create(t token.Token) {
	t.Provisional, t.Successor = true, id.replaced
	id.state, id.guest, id.use, id.missing, id.reported = newGuest, t, unused, nil, false
	id.sendToken()
}

// adopt makes the visitor the guest of a verified token.
func (id *identity) adopt(t token.Token) { id.state, id.guest = knownGuest, t }

// adoptSibling makes the visitor the sibling that absorbed its guest. The sibling's record counts
// as due for renewal, so that the next request extends its life.
func (id *identity) adoptSibling(sibling token.Token, ttl lifetimes, now time.Time) {
	sibling.Provisional, sibling.Successor = false, false
	sibling.IssuedAt = now.Add(-ttl.renewal).Unix()
	id.adopt(sibling)
}

// confirm is called when the guest's cookie has come back and its record's life was extended.
func (id *identity) confirm(now time.Time) {
	id.guest.Provisional = false
	id.guest.IssuedAt = now.Unix()
}

// saved is called when the guest's record was stored.
func (id *identity) saved() {
	if id.state == newGuest {
		id.state = newGuestSaved
	}
}

// isKept reports whether something was kept under the guest that this request created: data, or
// rows of the app under its ID. If the request named other guests, an ID that was read does not
// count, because the claim may be the repetition of a claim of one of those.
func (id *identity) isKept(namedOthers bool) bool {
	return id.use == written || id.use == idRead && !namedOthers
}

// lose is called when the guest turns out to be claimed or gone. why is the error of data calls
// from now on; nil if the caller can give the visitor another guest. The cookie of the lost guest
// is not cleared: if this response is late, it would clear the cookie that another response has set
// meanwhile.
func (id *identity) lose(why error) {
	id.replaced, id.state, id.missing = true, noGuest, why
	if id.changes.send {
		id.changes.send, id.changes.unrendered = false, true
	}
}

// discard gives up a guest that this request created and whose token was not sent yet.
func (id *identity) discard() {
	id.state = noGuest
	id.changes.send, id.changes.unrendered = false, true
}

// takeBack gives up all changes, because caches may keep the response for others. A guest that this
// request created is given up too; the visitor's next request gets another one.
func (id *identity) takeBack() {
	id.changes = tokenChanges{unrendered: true}
	if id.isNew() {
		id.state = noGuest
	}
}

// release gives the guest up because it was claimed or forgotten: its token is worth nothing any
// more. The caller clears the cookies that it came in.
func (id *identity) release(inHeader bool) {
	if id.changes.send && !id.guest.Provisional && !inHeader { // in the main cookie
		id.changes.clearMain = true
	}
	id.state = noGuest
	id.changes.send, id.changes.unrendered = false, true
}

// sendToken makes the response carry the guest's token.
func (id *identity) sendToken() {
	if !id.guest.Provisional {
		id.changes.clearMain = false
	}
	id.changes.send, id.changes.endHeader, id.changes.unrendered = true, false, true
}

// clearMain makes the response clear the cookie under the main name.
func (id *identity) clearMain() {
	if !id.guest.Provisional {
		id.changes.send = false
	}
	id.changes.clearMain, id.changes.unrendered = true, true
}

// clearProvisional makes the response clear the provisional cookie of this name; "" does nothing.
// If the header has no room for it, a later response clears the cookie.
func (id *identity) clearProvisional(name string) {
	if name != "" && !slices.Contains(id.changes.clear, name) {
		id.changes.clear, id.changes.unrendered = append(id.changes.clear, name), true
	}
}

// endHeader makes the response end the token of a client that uses Config.Header.
func (id *identity) endHeader() { id.changes.endHeader, id.changes.unrendered = true, true }

// Why a visitor has no record.
var (
	// ErrNotAdmitted: Config.Admit refused this visitor a guest, so there is no record to write to.
	// Reads return no data.
	ErrNotAdmitted = errors.New("guest: this visitor was not admitted, so nothing can be kept " +
		"for it (see Config.Admit)")

	// ErrClaimed: the guest has been claimed. From a claim: by another account. From a write: the
	// header of the response is already sent, so the visitor cannot be given a new guest any more.
	// From any data call with the context of [Manager.AsGuest]: the data now belong to its owner.
	ErrClaimed = errors.New("guest: an account has claimed this guest " +
		"(the visitor's next request creates a new one)")

	// ErrGone: the guest does not exist any more: it expired, or its visitor had it forgotten. From
	// [Manager.ClaimTicket], from data calls with the context of [Manager.AsGuest], and from a
	// write when it is too late to give the visitor a new guest.
	ErrGone = errors.New("guest: this guest is gone (it expired or was forgotten)")
)

// A target is the record that a data call acts on.
type target struct {
	key     string
	guest   token.ID // if the record is a guest's
	ttl     time.Duration
	keepTTL bool // no write extends the record's life: a request did that not long ago
	isNew   bool // a new guest whose record is not stored yet: there is nothing to read
}

func (t *target) isGuest() bool { return record.IsGuest(t.key) }

// target returns the visitor's record, or why there is none.
func (id *identity) target(ttl lifetimes, now time.Time) (target, error) {
	switch {
	case id.account != "":
		return target{key: record.AccountKey(id.account), ttl: ttl.account}, nil
	case id.missing != nil:
		return target{}, id.missing
	case id.state == noGuest:
		return target{}, ErrNotAdmitted
	}
	t := target{
		key: id.guestKey(), guest: id.guest.ID, ttl: ttl.provisional, isNew: id.state == newGuest,
	}
	if !id.guest.Provisional {
		t.ttl, t.keepTTL = ttl.guest, !ttl.renewalDue(id.guest, now)
	}
	return t, nil
}

// lifetimes are how long records live; see the TTLs of Config.
type lifetimes struct {
	guest, provisional, tombstone, account time.Duration

	renewal time.Duration // the age of a cookie at which it is renewed, and the guest's life extended
}

// renewalDue reports whether the guest's life is to be extended.
func (l *lifetimes) renewalDue(t token.Token, now time.Time) bool {
	return now.Sub(time.Unix(t.IssuedAt, 0)) >= l.renewal
}
