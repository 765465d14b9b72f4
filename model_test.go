package guest

import (
	"flag"
	"fmt"
	"hash/maphash"
	"maps"
	"reflect"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest/internal/record"
	"github.com/guestkit/guest/internal/token"
)

// The claim protocol, explored exhaustively: the step function of production, in every interleaving
// of claimers, a writing tab, a member's other device and a recoverer, with lost requests and
// replies, retries, a delayed duplicate, crashes, expiry and rebirth of the guest, and paused
// processes. The broken variants below show that the exploration has teeth.

var (
	fullModel  = flag.Bool("model", false, "explore the claim model with duplicated messages too: two million states, about a minute")
	mostStates = flag.Int("states", 3_000_000, "states that each model run may explore; it fails if there are more")
)

// A modelRecord is never changed: an update makes another one.
type modelRecord struct {
	fields Fields
	ops    string // IDs of the updates with Once that were applied
	enc    string
}

func newRecord(fields Fields, ops string) *modelRecord {
	return &modelRecord{fields, ops, encodeFields(fields) + ops}
}

func encodeFields(fields Fields) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		b.WriteString(name + "=" + fields[name] + "\n")
	}
	return b.String()
}

// apply is what a Store does, for the parts of an Update that claims and writes use.
func (r *modelRecord) apply(u Update, op string, now time.Time, broken variant) (*modelRecord, Result) {
	if op != "" && strings.Contains(r.ops, op) && broken != noOperationID {
		return r, Result{Applied: true, Fields: r.fields}
	}
	res := Result{Now: now, Fields: r.fields}
	for field, want := range u.If {
		if r.fields[field] != want {
			return r, res
		}
	}
	if !u.NotAfter.IsZero() && now.After(u.NotAfter) {
		return r, res
	}
	fields, ops := maps.Clone(r.fields), r.ops
	for field, value := range u.Default {
		if fields[field] == "" {
			fields[field] = value
		}
	}
	maps.Copy(fields, u.Set)
	for field, n := range u.Add {
		old, _ := strconv.ParseInt(fields[field], 10, 64)
		fields[field] = strconv.FormatInt(old+n, 10)
	}
	for _, field := range u.Unset {
		delete(fields, field)
	}
	for _, prefix := range u.UnsetPrefix {
		maps.DeleteFunc(fields, func(name, _ string) bool { return strings.HasPrefix(name, prefix) })
	}
	if u.Stamp != "" {
		fields[u.Stamp] = strconv.FormatInt(now.UnixMilli(), 10)
	}
	if op != "" && !strings.Contains(ops, op) {
		ops += op
	}
	return newRecord(fields, ops), Result{Applied: true, Fields: fields, Now: now}
}

// The records of the model.
const (
	theGuest = iota
	freshGuest
	accountA
	accountB
	outboxRecord
	recordCount
)

var modelKeys = func() map[string]int {
	return map[string]int{
		"g:guest": theGuest, "g:fresh": freshGuest, record.AccountKey("A"): accountA, record.AccountKey("B"): accountB,
		record.OutboxOf("g:guest"): outboxRecord, record.OutboxOf("g:fresh"): outboxRecord,
	}
}()

// A process is a claimer, a writer, a member or a recoverer. What it does next is in its command.
type process struct {
	kind  processKind
	dead  bool
	claim claim
	enc   string // of claim

	guest  string // of a claimer: g:guest if ""
	owner  string // signed in as this account, or ""
	writes int    // still to do
	write  int    // which one
	to     int    // the record it writes to
	unsure bool   // a reply was lost, so it sends again: for less time than a tombstone lives
	help   bool   // it finishes a claim before it goes on

	// of a recoverer
	entries  []string // still to settle
	made     string   // when the one in hand was
	settle   bool     // a claim is being finished
	toRemove string   // the entry to remove, because no claim needs it
}

type processKind uint8

const (
	claimant processKind = iota
	writer
	member
	recoverer
)

func (p *process) finished() bool {
	switch p.kind {
	case claimant:
		return p.claim.phase == done
	case writer, member:
		return p.writes == 0 && !p.help
	}
	return p.entries == nil && !p.settle && p.toRemove == "" && p.write > 0
}

type write struct {
	acked, uncertain bool
	fresh            bool // it went to a fresh guest
}

