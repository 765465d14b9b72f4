package redisstore

import (
	"context"
	"encoding/binary"
	"hash/crc64"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/guestkit/guest"
	"github.com/redis/go-redis/v9"
)

// The first write of a guest is the most usual of all, and needs no script: RESTORE makes a record and sets its life in one
// step, unless there is one, at a fifth of a script's cost. What it leaves to the script is rare: a record that exists, and a
// Redis that does not let us. A birth that was applied though its reply was lost is known by the fields in Default, which no
// other update has.

// A birth is the update that makes a record.
type birth struct {
	op   operation // its argument is the record as DUMP writes it
	args [4]any
}

// birthOf returns the birth that u asks for; nil: the script has to decide.
func (s *Store) birthOf(key string, u guest.Update) *birth {
	if !u.New || s.unborn.Load() || len(u.Default) == 0 || u.Drop || u.Reserve || u.Stamp != "" || !u.NotAfter.IsZero() {
		return nil
	}
	for _, must := range u.If {
		if must != "" {
			return nil
		}
	}
	for _, n := range u.Add {
		if n == 0 || !exact(n) { // 0 makes no field
			return nil
		}
	}
	record, fields, size := beginDump(len(u.Default)+len(u.Set)+len(u.Add)), 0, 0
	for name, value := range newFields(u) {
		record = appendString(appendString(record, name), value)
		if !strings.HasPrefix(name, ".") {
			fields++
			size += len(name) + len(value)
		}
	}
	if u.Quota.Fields > 0 && fields > u.Quota.Fields || u.Quota.Bytes > 0 && size > u.Quota.Bytes {
		return nil
	}
	b := &birth{op: operation{arg: endDump(record)}}
	b.args = [...]any{"restore", key, milliseconds(u.TTL), &b.op} // 0: for ever
	return b
}

// newFields yields what a birth makes of nothing.
func newFields(u guest.Update) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, fields := range [...]guest.Fields{u.Default, u.Set} {
			for name, value := range fields {
				if !yield(name, value) {
					return
				}
			}
		}
		for name, n := range u.Add {
			if !yield(name, strconv.FormatInt(n, 10)) {
				return
			}
		}
	}
}

// bear makes the record, if there is none.
func (s *Store) bear(ctx context.Context, b *birth) error {
	b.op.prepare()
	cmd := redis.NewCmd(ctx, b.args[:]...)
	if err := s.send(ctx, s.rdb, cmd); err != nil {
		return err
	}
	if cmd.Val() != "OK" {
		return final{errReply}
	}
	return nil
}

// leftToScript reports whether the script has to decide, as there is a record, or Redis is full, or has no such command for
// us: then it is not asked again.
func (s *Store) leftToScript(err error) bool {
	if err == nil || !isReply(err) || isRefusal(err) {
		return false
	}
	if text := err.Error(); strings.HasPrefix(text, "NOPERM ") || strings.HasPrefix(text, "ERR unknown command") || strings.HasPrefix(text, "ERR DUMP ") {
		s.unborn.Store(true)
	}
	return true
}

// born is the result of an update that has made a record.
func born(u guest.Update) guest.Result {
	res := guest.Result{Applied: true}
	if len(u.Return) > 0 || u.ReturnAll {
		res.Fields = make(guest.Fields, len(u.Return))
		for name, value := range newFields(u) {
			if u.ReturnAll || slices.Contains(u.Return, name) {
				res.Fields[name] = value
			}
		}
	}
	return res
}

// A hash as Redis's DUMP writes it: a type, the number of fields, names and values with their lengths, the version of the
// format, a checksum. The version is Redis 5's; later ones read it.

func beginDump(fields int) []byte {
	const hash = 4
	return appendLength(append(make([]byte, 0, 256), hash), fields)
}

func endDump(b []byte) []byte {
	const version = 9
	b = binary.LittleEndian.AppendUint16(b, version)
	return binary.LittleEndian.AppendUint64(b, checksum(b))
}

func appendString(b []byte, s string) []byte { return append(appendLength(b, len(s)), s...) }

func appendLength(b []byte, n int) []byte {
	switch {
	case n < 1<<6:
		return append(b, byte(n))
	case n < 1<<14:
		return append(b, 0x40|byte(n>>8), byte(n))
	}
	return binary.BigEndian.AppendUint32(append(b, 0x80), uint32(n))
}

// checksum is the CRC-64 of Jones, as Redis has it: unlike hash/crc64 it inverts nothing, and it takes eight bytes at a time,
// which hash/crc64 does for polynomials of its own.
func checksum(b []byte) (crc uint64) {
	for ; len(b) >= 8; b = b[8:] {
		crc ^= binary.LittleEndian.Uint64(b)
		crc = jones[7][byte(crc)] ^ jones[6][byte(crc>>8)] ^ jones[5][byte(crc>>16)] ^ jones[4][byte(crc>>24)] ^
			jones[3][byte(crc>>32)] ^ jones[2][byte(crc>>40)] ^ jones[1][byte(crc>>48)] ^ jones[0][crc>>56]
	}
	for _, c := range b {
		crc = jones[0][byte(crc)^c] ^ crc>>8
	}
	return crc
}

// jones[n] says what a byte is worth that n others follow.
var jones = func() (tables [8]crc64.Table) {
	tables[0] = *crc64.MakeTable(0x95ac9329ac4bc9b5)
	for n := 1; n < len(tables); n++ {
		for i, crc := range tables[n-1] {
			tables[n][i] = tables[0][byte(crc)] ^ crc>>8
		}
	}
	return tables
}()
