package guest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash/fnv"
	"strconv"
	"strings"
	"time"
)

// What the records hold, and under which keys: see docs/claim.md.

// Fields of a record that are ours; no kind's name begins with a dot.
const (
	fieldIncarnation = ".i" // a guest's: random, set when the record is made; the ID of its one claim
	fieldState       = ".s" // a guest's: absent while open, then "s"+owner, then "b"+key of the owner's record
	fieldClaimedAt   = ".t" // a guest's: when it was sealed
	fieldConfirmed   = ".r" // a guest's, with Hooks.Confirmed: random, set when its cookie came back
	fieldFilled      = ".w" // a guest's, with Hooks.Filled: random, set with its first data
	fieldMarker      = ".c" // + incarnation, an owner's: this guest's data are in here; see packMarker
)

const (
	sealedBy = "s"
	buriedBy = "b"

	// forgotten is the state of a guest that its visitor had erased: a tombstone of nobody, so that no copy of its
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

// errNewer: a claim depends on what every field of a guest's record means.
var errNewer = errors.New("guest: the guest's record was written by a newer release: let that one finish the claim")

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

// A marker holds when it was made, in Unix seconds, and the kinds of the receipt.
func packMarker(nowMilli int64, kinds []KindReceipt) string {
	return strconv.FormatInt(nowMilli/1000, 36) + ";" + packKinds(kinds)
}

func unpackMarker(m string) (made time.Time, kinds []KindReceipt, err error) {
	at, packed, _ := strings.Cut(m, ";")
	if sec, err := strconv.ParseInt(at, 36, 64); err == nil {
		made = time.Unix(sec, 0).UTC()
	}
	kinds, err = unpackKinds(packed)
	return made, kinds, err
}

// markerOlder: a marker is needed while its guest's record can be sealed; see Manager.newClaim.
func markerOlder(m string, nowMilli int64, life time.Duration) bool {
	made, _, _ := strings.Cut(m, ";")
	sec, err := strconv.ParseInt(made, 36, 64)
	return err == nil && nowMilli-sec*1000 > life.Milliseconds()
}