// A world is one state of the exploration.
type world struct {
	recs   [recordCount]*modelRecord
	procs  [4]process
	n      int
	now    time.Duration
	writes [4]write // by number; 0 was there at the start

	dup     *delayed // a message that is still under way
	losses  int      // replies that may still be lost
	crashes int
	dups    int
	rebirth int // times that the guest may still expire
	ticks   int // times that a minute may still pass

	failovers int       // times that servers may still forget writes
	log       []applied // what they would forget
	forgot    string    // what they forgot
}

// applied is an update that was applied.
type applied struct {
	what   string
	op     string
	key    int
	before *modelRecord
}

// forget is a failover: of the node that has one record, which forgets the last write to it, or of
// the only server there is, which forgets the last n writes to all of them.
func (w *world) forget(n int) {
	lost := w.log[len(w.log)-n:]
	for _, l := range slices.Backward(lost) {
		w.recs[l.key] = l.before
		if i := strings.Index("w0;w1;w2;w3;", l.op); n > 1 && l.op != "" && i >= 0 {
			w.writes[i/3] = write{uncertain: w.writes[i/3].acked || w.writes[i/3].uncertain, fresh: w.writes[i/3].fresh}
		}
	}
	w.forgot = lost[0].what
	if n > 1 {
		w.forgot += " and all after it"
	}
	w.now += time.Millisecond // at least
	w.failovers--
	w.log = nil
}

func whatIs(u Update, key int) string {
	switch {
	case u.Add != nil:
		return "a visitor's write"
	case key == outboxRecord && u.Stamp != "":
		return "an outbox entry"
	case key == outboxRecord:
		return "a removed entry"
	case key != theGuest && u.Set[record.Generation] == "":
		return "the first generation"
	case key != theGuest:
		return "a merge"
	case isFrozen(u.Set[record.State]):
		return "a freeze"
	}
	return "a tombstone"
}

type delayed struct {
	key int
	u   Update
	op  string
	enc string
}

type variant int

const (
	correct variant = iota
	noMarker
	noFreeze
	tombstoneFirst
	noIncarnationCheck
	fixedIdentity
	noOperationID
	forwardFirst
	removeEntryByGuest
	noCompareAndSet
	lateIncarnation
	removeByCount
	noConfirm
	readTargetLate
)

var variantNames = map[variant]string{
	noMarker: "no marker", noFreeze: "no freeze", tombstoneFirst: "tombstone before merge", noIncarnationCheck: "no incarnation check",
	fixedIdentity: "identity of the claim fixed per guest", noOperationID: "no operation ID",
	forwardFirst: "late write forwarded without finishing the claim", removeEntryByGuest: "entry removed by guest alone",
	noCompareAndSet: "no compare-and-set", lateIncarnation: "a write makes a record without an incarnation",
	removeByCount: "markers removed by count", noConfirm: "no second look at the guest before the merge",
	readTargetLate: "the target read after the freeze, and no second look",
}

var modelStart = time.UnixMilli(1_800_000_000_000)

// model explores one scenario.
type model struct {
	merge   func(Fields, string, Fields) (Update, []KindReceipt, error)
	broken  variant
	seen    map[[2]uint64]struct{}
	seed    [2]maphash.Seed
	ended   int
	failure string
	broke   map[string][]string // what went wrong after a failover, by what it forgot
}

func (m *model) claim(owner string, finish bool, fresh string) claim {
	if m.broken == fixedIdentity {
		fresh = "1i0"
	}
	return claim{
		guest: "g:guest", owner: record.AccountOwner(owner), finishOnly: finish, newIncarnation: fresh, now: modelStart.UnixMilli(), merge: m.merge,
		firstGeneration: record.EncodeGeneration(0), mostMarkers: 0, // old markers are looked at in every merge
	}
}

func (p *process) set(c claim) {
	p.claim = c
	var b strings.Builder
	fmt.Fprintf(&b, "%d %d %s %s %v %d %s %s %v %v %s|", c.phase, c.outcome, c.owner, c.incarnation, c.missing, c.startedAt.UnixMilli(), c.at, c.target, c.merged, c.replayed, c.holder.Key)
	b.WriteString(c.guest + encodeFields(c.data) + "|" + encodeFields(c.targetFields) + "|")
	fmt.Fprintf(&b, "%v %v %v %v|", c.frozen, c.empty, c.look, c.needless)
	if c.phase == merge {
		b.WriteString(encodeFields(c.change.If) + encodeFields(c.change.Set) + strings.Join(c.change.Unset, ","))
	}
	p.enc = b.String()
}

