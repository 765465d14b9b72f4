package guest

import (
	"maps"
	"slices"
	"time"

	"github.com/guestkit/guest/internal/record"
)

// The claim protocol, as a pure step function: a claim's command says what it wants done to one
// record, and next says what it becomes by the reply to that. Production runs it with a Store (see
// claimer.run); tests run the same code through every interleaving, loss and crash. docs/claim.md
// tells why the steps have this order.

const (
	freezeWithin = 60 * time.Second // of the outbox entry, by the store's clock
	entryLife    = 10 * time.Minute // of an outbox entry whose guest is not frozen for it
)

type phase uint8

const (
	readGuest phase = iota
	addEntry
	readTarget
	tidyMarkers
	freeze
	confirmFrozen
	merge
	callOnClaim
	leaveTombstone
	removeEntry
	done
)

type outcome uint8

const (
	unfinished outcome = iota
	claimed            // by this owner, now or earlier
	lost               // the guest is another owner's
	stillOpen          // finishOnly met the guest open, or the sibling that was to absorb it is forgotten
	guestGone          // the guest was forgotten, or it has no record and mustExist
	failed             // err says why; the guest is kept
)

// A claim is one run of the protocol for one guest and one owner. It is a value: next returns
// another.
type claim struct {
	guest           string // record key
	owner           record.Owner
	finishOnly      bool   // finish what an earlier run has frozen, but never freeze
	only            string // if not "": this incarnation and no other
	mustExist       bool   // a guest without a record has expired: it is no empty one
	newIncarnation  string // to give to a guest without a record
	now             int64  // Unix milliseconds, for markers only
	firstGeneration string // of a target that has none
	mostMarkers     int    // that a target has before old ones are looked at

	tombstoneTTL, targetTTL time.Duration
	accountTTL              time.Duration // in place of targetTTL, if an account has claimed the owner
	merge                   mergeStep

	rounds int // how often the target or the guest changed meanwhile
	run
}

// A mergeStep says how the data of a guest change the target's record.
type mergeStep func(guest Fields, target string, fields Fields) (Update, []KindReceipt, error)

