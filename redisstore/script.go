package redisstore

import (
	"crypto/sha1"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/guestkit/guest"
)

//go:embed lua/update.lua
var updateScript string

var updateSHA = func() string {
	sum := sha1.Sum([]byte(updateScript))
	return hex.EncodeToString(sum[:])
}()

// A request is an update as lua/update.lua wants it: ARGV.
type request struct {
	head []byte   // numbers; the first of them is the operation's ID, to be filled in
	rest []string // names and values; none if the head holds them too
	met  []string // the names in If, in the order of their answer
}

func requestOf(u guest.Update) request {
	if u.Drop { // no other change is made
		u.Default, u.Set, u.Add, u.Unset = nil, nil, nil, nil
	}
	list := make([]string, 0, 12)
	for name, value := range u.If {
		if value == "" {
			list = append(list, name)
		}
	}
	absent := len(list)
	for name, value := range u.If {
		if value != "" {
			list = append(list, name)
		}
	}
	met := len(list)
	for name := range u.Default {
		list = append(list, name)
	}
	defaulted := len(list)
	for name := range u.Add {
		list = append(list, name)
	}
	added := len(list)
	reread := slices.ContainsFunc(u.Return, func(name string) bool { return overwrites(u, name) })
	if !reread {
		for _, name := range u.Return {
			if !reads(u, name) {
				list = append(list, name)
			}
		}
	}
	names := list

	for _, name := range names[absent:met] {
		list = append(list, u.If[name])
	}
	for _, name := range names[met:defaulted] {
		list = append(list, u.Default[name])
	}
	for _, name := range names[defaulted:added] {
		n := "none" // no sum is valid, and Lua could not even read it
		if v := u.Add[name]; -1<<53 <= v && v <= 1<<53 {
			n = strconv.FormatInt(v, 10)
		}
		list = append(list, n)
	}
	for name, value := range u.Set {
		list = append(list, name, value)
	}
	list = append(list, u.Unset...)
	if u.Stamp != "" {
		list = append(list, u.Stamp)
	}
	place := 0
	switch {
	case reread:
		list = append(list, u.Return...)
	case len(u.Return) == 1:
		place = placeOf(names, u.Return[0])
	case len(u.Return) > 1:
		places := make([]byte, 0, 4*len(u.Return))
		for _, name := range u.Return {
			places = binary.BigEndian.AppendUint32(places, uint32(placeOf(names, name)))
		}
		list = append(list, string(places))
	}

	timed := u.Stamp != "" || !u.NotAfter.IsZero()
	rare := u.Drop || u.Reserve || u.ReturnAll || reread || timed
	numbers := [...]int{absent, met - absent, len(u.Default), len(u.Add), len(names), len(u.Set), len(u.Unset), len(u.Return), place}
	wide := slices.Max(numbers[:]) > math.MaxUint8
	ttl := max(0, (u.TTL+time.Millisecond-1)/time.Millisecond) // rounded up: at least that long
	mode := byte(0)
	switch {
	case ttl > 0 && u.KeepTTL:
		mode = 2
	case ttl > 0:
		mode = 1
	}
	packed := formatLen(list)

	head := append(make([]byte, idSize, 256), flag(rare), flag(wide), mode)
	for _, n := range numbers {
		head = append(head, byte(n))
	}
	head = append(head, byte(packed))
	head = appendFloat(head, int64(ttl))
	head = appendCount(head, u.Quota.Fields)
	head = appendCount(head, u.Quota.Bytes)
	if wide {
		for _, n := range numbers {
			head = appendCount(head, n)
		}
	}
	if rare {
		head = append(head, flag(u.Drop), flag(u.Reserve), flag(u.ReturnAll), flag(reread), flag(timed), flag(u.Stamp != ""))
		notAfter := int64(0)
		if !u.NotAfter.IsZero() {
			notAfter = max(1, u.NotAfter.UnixMilli())
		}
		head = appendFloat(head, notAfter)
	}
	if packed == 0 {
		return request{head, list, names[:met]}
	}
	for _, s := range list {
		head = strconv.AppendInt(append(head, 'c'), int64(len(s)), 10)
	}
	for _, s := range list {
		head = append(head, s...)
	}
	return request{head, nil, names[:met]}
}

