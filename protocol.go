package guest

import (
	"strings"
	"time"
)

// The claim protocol, as a pure step function: a claim's command says what it wants done to one record, and next
// says what it becomes by the reply. Production drives it with a Store (see drive in claim.go); tests drive the
// same code through every interleaving, loss and crash. docs/claim.md tells why the steps have this order.

const (
	sealWithin = 60 * time.Second // of the note, by the store's clock
	noteLife   = 10 * time.Minute // of a note whose guest is not sealed for it
)

type phase uint8

const (
	readGuest phase = iota
	writeNote
	seal
	readTarget
	merge
	callHook
	bury
	strike
	done
)

type outcome uint8

const (
	unfinished outcome = iota
	claimed            // by this owner, now or earlier
	lost               // the guest is another's
	notSealed          // finishOnly met an open guest
	gone               // the guest was forgotten, or has no record and mustExist
	failed             // err says why; the guest is kept
)

// A claim is one run of the protocol for one guest and one owner. It is a value: next returns another.
type claim struct {
	guest      string // record key
	owner      owner
	finishOnly bool   // finish what somebody sealed, but never seal
	mustExist  bool   // a guest without a record has expired: it is no empty one
	fresh      string // the incarnation to give a guest without a record
	now        int64  // Unix milliseconds, for markers only

	tombstoneTTL, targetTTL time.Duration
	markerLife              time.Duration
	merge                   func(guest Fields, target string, fields Fields) (Update, []KindReceipt, error)

	phase       phase
	outcome     outcome
	err         error
	incarnation string
	missing     bool // the guest has no record yet
	noted       time.Time
	at          string // when it was sealed
	data        Fields // the guest's, frozen
	holder      holder // if lost: whose the guest is
	target      string // record key: the owner's, or where the owner itself has gone since
	change      Update // to the target
	kinds       []KindReceipt
	merged      bool // the data are the owner's
	replayed    bool
	buried      bool // by this run
	rounds      int  // how often the target or the guest changed under our hands
}

type action uint8

const (
	doGet action = iota
	doUpdate
	doHook
)

type command struct {
	do     action
	key    string
	update Update
}

// reply is what came back: the fields read, the result of the update, or the hook's error.
type reply struct {
	fields Fields
	result Result
	err    error
}

func (c claim) note() note { return note{c.guest, c.incarnation, c.owner} }

// command is what the claim wants done next; there is none when it is done.
func (c claim) command() command {
	switch c.phase {
	case readGuest:
		return command{do: doGet, key: c.guest}

	case writeNote: // before sealing, so that no sealed guest can be forgotten
		return command{do: doUpdate, key: outboxOf(c.guest), update: Update{Stamp: c.note().field(), Reserve: true}}

	case seal: // from here on the guest is this owner's, and its data do not change
		u := Update{
			If:        Fields{fieldState: "", fieldIncarnation: c.incarnation},
			NotAfter:  c.noted.Add(sealWithin), // later the note may be gone
			Set:       Fields{fieldState: sealedBy + string(c.owner)},
			Stamp:     fieldClaimedAt,
			TTL:       c.tombstoneTTL,
			Reserve:   true,
			ReturnAll: true,
		}
		if c.missing {
			u.If[fieldIncarnation] = ""
			u.Set[fieldIncarnation] = c.incarnation
		}
		return command{do: doUpdate, key: c.guest, update: u}

	case readTarget:
		return command{do: doGet, key: c.target}

	case merge: // data and marker in one step: they live and die together
		return command{do: doUpdate, key: c.target, update: c.change}

	case callHook:
		return command{do: doHook}

	case bury: // only after the data are safe and the app is told
		return command{do: doUpdate, key: c.guest, update: Update{
			If:      Fields{fieldState: sealedBy + string(c.owner), fieldIncarnation: c.incarnation},
			Set:     Fields{fieldState: c.owner.tombstone()},
			Unset:   fieldNames(c.data),
			TTL:     c.tombstoneTTL,
			Reserve: true,
		}}

	case strike:
		return command{do: doUpdate, key: outboxOf(c.guest), update: Update{Unset: []string{c.note().field()}, Reserve: true}}
	}
	panic("guest: a claim that is done has no command")
}

