package memstore

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/guestkit/guest"
)

// A record is changed only with its shard locked.
type record struct {
	key     string
	fields  fields
	expires int64 // Unix milliseconds
	size    int64 // see sizeOf
	index   int   // in its queue
	empty   bool  // see fields.empty
}

const never = math.MaxInt64

func (r *record) stored() bool { return len(r.fields) > 0 }

// fields are sorted by name. They are never changed, only replaced, so a reader that has them needs
// no lock.
type fields []field

type field struct{ name, value string }

// find returns where the field is, or would be.
func (f fields) find(name string) (int, bool) {
	return slices.BinarySearchFunc(f, name, func(f field, name string) int {
		return strings.Compare(f.name, name)
	})
}

func (f fields) get(name string) (string, bool) {
	if i, ok := f.find(name); ok {
		return f[i].value, true
	}
	return "", false
}

func (f fields) pick(names []string, all bool) guest.Fields {
	m := guest.Fields{}
	if all {
		for _, f := range f {
			m[f.name] = f.value
		}
		return m
	}
	for _, name := range names {
		if value, ok := f.get(name); ok {
			m[name] = value
		}
	}
	return m
}

// meet reports whether a condition holds. "" means that the field must be absent, as no field has
// that value.
func (f fields) meet(cond guest.Fields) bool {
	for name, want := range cond {
		if value, _ := f.get(name); value != want {
			return false
		}
	}
	return true
}

// apply returns the fields after an update; f stays as it is.
func (f fields) apply(u *guest.Update, now int64) (fields, error) {
	if u.Drop {
		return nil, nil
	}
	next := append(make(fields, 0, len(f)+len(u.Default)+len(u.Set)+len(u.Add)+min(len(u.Stamp),
		1)), f...)
	for name, value := range u.Default {
		if _, ok := f.find(name); !ok {
			next.set(name, value)
		}
	}
	for name, value := range u.Set {
		next.set(name, value)
	}
	for name, n := range u.Add {
		if err := next.add(name, n); err != nil {
			return nil, err
		}
	}
	for _, name := range u.Unset {
		next.unset(name)
	}
	for _, prefix := range u.UnsetPrefix {
		next.unsetPrefix(prefix)
	}
	if u.Stamp != "" {
		next.set(u.Stamp, strconv.FormatInt(now, 10))
	}
	if next.exceed(u.Quota, f) {
		return nil, guest.ErrQuota
	}
	if len(next) < cap(next) { // unused capacity takes memory, too
		next = append(make(fields, 0, len(next)), next...)
	}
	return next, nil
}

// set clones what it keeps, which may be a part of a larger string, such as a request.
func (f *fields) set(name, value string) {
	i, ok := f.find(name)
	if !ok {
		*f = slices.Insert(*f, i, field{name: strings.Clone(name)})
	}
	(*f)[i].value = strings.Clone(value)
}

const maxNumber = 1 << 53

func (f *fields) add(name string, n int64) error {
	value, ok := f.get(name)
	if !ok {
		value = "0"
	}
	have, err := strconv.ParseInt(value, 10, 64)
	if err != nil || strconv.FormatInt(have, 10) != value {
		return fmt.Errorf("%w: an addition to a field that is not a whole number", guest.ErrInvalid)
	}
	for _, n := range []int64{have, n, have + n} {
		if n < -maxNumber || n > maxNumber {
			return fmt.Errorf("%w: an addition beyond ±2^53", guest.ErrInvalid)
		}
	}
	if have+n == 0 {
		f.unset(name)
	} else {
		f.set(name, strconv.FormatInt(have+n, 10))
	}
	return nil
}

func (f *fields) unset(name string) {
	if i, ok := f.find(name); ok {
		*f = slices.Delete(*f, i, i+1)
	}
}

func (f *fields) unsetPrefix(prefix string) {
	i, _ := f.find(prefix)
	end := i
	for end < len(*f) && strings.HasPrefix((*f)[end].name, prefix) {
		end++
	}
	*f = slices.Delete(*f, i, end)
}

// exceed reports whether f is over a bound of the quota and, by that measure, larger than before.
func (f fields) exceed(q guest.Quota, before fields) bool {
	if q == (guest.Quota{}) {
		return false
	}
	n, bytes := f.load()
	hadFields, hadBytes := before.load()
	return q.Fields > 0 && n > q.Fields && n > hadFields || q.Bytes > 0 && bytes > q.Bytes &&
		bytes > hadBytes
}

// load returns the fields and bytes that count against a quota.
func (f fields) load() (n, bytes int) {
	for _, f := range f {
		if !strings.HasPrefix(f.name, ".") {
			n++
			bytes += len(f.name) + len(f.value)
		}
	}
	return n, bytes
}

// empty reports whether f is an open guest without data: its only field is the incarnation. A
// claimed guest has more fields, and so has one that absorbed a sibling; they must live longer than
// their cookies. An account may have only the marker of a claim, without which that claim would be
// merged again.
func (f fields) empty() bool {
	return len(f) == 1 && f[0].name == fieldIncarnation
}

// The key prefix of guests' records, and the fields of their incarnation and their state: see
// docs/claim.md.
const (
	guestKeys        = "g:"
	fieldIncarnation = ".i"
	fieldState       = ".s"
)

// unclaimed reports whether f is a guest's record with data that no account has claimed.
func (f fields) unclaimed() bool {
	n, _ := f.load()
	_, claimed := f.get(fieldState)
	return n > 0 && !claimed
}

// sizeOf estimates the memory that a record takes: with its slots in the map and the queue of its
// shard.
func sizeOf(key string, f fields) int64 {
	if len(f) == 0 {
		return 0
	}
	n := 160 + allocated(len(key)) + allocated(len(f)*32)
	for _, f := range f {
		n += allocated(len(f.name)) + allocated(len(f.value))
	}
	return int64(n)
}

// allocated is about what Go takes for n bytes: its size classes waste up to an eighth.
func allocated(n int) int { return (n + n/8 + 15) &^ 15 }
