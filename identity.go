package guest

import (
	"errors"
	"slices"
	"time"

	"github.com/guestkit/guest/internal/record"
	"github.com/guestkit/guest/internal/token"
)

// guestState says what the guest of a request is to it.
type guestState uint8

const (
	noGuest       guestState = iota // not admitted, given up, or claimed
	newGuest                        // created by this request; its record is not stored yet
	newGuestSaved                   // created by this request; its record is stored
	knownGuest                      // its token came with the request, or AsGuest named it
)

// guestUse says how far a request has committed itself to a guest that it created.
type guestUse uint8

const (
	unused  guestUse = iota
	idRead           // the handler has asked for the ID, and may have kept something under it
	written          // guest data were written, or are about to be
)

// An identity is who a request's visitor is, and what the response is to tell the client about
// that. Its methods are the transitions: they do no I/O, and touch no header.
type identity struct {
	account  string // "": not signed in. With an account, the guest is what a claim is about
	state    guestState
	guest    token.Token // unless noGuest
	use      guestUse
	replaced bool  // the guest that the request named is claimed or expired
	reported bool  // Hooks.Created was called for the guest
	missing  error // noGuest: why there is no record; nil: the visitor was not admitted
	tell     tokenChanges
}

// tokenChanges are what the response changes about the tokens that the client has.
type tokenChanges struct {
	send      bool     // the guest's token: under a name of its own while it is provisional
	clearMain bool     // the cookie under the main name
	clear     []string // provisional cookies, by name
	endHeader bool     // Config.Header says that its token is over
	changed   bool     // since the lines of the header were made of it
}

func (id *identity) isNew() bool { return id.state == newGuest || id.state == newGuestSaved }

// guestKey returns the key of the guest's record; "" without a guest.
func (id *identity) guestKey() string {
	if id.state == noGuest {
		return ""
	}
	return record.GuestKey(id.guest.ID)
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
// as due for renewal, so the next request extends its life.
func (id *identity) adoptSibling(sibling token.Token, ttl lifetimes, now time.Time) {
	sibling.Provisional, sibling.Successor = false, false
	sibling.IssuedAt = now.Add(-ttl.renewal).Unix()
	id.adopt(sibling)
}

// confirm notes that the guest's cookie has come back, and that its record was extended.
func (id *identity) confirm(now time.Time) {
	id.guest.Provisional = false
	id.guest.IssuedAt = now.Unix()
}

// saved notes that the guest's record is stored.
func (id *identity) saved() {
	if id.state == newGuest {
		id.state = newGuestSaved
	}
}

// isKept reports whether something was kept under the guest that this request created. That its ID
// was read counts if the request named no other guest, whose claim may be repeated here.
func (id *identity) isKept(namedOthers bool) bool {
	return id.use == written || id.use == idRead && !namedOthers
}

// lose notes that the guest was claimed or is gone. why is what data calls answer from now on; nil
// if the response can still carry the token of another guest. The cookie of the lost one is not
// cleared: should this response be late, it would clear the one that another response has set
// meanwhile.
func (id *identity) lose(why error) {
	id.replaced, id.state, id.missing = true, noGuest, why
	if id.tell.send {
		id.tell.send, id.tell.changed = false, true
	}
}

// discard takes back a guest that this request created and whose token was not sent yet.
func (id *identity) discard() {
	id.state = noGuest
	id.tell.send, id.tell.changed = false, true
}

// takeBack leaves the response as the app made it, since caches may keep it for others: the client
// is told nothing, and the visitor is asked again with its next request.
func (id *identity) takeBack() {
	id.tell = tokenChanges{changed: true}
	if id.isNew() {
		id.state = noGuest
	}
}

// release gives the guest up, as it is claimed or forgotten: its token is worth nothing any more.
// The caller clears the cookies that it came in.
func (id *identity) release(inHeader bool) {
	if id.tell.send && !id.guest.Provisional && !inHeader { // this response has confirmed it
		id.tell.clearMain = true
	}
	id.state = noGuest
	id.tell.send, id.tell.changed = false, true
}

// sendToken makes the response carry the guest's token.
func (id *identity) sendToken() {
	if !id.guest.Provisional {
		id.tell.clearMain = false
	}
	id.tell.send, id.tell.endHeader, id.tell.changed = true, false, true
}

// clearMain makes the response clear the cookie under the main name.
func (id *identity) clearMain() {
	if !id.guest.Provisional {
		id.tell.send = false
	}
	id.tell.clearMain, id.tell.changed = true, true
}

// clearProvisional makes the response clear a provisional cookie; "": none. There may be no room
// for it in the header; then a later response clears it.
func (id *identity) clearProvisional(name string) {
	if name != "" && !slices.Contains(id.tell.clear, name) {
		id.tell.clear, id.tell.changed = append(id.tell.clear, name), true
	}
}

// endHeader makes the response tell a client of Config.Header that its token is over.
func (id *identity) endHeader() { id.tell.endHeader, id.tell.changed = true, true }

// Why a visitor has no record.
var (
	// ErrNotAdmitted: Config.Admit gave this visitor no record, so there is nowhere to write. Reads
	// are empty.
	ErrNotAdmitted = errors.New("guest: this visitor was not admitted, so nothing can be kept for it " +
		"(see Config.Admit)")

	// ErrClaimed: the guest has been claimed. From a claim: by another account. From a write: the
	// response's header is already sent, so the visitor cannot be given a new guest any more. From
	// any data call with the context of [Manager.AsGuest]: its data are its owner's.
	ErrClaimed = errors.New("guest: an account has claimed this guest " +
		"(the visitor's next request creates a new one)")

	// ErrGone: there is no such guest any more: it expired, or the visitor had it forgotten. From
	// [Manager.ClaimTicket], from data calls with the context of [Manager.AsGuest], and from a
	// write that comes too late for a new guest.
	ErrGone = errors.New("guest: this guest is gone (it expired or was forgotten)")
)

// A target is the record that a data call acts on.
type target struct {
	key     string
	isGuest bool
	ttl     time.Duration
	keepTTL bool // the record's life was extended together with the cookie's, not long ago
	isNew   bool // a new guest whose record is not stored yet: there is nothing to read
}

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
		key: id.guestKey(), isGuest: true, ttl: ttl.provisional, isNew: id.state == newGuest,
	}
	if !id.guest.Provisional {
		t.ttl, t.keepTTL = ttl.guest, !ttl.renewalDue(id.guest, now)
	}
	return t, nil
}

// lifetimes are how long records live; see Config.
type lifetimes struct {
	guest, provisional, tombstone, account time.Duration

	renewal time.Duration // a guest's life is extended, together with its cookie, when that is so old
}

// renewalDue reports whether the guest's life is to be extended.
func (l *lifetimes) renewalDue(t token.Token, now time.Time) bool {
	return now.Sub(time.Unix(t.IssuedAt, 0)) >= l.renewal
}
