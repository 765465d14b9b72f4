package guest

import "errors"

// The errors of this package are tested with [errors.Is]. Their text says what to do; it never holds a secret, a
// token, an ID or a value.
var (
	// ErrNoVisitor: the context does not come from a request behind [Manager.Middleware], nor from [Manager.As].
	ErrNoVisitor = errors.New("guest: no visitor in this context: wrap the handler in Manager.Middleware and pass r.Context(), or use Manager.As outside a request")

	// ErrNotAdmitted: Config.Admit gave this visitor no record, so there is nowhere to write. Reads are empty.
	ErrNotAdmitted = errors.New("guest: this visitor was not admitted (see Config.Admit), so nothing can be kept for it")

	// ErrClaimed: the guest has been claimed. From a claim: by another account. From a write: the response's
	// headers are already sent, so the visitor cannot be given a fresh guest any more. From any data call with the
	// context of [Manager.AsGuest]: its data are its owner's.
	ErrClaimed = errors.New("guest: this guest was claimed by an account; its next request starts a fresh guest")

	// ErrGone: there is no such guest any more: it expired, or the visitor had it forgotten. From [Manager.ClaimTicket]
	// from data calls with the context of [Manager.AsGuest], and from a write that comes too late for a fresh guest.
	ErrGone = errors.New("guest: this guest is gone: it expired or was forgotten")

	// ErrConflict: an Update function was tried many times, and each time the data had changed meanwhile.
	ErrConflict = errors.New("guest: the data kept changing while it was updated: try again, or use Counters.Add, which needs no retry")

	// ErrUnreadable: data are stored that this process cannot read: of a kind that is not in Config.Data, of a secret that
	// is not in Config.Secrets, or in the clear where the kind is Encrypted; the text says which. A claim stays Pending until
	// a process that can read them finishes it.
	ErrUnreadable = errors.New("guest: stored data cannot be read by this process")

	// ErrQuota: the write would leave the record over Config.Quota. Nothing was written.
	ErrQuota = errors.New("guest: the write would exceed Config.Quota: remove something first, or raise the quota")

	// ErrTicket: the ticket was tampered with, has expired, or was issued to another audience.
	ErrTicket = errors.New("guest: this ticket is not valid here: ask the visitor to start again")

	// ErrUnavailable: the store did not do what was asked; it wraps the store's error. See also [ErrUncertain].
	ErrUnavailable = errors.New("guest: the store is unavailable")

	// ErrUncertain: the reply to a write was lost, so it was applied once or not at all. It wraps [ErrUnavailable].
	ErrUncertain = errors.New("guest: the store did not answer: the write was applied once or not at all: read before you write again")

	// ErrInvalid: the caller's value, name or number cannot be stored; the text says why. Nothing was written.
	ErrInvalid = errors.New("guest: invalid input")

	// ErrCrossOrigin: another origin's page sent the request with an unsafe method, so it proves nothing of the guest
	// that its cookie names: that guest is not claimed, not forgotten, and put into no ticket.
	ErrCrossOrigin = errors.New("guest: a page of another origin sent this request, so the guest of its cookie is left alone (send it from your own origin, or claim with a ticket that was made there)")

	// ErrAmbiguous: the request carried two different guest cookies of one name. Others may have set one of them, so
	// neither is claimed, forgotten or put into a ticket.
	ErrAmbiguous = errors.New("guest: the request carries two different guest cookies of one name, so neither is used (see Config.FormerCookies)")
)
