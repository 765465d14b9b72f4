// Package record defines what the records of guests, of accounts and of the outbox hold, and their
// keys. docs/redis.md lists it, docs/claim.md explains it.
package record

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	"github.com/guestkit/guest/internal/token"
)

// Fields are the fields of a record, by name.
type Fields = map[string]string

// The library's own fields. No name of a kind begins with a dot.
const (
	// Fields of a guest.
	Incarnation = ".i" // random, set when the record is created; the ID of its one claim
	State       = ".s" // see [Owner.Frozen], [Owner.Claimed] and [Forgotten]
	ClaimedAt   = ".t" // when the guest was frozen for a claim
	Returned    = ".r" // random, set when its cookie came back, if Hooks.Returned is set
	FirstWrite  = ".w" // random, set with its first data, if Hooks.FirstWrite is set

	// Fields of an owner.
	Generation  = ".c" // grows with every merge; see [EncodeGeneration]
	markerField = ".c" // followed by the incarnation of a merged guest; see [Marker]
)

// The states of a guest: "" while it is open, then frozen for its owner, then claimed by its owner.
const (
	frozen  = "f"
	claimed = "c"

	// Forgotten is the state of a guest that its visitor had erased. It is a tombstone without an
	// owner: no copy of the guest's token brings it back, and no ticket finds anything.
	Forgotten = claimed
)

// An incarnation begins with the version of the record's form. A release reads what the release
// before it wrote.
const version = '1'

// NewIncarnation returns 14 characters, of which 78 bits are random. Together with its length that
// takes 16 bytes in Redis, which is a size of its allocator.
func NewIncarnation() string {
	var b [11]byte
	var s [15]byte
	rand.Read(b[:])
	base64.RawURLEncoding.Encode(s[:], b[:])
	s[0] = version
	return string(s[:14])
}

// IsNewer reports whether a newer release has written the record.
func IsNewer(record Fields) bool {
	i := record[Incarnation]
	return i != "" && i[0] != version
}

// ErrNewer: a newer release wrote the record, and a claim needs to know what each of the library's
// fields means.
var ErrNewer = errors.New("guest: a record was written by a newer release " +
	"(let that one finish the claim)")

// GuestKey returns the key of a guest's record.
func GuestKey(id token.ID) string {
	b := append(make([]byte, 0, 24), "g:"...)
	return string(base64.RawURLEncoding.AppendEncode(b, id[:]))
}

// IsGuest reports whether this is the key of a guest's record.
func IsGuest(key string) bool { return strings.HasPrefix(key, "g:") }

// GuestID returns the ID of the guest whose record has this key, as text.
func GuestID(key string) string { return strings.TrimPrefix(key, "g:") }

// AccountKey returns the key of an account's record. Whatever the app's IDs are, it has one length
// and one alphabet, and does not reveal the ID.
func AccountKey(accountID string) string {
	sum := sha256.Sum256([]byte(accountID))
	return "a:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// OutboxShards is the number of records of the outbox.
const OutboxShards = 16

// OutboxKey returns the key of a record of the outbox, from 0 to OutboxShards-1.
func OutboxKey(shard int) string { return "o:" + strconv.Itoa(shard) }

// OutboxOf returns the key of the record of the outbox that has the entries of this guest's claims.
func OutboxOf(guest string) string {
	h := fnv.New32a()
	h.Write([]byte(guest))
	return OutboxKey(int(h.Sum32() % OutboxShards))
}

// An OutboxEntry says that a claim is under way. The name of its field holds all of it; the value
// of the field is when the entry was added, Unix milliseconds.
type OutboxEntry struct {
	Guest       string // record key
	Incarnation string
	Owner       Owner
}

// Field returns the name of the entry's field.
func (e OutboxEntry) Field() string {
	return e.Guest + "/" + e.Incarnation + "/" + string(e.Owner)
}

// ParseOutboxEntry is the reverse of [OutboxEntry.Field].
func ParseOutboxEntry(field string) (e OutboxEntry, ok bool) {
	parts := strings.SplitN(field, "/", 3)
	if len(parts) != 3 {
		return e, false
	}
	return OutboxEntry{parts[0], parts[1], Owner(parts[2])}, true
}

// IsData reports whether a field holds data of the app.
func IsData(field string) bool { return field != "" && field[0] != '.' }

// DataOf returns the fields that hold data of the app. It skips empty values, which no store
// returns unless another program wrote them.
func DataOf(record Fields) Fields {
	data := Fields{}
	for field, value := range record {
		if IsData(field) && value != "" {
			data[field] = value
		}
	}
	return data
}

// Time reads a time that the store has stamped, Unix milliseconds; the zero time if it is
// malformed.
func Time(stamp string) time.Time {
	milli, _ := strconv.ParseInt(stamp, 10, 64)
	if milli <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(milli).UTC()
}
