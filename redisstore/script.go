package redisstore

import (
	"crypto/sha1"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/guestkit/guest"
)

//go:embed lua/update.lua
var updateScript string

// updateSHA is in an interface once and for all.
var updateSHA = hashOf(updateScript)

func hashOf(script string) any {
	sum := sha1.Sum([]byte(script))
	return hex.EncodeToString(sum[:])
}

// A request is an update as lua/update.lua wants it: ARGV.
type request struct {
	head []byte   // numbers; the first of them is the operation's ID, to be filled in
	rest []string // names and values
	met  []string // the names in If, in the order of their answer

	roomForHead  [128]byte // a small update is one allocation
	roomForNames [6]string
}

// fill makes the request; confirm: replicas are to confirm the answer.
func (q *request) fill(u guest.Update, confirm bool) {
	if u.Drop { // no other change is made
		u.Default, u.Set, u.Add, u.Unset, u.UnsetPrefix = nil, nil, nil, nil, nil
	}
	r := readingOf(u, q.roomForNames[:0])
	list := r.names
	q.met = r.names[:r.met]
	for _, name := range r.names[r.absent:r.met] {
		list = append(list, u.If[name])
	}
	for _, name := range r.names[r.met:r.defaulted] {
		list = append(list, u.Default[name])
	}
	for _, name := range r.names[r.defaulted:r.added] {
		n := "none" // no sum is valid, and Lua could not even read it
		if v := u.Add[name]; exact(v) {
			n = strconv.FormatInt(v, 10)
		}
		list = append(list, n)
	}
	for name, value := range u.Set {
		list = append(list, name, value)
	}
	list = append(list, u.Unset...)
	list = append(list, u.UnsetPrefix...)
	if u.Stamp != "" {
		list = append(list, u.Stamp)
	}
	switch {
	case r.again:
		list = append(list, u.Return...)
	case len(u.Return) > 1:
		places := make([]byte, 0, 4*len(u.Return))
		for _, name := range u.Return {
			places = appendCount(places, r.place(name))
		}
		list = append(list, string(places))
	}

	q.head = appendNumbers(q.roomForHead[:idSize], u, r, confirm)
	q.rest = list
}

// A reading is what the script reads before it changes anything. The place of a field is its number among the names.
type reading struct {
	names                         []string
	absent, met, defaulted, added int  // the ends of those that must be absent, those in If, Default and Add; others are for Return
	again                         bool // what Return names is read at the end instead, as the script overwrites some of it unread
}

func readingOf(u guest.Update, room []string) (r reading) {
	r.names = room
	for name, value := range u.If {
		if value == "" {
			r.names = append(r.names, name)
		}
	}
	r.absent = len(r.names)
	if r.absent < len(u.If) { // seldom: a map takes long to walk
		for name, value := range u.If {
			if value != "" {
				r.names = append(r.names, name)
			}
		}
	}
	r.met = len(r.names)
	for name := range u.Default {
		r.names = append(r.names, name)
	}
	r.defaulted = len(r.names)
	for name := range u.Add {
		r.names = append(r.names, name)
	}
	r.added = len(r.names)
	if r.again = slices.ContainsFunc(u.Return, func(name string) bool { return overwrites(u, name) }); !r.again {
		for _, name := range u.Return {
			if !slices.Contains(r.names, name) {
				r.names = append(r.names, name)
			}
		}
	}
	return r
}

// place looks from behind: a field in If as well as in Add has its new value there.
func (r reading) place(name string) int {
	place := len(r.names)
	for r.names[place-1] != name {
		place--
	}
	return place
}

// The ways through the script.
const (
	wayUsual = iota
	wayRare  // the head says more
)

// appendNumbers writes the head.
func appendNumbers(head []byte, u guest.Update, r reading, confirm bool) []byte {
	timed := u.Stamp != "" || !u.NotAfter.IsZero()
	ttl := milliseconds(u.TTL)
	const extend, keep, confirmed = 1, 2, 4
	mode := byte(0)
	switch {
	case ttl > 0 && u.KeepTTL:
		mode = keep
	case ttl > 0:
		mode = extend
	}
	place := 0
	if len(u.Return) == 1 && !r.again {
		place = r.place(u.Return[0])
	}
	counts := [...]int{r.absent, r.met - r.absent, len(u.Default), len(u.Add), len(r.names), len(u.Set), len(u.Unset), len(u.Return), place}
	wide := slices.Max(counts[:]) > math.MaxUint8
	rare := u.Drop || u.Reserve || u.ReturnAll || u.New || r.again || timed || len(u.UnsetPrefix) > 0
	way := byte(wayUsual)
	if rare {
		way = wayRare
	}

	if confirm {
		mode |= confirmed
	}
	head = append(head, way, flag(wide), mode)
	for _, n := range counts {
		head = append(head, byte(n))
	}
	head = appendFloat(head, ttl)
	head = appendCount(head, u.Quota.Fields)
	head = appendCount(head, u.Quota.Bytes)
	if wide {
		for _, n := range counts {
			head = appendCount(head, n)
		}
	}
	if rare {
		head = append(head, flag(u.Drop), flag(u.Reserve), flag(u.ReturnAll), flag(u.New), flag(r.again), flag(timed), flag(u.Stamp != ""))
		head = appendCount(head, len(u.UnsetPrefix))
		notAfter := int64(0)
		if !u.NotAfter.IsZero() {
			notAfter = max(1, u.NotAfter.UnixMilli())
		}
		head = appendFloat(head, notAfter)
	}
	return head
}

// exact reports whether Lua holds the number exactly.
func exact(n int64) bool { return -1<<53 <= n && n <= 1<<53 }

func milliseconds(ttl time.Duration) int64 {
	return int64(max(0, (ttl+time.Millisecond-1)/time.Millisecond)) // rounded up: at least that long
}

func appendCount(b []byte, n int) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(min(max(0, int64(n)), math.MaxUint32)))
}

func appendFloat(b []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(b, math.Float64bits(float64(n)))
}

// overwrites reports whether the script changes the field without reading it.
func overwrites(u guest.Update, name string) bool {
	_, is := u.Set[name]
	return is || name == u.Stamp || slices.Contains(u.Unset, name) ||
		slices.ContainsFunc(u.UnsetPrefix, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}
