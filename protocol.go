package guest

import (
	"maps"
	"slices"
	"time"

	"github.com/guestkit/guest/internal/record"
)

// The claim protocol as a pure step function: command returns what the claim wants done to one
// record, and next returns the claim after the reply. It does no I/O and knows neither stores, nor
// time budgets, nor visitors. Production runs it with a Store (claimer.run); tests run the same
// code through every interleaving, loss and crash. docs/claim.md explains the order of the steps.

const (
	// freezeWithin is how soon after its outbox entry a claim must freeze, by the store's clock.
	freezeWithin = 60 * time.Second

	// entryLife is how long an outbox entry is kept if the guest is not frozen for it. It is longer
	// than freezeWithin, so that no claim freezes a guest after its entry was removed.
	entryLife = 10 * time.Minute
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
	lost               // another owner has the guest
	stillOpen          // finishOnly and only rule it out, or the sibling to absorb it is forgotten
	guestGone          // the guest was forgotten; with mustExist also: it has no record
	failed             // err says why; the guest is kept
)

// A claim is one run of the protocol for one guest and one owner. It is a value: next returns
// another one.
type claim struct {
	guest           string // record key
	owner           record.Owner
	finishOnly      bool   // finish what an earlier run has frozen, but never freeze
	only            string // if not "": claim this incarnation and no other
	mustExist       bool   // a guest without a record has expired; otherwise it counts as empty
	newIncarnation  string // for a guest without a record
	now             int64  // Unix milliseconds, for markers only
	firstGeneration string // for a target that has none
	mostMarkers     int    // with more markers than this, a target's old ones are looked at

	tombstoneTTL time.Duration
	guestTTL     time.Duration // life of a target that is a guest
	accountTTL   time.Duration // life of a target that is an account
	merge        mergeStep

	rounds int // how often the guest or the target was read again because it had changed
	progress
}

// A mergeStep returns how the data of a guest change the target's record, whose fields are given.
type mergeStep func(guest Fields, target string, fields Fields) (Update, []KindReceipt, error)

// progress is what a claim has found out and done since it last read the guest from the start.
type progress struct {
	phase        phase
	outcome      outcome
	err          error
	incarnation  string
	missing      bool // the guest has no record yet
	empty        bool // the guest had no data before it was frozen
	startedAt    time.Time
	at           string        // when the guest was frozen
	frozen       bool          // the guest is frozen for this owner
	data         Fields        // the frozen guest's
	holder       record.Holder // the owner that has the guest, if the outcome is lost
	target       string        // record key: the owner's, or of what has claimed the owner since
	targetFields Fields        // the target as read, until the merge is prepared; nil: not read

	look          []record.Marker // markers of the target whose guests are to be looked at
	needless      []string        // fields of markers whose guests are known to be claimed or gone
	generation    uint64          // of the target
	change        Update          // of the target: the merge
	kinds         []KindReceipt
	merged        bool // the target has the data
	replayed      bool // the guest was claimed before
	leftTombstone bool // this run left it
}

type action uint8

const (
	doGet action = iota
	doUpdate
	doHook
)

// A command is what a claim wants done: a read or an update of one record, or a call of OnClaim.
type command struct {
	do     action
	key    string
	names  []string // of the fields to get; none: all
	update Update
}

// A reply is what came back: the fields read, the result of the update, or the error of the hook.
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

