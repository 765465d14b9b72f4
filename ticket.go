package guest

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// Ticket returns a signed token that names the visitor's guest, for a claim where its cookie may be
// absent: a magic link opened on another device, a one-time code, an OAuth callback. The audience
// is what the flow proves later: the e-mail address, the number, the state; a flow that cannot name
// it cannot use the ticket. ttl is at most Config.TombstoneTTL. A ticket signs no one in, and as a
// guest is claimed once it needs no list of used ones.
//
// In one round trip the guest's life is extended to the ticket's. If the store cannot be reached,
// the ticket is issued all the same, and the guest may expire before it.
//
// The error is [ErrNoVisitor] without a visitor of this Manager, [ErrNotAdmitted] without a guest,
// [ErrCrossOrigin] or [ErrAmbiguous] if the request proves too little, as for [Manager.Claim], or
// [ErrInvalid].
func (m *Manager) Ticket(ctx context.Context, audience string, ttl time.Duration) (string, error) {
	v := m.site.visitorIn(ctx)
	if v == nil {
		return "", ErrNoVisitor
	}
	longest := m.site.lifetimes.tombstone
	if audience == "" || ttl <= 0 || ttl > longest {
		return "", fmt.Errorf("%w: a ticket needs an audience, and a ttl of up to Config.TombstoneTTL (%v)",
			ErrInvalid, longest)
	}
	if _, err := v.proven(ctx); err != nil {
		return "", err
	}
	id, err := v.extend(context.WithoutCancel(ctx), ttl)
	if err != nil {
		return "", err
	}
	return m.site.keyring.SignTicket(id, audience, time.Now().Add(ttl))
}

// ClaimTicket claims the guest that a ticket names, as [Manager.Claim] does for the guest of the
// cookie. The app must have verified the audience in this very flow. A ticket that was tampered
// with, has expired or is another audience's is [ErrTicket], and nothing is claimed. If the guest
// has expired, or was forgotten, the error is [ErrGone]. A guest that this browser itself has is
// left alone, unless it is the same one. If the store fails before the claim is noted, nothing
// retries a claim by ticket, since the cookie is elsewhere: the guest stays with the browser that
// it started in, and the ticket can be used again until it expires.
func (m *Manager) ClaimTicket(w http.ResponseWriter, r *http.Request, ticket, audience, accountID string, opts ...ClaimOption) (Receipt, error) {
	return m.site.visitorOf(r).claimByTicket(r.Context(), w.Header(), ticket, audience, accountID, rulesOf(opts))
}

// ClaimTicketContext is [Manager.ClaimTicket] for code that has only the context of a request: see
// [Manager.ClaimContext].
func (m *Manager) ClaimTicketContext(ctx context.Context, ticket, audience, accountID string, opts ...ClaimOption) (Receipt, error) {
	v := m.site.visitorOfRequest(ctx)
	if v == nil {
		return noReceipt(accountID), ErrNoVisitor
	}
	return v.claimByTicket(ctx, v.responseHeader(), ticket, audience, accountID, rulesOf(opts))
}
