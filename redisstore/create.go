package redisstore

import (
	"context"
	_ "embed"
	"encoding/binary"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/guestkit/guest"
)

// The first write of a guest is the most frequent of all, and lua/create.lua is all that it needs. If there is a record, the
// other script decides. An update that was applied though its reply was lost is known by the fields in Default, which no other
// update has.

//go:embed lua/create.lua
var createScript string

var createSHA = hashOf(createScript)

// A creation is an update that makes a record.
type creation struct {
	op   operation // its argument is the TTL
	args []any
}

// creationOf returns the creation that u asks for; nil: the other script has to decide.
func (s *Store) creationOf(key string, u guest.Update) *creation {
	if !u.New || len(u.Default) == 0 || u.Drop || u.Reserve || u.Stamp != "" || !u.NotAfter.IsZero() {
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
	c := &creation{op: operation{arg: strconv.AppendInt(nil, milliseconds(u.TTL), 10)}}
	c.args = append(make([]any, 0, 16), "evalsha", createSHA, "1", key, &c.op)
	fields, size := 0, 0
	for name, value := range newFields(u) {
		c.args = append(c.args, name, value)
		if !strings.HasPrefix(name, ".") {
			fields++
			size += len(name) + len(value)
		}
	}
	if u.Quota.Fields > 0 && fields > u.Quota.Fields || u.Quota.Bytes > 0 && size > u.Quota.Bytes {
		return nil
	}
	if fields > 0 {
		c.args = append(c.args, "!", ownField(fields, size))
	}
	return c
}

// ownField is the field "!" of a record that was never changed; lua/update.lua describes it.
func ownField(fields, size int) string {
	own := binary.BigEndian.AppendUint16(nil, uint16(min(fields, math.MaxUint16)))
	return string(appendCount(own, size))
}

// newFields yields what a creation makes of nothing.
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

// create makes the record, and reports whether there was none.
func (s *Store) create(ctx context.Context, c *creation) (created bool, err error) {
	answer, err := s.run(ctx, s.rdb, &c.op, createScript, c.args)
	if err != nil {
		return false, err
	}
	if answer != int64(1) && answer != int64(0) {
		return false, final{errReply}
	}
	return answer == int64(1), nil
}

// created is the result of an update that has made a record.
func created(u guest.Update) guest.Result {
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