func (w *world) key(m *model) [2]uint64 {
	var b []byte
	for _, r := range w.recs {
		b = append(b, r.enc...)
		b = append(b, 0)
	}
	for i := range w.procs[:w.n] {
		p := &w.procs[i]
		b = append(b, p.enc...)
		b = fmt.Appendf(b, "%v%v%d%d%d%v%v%s%s%s\x00", p.dead, p.unsure, p.writes, p.write, p.to, p.help, p.settle, strings.Join(p.entries, ","), p.made, p.toRemove)
	}
	if w.dup != nil {
		b = append(b, w.dup.enc...)
	}
	b = fmt.Appendf(b, "%d%v%d%d%d%d%d%s", w.now, w.writes, w.losses, w.crashes, w.dups, w.rebirth, w.ticks, w.forgot)
	if w.failovers > 0 {
		for _, l := range w.log {
			b = append(append(append(b, l.before.enc...), l.what...), 0)
		}
	}
	return [2]uint64{maphash.Bytes(m.seed[0], b), maphash.Bytes(m.seed[1], b)}
}

func (w *world) clock() time.Time { return modelStart.Add(w.now) }

// command returns what the process sends next: a read (u == nil) or an update.
func (m *model) command(w *world, p *process) (key int, u *Update, op string) {
	switch {
	case p.kind == claimant, p.help, p.settle:
		c := p.claim
		if c.phase == callOnClaim { // the model has no OnClaim
			return -1, nil, ""
		}
		cmd := c.command()
		key = modelKeys[cmd.key]
		if cmd.do == doGet {
			return key, nil, ""
		}
		return key, m.mutate(c, cmd.update), ""

	case p.kind == recoverer && p.toRemove != "":
		return outboxRecord, &Update{If: Fields{p.toRemove: p.made}, Unset: []string{p.toRemove}}, ""

	case p.kind == recoverer:
		return outboxRecord, nil, ""

	case p.kind == member: // adds to what the guest's cart holds too
		return accountA, &Update{Add: map[string]int64{"cart/w0": 1}}, "m;"
	}
	u = &Update{Add: map[string]int64{fmt.Sprintf("cart/w%d", p.write): 1}, Set: Fields{"theme": fmt.Sprintf(`"w%d"`, p.write)}}
	if p.to == theGuest || p.to == freshGuest {
		u.If = Fields{record.State: ""}
		if m.broken == noFreeze {
			u.If = nil
		}
		u.Default = Fields{record.Incarnation: fmt.Sprintf("1iw%d", p.write)}
		switch m.broken {
		case fixedIdentity:
			u.Default = Fields{record.Incarnation: "1i0"}
		case lateIncarnation: // the freeze gives it one; a delayed one would give the same to what is written later
			u.Default = nil
		}
	}
	return p.to, u, fmt.Sprintf("w%d;", p.write)
}

// mutate breaks a command on purpose.
func (m *model) mutate(c claim, u Update) *Update {
	switch {
	case m.broken == noMarker && c.phase == merge:
		u.If, u.Set = maps.Clone(u.If), maps.Clone(u.Set)
		for _, field := range []string{record.Generation, record.MarkerField(c.incarnation)} {
			delete(u.If, field)
			delete(u.Set, field)
		}
	case m.broken == noIncarnationCheck && c.phase == freeze:
		delete(u.If, record.Incarnation)
	case m.broken == removeEntryByGuest && c.phase == removeEntry:
		u.Unset, u.UnsetPrefix = nil, []string{c.guest + "/"}
	case m.broken == noCompareAndSet && c.phase == merge:
		u.If = maps.Clone(u.If)
		maps.DeleteFunc(u.If, func(field, _ string) bool { return record.IsData(field) })
	}
	return &u
}

