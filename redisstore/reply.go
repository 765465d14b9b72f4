package redisstore

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/guestkit/guest"
)

// A reply is what a script answers.
type reply struct {
	status int64
	fields guest.Fields // of statusApplied and statusNotApplied
	now    string       // the same: the time in Unix milliseconds, if the update needs it
	detail string       // of an error: what is wrong; the time of the latest operation remembered
}

const (
	statusApplied    = 1
	statusNotApplied = 0
	statusStale      = -1 // older than all operations that the record remembers
	statusOverQuota  = -2
	statusInvalid    = -3
	statusNoClock    = -4 // TIME is refused in scripts
)

// errReply: what answers is no Redis that understood us.
var errReply = errors.New("the reply is not one to this command")

// parseReply takes a status; or a status and a message, for an error; or a status, and names and
// values in turn.
func parseReply(answer any) (r reply, err error) {
	raw, isList := answer.([]any)
	if !isList {
		raw = []any{answer}
	}
	if len(raw) == 0 {
		return r, permanent{errReply}
	}
	status, isNumber := raw[0].(int64)
	r.status, raw = status, raw[1:]
	switch r.status {
	case statusStale, statusOverQuota, statusInvalid, statusNoClock:
		if len(raw) == 1 {
			detail, isString := raw[0].(string)
			if r.detail = detail; isString {
				return r, nil
			}
		}
	case statusApplied, statusNotApplied:
		r.fields = make(guest.Fields, len(raw)/2)
		for ; len(raw) >= 2; raw = raw[2:] {
			name, _ := raw[0].(string)
			if name == "!now" {
				r.now, _ = raw[1].(string)
			}
			addField(r.fields, name, raw[1])
		}
		if isNumber && len(raw) == 0 {
			return r, nil
		}
	}
	return reply{}, permanent{errReply}
}

func (r reply) err() error {
	switch r.status {
	case statusStale:
		return errors.New("too many other updates came in between to find out")
	case statusOverQuota:
		return fmt.Errorf("%w: the record would have %s", guest.ErrQuota, r.detail)
	case statusInvalid:
		return fmt.Errorf("%w: %s", guest.ErrInvalid, r.detail)
	case statusNoClock:
		return fmt.Errorf("%w: no clock", errReply) // the script had got one
	}
	return nil
}

func (r reply) result() guest.Result {
	res := guest.Result{Applied: r.status == statusApplied, Fields: r.fields}
	if r.now != "" {
		res.Now = time.UnixMilli(number(r.now))
	}
	return res
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}
