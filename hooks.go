package guest

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"
)

// Hooks observe a [Manager]. Each function must be quick and safe for concurrent use; nil: off, and
// costs nothing. Each is called once for each event, by the process that sees it, so that counters
// of all replicas add up. The context is that of the request, with the visitor in it if it is
// decided who that is.
//
// adapters/promguest and adapters/otelguest make Hooks; [Hooks.And] joins them.
type Hooks struct {
	// Created: a new guest. It is told when the guest's token goes out or its first data are
	// stored, whichever is first: a guest that the same request takes back, as it claims or its
	// page is public, was none.
	Created func(context.Context)

	// Returned: a guest's cookie came back for the first time, however many requests bring it. A
	// guest is claimed without it if Config.Account names an account on that very request. Adds
	// some 20 bytes to the guest's record.
	Returned func(context.Context)

	// FirstWrite: a guest's first data were stored. Adds some 20 bytes to the guest's record.
	FirstWrite func(context.Context)

	// Refused: a token or a claim was turned away. reason is one of the constants, such as
	// [RefusedToken].
	Refused func(ctx context.Context, reason string)

	// Claimed: a guest was claimed, once; or, with Receipt.Replayed, a claim found that done
	// already; or, with Receipt.Pending, an attempt left it unfinished. A claim whose very last
	// reply is lost is told as Pending and then as Replayed.
	Claimed func(context.Context, Receipt)

	// Stuck: Recover failed to finish a claim that is over 24 hours old. Told again by every
	// Recover.
	Stuck func(ctx context.Context, r Receipt, err error)

	// StoreCall: the store was called. op is "get" or "update"; [StoreErrorClass] sorts the errors.
	StoreCall func(ctx context.Context, op string, d time.Duration, err error)
}

// Why Hooks.Refused was called. The first two are about what a request brings: the visitor has
// another guest, or none. The others are about claims.
const (
	RefusedToken       = "invalid_token"      // a cookie or header does not verify
	RefusedCookies     = "different_cookies"  // two different guest cookies of one name; the first is served
	RefusedAmbiguous   = "ambiguous_claim"    // a claim, ticket or Forget with such cookies
	RefusedCrossOrigin = "cross_origin_claim" // a claim, ticket or Forget that another origin's page sent
	RefusedClaimed     = "claimed_by_other"   // a claim of a guest that another account has
	RefusedTicket      = "invalid_ticket"     // a ticket was tampered with, has expired, or is another audience's
)

// And returns Hooks that call first h and then other.
func (h Hooks) And(other Hooks) Hooks {
	return Hooks{
		Created:    both1(h.Created, other.Created),
		Returned:   both1(h.Returned, other.Returned),
		FirstWrite: both1(h.FirstWrite, other.FirstWrite),
		Refused:    both2(h.Refused, other.Refused),
		Claimed:    both2(h.Claimed, other.Claimed),
		Stuck:      both3(h.Stuck, other.Stuck),
		StoreCall:  both4(h.StoreCall, other.StoreCall),
	}
}

func both1[A any](f, g func(A)) func(A) {
	if f == nil {
		return g
	}
	if g == nil {
		return f
	}
	return func(a A) { f(a); g(a) }
}

func both2[A, B any](f, g func(A, B)) func(A, B) {
	if f == nil {
		return g
	}
	if g == nil {
		return f
	}
	return func(a A, b B) { f(a, b); g(a, b) }
}

func both3[A, B, C any](f, g func(A, B, C)) func(A, B, C) {
	if f == nil {
		return g
	}
	if g == nil {
		return f
	}
	return func(a A, b B, c C) { f(a, b, c); g(a, b, c) }
}

func both4[A, B, C, D any](f, g func(A, B, C, D)) func(A, B, C, D) {
	if f == nil {
		return g
	}
	if g == nil {
		return f
	}
	return func(a A, b B, c C, d D) { f(a, b, c, d); g(a, b, c, d) }
}

// An appError is what a function of the app returned or panicked with. Its text may hold IDs and
// data, so it goes to the caller and to hooks, and not into the log.
type appError struct {
	what string // went wrong, without that text
	err  error
}

func (e *appError) Error() string { return e.err.Error() }
func (e *appError) Unwrap() error { return e.err }

// A reporter tells the app what happens: by its Hooks, and what no caller hears of by its log.
type reporter struct {
	hooks  Hooks
	logger *slog.Logger
	warned atomic.Int64 // Unix nanoseconds of the last line
}

func (r *reporter) created(ctx context.Context) {
	if r.hooks.Created != nil {
		r.hooks.Created(ctx)
	}
}

func (r *reporter) refused(ctx context.Context, reason string) {
	if r.hooks.Refused != nil {
		r.hooks.Refused(ctx, reason)
	}
}

func (r *reporter) claimed(ctx context.Context, receipt Receipt) {
	if r.hooks.Claimed != nil {
		r.hooks.Claimed(ctx, receipt)
	}
}

const warnEvery = 10 * time.Second

// warn logs a failure that no caller is told of, at most once in ten seconds.
func (r *reporter) warn(msg string, err error) {
	if app := (*appError)(nil); errors.As(err, &app) {
		err = errors.New(app.what +
			" (what it said is in the error of Claim, Recover and Hooks.Stuck)")
	}
	now := time.Now().UnixNano()
	last := r.warned.Load()
	if now-last >= int64(warnEvery) && r.warned.CompareAndSwap(last, now) {
		r.logger.Warn("guest: "+msg, "error", err)
	}
}