// reply lets the process go on.
func (m *model) reply(w *world, p *process, key int, fields Fields, res Result) {
	p.unsure = false
	switch {
	case p.kind == claimant, p.help, p.settle:
		before := p.claim.phase
		c := p.claim.next(reply{fields: fields, result: res})
		c.rounds = 0
		switch {
		case m.broken == removeByCount && c.phase == tidyMarkers:
			for _, incarnation := range record.MarkersIn(c.targetFields) {
				c.needless = append(c.needless, record.MarkerField(incarnation))
			}
			c.look = nil
			c = c.ready()
		case (m.broken == noConfirm || m.broken == readTargetLate) && c.phase == confirmFrozen:
			c = c.prepare()
		case m.broken == readTargetLate && before == addEntry:
			c.phase = freeze
		}
		if m.broken == tombstoneFirst {
			switch {
			case before != leaveTombstone && c.phase == merge:
				c.phase = leaveTombstone
			case before == leaveTombstone && !c.merged:
				c.phase = merge
			case c.phase == leaveTombstone && before == callOnClaim:
				c.phase = removeEntry
			}
		}
		p.set(c)
		if c.phase != done {
			return
		}
		switch {
		case p.kind == claimant:
			if c.outcome == claimed {
				g := w.recs[modelKeys[c.guest]].fields
				m.check(w, g[record.Incarnation] != c.incarnation || record.IsClaimed(g[record.State]), "a claim answered done before its guest had a tombstone")
			}
		case p.help:
			p.help = false
			m.redirect(w, p, c.owner)
		case p.settle:
			p.settle = false
			milli, _ := strconv.ParseInt(p.made, 10, 64)
			entry, _ := record.ParseOutboxEntry(p.entries[0])
			if (c.outcome != claimed || c.incarnation != entry.Incarnation) && w.clock().Sub(time.UnixMilli(milli)) >= entryLife {
				p.toRemove = p.entries[0]
			}
			p.entries = p.entries[1:]
			if p.toRemove == "" {
				m.settleNext(w, p)
			}
		}

	case p.kind == recoverer && p.toRemove != "":
		p.toRemove = ""
		m.settleNext(w, p)

	case p.kind == recoverer:
		p.write = 1 // it has read the outbox
		p.entries = slices.Sorted(maps.Keys(fields))
		m.settleNext(w, p)

	default: // a write
		if state := fields[record.State]; !res.Applied && state != "" {
			h := record.HolderOf(state)
			if h.Frozen && m.broken != forwardFirst {
				p.help = true
				c := m.claim(h.Owner.Account(), true, "")
				c.guest = []string{theGuest: "g:guest", freshGuest: "g:fresh"}[p.to]
				p.set(c)
				return
			}
			owner := record.AccountOwner("B")
			if h.Key == record.AccountKey("A") {
				owner = record.AccountOwner("A")
			}
			m.redirect(w, p, owner)
			return
		}
		if p.kind == writer {
			w.writes[p.write] = write{acked: true, fresh: p.to == freshGuest}
		}
		p.write++
		p.writes--
	}
}

// redirect sends a late write where Visitor.follow sends it.
func (m *model) redirect(w *world, p *process, owner record.Owner) {
	p.to = freshGuest
	if p.owner == owner.Account() {
		p.to = accountA
	}
}

func (m *model) settleNext(w *world, p *process) {
	if len(p.entries) == 0 {
		p.entries = nil
		p.set(claim{})
		return
	}
	entry, ok := record.ParseOutboxEntry(p.entries[0])
	if !ok {
		panic(p.entries[0])
	}
	p.made = w.recs[outboxRecord].fields[p.entries[0]]
	p.settle = true
	c := m.claim(entry.Owner.Account(), true, "")
	c.guest = entry.Guest
	p.set(c)
}

func (m *model) check(w *world, ok bool, format string, args ...any) {
	if !ok && w.forgot != "" {
		if !slices.Contains(m.broke[w.forgot], format) {
			m.broke[w.forgot] = append(m.broke[w.forgot], format)
		}
		return
	}
	if !ok && m.failure == "" {
		m.failure = fmt.Sprintf(format, args...) + "\n" + w.String()
	}
}

func (w *world) String() string {
	var b strings.Builder
	for i, name := range []string{"guest", "fresh", "A", "B", "outbox"} {
		fmt.Fprintf(&b, "%s: %v\n", name, w.recs[i].fields)
	}
	fmt.Fprintf(&b, "writes: %+v", w.writes)
	return b.String()
}

// change applies an update and watches that states only move forward.
func (m *model) change(w *world, key int, u Update, op string) Result {
	before := w.recs[key]
	after, res := before.apply(u, op, w.clock(), m.broken)
	w.recs[key] = after
	if w.failovers > 0 && after.enc != before.enc {
		w.log = append(slices.Clip(w.log), applied{whatIs(u, key), op, key, before})
	}
	if key == theGuest && before.fields[record.Incarnation] == after.fields[record.Incarnation] {
		a, b := before.fields[record.State], after.fields[record.State]
		forward := a == b || a == "" || isFrozen(a) && b == record.Owner(a[1:]).Claimed()
		m.check(w, forward, "the guest's state went from %q to %q", a, b)
	}
	return res
}