// A run is what a claim has found out and done since it last read the guest from the start.
type run struct {
	phase         phase
	outcome       outcome
	err           error
	incarnation   string
	missing       bool // the guest has no record yet
	empty         bool // the guest had no data before it was frozen
	startedAt     time.Time
	at            string          // when it was frozen
	frozen        bool            // the guest is frozen for this owner
	data          Fields          // the guest's, frozen
	holder        record.Holder   // if lost: whose the guest is
	target        string          // record key: the owner's, or of what has claimed the owner since
	targetHeld    Fields          // what the target held, until the merge is prepared; nil: not read
	look          []record.Marker // of the target, at whose guests to look before the merge
	needless      []string        // fields of markers whose guests are known to be claimed or gone
	generation    uint64          // of the target
	change        Update          // to the target
	kinds         []KindReceipt
	merged        bool // the data are the owner's
	replayed      bool
	leftTombstone bool // by this run
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

func (c claim) entry() record.OutboxEntry {
	return record.OutboxEntry{Guest: c.guest, Incarnation: c.incarnation, Owner: c.owner}
}

// finish returns the claim such that it only finishes what an earlier run has frozen.
func (c claim) finish() claim {
	c.finishOnly = true
	return c
}

// command is what the claim wants done next; there is none when it is done.
func (c claim) command() command {
	switch c.phase {
	case readGuest, confirmFrozen:
		return command{do: doGet, key: c.guest}

	case addEntry: // before freezing, so that no frozen guest can be overlooked
		u := Update{Stamp: c.entry().Field(), Reserve: true}
		return command{do: doUpdate, key: record.OutboxOf(c.guest), update: u}

	case readTarget: // see confirmFrozen for why this is before the freezing
		if c.replayed {
			return command{do: doGet, key: c.target}
		}
		u := Update{
			If:        Fields{record.State: ""},
			Default:   Fields{record.Generation: c.firstGeneration},
			TTL:       c.lifeOfTarget(),
			Reserve:   true,
			ReturnAll: true,
		}
		if record.IsGuest(c.target) {
			u.Default[record.Incarnation] = c.newIncarnation
		}
		return command{do: doUpdate, key: c.target, update: u}

	case tidyMarkers:
		names := []string{record.State, record.Incarnation}
		return command{do: doGet, key: c.look[0].Guest, names: names}

	case freeze: // from here on the guest is this owner's, and its data do not change
		u := Update{
			If:        Fields{record.State: "", record.Incarnation: c.incarnation},
			NotAfter:  c.startedAt.Add(freezeWithin), // later the outbox entry may be gone
			Set:       Fields{record.State: c.owner.Frozen()},
			Stamp:     record.ClaimedAt,
			TTL:       c.tombstoneTTL,
			Reserve:   true,
			ReturnAll: true,
		}
		if c.missing {
			u.If[record.Incarnation] = ""
			u.Set[record.Incarnation] = c.incarnation
		}
		return command{do: doUpdate, key: c.guest, update: u}

	case merge: // data and marker in one step: they live and die together
		return command{do: doUpdate, key: c.target, update: c.change}

	case callOnClaim:
		return command{do: doHook}

	case leaveTombstone: // only after the data are safe and the app has moved its rows
		return command{do: doUpdate, key: c.guest, update: Update{
			// A store that was rolled back has forgotten the merge too, and another claim may have
			// frozen the guest again: at another time.
			If: Fields{
				record.State: c.owner.Frozen(), record.Incarnation: c.incarnation,
				record.ClaimedAt: c.at,
			},
			Set:     Fields{record.State: c.owner.Claimed()},
			Unset:   slices.Collect(maps.Keys(c.data)),
			TTL:     c.tombstoneTTL,
			Reserve: true,
		}}

	case removeEntry:
		u := Update{Unset: []string{c.entry().Field()}, Reserve: true}
		return command{do: doUpdate, key: record.OutboxOf(c.guest), update: u}
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

	case addEntry:
		c.startedAt = r.result.Now
		c.phase = readTarget
		if c.empty { // most likely there is nothing to merge
			c.phase = freeze
		}

	case readTarget:
		if c.replayed {
			return c.readMarkers(r.fields)
		}
		return c.readMarkers(r.result.Fields)

	case tidyMarkers:
		return c.tidied(r.fields)

	case freeze:
		if !r.result.Applied { // another claim, a new incarnation, or too late: look again
			return c.restart()
		}
		return c.isFrozen(r.result.Fields)

	case confirmFrozen:
		// A marker is removed once its guest is claimed. So if the guest is still frozen now, its
		// marker was not removed before the target was read, and what happens to the target since
		// then makes the merge fail. A freezing that was applied after the target was read says the
		// same, without a look.
		if r.fields[record.State] == c.owner.Frozen() &&
			r.fields[record.Incarnation] == c.incarnation {
			return c.prepare()
		}
		return c.restart().found(r.fields)

	case merge:
		if !r.result.Applied { // another claim merged into the target, or the target was written to
			return c.readAgain()
		}
		c.merged = true
		c.phase = callOnClaim

	case callOnClaim:
		if r.err != nil {
			return c.fail(r.err)
		}
		c.phase = leaveTombstone

	case leaveTombstone:
		now := r.result.Fields
		byAnother := !r.result.Applied && now[record.State] == c.owner.Claimed() &&
			now[record.Incarnation] == c.incarnation
		if !r.result.Applied && !byAnother { // a store that was rolled back has forgotten the freezing
			return c.restart()
		}
		c.leftTombstone = r.result.Applied
		c.phase = removeEntry

	case removeEntry:
		c.phase, c.outcome = done, claimed
	}
	return c
}

// restart reads the guest from the start.
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

func (c claim) end(as outcome) claim {
	c.phase, c.outcome = done, as
	return c
}

func (c claim) fail(err error) claim {
	c.err = err
	return c.end(failed)
}

// found decides by the state of the guest's record.
func (c claim) found(guest Fields) claim {
	c.incarnation = guest[record.Incarnation]
	if record.IsNewer(guest) {
		return c.fail(record.ErrNewer)
	}
	if c.missing = c.incarnation == ""; c.missing {
		c.incarnation = c.newIncarnation
	}
	c.target = c.owner.Key()
	switch state := guest[record.State]; {
	case state == record.Forgotten, c.missing && c.mustExist:
		return c.end(guestGone)
	case c.only != "" && c.incarnation != c.only, state == "" && c.finishOnly:
		return c.end(stillOpen)
	case state == "":
		c.empty = len(record.DataOf(guest)) == 0
		c.phase = addEntry
	case state == c.owner.Frozen():
		return c.isFrozen(guest)
	case state == c.owner.Claimed():
		c.replayed = true
		c.at = guest[record.ClaimedAt]
		c.phase = readTarget
		if c.finishOnly { // what is left is the outbox entry, if that
			c.phase = removeEntry
		}
	default:
		c.holder = record.HolderOf(state)
		return c.end(lost)
	}
	return c
}

// isFrozen goes on with a guest that is frozen: by this run, which has read the target before, or
// by an earlier one.
func (c claim) isFrozen(guest Fields) claim {
	c.at = guest[record.ClaimedAt]
	c.frozen, c.startedAt = true, time.Time{}
	c.data = record.DataOf(guest)
	switch {
	case len(c.data) == 0: // an account that gets nothing is not touched
		c.merged = true
		c.phase = callOnClaim
	case c.merged: // before the store forgot the freezing
		c.phase = callOnClaim
	case c.targetHeld == nil:
		c.phase = readTarget
	default:
		return c.prepare()
	}
	return c
}

// readMarkers decides by the target's record: merged already, or what is to be done before the
// merge.
func (c claim) readMarkers(target Fields) claim {
	if record.IsNewer(target) {
		return c.fail(record.ErrNewer)
	}
	var err error
	if c.generation, err = record.GenerationOf(target); err != nil {
		return c.fail(err)
	}
	m, marked, err := record.MarkerOf(target, c.incarnation)
	if err != nil {
		return c.fail(err)
	}
	if marked || c.replayed {
		return c.isMerged(m)
	}
	switch state := target[record.State]; state {
	case "":
		c.targetHeld = target
		if c.targetHeld == nil {
			c.targetHeld = Fields{}
		}
		return c.lookAtMarkers()

	case record.Forgotten:
		if !c.frozen {
			return c.end(stillOpen)
		}
		c.merged = true // forgotten with the target, whose these data are
		c.phase = callOnClaim
		return c

	default: // the target is a guest that was claimed meanwhile, without these data: they follow it
		c.target = record.HolderOf(state).Key
		return c.readAgain()
	}
}

// isMerged goes on with a guest whose data an earlier run has merged. The marker may be gone.
func (c claim) isMerged(m record.Marker) claim {
	c.merged = true
	if m.Kinds != "" {
		var err error
		if c.kinds, err = unpackKinds(m.Kinds); err != nil {
			return c.fail(err)
		}
	}
	switch {
	case c.replayed:
		return c.end(claimed)
	case c.frozen:
		c.phase = callOnClaim
	default:
		c.phase = freeze
	}
	return c
}

const mostMarkers = 8

// lookAtMarkers chooses the markers at whose guests to look, if the target has many. One is added,
// so two must go, now and then: others each time, as some may have to stay.
func (c claim) lookAtMarkers() claim {
	c.look, c.needless = nil, nil
	held := record.MarkersIn(c.targetHeld)
	if len(held) <= c.mostMarkers {
		return c.ready()
	}
	for i := range min(2, len(held)) {
		incarnation := held[(c.generation+uint64(i))%uint64(len(held))]
		m, _, err := record.MarkerOf(c.targetHeld, incarnation)
		if err != nil {
			return c.fail(err)
		}
		c.look = append(c.look, m)
	}
	c.phase = tidyMarkers
	return c
}

// tidied keeps or removes the marker whose guest was looked at, by what the guest is now. A marker
// is never removed by count or age: while its guest can still be merged, it is what prevents that.
func (c claim) tidied(guest Fields) claim {
	m := c.look[0]
	c.look = c.look[1:]
	if guest[record.Incarnation] != m.Incarnation || record.IsClaimed(guest[record.State]) {
		c.needless = append(slices.Clip(c.needless), record.MarkerField(m.Incarnation))
	}
	if len(c.look) > 0 {
		return c
	}
	return c.ready()
}

// ready: the target was read, and the guest is to be frozen, or must be seen to be so still.
func (c claim) ready() claim {
	c.phase = freeze
	if c.frozen {
		c.phase = confirmFrozen
	}
	return c
}

func (c claim) lifeOfTarget() time.Duration {
	if record.IsGuest(c.target) {
		return c.targetTTL
	}
	return c.accountTTL
}

// prepare says what to change in the target.
func (c claim) prepare() claim {
	u, kinds, err := c.merge(c.data, c.target, c.targetHeld)
	if err != nil {
		return c.fail(err)
	}
	c.kinds = kinds
	m := record.Marker{
		Incarnation: c.incarnation, Guest: c.guest, At: c.now / 1000, Kinds: packKinds(kinds),
	}
	field := record.MarkerField(c.incarnation)
	u.If[record.Generation] = c.targetHeld[record.Generation]
	u.If[field] = "" // a server that was rolled back gives out a generation again
	u.Set[record.Generation] = record.EncodeGeneration(c.generation + 1)
	u.Set[field] = m.String()
	u.Unset = slices.Concat(u.Unset, c.needless)
	if record.IsGuest(c.target) {
		u.If[record.State] = ""
	}
	u.TTL = c.lifeOfTarget()
	u.Reserve = true
	c.change, c.targetHeld, c.needless = u, nil, nil
	c.phase = merge
	return c
}

// receipt is what the claim has done so far.
func (c claim) receipt() Receipt {
	return Receipt{
		ID:        c.incarnation,
		GuestID:   record.GuestID(c.guest),
		AccountID: c.owner.Account(),
		At:        record.Time(c.at),
		Kinds:     append([]KindReceipt{}, c.kinds...),
		Claimed:   c.merged,
		Replayed:  c.replayed,
	}
}
