package guest

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// Ticket returns a signed token that names the visitor's guest, for a claim where the guest's
// cookie may be absent: a magic link that is opened on another device, a one-time code, an OAuth
// callback. The audience is what the flow proves later, such as the e-mail address, the phone
// number or the state; only a flow that knows it can use the ticket. ttl is at most
// Config.TombstoneTTL. A ticket signs no one in, and because a guest is claimed only once, used
// tickets need not be listed.
//
// The guest's life is extended to the ticket's, in one round trip. If the store cannot be reached,
// the ticket is issued all the same, and the guest may expire before the ticket does.
//
// The error is [ErrNoVisitor] without a visitor of this Manager, [ErrNotAdmitted] without a guest,
// [ErrCrossOrigin] or [ErrAmbiguous] if the request does not prove that the guest is its own, as
// for [Manager.Claim], or [ErrInvalid].
func (m *Manager) Ticket(ctx context.Context, audience string, ttl time.Duration) (string, error) {
	v := m.site.visitorIn(ctx)
	if v == nil {
		return "", ErrNoVisitor
	}
	longest := m.site.lifetimes.tombstone
	if audience == "" || ttl <= 0 || ttl > longest {
		return "", fmt.Errorf("%w: a ticket needs an audience and a positive ttl of at most %v "+
			"(see Config.TombstoneTTL)", ErrInvalid, longest)
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

// ClaimTicket claims the guest that a ticket names, as [Manager.Claim] claims the guest of the
// cookie. The app must have verified the audience in this very flow. If the ticket was tampered
// with, has expired or is for another audience, the error is [ErrTicket] and nothing is claimed. If
// the guest has expired or was forgotten, the error is [ErrGone]. The guest of this browser itself
// is left alone, unless the ticket names it.
//
// If the store fails before the claim has its outbox entry, nothing retries the claim, because the
// cookie is in another browser. The guest then stays with that browser, and the ticket can be used
// again until it expires.
func (m *Manager) ClaimTicket(
	w http.ResponseWriter, r *http.Request, ticket, audience, accountID string, opts ...ClaimOption,
) (Receipt, error) {
	v := m.site.visitorOf(r)
	return v.claimByTicket(r.Context(), w.Header(), ticket, audience, accountID, rulesOf(opts))
}

// ClaimTicketContext is [Manager.ClaimTicket] for code that has only the context of a request: see
// [Manager.ClaimContext].
func (m *Manager) ClaimTicketContext(
	ctx context.Context, ticket, audience, accountID string, opts ...ClaimOption,
) (Receipt, error) {
	v := m.site.visitorOfRequest(ctx)
	if v == nil {
		return noReceipt(accountID), ErrNoVisitor
	}
	return v.claimByTicket(ctx, v.responseHeader(), ticket, audience, accountID, rulesOf(opts))
}
