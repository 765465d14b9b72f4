package guest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
)

// What the records hold, and under which keys: see docs/claim.md.

// Fields of a record that are ours; no kind's name begins with a dot.
const (
	fieldIncarnation = ".i" // a guest's: random, set when the record is made; the ID of its one claim
	fieldState       = ".s" // a guest's: absent while open, then "s"+owner, then "b"+key of the owner's record
	fieldClaimedAt   = ".t" // a guest's: when it was sealed
	fieldConfirmed   = ".r" // a guest's, with Hooks.Returned: random, set when its cookie came back
	fieldFilled      = ".w" // a guest's, with Hooks.FirstWrite: random, set with its first data
	fieldGeneration  = ".c" // an owner's: grows with every merge; see generation
	fieldMarker      = ".c" // and an incarnation, an owner's: that guest's data are in here; see marker
)

const (
	sealedBy = "s"
	buriedBy = "b"

	// forgotten is the state of a guest that its visitor had erased: a tombstone without an owner, so that no copy of its
	// token brings it back to life, and no ticket finds anything.
	forgotten = buriedBy
)

// An incarnation begins with the version of the record's form. What this release writes, the next one reads.
const recordVersion = '1'

// newIncarnation has 14 characters, with its length 16 bytes, as allocators like it; 78 bits of them are random.
func newIncarnation() string {
	var b [11]byte
	var s [15]byte
	rand.Read(b[:])
	base64.RawURLEncoding.Encode(s[:], b[:])
	s[0] = recordVersion
	return string(s[:14])
}

func isNewer(record Fields) bool {
	i := record[fieldIncarnation]
	return i != "" && i[0] != recordVersion
}

// errNewer: a claim depends on what every field of ours means.
var errNewer = errors.New("guest: a record was written by a newer release: let that one finish the claim")

// whileOpen is the condition of writes to a guest. Nobody changes it.
var whileOpen = Fields{fieldState: ""}

// Record keys.
func guestKey(id guestID) string {
	b := append(make([]byte, 0, 24), "g:"...)
	return string(base64.RawURLEncoding.AppendEncode(b, id[:]))
}

