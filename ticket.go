package guest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"net/http"
	"time"
)

// Ticket returns a signed token that names the visitor's guest, for a claim where its cookie may be absent: a magic
// link opened on another device, a one-time code, an OAuth callback. The audience is what the flow proves later:
// the e-mail address, the number, the state; whoever cannot name it cannot use the ticket. ttl is at most
// Config.TombstoneTTL. A ticket signs nobody in, and as a guest is claimed once it needs no list of used ones.
//
// In one round trip the guest's life is extended to the ticket's. If the store cannot be reached, the ticket is issued
// all the same, and the guest may expire before it.
//
// The error is [ErrNoVisitor] without a visitor of this Manager, [ErrNotAdmitted] without a guest, [ErrCrossOrigin] or
// [ErrAmbiguous] if the request proves too little, as for [Manager.Claim], or [ErrInvalid].
func (m *Manager) Ticket(ctx context.Context, audience string, ttl time.Duration) (string, error) {
	v := m.visitorIn(ctx)
	if v == nil {
		return "", ErrNoVisitor
	}
	if audience == "" || ttl <= 0 || ttl > m.cfg.TombstoneTTL {
		return "", fmt.Errorf("%w: a ticket needs an audience, and a ttl of up to Config.TombstoneTTL (%v)", ErrInvalid, m.cfg.TombstoneTTL)
	}
	v.mu.Lock()
	err := v.unproven()
	v.mu.Unlock()
	if err != nil {
		m.refusedUnproven(ctx, err)
		return "", err
	}
	id, err := v.outlast(context.WithoutCancel(ctx), ttl)
	if err != nil {
		return "", err
	}
	b := append(make([]byte, 0, ticketLen), ticketVersion)
	b = append(b, id[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(time.Now().Add(ttl).Unix()))
	to := sha256.Sum256([]byte(audience))
	return m.ring.tickets[0].Encode("ticket", append(b, to[:]...))
}

// outlast makes the guest's record live at least that long, if the store can be reached, and returns the guest's ID.
func (v *Visitor) outlast(ctx context.Context, ttl time.Duration) (id guestID, err error) {
	stored := false
	for range mostHops {
		v.mu.Lock()
		key, missing := v.key, v.lost
		id = v.guest.id
		v.mu.Unlock()
		if key == "" {
			return id, cmp.Or(missing, ErrNotAdmitted)
		}
		res, err := v.m.update(ctx, key, live(ttl))
		if err != nil {
			v.m.warn("a guest's life was not extended to its ticket's", err)
			break
		}
		stored = res.Applied
		if stored || v.AccountID() != "" { // a member's guest whose claim is under way goes into the ticket as it is
			break
		}
		if err := v.follow(ctx, key, res.Fields[fieldState], false); err != nil {
			break
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	// The page may hold the ticket, so it is as private as one that wrote data; and the guest is kept.
	v.stored, v.wrote = v.stored || stored, true
	return id, nil
}

// ClaimTicket claims the guest that a ticket names, as [Manager.Claim] does for the guest of the cookie. The app
// must have verified the audience in this very flow. A ticket that was tampered with, has expired or is another
// audience's is [ErrTicket], and nothing is claimed. If the guest has expired, or was forgotten, the error is
// [ErrGone]. A guest that this browser itself has is left alone, unless it is the same one. If the store fails
// before the claim is noted, nothing retries a claim by ticket, since the cookie is elsewhere: the guest stays
// with the browser that it started in, and the ticket can be used again until it expires.
func (m *Manager) ClaimTicket(w http.ResponseWriter, r *http.Request, ticket, audience, accountID string, opts ...ClaimOption) (Receipt, error) {
	return m.claimNamed(r.Context(), m.visitorOf(r), w.Header(), ticket, audience, accountID, opts)
}

// ClaimTicketContext is [Manager.ClaimTicket] for code that has only the context of a request: see
// [Manager.ClaimContext].
func (m *Manager) ClaimTicketContext(ctx context.Context, ticket, audience, accountID string, opts ...ClaimOption) (Receipt, error) {
	v := m.visitorOfRequest(ctx)
	if v == nil {
		return noReceipt(accountID), ErrNoVisitor
	}
	return m.claimNamed(ctx, v, v.header, ticket, audience, accountID, opts)
}

func (m *Manager) claimNamed(ctx context.Context, v *Visitor, header http.Header, ticket, audience, accountID string, opts []ClaimOption) (Receipt, error) {
	if err := checkAccountID(accountID); err != nil {
		return noReceipt(accountID), err
	}
	defer v.finishClaim(header, accountID)
	id, err := m.openTicket(ticket, audience)
	if err != nil {
		m.refused(ctx, RefusedTicket)
		return noReceipt(accountID), err
	}
	held := presented{token: token{id: id}, ticket: true} // of no cookie here
	v.mu.Lock()
	if v.isNew && !v.used() { // it was made in vain
		v.unmint()
	}
	for _, p := range v.held {
		if p.id == id {
			held = p
			held.ticket = true
		}
	}
	v.mu.Unlock()
	return m.claimAll(ctx, v, []presented{held}, accountID, rulesOf(opts))
}

func (m *Manager) openTicket(ticket, audience string) (id guestID, err error) {
	b, err := open(m.ring.tickets, "ticket", ticket)
	if err != nil || len(b) != ticketLen || b[0] != ticketVersion {
		return id, ErrTicket
	}
	to := sha256.Sum256([]byte(audience))
	if int64(binary.BigEndian.Uint64(b[17:])) < time.Now().Unix() || subtle.ConstantTimeCompare(b[25:], to[:]) != 1 {
		return id, ErrTicket
	}
	copy(id[:], b[1:])
	return id, nil
}
