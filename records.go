package guest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/guestkit/guest/internal/record"
)

// records is the store as this package uses it. Each call is reported to Hooks.StoreCall; calls of
// a request that fail use up its time budget.
type records struct {
	store  Store
	report *reporter
	budget time.Duration // Config.StoreBudget
}

func (s *records) get(
	ctx context.Context, b *requestBudget, key string, names ...string,
) (fields Fields, err error) {
	err = s.call(ctx, b, "get", func(ctx context.Context) (err error) {
		fields, err = s.store.Get(ctx, key, names...)
		return err
	})
	return fields, err
}

func (s *records) update(
	ctx context.Context, b *requestBudget, key string, u Update,
) (res Result, err error) {
	err = s.call(ctx, b, "update", func(ctx context.Context) (err error) {
		res, err = s.store.Update(ctx, key, u)
		return err
	})
	return res, err
}

// call calls the store within the budget, and tells its errors from the caller's.
func (s *records) call(
	ctx context.Context, b *requestBudget, op string, do func(context.Context) error,
) error {
	start := time.Now()
	limited, cancel, err := b.limit(ctx, s.budget, start)
	if err == nil {
		err = do(limited)
		cancel()
	}
	if s.report.hooks.StoreCall != nil {
		s.report.hooks.StoreCall(ctx, op, time.Since(start), err)
	}
	if err == nil || errors.Is(err, ErrQuota) || errors.Is(err, ErrInvalid) {
		return err
	}
	if err != errBudgetSpent {
		b.charge(start)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// A requestBudget is how much a request may still ask of the store; nil has no end.
//
// It bounds the time that the request waits for a store that does not answer. Each call has a
// deadline of the store's own, but a page makes several calls: the first may take all of its time,
// later ones what is left. Calls that succeed cost nothing, so a slow store is waited for as long
// as a quick one.
type requestBudget struct {
	spent  atomic.Int64 // nanoseconds of calls that failed
	until  atomic.Int64 // Unix nanoseconds; then it begins anew, as a stream may go on for hours
	guests atomic.Int32 // that the request has asked about: see mayAsk
}

// mostAsked is how many guests a request asks the store about: the visitor's own and seven others.
// If a browser brings more, its next requests go on with them.
const mostAsked = 8

// mayAsk reports whether the request may ask the store about one more guest, which it then has
// done.
func (b *requestBudget) mayAsk() bool { return b.guests.Add(1) <= mostAsked }

const budgetReturns = time.Second // after the last failed call: redisstore's breaker stays open as long

var errBudgetSpent = errors.New("earlier calls of this request failed, so the store is not asked again " +
	"for a second (see Config.StoreBudget)")

// limit returns the context for a call that begins now. The error is errBudgetSpent.
func (b *requestBudget) limit(
	ctx context.Context, most time.Duration, now time.Time,
) (context.Context, context.CancelFunc, error) {
	if b == nil {
		return ctx, func() {}, nil
	}
	spent := time.Duration(b.spent.Load())
	switch {
	case spent == 0:
		return ctx, func() {}, nil
	case now.UnixNano() >= b.until.Load():
		b.spent.Store(0)
		return ctx, func() {}, nil
	case spent >= most:
		return ctx, nil, errBudgetSpent
	}
	ctx, cancel := context.WithTimeout(ctx, most-spent)
	return ctx, cancel, nil
}

// charge charges a failed call that began at start.
func (b *requestBudget) charge(start time.Time) {
	if b != nil {
		now := time.Now()
		b.spent.Add(int64(now.Sub(start)))
		b.until.Store(now.Add(budgetReturns).UnixNano())
	}
}

// whileOpen is the condition of writes to a guest. It is never changed.
var whileOpen = Fields{record.State: ""}

// renewal extends the life of a guest that is not claimed, or begins it.
func renewal(ttl time.Duration) Update {
	return Update{
		If: whileOpen, Default: Fields{record.Incarnation: record.NewIncarnation()}, TTL: ttl,
	}
}

// markFirst lets one of all updates of a record find that it was the first: the field keeps its
// mark.
func (u *Update) markFirst(field string) {
	u.Default[field] = record.NewIncarnation()
	u.Return = append(u.Return[:len(u.Return):len(u.Return)], field)
}

// isFirst reports whether the update was marked so and was the first.
func (r *Result) isFirst(u *Update, field string) bool {
	mark := u.Default[field]
	return mark != "" && r.Fields[field] == mark
}
