package redisstore

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/guestkit/guest"
	"github.com/redis/go-redis/v9"
)

//go:embed lua/update.lua
var updateScript string

var updateSHA = func() string {
	sum := sha1.Sum([]byte(updateScript))
	return hex.EncodeToString(sum[:])
}()

// Update implements [guest.Store].
//
// If the reply to an update is lost, it is sent again; with Once under the same ID, by which the script knows it. But
// if the repetition is not applied, or fails, the first may have been, or be still under way: the error wraps
// [guest.ErrUncertain]. With Once and Drop nothing is sent again, because the record takes its IDs along.
//
// With Config.WaitReplicas the error of an update that too few replicas have confirmed in time wraps it as well: the
// master has applied it, but a failover may undo it.
func (s *Store) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	var (
		op      = &operation{clock: &s.clock, numbered: u.Once && !u.Drop}
		args    = withPointers(updateArgs(u), "evalsha", updateSHA, "1", s.key(key), op)
		answer  reply
		to      processor = s.rdb
		unknown bool      // one of the attempts may have been applied, or undone
	)
	if s.waitReplicas > 0 {
		to = confirmed{s.rdb, s.key(key), s.waitReplicas, s.waitTimeout}
	}
	err := s.call(ctx, s.write, func(ctx context.Context) (err error) {
		answer, err = s.eval(ctx, to, op, args)
		switch {
		case err == errTooFew:
			unknown = true
		case err != nil && op.sent() && !isReply(err):
			unknown = true
			if u.Once && u.Drop {
				return final{err}
			}
		case err == nil && answer.status == statusApplied:
			unknown = false
		case err == nil && answer.status == statusStale && !unknown:
			op.renumber(number(answer.detail))
			return errAgain
		}
		return err
	})
	if err == nil {
		err = answer.err()
	}
	switch {
	case unknown && err == nil:
		return guest.Result{}, fmt.Errorf("redisstore: update: %w", guest.ErrUncertain)
	case unknown:
		return guest.Result{}, fmt.Errorf("redisstore: update: %w: %w", guest.ErrUncertain, err)
	case err != nil:
		return guest.Result{}, fmt.Errorf("redisstore: update: %w", err)
	}
	return answer.result(), nil
}

// eval runs the script once. A server that does not know it has done nothing, and gets it in full.
func (s *Store) eval(ctx context.Context, to processor, op *operation, args []any) (reply, error) {
	op.prepare()
	args[0], args[1] = "evalsha", updateSHA
	cmd := redis.NewSliceCmd(ctx, args...)
	err := s.send(ctx, to, cmd)
	if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
		op.prepare()
		args[0], args[1] = "eval", updateScript
		cmd = redis.NewSliceCmd(ctx, args...)
		err = s.send(ctx, to, cmd)
	}
	if err != nil {
		return reply{}, err
	}
	return parseReply(cmd.Val())
}

// updateArgs writes ARGV of lua/update.lua, without the first.
func updateArgs(u guest.Update) []string {
	if u.Drop { // no other change is made
		u.Default, u.Set, u.Add, u.Unset = nil, nil, nil, nil
	}
	ttl := max(0, (u.TTL+time.Millisecond-1)/time.Millisecond) // rounded up: at least that long
	notAfter := int64(0)
	if !u.NotAfter.IsZero() {
		notAfter = max(1, u.NotAfter.UnixMilli())
	}
	head := append(make([]byte, 0, 52), flag(u.Drop), flag(u.Reserve), flag(u.ReturnAll), flag(u.Stamp != ""))
	for _, ms := range [...]float64{float64(ttl), float64(notAfter)} {
		head = binary.BigEndian.AppendUint64(head, math.Float64bits(ms))
	}
	for _, n := range [...]int{u.Quota.Fields, u.Quota.Bytes, len(u.If), len(u.Default), len(u.Add), len(u.Return), len(u.Set), len(u.Unset)} {
		head = binary.BigEndian.AppendUint32(head, uint32(min(max(0, int64(n)), math.MaxUint32)))
	}

	conditions := len(u.If) + len(u.Default) + len(u.Add)
	args := make([]string, 1+2*conditions+len(u.Return)+2*len(u.Set)+len(u.Unset))
	args[0] = string(head)
	name, value := 1, 1+conditions+len(u.Return)
	for _, fields := range [...]guest.Fields{u.If, u.Default} {
		for n, v := range fields {
			args[name], args[value] = n, v
			name, value = name+1, value+1
		}
	}
	for n, v := range u.Add {
		args[name] = n
		if -1<<53 <= v && v <= 1<<53 { // else no sum is valid, and Lua could not even read it
			args[value] = strconv.FormatInt(v, 10)
		}
		name, value = name+1, value+1
	}
	copy(args[name:], u.Return)
	for n, v := range u.Set {
		args[value], args[value+1] = n, v
		value += 2
	}
	copy(args[value:], u.Unset)
	if u.Stamp != "" {
		args = append(args, u.Stamp)
	}
	return args
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
	detail string // the store's clock in milliseconds, or ""; the oldest time in the ring; what is wrong
	fields []any  // names and values in turn
}

const (
	statusApplied    = 1
	statusNotApplied = 0
	statusStale      = -1 // too old for the ring of IDs
	statusOverQuota  = -2
	statusInvalid    = -3
)

func parseReply(raw []any) (r reply, err error) {
	ok := len(raw) >= 2
	if ok {
		r.status, ok = raw[0].(int64)
		r.detail, _ = raw[1].(string)
	}
	if len(raw) == 3 {
		r.fields, _ = raw[2].([]any)
	}
	if !ok {
		err = final{errors.New("the reply is not one of our script's")}
	}
	return r, err
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

func (r reply) result() guest.Result {
	res := guest.Result{Applied: r.status == statusApplied, Fields: make(guest.Fields, len(r.fields)/2)}
	if r.detail != "" {
		res.Now = time.UnixMilli(number(r.detail))
	}
	for i := 0; i+1 < len(r.fields); i += 2 {
		name, _ := r.fields[i].(string)
		addField(res.Fields, name, r.fields[i+1])
	}
	return res
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}
