package guest

import (
	"slices"
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
	readTarget
	tidy
	seal
	confirm
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
	notSealed          // the guest stays open: finishOnly met it so, or the sibling that was to absorb it is forgotten
	noGuest            // the guest was forgotten, or has no record and mustExist
	failed             // err says why; the guest is kept
)

// A claim is one run of the protocol for one guest and one owner. It is a value: next returns another.
type claim struct {
	guest       string // record key
	owner       owner
	finishOnly  bool   // finish what somebody sealed, but never seal
	only        string // if not "": this incarnation and no other
	mustExist   bool   // a guest without a record has expired: it is no empty one
	fresh       string // the incarnation to give a guest without a record
	now         int64  // Unix milliseconds, for markers only
	first       string // generation of a target that has none
	mostMarkers int    // that a target has before old ones are looked at

	tombstoneTTL, targetTTL time.Duration
	accountTTL              time.Duration // in place of targetTTL, if the owner is a guest that an account has claimed
	merge                   func(guest Fields, target string, fields Fields) (Update, []KindReceipt, error)

	rounds int // how often the target or the guest changed under our hands
	run
}

// A run is what a claim has found out and done since it last looked at the guest from the start.
type run struct {
	phase       phase
	outcome     outcome
	err         error
	incarnation string
	missing     bool // the guest has no record yet
	empty       bool // the guest had no data before it was sealed
	noted       time.Time
	at          string   // when it was sealed
	frozen      bool     // the guest is sealed for this owner
	data        Fields   // the guest's, frozen
	holder      holder   // if lost: whose the guest is
	target      string   // record key: the owner's, or where the owner itself has gone since
	targetHeld  Fields   // what the target held when it was read, until the merge is prepared; nil: not read
	look        []marker // of the target, at whose guests to look before the merge
	needless    []string // fields of markers whose guests are known to be claimed or gone
	generation  uint64   // of the target
	change      Update   // to the target
	kinds       []KindReceipt
	merged      bool // the data are the owner's
	replayed    bool
	buried      bool // by this run
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
	names  []string // to get; none: all
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
	case readGuest, confirm:
		return command{do: doGet, key: c.guest}

	case writeNote: // before sealing, so that no sealed guest can be forgotten
		return command{do: doUpdate, key: outboxOf(c.guest), update: Update{Stamp: c.note().field(), Reserve: true}}

	case readTarget: // see confirm for why this is before the seal
		if c.replayed {
			return command{do: doGet, key: c.target}
		}
		u := Update{
			If:        Fields{fieldState: ""},
			Default:   Fields{fieldGeneration: c.first},
			TTL:       c.lifeOfTarget(),
			Reserve:   true,
			ReturnAll: true,
		}
		if strings.HasPrefix(c.target, "g:") {
			u.Default[fieldIncarnation] = c.fresh
		}
		return command{do: doUpdate, key: c.target, update: u}

	case tidy:
		return command{do: doGet, key: c.look[0].guest, names: []string{fieldState, fieldIncarnation}}

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

	case merge: // data and marker in one step: they live and die together
		return command{do: doUpdate, key: c.target, update: c.change}

	case callHook:
		return command{do: doHook}

	case bury: // only after the data are safe and the app is told
		return command{do: doUpdate, key: c.guest, update: Update{
			// A store that was rolled back has forgotten the merge too, and somebody may have sealed the guest anew: at
			// another time.
			If:      Fields{fieldState: sealedBy + string(c.owner), fieldIncarnation: c.incarnation, fieldClaimedAt: c.at},
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
		c.phase = readTarget
		if c.empty { // most likely there is nothing to merge
			c.phase = seal
		}

	case readTarget:
		if c.replayed {
			return c.readMarkers(r.fields)
		}
		return c.readMarkers(r.result.Fields)

	case tidy:
		return c.tidied(r.fields)

	case seal:
		if !r.result.Applied { // another claim, a rebirth, or too late: look again
			return c.restart()
		}
		return c.sealed(r.result.Fields)

	case confirm:
		// A marker is removed once its guest is buried. So if the guest is still sealed now, its marker was not removed
		// before the target was read, and what happens to the target since then makes the merge fail. A seal that was
		// applied after the target was read says the same, without a look.
		if r.fields[fieldState] == sealedBy+string(c.owner) && r.fields[fieldIncarnation] == c.incarnation {
			return c.prepare()
		}
		return c.restart().found(r.fields)

	case merge:
		if !r.result.Applied { // another claimer merged this guest or another one, or somebody wrote to the target
			return c.readAgain()
		}
		c.merged = true
		c.phase = callHook

	case callHook:
		if r.err != nil {
			return c.fail(r.err)
		}
		c.phase = bury

	case bury:
		now := r.result.Fields
		another := !r.result.Applied && now[fieldState] == c.owner.tombstone() && now[fieldIncarnation] == c.incarnation
		if !r.result.Applied && !another { // a store that was rolled back has forgotten the seal
			return c.restart()
		}
		c.buried = r.result.Applied
		c.phase = strike

	case strike:
		c.phase, c.outcome = done, claimed
	}
	return c
}

// restart looks at the guest from the start.
func (c claim) restart() claim {
	c.run = run{}
	c.rounds++
	return c
}

// readAgain reads the target anew.
func (c claim) readAgain() claim {
	c.rounds++
	c.phase = readTarget
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
	c.target = c.owner.key()
	state := guest[fieldState]
	switch {
	case state == forgotten, c.missing && c.mustExist:
		c.phase, c.outcome = done, noGuest
	case c.only != "" && c.incarnation != c.only:
		c.phase, c.outcome = done, notSealed
	case state == "" && c.finishOnly:
		c.phase, c.outcome = done, notSealed
	case state == "":
		c.empty = len(dataOf(guest)) == 0
		c.phase = writeNote
	case state == sealedBy+string(c.owner):
		return c.sealed(guest)
	case state == c.owner.tombstone():
		c.replayed = true
		c.at = guest[fieldClaimedAt]
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

// sealed goes on with a guest that is frozen: by this run, which has read the target before, or by an earlier one.
func (c claim) sealed(guest Fields) claim {
	c.at = guest[fieldClaimedAt]
	c.frozen, c.noted = true, time.Time{}
	c.data = dataOf(guest)
	switch {
	case len(c.data) == 0: // an account that gets nothing is not touched
		c.merged = true
		c.phase = callHook
	case c.merged: // before the store forgot the seal
		c.phase = callHook
	case c.targetHeld == nil:
		c.phase = readTarget
	default:
		return c.prepare()
	}
	return c
}

// readMarkers decides by the target's record: merged already, or what is to be done before the merge.
func (c claim) readMarkers(target Fields) claim {
	if isNewer(target) {
		return c.fail(errNewer)
	}
	var err error
	if c.generation, err = generationOf(target); err != nil {
		return c.fail(err)
	}
	m, err := markerOf(target, c.incarnation)
	if err != nil {
		return c.fail(err)
	}
	if m.incarnation != "" || c.replayed {
		c.kinds, c.merged = m.kinds, true
		switch {
		case c.replayed:
			c.phase, c.outcome = done, claimed
		case c.frozen:
			c.phase = callHook
		default:
			c.phase = seal
		}
		return c
	}
	if target[fieldState] == forgotten {
		if !c.frozen {
			c.phase, c.outcome = done, notSealed
			return c
		}
		c.merged = true // forgotten with the target, whose these data are
		c.phase = callHook
		return c
	}
	if state := target[fieldState]; state != "" {
		// The target is a guest that was itself claimed meanwhile, without these data: they follow it.
		c.target = holderOf(state).key
		return c.readAgain()
	}
	c.targetHeld = target
	if c.targetHeld == nil {
		c.targetHeld = Fields{}
	}
	c.look, c.needless = nil, nil
	if held := markersIn(target); len(held) > c.mostMarkers {
		// One comes, so two must go, now and then: others each time, as some may have to stay.
		for i := range min(2, len(held)) {
			m, err := markerOf(target, held[(c.generation+uint64(i))%uint64(len(held))])
			if err != nil {
				return c.fail(err)
			}
			c.look = append(c.look, m)
		}
		c.phase = tidy
		return c
	}
	return c.ready()
}

const mostMarkers = 8

// tidied keeps or removes the marker whose guest was looked at, by what the guest is now. It is never
// removed by count or age: while its guest can still be merged, the marker is what prevents that.
func (c claim) tidied(guest Fields) claim {
	m := c.look[0]
	c.look = c.look[1:]
	if guest[fieldIncarnation] != m.incarnation || strings.HasPrefix(guest[fieldState], buriedBy) {
		c.needless = append(slices.Clip(c.needless), fieldMarker+m.incarnation)
	}
	if len(c.look) > 0 {
		return c
	}
	return c.ready()
}

// ready: the target was read, and the guest is to be frozen, or must be seen to be so still.
func (c claim) ready() claim {
	c.phase = seal
	if c.frozen {
		c.phase = confirm
	}
	return c
}

func (c claim) lifeOfTarget() time.Duration {
	if owner(c.target).isAccount() {
		return c.accountTTL
	}
	return c.targetTTL
}

// prepare says what to change in the target.
func (c claim) prepare() claim {
	u, kinds, err := c.merge(c.data, c.target, c.targetHeld)
	if err != nil {
		return c.fail(err)
	}
	c.kinds = kinds
	field := fieldMarker + c.incarnation
	u.If[fieldGeneration] = c.targetHeld[fieldGeneration]
	u.If[field] = "" // a server that was rolled back gives out a generation again
	u.Set[fieldGeneration] = generation(c.generation + 1)
	u.Set[field] = marker{c.incarnation, c.guest, c.now / 1000, kinds}.String()
	u.Unset = slices.Concat(u.Unset, c.needless)
	if strings.HasPrefix(c.target, "g:") {
		u.If[fieldState] = ""
	}
	u.TTL = c.lifeOfTarget()
	u.Reserve = true
	c.change, c.targetHeld, c.needless = u, nil, nil
	c.phase = merge
	return c
}
