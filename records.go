package guest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/guestkit/guest/internal/record"
)

// records is the store as this package uses it. It owns the report of each call to Hooks.StoreCall
// and the meaning of the store's errors. It does not know which request calls: the caller passes
// its time budget in, and failed calls are charged to that.
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

// call calls the store within the budget. Errors that are not the caller's fault become
// ErrUnavailable.
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

// A requestBudget is how much a request may still ask of the store. A nil budget has no limit.
//
// It bounds the time that a request waits for a store that does not answer. Each call has a
// deadline of the store's own, but a page makes several calls: the first may use all of its time,
// later calls get what is left of the budget. Calls that succeed cost nothing, so a slow store is
// waited for as long as a fast one.
type requestBudget struct {
	spent  atomic.Int64 // nanoseconds that failed calls have taken
	until  atomic.Int64 // when the budget is whole again, Unix nanoseconds: a stream may last hours
	guests atomic.Int32 // how many the request has asked about: see mayAsk
}

// mostAsked is how many guests a request asks the store about: the visitor's own and seven others.
// If a browser brings more, its next requests go on with them.
const mostAsked = 8

// mayAsk reports whether the request may ask the store about one more guest, and counts that guest.
func (b *requestBudget) mayAsk() bool { return b.guests.Add(1) <= mostAsked }

// budgetReturns is how long after the last failed call the budget is whole again.
const budgetReturns = time.Second

var errBudgetSpent = errors.New("earlier calls of this request failed, so the store is not asked " +
	"again for a second (see Config.StoreBudget)")

// limit returns the context for a call that begins now, or errBudgetSpent.
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

// charge subtracts the time of a failed call, which began at start, from the budget.
func (b *requestBudget) charge(start time.Time) {
	if b != nil {
		now := time.Now()
		b.spent.Add(int64(now.Sub(start)))
		b.until.Store(now.Add(budgetReturns).UnixNano())
	}
}

// whileOpen is the condition of writes to a guest. It is shared and never changed.
var whileOpen = Fields{record.State: ""}

// renewal returns the update that extends the life of a guest that is not claimed, or creates its
// record.
func renewal(ttl time.Duration) Update {
	return Update{
		If: whileOpen, Default: Fields{record.Incarnation: record.NewIncarnation()}, TTL: ttl,
	}
}

// markFirst makes the update set the field, if it is absent, to a random value, and return it. So
// one of all updates of a record finds its own value there: the first.
func (u *Update) markFirst(field string) {
	u.Default[field] = record.NewIncarnation()
	u.Return = append(u.Return[:len(u.Return):len(u.Return)], field)
}

// isFirst reports whether the update called markFirst for the field and was the first.
func (r *Result) isFirst(u *Update, field string) bool {
	mark := u.Default[field]
	return mark != "" && r.Fields[field] == mark
}