// accountKey is of one length and alphabet whatever the app's IDs are, and gives no ID away.
func accountKey(accountID string) string {
	sum := sha256.Sum256([]byte(accountID))
	return "a:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

const outboxShards = 16

func outboxKey(shard int) string { return "o:" + strconv.Itoa(shard) }

func outboxOf(guest string) string {
	h := fnv.New32a()
	h.Write([]byte(guest))
	return outboxKey(int(h.Sum32() % outboxShards))
}

// An owner is who claims a guest: "a:"+account ID, or for a sibling "g:"+guest ID+"@"+when that guest was born.
type owner string

func ownerAccount(accountID string) owner { return owner("a:" + accountID) }

func ownerGuest(t token) owner {
	return owner(guestKey(t.id) + "@" + strconv.FormatInt(t.born, 36))
}

// guest returns the sibling.
func (o owner) guest() (t token, ok bool) {
	id, born, _ := strings.Cut(strings.TrimPrefix(string(o), "g:"), "@")
	t.id, ok = parseGuestID(id)
	t.born, _ = strconv.ParseInt(born, 36, 64)
	return t, ok && !o.isAccount()
}

// account returns the account's ID, "" if the owner is a guest.
func (o owner) account() string {
	id, _ := strings.CutPrefix(string(o), "a:")
	if !o.isAccount() {
		return ""
	}
	return id
}

func (o owner) isAccount() bool { return strings.HasPrefix(string(o), "a:") }

// key is the key of the owner's record.
func (o owner) key() string {
	if o.isAccount() {
		return accountKey(o.account())
	}
	key, _, _ := strings.Cut(string(o), "@")
	return key
}

// tombstone is what a buried guest says of its owner: of an account only the hash, so that erasing the account
// leaves nothing of it behind.
func (o owner) tombstone() string {
	if o.isAccount() {
		return buriedBy + o.key()
	}
	return buriedBy + string(o)
}

// A note is an entry of the outbox, all of it in the field's name; the value is when it was made.
type note struct {
	guest       string // record key
	incarnation string
	owner       owner
}

func (n note) field() string { return n.guest + "/" + n.incarnation + "/" + string(n.owner) }

func parseNote(field string) (n note, ok bool) {
	parts := strings.SplitN(field, "/", 3)
	if len(parts) != 3 {
		return n, false
	}
	return note{parts[0], parts[1], owner(parts[2])}, true
}

// A holder is whose a sealed or buried guest is.
type holder struct {
	owner  owner  // "" if it is an account that has buried it
	key    string // of the owner's record
	sealed bool   // not buried yet
}

func holderOf(state string) holder {
	if o, ok := strings.CutPrefix(state, sealedBy); ok {
		return holder{owner(o), owner(o).key(), true}
	}
	o := owner(strings.TrimPrefix(state, buriedBy))
	if o.isAccount() {
		return holder{key: string(o)}
	}
	return holder{o, o.key(), false}
}

func isData(field string) bool { return field != "" && field[0] != '.' }

// dataOf returns the fields that are the app's. Names and values are never empty; should a store say so, somebody else
// has written to it.
func dataOf(record Fields) Fields {
	data := Fields{}
	for field, value := range record {
		if isData(field) && value != "" {
			data[field] = value
		}
	}
	return data
}

func fieldNames(fields Fields) []string {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	return names
}

// A marker says that the data of one claimed guest are in a record. It is kept until its guest is
// known to be claimed or gone: while the guest is frozen, a claimer may come and merge it again. Each
// is a field of its own, and short: a value of more than 64 bytes takes a record out of Redis's
// compact encoding.
type marker struct {
	incarnation string // it names the field
	guest       string // record key
	at          int64  // when it was merged, Unix seconds
	kinds       []KindReceipt
}

var errMarkers = errors.New("guest: the markers of the claims do not decode")

// markerOf returns the marker of a claim, one without an incarnation if the record has none.
func markerOf(record Fields, incarnation string) (k marker, err error) {
	value := record[fieldMarker+incarnation]
	if value == "" {
		return k, nil
	}
	words := strings.SplitN(value, " ", 3)
	if len(words) != 3 {
		return k, errMarkers
	}
	k.incarnation, k.guest = incarnation, "g:"+words[0]
	if k.at, err = strconv.ParseInt(words[1], 36, 64); err != nil {
		return k, errMarkers
	}
	k.kinds, err = unpackKinds(words[2])
	return k, err
}

func (k marker) String() string {
	id, at := strings.TrimPrefix(k.guest, "g:"), strconv.FormatInt(k.at, 36)
	return id + " " + at + " " + packKinds(k.kinds)
}

// markersIn returns the incarnations whose markers a record has, sorted.
func markersIn(record Fields) (incarnations []string) {
	for field := range record {
		if i, is := strings.CutPrefix(field, fieldMarker); is && i != "" {
			incarnations = append(incarnations, i)
		}
	}
	slices.Sort(incarnations)
	return incarnations
}

// generation is the stored form, in front of it the version of the record's form. A generation grows
// with every merge, so that one that was prepared before a change of the markers never applies after
// it, also if a marker was removed meanwhile.
func generation(n uint64) string { return string(recordVersion) + strconv.FormatUint(n, 36) }

// generationOf is the reverse; a record without one has 0.
func generationOf(record Fields) (uint64, error) {
	s := record[fieldGeneration]
	switch {
	case s == "":
		return 0, nil
	case s[0] != recordVersion:
		return 0, errNewer
	}
	n, err := strconv.ParseUint(s[1:], 36, 64)
	if err != nil {
		return 0, errMarkers
	}
	return n, nil
}

// firstGeneration is random: the record may be a new one in place of one that was erased.
func firstGeneration() string {
	var b [8]byte
	rand.Read(b[3:])
	return generation(binary.BigEndian.Uint64(b[:]))
}
