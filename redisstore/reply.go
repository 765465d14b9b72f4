package redisstore

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/guestkit/guest"
)

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
	switch a := answer.(type) {
	case int64: // that is all
		raw = []any{answer}
	case string:
		r.status, r.values = statusApplied, []any{answer}
		if a == "" {
			r.values[0] = nil
		}
		return r, badReply(len(u.Return) == 1)
	case []any:
		raw = a
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