// visit explores everything that can happen from w.
func (m *model) visit(w world) {
	if m.failure != "" {
		return
	}
	key := w.key(m)
	if _, ok := m.seen[key]; ok {
		return
	}
	m.seen[key] = struct{}{}
	if len(m.seen) > *mostStates {
		m.failure = tooMany
		return
	}

	moved := false
	for i := range w.procs[:w.n] {
		p := w.procs[i]
		if p.dead || p.finished() {
			continue
		}
		moved = true
		key, u, op := m.command(&w, &p)
		if key < 0 { // the hook
			next := w
			q := &next.procs[i]
			c := q.claim.next(reply{})
			if m.broken == tombstoneFirst && c.phase == leaveTombstone {
				c.phase = removeEntry
			}
			q.set(c)
			m.visit(next)
			continue
		}
		next := w // delivered and answered
		if u == nil {
			m.reply(&next, &next.procs[i], key, next.recs[key].fields, Result{})
		} else {
			res := m.change(&next, key, *u, op)
			m.reply(&next, &next.procs[i], key, res.Fields, res)
		}
		m.visit(next)

		if u != nil && w.losses > 0 { // delivered, the reply lost: it is sent again
			next := w
			next.losses--
			next.procs[i].unsure = true
			m.change(&next, key, *u, op)
			m.visit(next)
		}
		if u != nil && w.dups > 0 { // answered, and a copy is still under way
			next := w
			next.dups--
			next.dup = &delayed{key, *u, op, fmt.Sprint("dup", key, op, encodeFields(u.If), encodeFields(u.Set), u.Unset, u.UnsetPrefix)}
			res := m.change(&next, key, *u, op)
			m.reply(&next, &next.procs[i], key, res.Fields, res)
			m.visit(next)
		}
		if w.crashes > 0 { // dies, before sending or after its message was applied
			next := w
			next.crashes--
			m.kill(&next, i)
			m.visit(next)
			if u != nil {
				next := w
				next.crashes--
				m.change(&next, key, *u, op)
				m.kill(&next, i)
				m.visit(next)
			}
		}
	}
	if w.dup != nil {
		next := w
		next.dup = nil
		m.change(&next, w.dup.key, w.dup.u, w.dup.op)
		m.visit(next)
	}
	underWay := w.dup != nil || slices.ContainsFunc(w.procs[:w.n], func(p process) bool { return p.unsure })
	if state := w.recs[theGuest].fields[record.State]; w.rebirth > 0 && !underWay && !isFrozen(state) && (state != "" || len(record.DataOf(w.recs[theGuest].fields)) == 0) {
		next := w // the tombstone expires, or an empty guest does
		next.rebirth--
		next.recs[theGuest] = newRecord(Fields{}, "")
		m.visit(next)
	}
	for n := range w.log {
		if w.failovers == 0 {
			break
		}
		next := w
		next.forget(n + 1)
		m.visit(next)
		later := w.log[len(w.log)-n:]
		if l := w.log[len(w.log)-n-1]; n > 0 && !slices.ContainsFunc(later, func(o applied) bool { return o.key == l.key }) {
			next := w
			next.log = []applied{l}
			next.forget(1)
			m.visit(next)
		}
	}
	if w.ticks > 0 && moved {
		next := w
		next.ticks--
		next.now += 61 * time.Second
		m.visit(next)
	}
	if !moved && w.dup == nil {
		m.end(w)
	}
}

func (m *model) kill(w *world, i int) {
	p := &w.procs[i]
	p.unsure = false
	p.dead = true
	if p.kind == writer && p.writes > 0 {
		w.writes[p.write].uncertain = true
	}
}

