package guest

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"
)

// Hooks observe a [Manager]. Each function must be quick and safe for concurrent use; a nil
// function is off and costs nothing. An event is reported once, by the process that sees it, so the
// counters of all replicas add up. The context is that of the request, with the visitor in it once
// it is decided who that is.
//
// adapters/promguest and adapters/otelguest make Hooks; [Hooks.And] joins them.
type Hooks struct {
	// Created: a new guest was created. It is called when the guest's token is sent or its first
	// data are stored, whichever is first. It is not called for a guest that the same request gives
	// up, because it claims another one or its response is public.
	Created func(context.Context)

	// Returned: a guest's cookie came back for the first time. It is called once, also if several
	// requests bring the cookie at the same time, and not if the first of them is signed in and
	// claims the guest. It adds about 20 bytes to the guest's record.
	Returned func(context.Context)

	// FirstWrite: a guest's first data were stored. It adds about 20 bytes to the guest's record.
	FirstWrite func(context.Context)

	// Refused: a token or a claim was refused. reason is one of the constants below, such as
	// [RefusedToken].
	Refused func(ctx context.Context, reason string)

	// Claimed: a guest was claimed, which happens once. With Receipt.Replayed: the guest had been
	// claimed before. With Receipt.Pending: an attempt left the claim unfinished. A claim whose
	// very last reply is lost is reported as Pending and later as Replayed.
	Claimed func(context.Context, Receipt)

	// Stuck: Recover failed to finish a claim whose guest was frozen more than 24 hours ago. Every
	// Recover reports it again.
	Stuck func(ctx context.Context, r Receipt, err error)

	// StoreCall: the store was called. op is "get" or "update", d is how long it took;
	// [StoreErrorClass] sorts the errors.
	StoreCall func(ctx context.Context, op string, d time.Duration, err error)
}

// Why Hooks.Refused was called. The first two are about the cookies and the header of any request,
// the others are about a claim, a ticket or Forget.
const (
	// RefusedToken: a cookie or a header does not verify. It is ignored.
	RefusedToken = "invalid_token"

	// RefusedCookies: two different guest cookies of one name came. One of the guests is served.
	RefusedCookies = "different_cookies"

	// RefusedAmbiguous: a claim, ticket or Forget from a request with such cookies.
	RefusedAmbiguous = "ambiguous_claim"

	// RefusedCrossOrigin: a claim, ticket or Forget from a request that a page of another origin
	// sent.
	RefusedCrossOrigin = "cross_origin_claim"

	// RefusedClaimed: a claim of a guest that another account has.
	RefusedClaimed = "claimed_by_other"

	// RefusedTicket: a ticket was tampered with, has expired, or was issued to another audience.
	RefusedTicket = "invalid_ticket"
)

// And returns Hooks that call h first and then other.
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
// data, so the text goes to the caller and to hooks, but not into the log.
type appError struct {
	summary string // what went wrong, without that text
	err     error
}

func (e *appError) Error() string { return e.err.Error() }
func (e *appError) Unwrap() error { return e.err }

// A reporter reports to the app what happens: events to its Hooks, and errors that no call returns
// to its log.
type reporter struct {
	hooks  Hooks
	logger *slog.Logger
	warned atomic.Int64 // when the last line was logged, Unix nanoseconds
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

// warn logs an error that no call returns, at most one line in ten seconds.
func (r *reporter) warn(msg string, err error) {
	if app := (*appError)(nil); errors.As(err, &app) {
		err = errors.New(app.summary +
			" (the error of Claim, Recover and Hooks.Stuck has its text)")
	}
	now := time.Now().UnixNano()
	last := r.warned.Load()
	if now-last >= int64(warnEvery) && r.warned.CompareAndSwap(last, now) {
		r.logger.Warn("guest: "+msg, "error", err)
	}
}