// formatLen returns the length of the format by which the script takes these strings out of the head; 0: they do not go in
// there, as they are many or long and would be copied once more.
func formatLen(list []string) (n int) {
	const (
		most    = 48
		longest = 512
	)
	if len(list) > most {
		return 0
	}
	for _, s := range list {
		if s == "" || len(s) > longest { // c0 means something else
			return 0
		}
		for l := 10 * len(s); l > 0; l /= 10 { // c and the digits of the length
			n++
		}
	}
	return n
}

// placeOf looks from behind: a field in If as well as in Add has its new value there.
func placeOf(names []string, name string) (place int) {
	for place = len(names); names[place-1] != name; place-- {
	}
	return place
}

func appendCount(b []byte, n int) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(min(max(0, int64(n)), math.MaxUint32)))
}

func appendFloat(b []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(b, math.Float64bits(float64(n)))
}

// reads reports whether the script reads the field anyway.
func reads(u guest.Update, name string) bool {
	_, is := u.If[name]
	if !is {
		_, is = u.Default[name]
	}
	if !is {
		_, is = u.Add[name]
	}
	return is
}

// overwrites reports whether the script changes the field without reading it.
func overwrites(u guest.Update, name string) bool {
	_, is := u.Set[name]
	return is || name == u.Stamp || slices.ContainsFunc(u.Unset, func(unset string) bool {
		return unset == name || strings.HasSuffix(unset, "/") && strings.HasPrefix(name, unset)
	})
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// A reply is what the script answers.
type reply struct {
	status int64
	detail string // of an error: the oldest time in the ring; what is wrong
	now    string // the store's clock in milliseconds, if it was asked for
	values []any  // of Return; if the update was not applied, those of If too; with ReturnAll the whole record
}

const (
	statusApplied    = 1
	statusNotApplied = 0
	statusStale      = -1 // too old for the ring of IDs
	statusOverQuota  = -2
	statusInvalid    = -3
)

func parseReply(answer any, u guest.Update) (r reply, err error) {
	var raw []any
	switch answer := answer.(type) {
	case int64: // that is all
		raw = []any{answer}
	case string:
		r.status, r.values = statusApplied, []any{answer}
		if answer == "" {
			r.values[0] = nil
		}
		return r, badReply(len(u.Return) == 1)
	case []any:
		raw = answer
	}
	ok := len(raw) >= 1
	if ok {
		r.status, ok = raw[0].(int64)
		raw = raw[1:]
	}
	if ok && (r.status == statusStale || r.status == statusOverQuota || r.status == statusInvalid) && len(raw) == 1 {
		r.detail, ok = raw[0].(string)
		return r, badReply(ok)
	}
	if ok && (u.Stamp != "" || !u.NotAfter.IsZero()) {
		if ok = len(raw) >= 1; ok {
			r.now, ok = raw[len(raw)-1].(string)
			raw = raw[:len(raw)-1]
		}
	}
	want := len(u.Return)
	switch {
	case !ok || r.status != statusApplied && r.status != statusNotApplied:
		ok = false
	case u.Drop && r.status == statusApplied:
		want = 0
	case u.ReturnAll:
		if ok = len(raw) == 1; ok {
			raw, ok = raw[0].([]any)
		}
		want = len(raw)
	case r.status == statusNotApplied:
		want += len(u.If)
	}
	r.values = raw
	return r, badReply(ok && len(raw) == want)
}

func badReply(ok bool) error {
	if ok {
		return nil
	}
	return final{errReply}
}

func (r reply) err() error {
	switch r.status {
	case statusStale:
		return errors.New("too many other updates came in between to find out")
	case statusOverQuota:
		return fmt.Errorf("%w: the record would have %s", guest.ErrQuota, r.detail)
	case statusInvalid:
		return fmt.Errorf("%w: %s", guest.ErrInvalid, r.detail)
	}
	return nil
}

// result reads the answer to u; met are the names in u.If, in the order in which they were sent.
func (r reply) result(u guest.Update, met []string) guest.Result {
	res := guest.Result{Applied: r.status == statusApplied, Fields: make(guest.Fields, len(u.Return))}
	if r.now != "" {
		res.Now = time.UnixMilli(number(r.now))
	}
	if u.ReturnAll {
		for i := 0; i+1 < len(r.values); i += 2 {
			name, _ := r.values[i].(string)
			addField(res.Fields, name, r.values[i+1])
		}
		return res
	}
	for i, value := range r.values {
		if i < len(u.Return) {
			addField(res.Fields, u.Return[i], value)
		} else {
			addField(res.Fields, met[i-len(u.Return)], value)
		}
	}
	return res
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}