// end: the faults are over. Recover runs, and everything must be in its place.
func (m *model) end(w world) {
	m.ended++
	w.now += entryLife
	p := process{kind: recoverer}
	p.set(claim{})
	m.run(&w, &p)
	m.check(&w, p.finished(), "Recover does not end")
	if f := w.recs[freshGuest].fields; f[record.State] != "" {
		m.check(&w, record.IsClaimed(f[record.State]) && len(record.DataOf(f)) == 0, "the other guest is not claimed")
	}
	g := w.recs[theGuest].fields
	if frozen := isFrozen(g[record.State]); frozen && w.forgot != "" {
		m.check(&w, false, "the guest stays frozen until its owner's next request")
		m.nextRequest(&w, record.HolderOf(g[record.State]).Owner)
		g = w.recs[theGuest].fields
	}
	m.check(&w, !isFrozen(g[record.State]), "the guest stays frozen")
	if g[record.State] != "" {
		m.check(&w, len(record.DataOf(g)) == 0, "a claimed guest has data")
	}
	m.check(&w, len(w.recs[outboxRecord].fields) == 0, "entries stay in the outbox")

	for i := range w.writes {
		field := fmt.Sprintf("cart/w%d", i)
		total := 0
		for key, r := range w.recs {
			n, _ := strconv.Atoi(r.fields[field])
			if key == accountA && i == 0 {
				n-- // A had one of its own
				n -= strings.Count(r.ops, "m;")
			}
			total += n
		}
		switch wr := w.writes[i]; {
		case total > 1:
			m.check(&w, false, "the write %d is there %d times", i, total)
		case wr.acked && total == 0:
			m.check(&w, false, "the acknowledged write %d is lost", i)
		case !wr.acked && !wr.uncertain && total != 0:
			m.check(&w, false, "a write that was never made is there")
		}
	}
	// What one tab wrote last is what it reads, if all of it is the account's.
	last, mine := 0, true
	for i, wr := range w.writes {
		if wr.acked {
			last = i
		}
		mine = mine && !wr.fresh && !wr.uncertain
	}
	if theme := w.recs[accountA].fields["theme"]; mine && last > 0 && w.recs[accountB].fields["theme"] == "" && len(record.DataOf(g)) == 0 {
		m.check(&w, theme == fmt.Sprintf(`"w%d"`, last), "the tab wrote w%d last, the account has %s", last, theme)
	}
}

// nextRequest: the owner's browser still has the cookie.
func (m *model) nextRequest(w *world, owner record.Owner) {
	p := process{kind: claimant}
	p.set(m.claim(owner.Account(), false, "1next"))
	m.run(w, &p)
}

// run lets one process go on alone.
func (m *model) run(w *world, p *process) {
	for range 200 {
		if p.finished() {
			return
		}
		key, u, op := m.command(w, p)
		switch {
		case key < 0:
			p.set(p.claim.next(reply{}))
		case u == nil:
			m.reply(w, p, key, w.recs[key].fields, Result{})
		default:
			res := m.change(w, key, *u, op)
			m.reply(w, p, key, res.Fields, res)
		}
	}
}

const tooMany = "more states than -states"

type scenario struct {
	name                                 string
	procs                                []process
	losses, crashes, dups, rebirth, tick int
	failovers                            int
}

