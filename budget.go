package guest

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// A patience is how long a request may still wait for a store that does not answer. Each call has a deadline of the
// store's, but a page makes several calls: the first may take all of its time, later ones what is left. Calls that succeed
// cost nothing, so a slow store is waited for as long as a quick one.
type patience struct {
	spent atomic.Int64 // nanoseconds waited in vain
	until atomic.Int64 // Unix nanoseconds; then all is forgotten, as a stream may go on for hours
}

// patienceKey is for the calls by which a request finds out whose it is: the visitor is not in their context yet.
type patienceKey struct{}

const patienceReturns = time.Second // after the last call in vain: redisstore's breaker keeps still as long

var errImpatient = errors.New("earlier calls of this request were in vain, so the store is not asked again for a second; see Config.StoreBudget")

// limit returns the context for a call that begins now, or an error if there is no patience left. nil has no end of it.
func (p *patience) limit(ctx context.Context, most time.Duration, now time.Time) (context.Context, context.CancelFunc, error) {
	if p == nil {
		return ctx, func() {}, nil
	}
	spent := time.Duration(p.spent.Load())
	switch {
	case spent == 0:
		return ctx, func() {}, nil
	case now.UnixNano() >= p.until.Load():
		p.spent.Store(0)
		return ctx, func() {}, nil
	case spent >= most:
		return ctx, nil, errImpatient
	}
	ctx, cancel := context.WithTimeout(ctx, most-spent)
	return ctx, cancel, nil
}

// spend is told of a call that began at start and was in vain.
func (p *patience) spend(start time.Time) {
	if p != nil {
		now := time.Now()
		p.spent.Add(int64(now.Sub(start)))
		p.until.Store(now.Add(patienceReturns).UnixNano())
	}
}
