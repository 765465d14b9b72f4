package guest

import (
	"context"
	"errors"
	"net"
)

// The errors of this package are tested with [errors.Is]. A colon in their text introduces a cause,
// advice stands in parentheses; the text never holds a secret, a token, an ID or a value.
var (
	// ErrNoVisitor: the context does not come from a request behind [Manager.Middleware], nor from
	// [Manager.As].
	ErrNoVisitor = errors.New("guest: no visitor in this context (wrap the handler in " +
		"Manager.Middleware and pass r.Context(), or use Manager.As outside a request)")

	// ErrNotAdmitted: Config.Admit gave this visitor no record, so there is nowhere to write. Reads
	// are empty.
	ErrNotAdmitted = errors.New("guest: this visitor was not admitted, so nothing can be kept for it " +
		"(see Config.Admit)")

	// ErrClaimed: the guest has been claimed. From a claim: by another account. From a write: the
	// response's header is already sent, so the visitor cannot be given a new guest any more. From
	// any data call with the context of [Manager.AsGuest]: its data are its owner's.
	ErrClaimed = errors.New("guest: an account has claimed this guest " +
		"(the visitor's next request creates a new one)")

	// ErrGone: there is no such guest any more: it expired, or the visitor had it forgotten. From
	// [Manager.ClaimTicket], from data calls with the context of [Manager.AsGuest], and from a write
	// that comes too late for a new guest.
	ErrGone = errors.New("guest: this guest is gone (it expired or was forgotten)")

	// ErrConflict: an Update function was tried many times, and each time the data had changed
	// meanwhile.
	ErrConflict = errors.New("guest: the data kept changing while they were updated " +
		"(try again, or use Counters.Add, which needs no retry)")

	// ErrUnreadable: data are stored that this process cannot read: of a kind that is not in
	// Config.Data, of a secret that is not in Config.Secrets, or not encrypted where the kind is
	// Encrypted; the text says which. A claim stays Pending until a process that can read them
	// finishes it.
	ErrUnreadable = errors.New("guest: stored data cannot be read by this process")

	// ErrQuota: the write would leave the record over Config.Quota. Nothing was written.
	ErrQuota = errors.New("guest: the write would exceed Config.Quota " +
		"(remove something first, or raise the quota)")

	// ErrTicket: the ticket was tampered with, has expired, or was issued to another audience.
	ErrTicket = errors.New("guest: this ticket is not valid here (ask the visitor to start again)")

	// ErrUnavailable: the store did not do what was asked; it wraps the store's error. See also
	// [ErrUncertain].
	ErrUnavailable = errors.New("guest: the store is unavailable")

	// ErrUncertain: the reply to a write was lost, so the write was applied once or not at all. It is
	// wrapped in [ErrUnavailable].
	ErrUncertain = errors.New("guest: the write may or may not have been applied " +
		"(read before you retry)")

	// ErrInvalid: the caller's value, name or number cannot be stored; the text says why. Nothing was
	// written.
	ErrInvalid = errors.New("guest: invalid input")

	// ErrCrossOrigin: another origin's page sent the request with an unsafe method, so it does not
	// prove that the guest of its cookie is the sender's: that guest is not claimed, not forgotten,
	// and put into no ticket.
	ErrCrossOrigin = errors.New("guest: a page of another origin sent this request, so the guest of " +
		"its cookie is left alone (send it from your own origin, or claim with a ticket)")

	// ErrAmbiguous: the request carried two different guest cookies of one name. Another site may
	// have set one of them, so neither is claimed, forgotten or put into a ticket.
	ErrAmbiguous = errors.New("guest: the request carries two different guest cookies of one name, " +
		"so neither is used (see Config.FormerCookies)")
)

// An appError is what a function of the app returned or panicked with. Its text may hold IDs and data,
// so it goes to the caller and to hooks, and not into the log.
type appError struct {
	what string // went wrong, without that text
	err  error
}

func (e *appError) Error() string { return e.err.Error() }
func (e *appError) Unwrap() error { return e.err }

// StoreErrorClass sorts the errors of Hooks.StoreCall into a few classes, for labels: "" for nil; "quota" and
// "invalid", which are the caller's; "uncertain" (see [ErrUncertain]); "canceled"; "timeout"; "unavailable" for the
// rest.
func StoreErrorClass(err error) string {
	var timeout net.Error
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrQuota):
		return "quota"
	case errors.Is(err, ErrInvalid):
		return "invalid"
	case errors.Is(err, ErrUncertain):
		return "uncertain"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	return "unavailable"
}
