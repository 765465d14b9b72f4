package main

import (
	"errors"
	"log/slog"
	"net/http"

	"github.com/guestkit/guest"
)

// The audience of a ticket is what the visitor proves in the end; the prefix keeps one way's from
// another's.
func emailAudience(email string) string { return "mailto:" + email }
func phoneAudience(phone string) string { return "tel:" + phone }
func stateAudience(state string) string { return "state:" + state }

// ticket names the guest that starts to sign in, for an end where its cookie may be absent. It is
// "" if there is no guest, or none can be named: signing in goes on without.
func (s *shop) ticket(r *http.Request, audience string) string {
	ticket, err := s.guests.Ticket(r.Context(), audience, proofLife)
	if err != nil && !errors.Is(err, guest.ErrNotAdmitted) {
		slog.WarnContext(r.Context(), "no ticket for the guest", "error", err)
	}
	return ticket
}

const strandedText = "What was kept where you started cannot be reached just now. If it is not here in a few minutes, log in there."

// whyNot tells the visitor why what was kept in the browser did not come along.
func whyNot(err error) []string {
	switch {
	case errors.Is(err, guest.ErrTicket):
		return []string{"What was kept where you started did not come along: the link or code for it was changed, is too old, or is meant for another address."}
	case errors.Is(err, guest.ErrGone):
		return []string{"What was kept where you started is gone: it was too old, or erased there."}
	case errors.Is(err, guest.ErrClaimed):
		return []string{"What was kept where you started belongs to another account already, and stays there."}
	case errors.Is(err, guest.ErrCrossOrigin), errors.Is(err, guest.ErrAmbiguous):
		return []string{"What was kept in this browser stays there: it cannot be told whether it is yours."}
	}
	return nil
}