func explore(t *testing.T, s scenario, broken variant) (*model, string) {
	theme := NewValue("theme", PreferGuest[string])
	cart := NewCounters("cart", EachItem(Sum[int64]))
	keyring := token.NewKeyring([][]byte{make([]byte, 32)}, "", time.Hour)
	mg := &merger{kinds: newKinds([]Kind{theme, cart}, keyring), quota: Quota{1000, 100000}}
	type result struct {
		u     Update
		kinds []KindReceipt
	}
	memo := map[string]result{}
	m := &model{broken: broken, broke: map[string][]string{}, seen: map[[2]uint64]struct{}{}, seed: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	m.merge = func(data Fields, key string, target Fields) (Update, []KindReceipt, error) {
		id := encodeFields(data) + "\x00" + encodeFields(target)
		r, ok := memo[id]
		if !ok {
			var err error
			if r.u, r.kinds, err = mg.merge("g:guest", data, key, target); err != nil {
				t.Fatal(err)
			}
			memo[id] = r
		}
		u := r.u
		u.If, u.Set = maps.Clone(u.If), maps.Clone(u.Set)
		return u, r.kinds, nil
	}
	w := world{n: len(s.procs), losses: s.losses, crashes: s.crashes, dups: s.dups, rebirth: s.rebirth, ticks: s.tick, failovers: s.failovers}
	w.writes[0].acked = true
	for i := range w.recs {
		w.recs[i] = newRecord(Fields{}, "")
	}
	written := Fields{record.Incarnation: "1i0", "cart/w0": "1", "theme": `"w0"`}
	if broken == lateIncarnation {
		delete(written, record.Incarnation)
	}
	w.recs[theGuest] = newRecord(written, "")
	w.recs[accountA] = newRecord(Fields{"cart/w0": "1"}, "")
	for i, p := range s.procs {
		switch p.kind {
		case claimant:
			c := m.claim(p.owner, false, fmt.Sprintf("1f%d", i))
			if p.guest != "" {
				c.guest = p.guest
				w.recs[freshGuest] = newRecord(Fields{record.Incarnation: "1i1", "cart/w3": "1"}, "")
				w.writes[3] = write{acked: true, fresh: true}
			}
			p.set(c)
		case writer:
			p.write = 1
			p.set(claim{})
		default:
			p.set(claim{})
		}
		w.procs[i] = p
	}
	m.visit(w)
	return m, m.failure
}

var scenarios = []scenario{
	{"a member's other device", []process{{kind: claimant, owner: "A"}, {kind: member, writes: 1}, {kind: writer, owner: "A", writes: 1}}, 2, 1, 1, 0, 0, 0},
	{"two accounts, rebirth, pauses", []process{{kind: claimant, owner: "A"}, {kind: claimant, owner: "B"}, {kind: writer, writes: 1}}, 0, 1, 0, 1, 1, 0},
	{"two accounts and a recoverer", []process{{kind: claimant, owner: "A"}, {kind: claimant, owner: "B"}, {kind: recoverer}}, 1, 2, 0, 0, 1, 0},
	{"one account twice, rebirth, crashes", []process{{kind: claimant, owner: "A"}, {kind: claimant, owner: "A"}, {kind: writer, owner: "A", writes: 1}}, 1, 2, 0, 1, 0, 0},
	{"two accounts, a tab without an account", []process{{kind: claimant, owner: "A"}, {kind: claimant, owner: "B"}, {kind: writer, writes: 2}}, 1, 1, 1, 0, 0, 0},
	{"a recoverer", []process{{kind: claimant, owner: "A"}, {kind: recoverer}, {kind: writer, owner: "A", writes: 1}}, 1, 1, 1, 1, 1, 0},
	{"another guest's claim tidies the markers", []process{{kind: claimant, owner: "A"}, {kind: claimant, owner: "A"}, {kind: claimant, owner: "A", guest: "g:fresh"}}, 1, 1, 1, 0, 0, 0},
	{"and a recoverer", []process{{kind: claimant, owner: "A"}, {kind: recoverer}, {kind: claimant, owner: "A", guest: "g:fresh"}}, 0, 1, 0, 0, 1, 0},
	{"one account twice, a tab of its owner", []process{{kind: claimant, owner: "A"}, {kind: claimant, owner: "A"}, {kind: writer, owner: "A", writes: 2}}, 1, 1, 1, 0, 0, 0},
}

// The model is one goroutine and has no store: the race detector only slows it down, and another
// store changes nothing.
func skipModel(t *testing.T) {
	if isRace() || flag.Lookup("store").Value.String() != "memory" {
		t.Skip("of no use here")
	}
}

func TestClaimModel(t *testing.T) {
	skipModel(t)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			if !*fullModel {
				s.dups, s.crashes, s.losses = 0, min(s.crashes, 1), min(s.losses, 1)
			}
			start := time.Now()
			m, failure := explore(t, s, correct)
			if failure != "" {
				t.Error(failure)
			}
			t.Logf("%d states, %d ends, %v", len(m.seen), m.ended, time.Since(start).Round(time.Millisecond))
		})
	}
}

func TestBrokenVariantsAreCaught(t *testing.T) {
	skipModel(t)
	for v := noMarker; v <= readTargetLate; v++ {
		t.Run(variantNames[v], func(t *testing.T) {
			t.Parallel()
			for _, s := range scenarios {
				tidies := slices.ContainsFunc(s.procs, func(p process) bool { return p.guest != "" })
				if tidies != (v >= removeByCount) { // elsewhere no marker is removed, so it is not broken
					continue
				}
				if _, failure := explore(t, s, v); failure == tooMany {
					t.Errorf("%q: %s", s.name, failure)
				} else if failure != "" {
					t.Logf("caught by %q: %s", s.name, failure)
					return
				}
			}
			t.Errorf("no scenario catches it")
		})
	}
}

