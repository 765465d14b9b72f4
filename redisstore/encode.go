package redisstore

import (
	"encoding/binary"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/guestkit/guest"
)

// The arguments of the scripts, as the heads of the files in lua/ list them.

// createArgs returns ARGV of lua/create.lua; nil: the update is not one for it.
func createArgs(u guest.Update) []string {
	if !u.New || len(u.Default) == 0 || u.Drop || u.Reserve || timed(u) {
		return nil
	}
	for _, value := range u.If {
		if value != "" {
			return nil
		}
	}
	for _, n := range u.Add {
		if n == 0 || !exact(n) { // 0 makes no field
			return nil
		}
	}
	argv := []string{milliseconds(u.TTL)}
	fields, size := 0, 0
	for name, value := range created(u) {
		argv = append(argv, name, value)
		if !strings.HasPrefix(name, ".") {
			fields++
			size += len(name) + len(value)
		}
	}
	if u.Quota.Fields > 0 && fields > u.Quota.Fields || u.Quota.Bytes > 0 && size > u.Quota.Bytes {
		return nil
	}
	if fields > 0 {
		argv = append(argv, "!", ownField(fields, size))
	}
	return argv
}

// created yields the fields of a record that the update creates.
func created(u guest.Update) iter.Seq2[string, string] {
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

// ownField is the field "!" of a record that was created and not changed since; lua/write.lua
// describes it.
func ownField(fields, size int) string {
	own := binary.BigEndian.AppendUint16(nil, uint16(min(fields, math.MaxUint16)))
	return string(binary.BigEndian.AppendUint32(own, uint32(min(size, math.MaxUint32))))
}

// writeArgs returns ARGV of lua/write.lua from the second on; nil: the update is not one for it.
func writeArgs(u guest.Update) []string {
	if !u.Once || u.New || u.Drop || u.Reserve || u.ReturnAll || timed(u) ||
		u.TTL > 0 && !u.KeepTTL || len(u.If) > 1 || len(u.Default) > 1 ||
		len(u.Set)+len(u.Add)+len(u.Unset) != 1 || len(u.UnsetPrefix) > 0 {
		return nil
	}
	var action, field, operand, barred, name, value string
	for field, operand = range u.Set {
		action = "set"
	}
	for item, n := range u.Add {
		if !exact(n) {
			return nil
		}
		action, field, operand = "add", item, strconv.FormatInt(n, 10)
	}
	for _, field = range u.Unset {
		action = "remove"
	}
	for must, value := range u.If {
		if must == "" || value != "" {
			return nil
		}
		barred = must
	}
	for name, value = range u.Default {
		if !strings.HasPrefix(name, ".") {
			return nil
		}
	}
	var returns []string // what the script does
	if action == "add" {
		returns = []string{field}
	}
	if strings.HasPrefix(field, ".") || !slices.Equal(u.Return, returns) {
		return nil
	}
	return []string{
		action, field, operand, barred, name, value,
		count(u.Quota.Fields), count(u.Quota.Bytes), milliseconds(u.TTL),
	}
}

// updateArgs returns ARGV of lua/update.lua from the second on; confirm: replicas are to confirm
// the answer.
func updateArgs(u guest.Update, confirm bool) []string {
	var argv []string
	words := func(w ...string) { argv = append(argv, w...) }
	fields := func(word string, fields guest.Fields) {
		for name, value := range fields {
			words(word, name, value)
		}
	}
	list := func(word string, names []string) {
		for _, name := range names {
			words(word, name)
		}
	}
	flag := func(word string, is bool) {
		if is {
			words(word, "1")
		}
	}

	fields("if", u.If)
	if !u.NotAfter.IsZero() {
		words("notafter", strconv.FormatInt(max(0, u.NotAfter.UnixMilli()), 10))
	}
	if u.Stamp != "" {
		words("stamp", u.Stamp)
	}
	flag("reserve", u.Reserve)
	flag("confirm", confirm)
	if u.Drop {
		words("drop", "1")
		list("return", u.Return) // if a condition does not hold
		flag("returnall", u.ReturnAll)
		return argv
	}
	fields("default", u.Default)
	fields("set", u.Set)
	for name, n := range u.Add {
		operand := "beyond" // what Lua cannot hold exactly makes no valid sum
		if exact(n) {
			operand = strconv.FormatInt(n, 10)
		}
		words("add", name, operand)
	}
	list("unset", u.Unset)
	list("unsetprefix", u.UnsetPrefix)
	if u.Quota.Fields > 0 {
		words("maxfields", count(u.Quota.Fields))
	}
	if u.Quota.Bytes > 0 {
		words("maxbytes", count(u.Quota.Bytes))
	}
	switch {
	case u.TTL > 0 && u.KeepTTL:
		words("newttl", milliseconds(u.TTL))
	case u.TTL > 0:
		words("ttl", milliseconds(u.TTL))
	}
	flag("new", u.New)
	list("return", u.Return)
	flag("returnall", u.ReturnAll)
	return argv
}

// timed reports whether the update needs the clock.
func timed(u guest.Update) bool { return u.Stamp != "" || !u.NotAfter.IsZero() }

// exact reports whether Lua holds the number exactly.
func exact(n int64) bool { return -1<<53 <= n && n <= 1<<53 }

func milliseconds(ttl time.Duration) string {
	n := ttl.Milliseconds()
	if ttl%time.Millisecond > 0 {
		n++ // it lives at least that long
	}
	return strconv.FormatInt(max(0, n), 10)
}

func count(n int) string { return strconv.Itoa(max(0, n)) }

// createdResult is the result of an update that has created a record.
func createdResult(u guest.Update) guest.Result {
	res := guest.Result{Applied: true}
	if len(u.Return) == 0 && !u.ReturnAll {
		return res
	}
	all := maps.Collect(created(u))
	if u.ReturnAll {
		res.Fields = all
		return res
	}
	res.Fields = make(guest.Fields, len(u.Return))
	for _, name := range u.Return {
		if value, ok := all[name]; ok {
			res.Fields[name] = value
		}
	}
	return res
}
