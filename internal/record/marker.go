package record

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// A Marker in a record says that the data of one claimed guest were merged into it. It is kept
// until that guest is known to be claimed or gone: as long as the guest is frozen, its claim may be
// repeated and would merge the data again. Each marker is a field of its own, and short: a value of
// more than 64 bytes takes a record out of Redis's compact encoding.
type Marker struct {
	Incarnation string // the guest's; it is part of the field's name
	Guest       string // the guest's record key
	At          int64  // when the data were merged, Unix seconds
	Kinds       string // the Kinds of the receipt, encoded
}

// ErrMalformed: a field of the library does not have the form that this package gives it.
var ErrMalformed = errors.New("guest: the fields of a record about its claims are malformed")

// MarkerOf returns the marker of a claim; ok reports whether the record has it.
func MarkerOf(record Fields, incarnation string) (m Marker, ok bool, err error) {
	value := record[MarkerField(incarnation)]
	if value == "" {
		return m, false, nil
	}
	words := strings.SplitN(value, " ", 3)
	if len(words) != 3 {
		return m, false, ErrMalformed
	}
	at, err := strconv.ParseInt(words[1], 36, 64)
	if err != nil {
		return m, false, ErrMalformed
	}
	return Marker{incarnation, "g:" + words[0], at, words[2]}, true, nil
}

// MarkerField returns the name of a marker's field.
func MarkerField(incarnation string) string { return markerField + incarnation }

// String returns the stored form.
func (m Marker) String() string {
	return GuestID(m.Guest) + " " + strconv.FormatInt(m.At, 36) + " " + m.Kinds
}

// MarkersIn returns the incarnations whose markers a record has, sorted.
func MarkersIn(record Fields) (incarnations []string) {
	for field := range record {
		if i, is := strings.CutPrefix(field, markerField); is && i != "" {
			incarnations = append(incarnations, i)
		}
	}
	slices.Sort(incarnations)
	return incarnations
}

// EncodeGeneration returns the stored form of a generation, after the version of the record's form.
// A generation grows with every merge. So a merge that was prepared before the markers changed can
// never be applied afterwards, even if a marker was removed meanwhile.
func EncodeGeneration(n uint64) string { return string(version) + strconv.FormatUint(n, 36) }

// GenerationOf returns the generation of a record; 0 if it has none.
func GenerationOf(record Fields) (uint64, error) {
	s := record[Generation]
	switch {
	case s == "":
		return 0, nil
	case s[0] != version:
		return 0, ErrNewer
	}
	n, err := strconv.ParseUint(s[1:], 36, 64)
	if err != nil {
		return 0, ErrMalformed
	}
	return n, nil
}

// FirstGeneration returns the stored form of a random generation. It is random because the record
// may replace one that was erased.
func FirstGeneration() string {
	var b [8]byte
	rand.Read(b[3:])
	return EncodeGeneration(binary.BigEndian.Uint64(b[:]))
}