// A failover to a replica that lacks the last write to one record, or a server that was rolled back
// to some earlier moment, breaks promises: exactly these, in docs/claim.md.
func TestWhatFailoverBreaks(t *testing.T) {
	skipModel(t)
	const (
		lost      = "the acknowledged write %d is lost"
		twice     = "the write %d is there %d times"
		older     = "the tab wrote w%d last, the account has %s"
		early     = "a claim answered done before its guest had a tombstone"
		frozenYet = "the guest stays frozen until its owner's next request"
	)
	want := map[string][]string{
		"a visitor's write": {lost, older},
		"an outbox entry":   {frozenYet},
		"a freeze":          {lost, older, twice},
		"a merge":           {lost, older},
		"a tombstone":       {early, frozenYet},
		"a removed entry":   nil,

		"the first generation": nil,
		// of the only server there is; what visitors wrote meanwhile is forgotten too, and is not
		// counted here
		"a visitor's write and all after it":    {early, lost, frozenYet, twice},
		"the first generation and all after it": {early, lost, frozenYet, older, twice},
		"an outbox entry and all after it":      {early, lost, frozenYet, older, twice},
		"a freeze and all after it":             {early, lost, frozenYet, older, twice},
		"a merge and all after it":              {early, lost, frozenYet, older},
		"a tombstone and all after it":          {early, frozenYet},
	}
	broke := map[string][]string{}
	for _, s := range []scenario{
		{"", []process{{kind: claimant, owner: "A"}, {kind: writer, owner: "A", writes: 2}}, 0, 1, 0, 0, 0, 1},
		{"", []process{{kind: claimant, owner: "A"}, {kind: claimant, owner: "B"}, {kind: writer, writes: 1}}, 0, 1, 0, 0, 0, 1},
		{"", []process{{kind: claimant, owner: "A"}, {kind: recoverer}, {kind: member, writes: 1}}, 0, 1, 0, 0, 1, 1},
	} {
		m, failure := explore(t, s, correct)
		if failure != "" {
			t.Error(failure)
		}
		t.Logf("%d states, %d ends", len(m.seen), m.ended)
		for what, faults := range m.broke {
			broke[what] = append(broke[what], faults...)
		}
	}
	for what, faults := range want {
		slices.Sort(broke[what])
		got := slices.Compact(broke[what])
		slices.Sort(faults)
		if !slices.Equal(got, faults) {
			t.Errorf("forgetting %s breaks %q, want %q", what, got, faults)
		}
		delete(broke, what)
	}
	if len(broke) > 0 {
		t.Error("also breaks:", broke)
	}
}

func isFrozen(state string) bool { return record.HolderOf(state).Frozen }

// isRace reports whether the tests run with the race detector.
func isRace() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// A marker of a cart and a theme, in a field of its own, leaves a record in Redis's compact
// encoding: names and values of at most 64 bytes.
func TestMarkersAreShort(t *testing.T) {
	for _, kinds := range [][]KindReceipt{
		{
			{Name: "cart", Outcome: Moved, GuestItems: 20, ResultItems: 20, GuestTotal: 35, ResultTotal: 35},
			{Name: "theme", Outcome: Moved, GuestItems: 1, ResultItems: 1},
		},
		{
			{Name: "cart", Outcome: Merged, GuestItems: 3, AccountItems: 20, ResultItems: 22,
				GuestTotal: 5, AccountTotal: 40, ResultTotal: 45},
			{Name: "theme", Outcome: Kept, GuestItems: 1, AccountItems: 1, ResultItems: 1},
		},
		{{Name: "email", Outcome: Dropped, DroppedItems: 1, ResultTotal: -1}},
		{{Name: "a kind that is gone", Outcome: Dropped}},
	} {
		m := record.Marker{
			Incarnation: record.NewIncarnation(), Guest: record.GuestKey(token.ID{255, 255}),
			At: 2_000_000_000, Kinds: packKinds(kinds),
		}
		name, value := record.MarkerField(m.Incarnation), m.String()
		if len(name) > 64 || len(value) > 64 {
			t.Errorf("%s = %q: %d bytes", name, value, len(value))
		}
		if got, err := unpackKinds(m.Kinds); err != nil || !reflect.DeepEqual(got, kinds) {
			t.Errorf("%q is %+v, %v, want %+v", m.Kinds, got, err, kinds)
		}
	}
}

func TestKindsThatDoNotUnpack(t *testing.T) {
	for _, s := range []string{"cart", "cart=", "cart=m!", "cart=m1,1,1,1,1,1,1,1", "cart=m;"} {
		if kinds, err := unpackKinds(s); err != record.ErrMalformed {
			t.Errorf("%q is %+v, %v", s, kinds, err)
		}
	}
}
