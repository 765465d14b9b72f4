package guest

import (
	"context"
	"errors"
	"iter"
	"net"
	"time"
)

// Fields are the fields of a record, by name. They are strings, so that no caller can change what a
// store holds.
type Fields = map[string]string

// Store keeps records. A record is a small set of named fields under one key. A store keeps nothing
// else, and claims need nothing else, so they work with every store.
//
// Package storetest tests any Store for the duties below, and quotes the duty that it finds broken.
// Every duty holds for any number of goroutines and processes at once.
//
//  1. A record that was never written, was dropped or has expired reads as one without fields; that
//     is no error.
//  2. An update is atomic: no reader sees a part of it, and two updates of one record happen one
//     after the other.
//  3. If a condition of an update does not hold, or the store's clock is past NotAfter, nothing
//     changes: Result.Applied is false and Result.Fields holds the current values of the fields in
//     If and Return.
//  4. An update with Once is applied at most once, however often the store sends it. When the store
//     cannot tell whether it was applied, the error wraps [ErrUncertain]. Any other error means
//     that nothing changed.
//  5. An update that would leave a record over its Quota, and larger than it was, changes nothing;
//     the error wraps [ErrQuota]. Fields whose names begin with "." do not count.
//  6. An addition to what is not a whole number, or beyond ±2^53, changes nothing; the error wraps
//     [ErrInvalid].
//  7. TTL makes the record live at least that long from now, and never shortens its life. It is set
//     in the same step as the fields. With KeepTTL it does so only for a record that was absent
//     before. A record made without one lives for ever.
//  8. A context that is cancelled or past its deadline before a call stops it: it changes nothing
//     and answers the context's error. A deadline that passes during a call ends the call.
//  9. What is returned belongs to the caller: changing it changes nothing in the store.
//  10. Reserve lets an update pass although the store is full: it is a step of a claim, which gives
//     memory back.
//  11. Keys and field names are any bytes without NUL; values are at least one byte. Names that
//     begin with "!" are the store's own: they occur in no call and no answer.
type Store interface {
	// Get returns those of the named fields that the record has; with no name, all of them.
	Get(ctx context.Context, key string, names ...string) (Fields, error)

	// Update changes one record in one step.
	Update(ctx context.Context, key string, u Update) (Result, error)

	// Keys yields the keys that begin with prefix, in no order, some perhaps twice. It is for
	// operators: it may take long, and no request waits for it. After an error it ends.
	Keys(ctx context.Context, prefix string) iter.Seq2[string, error]
}

// An Update says what to change in one record, and on what conditions. The steps happen in the
// order of the fields: conditions first, then Drop, or else Default, Set, Add, Unset, UnsetPrefix,
// Stamp, TTL; then Return is read. No two of the steps change the same field.
type Update struct {
	If       Fields    // what these fields must hold now; "" means that the field must be absent
	NotAfter time.Time // the store's clock must not be past this; zero: no limit
	Drop     bool      // remove the whole record; no other change is made

	Default Fields // set where the field is absent
	Set     Fields // set

	// Add: add to a decimal number, absent being 0; a field whose sum is 0 is removed
	Add map[string]int64

	Unset       []string // remove the fields of exactly these names
	UnsetPrefix []string // remove every field whose name begins with one of these

	// Stamp: set this field to the store's time, Unix milliseconds in decimal; "": none
	Stamp string

	TTL     time.Duration // see duty 7; 0 leaves the expiry as it is
	KeepTTL bool          // TTL is only for a record that this update creates: see duty 7
	Quota   Quota         // zero: no limit
	Once    bool          // see duty 4; without it the update is harmless to repeat
	Reserve bool          // see duty 10

	// New: a hint, nothing else: there is likely no record; no other update has what is in Default,
	// or changes those fields
	New bool

	Return    []string // the fields to return
	ReturnAll bool     // return all fields
}

// A Result is what an [Update] did.
type Result struct {
	Applied bool // false: a condition did not hold, nothing changed

	// Fields: after the update the fields in Return; if it was not applied, those in If and Return
	// as they are
	Fields Fields

	// Now: the store's clock, to the millisecond; only after an update with Stamp or NotAfter
	Now time.Time
}

// Quota bounds what one record holds. The zero value of a field is no bound.
type Quota struct {
	Fields int // number of fields; a store may ignore a bound over 65,535
	Bytes  int // length of names and values together
}

// The errors of this package are tested with [errors.Is]. In their text a colon introduces a cause,
// and advice stands in parentheses. The text never holds a secret, a token, an ID or a value.
var (
	// ErrUnreadable: data are stored that this process cannot read. Their kind is not in
	// Config.Data, their secret is not in Config.Secrets, or they are not encrypted although the
	// kind is Encrypted; the text says which. A claim stays Pending until a process that can read
	// them finishes it.
	ErrUnreadable = errors.New("guest: stored data cannot be read by this process")

	// ErrQuota: the write would leave the record over Config.Quota. Nothing was written.
	ErrQuota = errors.New("guest: the write would exceed Config.Quota " +
		"(remove something first, or raise the quota)")

	// ErrUnavailable: the store did not do what was asked. It wraps the error of the store. See
	// also [ErrUncertain].
	ErrUnavailable = errors.New("guest: the store is unavailable")

	// ErrUncertain: the reply to a write was lost, so the write was applied once or not at all. It
	// is wrapped in [ErrUnavailable].
	ErrUncertain = errors.New("guest: the write may or may not have been applied " +
		"(read before you retry)")

	// ErrInvalid: the caller's value, name or number cannot be stored; the text says why. Nothing
	// was written.
	ErrInvalid = errors.New("guest: invalid input")

	// ErrConflict: the data had been changed by others at each of many attempts to update them.
	ErrConflict = errors.New("guest: the data kept changing while they were updated " +
		"(try again, or use Counters.Add, which needs no retry)")
)

// StoreErrorClass sorts the errors of Hooks.StoreCall into a few classes, for labels of metrics: ""
// for nil; "quota" and "invalid", which are the caller's fault; "uncertain" (see [ErrUncertain]);
// "canceled"; "timeout"; and "unavailable" for all others.
func StoreErrorClass(err error) string {
	var timeout net.Error
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrQuota):
		return "quota"
	case errors.Is(err, ErrInvalid):
		return "invalid"
	case errors.Is(err, ErrUncertain):
		return "uncertain"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	return "unavailable"
}
