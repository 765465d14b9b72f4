// Package record knows what the records of guests, of accounts and of the outbox hold, and under
// which keys. docs/redis.md lists it, docs/claim.md explains it.
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

// The fields that are the library's own. No kind of data has a name that begins with a dot.
const (
	Incarnation = ".i" // a guest's: random, set when the record is created; the ID of its one claim
	State       = ".s" // a guest's: see [Owner.Frozen], [Owner.Claimed] and [Forgotten]
	ClaimedAt   = ".t" // a guest's: when it was frozen for a claim
	Returned    = ".r" // a guest's, with Hooks.Returned: random, set when its cookie came back
	FirstWrite  = ".w" // a guest's, with Hooks.FirstWrite: random, set with its first data
	Generation  = ".c" // an owner's: grows with every merge; see [EncodeGeneration]
	markerField = ".c" // and an incarnation, an owner's: the data of that guest are in here; see [Marker]
)

// The states of a guest: "" while it is open, then frozen for its owner, then claimed by it.
const (
	frozen  = "s"
	claimed = "b"

	// Forgotten is the state of a guest that its visitor had erased: a tombstone without an owner,
	// so that no copy of its token brings it back to life, and no ticket finds anything.
	Forgotten = claimed
)

// An incarnation begins with the version of the record's form. A release reads what the one before
// it wrote.
const version = '1'

// NewIncarnation returns 14 characters, of which 78 bits are random. With its length that is 16
// bytes in Redis, a size that allocators have.
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

// ErrNewer: a claim depends on what every field of ours means.
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

// AccountKey returns the key of an account's record. It is of one length and alphabet whatever the
// app's IDs are, and does not give the ID away.
func AccountKey(accountID string) string {
	sum := sha256.Sum256([]byte(accountID))
	return "a:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// OutboxShards is the number of records that the outbox consists of.
const OutboxShards = 16

// OutboxKey returns the key of one record of the outbox.
func OutboxKey(shard int) string { return "o:" + strconv.Itoa(shard) }

// OutboxOf returns the key of the record that has the outbox entries of this guest's claims.
func OutboxOf(guest string) string {
	h := fnv.New32a()
	h.Write([]byte(guest))
	return OutboxKey(int(h.Sum32() % OutboxShards))
}

// An OutboxEntry says that a claim is under way. All of it stands in the name of its field; the
// value is when it was added, Unix milliseconds.
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

// DataOf returns the fields that are the app's. Names and values are never empty, but another
// program may have written to the store.
func DataOf(record Fields) Fields {
	data := Fields{}
	for field, value := range record {
		if IsData(field) && value != "" {
			data[field] = value
		}
	}
	return data
}

// Time reads a time that the store has stamped, Unix milliseconds; zero if it is none.
func Time(stamp string) time.Time {
	milli, _ := strconv.ParseInt(stamp, 10, 64)
	if milli <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(milli).UTC()
}