// command returns what the claim wants done next. A claim that is done has no command.
func (c claim) command() command {
	switch c.phase {
	case readGuest, confirmFrozen:
		return command{do: doGet, key: c.guest}

	case addEntry: // before freezing, so that Recover finds every frozen guest
		u := Update{Stamp: c.entry().Field(), Reserve: true}
		return command{do: doUpdate, key: record.OutboxOf(c.guest), update: u}

	case readTarget: // before freezing: next says why at confirmFrozen
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

	case freeze: // from here on the guest belongs to this owner, and its data do not change
		u := Update{
			If:        Fields{record.State: "", record.Incarnation: c.incarnation},
			NotAfter:  c.startedAt.Add(freezeWithin), // later the outbox entry may be removed
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

	case merge: // data and marker are written in one step, so they are kept or lost together
		return command{do: doUpdate, key: c.target, update: c.change}

	case callOnClaim:
		return command{do: doHook}

	case leaveTombstone: // only after the data are safe and the app has moved its rows
		return command{do: doUpdate, key: c.guest, update: Update{
			// A store that was rolled back to an older state has forgotten the merge too. Then
			// another claim may have frozen the guest again, but at another time, so this tombstone
			// does not apply.
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

// mostRounds is how often records are read again before the claim fails with ErrConflict.
const mostRounds = 100

// next returns the claim after the reply to its command.
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
		if c.empty { // probably there is nothing to merge
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
		if !r.result.Applied { // another claim was first, the incarnation is new, or it is too late
			return c.restart()
		}
		return c.isFrozen(r.result.Fields)

	case confirmFrozen:
		// A marker is removed only when its guest is known to be claimed. So if the guest is still
		// frozen now, its marker had not been removed when the target was read, and every later
		// change of the markers makes the merge fail. A freeze that was applied after the target
		// was read proves the same without this second read.
		if r.fields[record.State] == c.owner.Frozen() &&
			r.fields[record.Incarnation] == c.incarnation {
			return c.prepare()
		}
		return c.restart().found(r.fields)

	case merge:
		if !r.result.Applied { // another claim or another write has changed the target
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
		if !r.result.Applied && !byAnother { // a store that was rolled back forgot the freeze
			return c.restart()
		}
		c.leftTombstone = r.result.Applied
		c.phase = removeEntry

	case removeEntry:
		c.phase, c.outcome = done, claimed
	}
	return c
}

// restart returns the claim such that it reads the guest from the start.
func (c claim) restart() claim {
	c.progress = progress{}
	c.rounds++
	return c
}

// readAgain returns the claim such that it reads the target again.
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
		if c.finishOnly { // only the outbox entry may be left
			c.phase = removeEntry
		}
	default:
		c.holder = record.HolderOf(state)
		return c.end(lost)
	}
	return c
}

// isFrozen continues with a guest that is frozen: by this run, which has read the target before, or
// by an earlier run.
func (c claim) isFrozen(guest Fields) claim {
	c.at = guest[record.ClaimedAt]
	c.frozen, c.startedAt = true, time.Time{}
	c.data = record.DataOf(guest)
	switch {
	case len(c.data) == 0: // nothing to merge, so the account's record is not written
		c.merged = true
		c.phase = callOnClaim
	case c.merged: // there was a marker: the store was rolled back to before the freeze
		c.phase = callOnClaim
	case c.targetFields == nil:
		c.phase = readTarget
	default:
		return c.prepare()
	}
	return c
}

// readMarkers decides by the target's record whether the data are merged already, and if not, what
// must be done before the merge.
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
		c.targetFields = target
		if c.targetFields == nil {
			c.targetFields = Fields{}
		}
		return c.lookAtMarkers()

	case record.Forgotten:
		if !c.frozen {
			return c.end(stillOpen)
		}
		c.merged = true // the data belong to the target, and are forgotten with it
		c.phase = callOnClaim
		return c

	default: // the target is a guest that was claimed meanwhile: the data go where its data went
		c.target = record.HolderOf(state).Key
		return c.readAgain()
	}
}

// isMerged continues with a guest whose data an earlier run has merged. The marker may have been
// removed.
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

// mostMarkers is how many markers an account has before a claim looks for some to remove.
const mostMarkers = 8

// lookAtMarkers chooses two markers and lets the claim look at their guests, if the target has many
// markers. A claim adds one marker, so on average more than one must go. The choice depends on the
// generation, because markers that have to stay must not keep the others from being looked at.
func (c claim) lookAtMarkers() claim {
	c.look, c.needless = nil, nil
	held := record.MarkersIn(c.targetFields)
	if len(held) <= c.mostMarkers {
		return c.ready()
	}
	for i := range min(2, len(held)) {
		incarnation := held[(c.generation+uint64(i))%uint64(len(held))]
		m, _, err := record.MarkerOf(c.targetFields, incarnation)
		if err != nil {
			return c.fail(err)
		}
		c.look = append(c.look, m)
	}
	c.phase = tidyMarkers
	return c
}

// tidied decides by what the guest is now whether its marker is kept. A marker is never removed by
// number or age: it prevents a second merge for as long as its guest can still be merged.
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

// ready continues after the target was read: the guest is to be frozen, or, if it is, that must be
// confirmed.
func (c claim) ready() claim {
	c.phase = freeze
	if c.frozen {
		c.phase = confirmFrozen
	}
	return c
}

func (c claim) lifeOfTarget() time.Duration {
	if record.IsGuest(c.target) {
		return c.guestTTL
	}
	return c.accountTTL
}

// prepare computes the change of the target.
func (c claim) prepare() claim {
	u, kinds, err := c.merge(c.data, c.target, c.targetFields)
	if err != nil {
		return c.fail(err)
	}
	c.kinds = kinds
	m := record.Marker{
		Incarnation: c.incarnation, Guest: c.guest, At: c.now / 1000, Kinds: packKinds(kinds),
	}
	field := record.MarkerField(c.incarnation)
	u.If[record.Generation] = c.targetFields[record.Generation]
	u.If[field] = "" // because a store that was rolled back repeats a generation
	u.Set[record.Generation] = record.EncodeGeneration(c.generation + 1)
	u.Set[field] = m.String()
	u.Unset = slices.Concat(u.Unset, c.needless)
	if record.IsGuest(c.target) {
		u.If[record.State] = ""
	}
	u.TTL = c.lifeOfTarget()
	u.Reserve = true
	c.change, c.targetFields, c.needless = u, nil, nil
	c.phase = merge
	return c
}

// receipt returns what the claim has done so far.
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