const mostRounds = 100

// next is what the claim becomes by the reply to its command.
func (c claim) next(r reply) claim {
	if c.rounds > mostRounds {
		return c.fail(ErrConflict)
	}
	switch c.phase {
	case readGuest:
		return c.found(r.fields)

	case writeNote:
		c.noted = r.result.Now
		c.phase = seal

	case seal:
		if !r.result.Applied { // another claim, a rebirth, or too late: look again
			return c.again(readGuest)
		}
		return c.sealed(r.result.Fields)

	case readTarget:
		return c.prepare(r.fields)

	case merge:
		if !r.result.Applied { // another claimer merged this guest, or somebody wrote to the target: look again
			return c.again(readTarget)
		}
		c.merged = true
		c.phase = callHook

	case callHook:
		if r.err != nil {
			return c.fail(r.err)
		}
		c.phase = bury

	case bury: // if another claimer was quicker it buried the same
		c.buried = r.result.Applied
		c.phase = strike

	case strike:
		c.phase, c.outcome = done, claimed
	}
	return c
}

func (c claim) again(p phase) claim {
	c.rounds++
	c.phase = p
	return c
}

func (c claim) fail(err error) claim {
	c.phase, c.outcome, c.err = done, failed, err
	return c
}

// found decides by the state of the guest's record.
func (c claim) found(guest Fields) claim {
	c.incarnation = guest[fieldIncarnation]
	if isNewer(guest) {
		return c.fail(errNewer)
	}
	if c.missing = c.incarnation == ""; c.missing {
		c.incarnation = c.fresh
	}
	state := guest[fieldState]
	switch {
	case state == forgotten, c.missing && c.mustExist:
		c.phase, c.outcome = done, gone
	case state == "" && c.finishOnly:
		c.phase, c.outcome = done, notSealed
	case state == "":
		c.phase = writeNote
	case state == sealedBy+string(c.owner):
		return c.sealed(guest)
	case state == c.owner.tombstone():
		c.replayed = true
		c.at = guest[fieldClaimedAt]
		c.target = c.owner.key()
		c.phase = readTarget
		if c.finishOnly { // what is left is the note, if that
			c.phase = strike
		}
	default:
		c.holder = holderOf(state)
		c.phase, c.outcome = done, lost
	}
	return c
}

func (c claim) sealed(guest Fields) claim {
	c.at = guest[fieldClaimedAt]
	c.data = dataOf(guest)
	c.target = c.owner.key()
	c.phase = readTarget
	if len(c.data) == 0 { // an account that gets nothing is not touched
		c.merged = true
		c.phase = callHook
	}
	return c
}

// prepare decides by the target's record: merged already, or what to change in it.
func (c claim) prepare(target Fields) claim {
	if isNewer(target) {
		return c.fail(errNewer)
	}
	marker := fieldMarker + c.incarnation
	if m, ok := target[marker]; ok || c.replayed {
		var err error
		if _, c.kinds, err = unpackMarker(m); err != nil {
			return c.fail(err)
		}
		c.merged = true
		c.phase = callHook
		if c.replayed {
			c.phase, c.outcome = done, claimed
		}
		return c
	}
	if target[fieldState] == forgotten { // and with it these data, which were its own
		c.merged = true
		c.phase = callHook
		return c
	}
	if state := target[fieldState]; state != "" {
		// The target is a guest that was itself claimed meanwhile, without these data: they follow it.
		c.target = holderOf(state).key
		return c.again(readTarget)
	}
	u, kinds, err := c.merge(c.data, c.target, target)
	if err != nil {
		return c.fail(err)
	}
	c.kinds = kinds
	u.If[marker] = ""
	u.Set[marker] = packMarker(c.now, kinds)
	for field, value := range target {
		if strings.HasPrefix(field, fieldMarker) && markerOlder(value, c.now, c.markerLife) {
			u.Unset = append(u.Unset, field)
		}
	}
	if strings.HasPrefix(c.target, "g:") {
		u.If[fieldState] = ""
		u.Default = Fields{fieldIncarnation: c.fresh}
	}
	u.TTL = c.targetTTL
	u.Reserve = true
	c.change = u
	c.phase = merge
	return c
}
