package redisstore

import (
	"context"
	"encoding/binary"
	"hash/crc64"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/guestkit/guest"
	"github.com/redis/go-redis/v9"
)

// The first write of a guest is the most usual of all, and needs no script: RESTORE makes a record and sets its life in one
// step, unless there is one, at a third of a script's cost. What it leaves to the script is rare: a record that exists, and a
// Redis that does not let us. A birth that was applied though its reply was lost is known by the fields in Default, which no
// other update has.

// A birth is the update that makes a record.
type birth struct {
	fields guest.Fields // the record
	op     operation    // its argument is the record as DUMP writes it
	ttl    int64        // milliseconds; 0: for ever
}

// birthOf returns the birth that u asks for; nil: the script has to decide.
func (s *Store) birthOf(u guest.Update) *birth {
	if !u.New || s.unborn.Load() || len(u.Default) == 0 || u.Drop || u.Reserve || u.Stamp != "" || !u.NotAfter.IsZero() {
		return nil
	}
	for _, must := range u.If {
		if must != "" {
			return nil
		}
	}
	fields := make(guest.Fields, len(u.Default)+len(u.Set)+len(u.Add))
	maps.Copy(fields, u.Default)
	maps.Copy(fields, u.Set)
	for name, n := range u.Add {
		if n < -1<<53 || n > 1<<53 {
			return nil
		}
		if n != 0 {
			fields[name] = strconv.FormatInt(n, 10)
		}
	}
	count, size := 0, 0
	for name, value := range fields {
		if !strings.HasPrefix(name, ".") {
			count++
			size += len(name) + len(value)
		}
	}
	if u.Quota.Fields > 0 && count > u.Quota.Fields || u.Quota.Bytes > 0 && size > u.Quota.Bytes {
		return nil
	}
	return &birth{fields: fields, op: operation{arg: dump(fields)}, ttl: milliseconds(u.TTL)}
}

// bear makes the record, if there is none.
func (s *Store) bear(ctx context.Context, to processor, key string, b *birth) error {
	b.op.prepare()
	return s.send(ctx, to, redis.NewCmd(ctx, "restore", key, b.ttl, &b.op))
}

// leftToScript reports whether the script has to decide, as there is a record, or Redis is full, or has no such command for
// us: then it is not asked again.
func (s *Store) leftToScript(err error) bool {
	if err == nil || !isReply(err) || isRefusal(err) || err == errTooFew {
		return false
	}
	if text := err.Error(); strings.HasPrefix(text, "NOPERM ") || strings.HasPrefix(text, "ERR ") {
		s.unborn.Store(true)
	}
	return true
}

// result reads what u would return of the record.
func (b *birth) result(u guest.Update) guest.Result {
	if u.ReturnAll {
		return guest.Result{Applied: true, Fields: b.fields}
	}
	res := guest.Result{Applied: true, Fields: make(guest.Fields, len(u.Return))}
	for _, name := range u.Return {
		if value, ok := b.fields[name]; ok {
			res.Fields[name] = value
		}
	}
	return res
}

// dump returns a hash as Redis's DUMP writes it: a type, the strings with their lengths, the version of the format, a
// checksum. The version is Redis 5's; later ones read it.
func dump(fields guest.Fields) []byte {
	const (
		hash    = 4
		version = 9
	)
	size := 16
	for name, value := range fields {
		size += len(name) + len(value) + 10
	}
	b := append(make([]byte, 0, size), hash)
	b = appendLength(b, len(fields))
	for name, value := range fields {
		b = append(appendLength(b, len(name)), name...)
		b = append(appendLength(b, len(value)), value...)
	}
	b = binary.LittleEndian.AppendUint16(b, version)
	return binary.LittleEndian.AppendUint64(b, checksum(b))
}

func appendLength(b []byte, n int) []byte {
	switch {
	case n < 1<<6:
		return append(b, byte(n))
	case n < 1<<14:
		return append(b, 0x40|byte(n>>8), byte(n))
	}
	return binary.BigEndian.AppendUint32(append(b, 0x80), uint32(n))
}

// checksum is the CRC-64 of Jones, as Redis has it: unlike hash/crc64 it inverts nothing.
func checksum(b []byte) uint64 { return ^crc64.Update(^uint64(0), jones, b) }

var jones = crc64.MakeTable(0x95ac9329ac4bc9b5)

func milliseconds(ttl time.Duration) int64 {
	return int64(max(0, (ttl+time.Millisecond-1)/time.Millisecond)) // rounded up: at least that long
}
