package guest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/guestkit/guest/internal/token"
)

// What a claim does to the visitor: which guests it is about, and what becomes of their cookies.

// visitorOf returns the visitor of a request, also of one that is not behind Middleware.
func (s *site) visitorOf(r *http.Request) *Visitor {
	if v := s.visitorOfRequest(r.Context()); v != nil {
		return v
	}
	v := s.newVisitor(r, time.Now())
	if len(v.brought.tokens) > 0 {
		v.who.adopt(v.brought.tokens[0].Token)
	}
	return v
}

// visitorOfRequest returns this Manager's visitor of the context if it came with a request, and not
// by As; else nil.
func (s *site) visitorOfRequest(ctx context.Context) *Visitor {
	if v := s.visitorIn(ctx); v != nil && v.request != nil {
		return v
	}
	return nil
}

// visitorIn returns this Manager's visitor of the context, or nil.
func (s *site) visitorIn(ctx context.Context) *Visitor {
	if v := FromContext(ctx); v != nil && v.site == s {
		return v
	}
	return nil
}

// unproven says why the request does not prove that the guests it names are its sender's: then they
// can be served, but not claimed, forgotten or put into a ticket. nil: it does prove it. The caller
// holds v.mu or is alone.
func (v *Visitor) unproven() error {
	switch {
	case v.brought.ambiguous:
		return ErrAmbiguous
	case v.brought.crossOrigin && v.brought.inCookie():
		return ErrCrossOrigin
	}
	return nil
}

// proven returns who the visitor is. An error of unproven is reported to Hooks.Refused.
func (v *Visitor) proven(ctx context.Context) (identity, error) {
	v.mu.Lock()
	who, err := v.who, v.unproven()
	v.mu.Unlock()
	v.refuse(ctx, err)
	return who, err
}

// refuse reports a claim, ticket or Forget that answers this error.
func (v *Visitor) refuse(ctx context.Context, err error) {
	switch err {
	case ErrAmbiguous:
		v.site.report.refused(ctx, RefusedAmbiguous)
	case ErrCrossOrigin:
		v.site.report.refused(ctx, RefusedCrossOrigin)
	case ErrTicket:
		v.site.report.refused(ctx, RefusedTicket)
	}
}

// isCrossOrigin reports whether a page of another site sent the request, which Hooks.Refused then
// hears of.
func (s *site) isCrossOrigin(r *http.Request) bool {
	crossOrigin := s.cookies.isCrossOrigin(r)
	if crossOrigin {
		s.report.refused(r.Context(), RefusedCrossOrigin)
	}
	return crossOrigin
}

// claimOwn claims the guests that the request proves to be its own.
func (v *Visitor) claimOwn(
	ctx context.Context, header http.Header, accountID string, rules mergeRules,
) (Receipt, error) {
	return v.claimChosen(ctx, header, accountID, rules, func() ([]credential, error) {
		return v.ownGuests(ctx)
	})
}

// claimByTicket claims the guest that a ticket names.
func (v *Visitor) claimByTicket(
	ctx context.Context, header http.Header, ticket, audience, accountID string, rules mergeRules,
) (Receipt, error) {
	return v.claimChosen(ctx, header, accountID, rules, func() ([]credential, error) {
		id, err := v.site.keyring.VerifyTicket(ticket, audience, time.Now())
		if err != nil {
			v.refuse(ctx, ErrTicket)
			return nil, ErrTicket
		}
		return v.named(id), nil
	})
}

// claimChosen claims the chosen guests, and signs the visitor in.
func (v *Visitor) claimChosen(
	ctx context.Context, header http.Header, accountID string, rules mergeRules,
	choose func() ([]credential, error),
) (Receipt, error) {
	if err := checkAccountID(accountID); err != nil {
		return noReceipt(accountID), err
	}
	defer v.signIn(header, accountID)
	guests, err := choose()
	if err != nil {
		return noReceipt(accountID), err
	}
	return v.claimEach(ctx, guests, accountID, rules)
}

// named returns the credential of the guest that a ticket names, also if the request names it too.
// It discards a guest that the request created in vain.
func (v *Visitor) named(id token.ID) []credential {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.discardUnlessKept()
	named := credential{Token: token.Token{ID: id}} // of no cookie here
	for _, p := range v.brought.tokens {
		if p.ID == id {
			named = p
		}
	}
	named.inTicket = true
	return []credential{named}
}

// ownGuests returns the guests that a claim or Forget is about: the one that this request created
// and kept something under, else those that it named, claimed ones too, as a claim may be repeated.
// It discards a guest that the request created in vain. The error is [ErrAmbiguous] or
// [ErrCrossOrigin] if the request does not prove that they are its own.
func (v *Visitor) ownGuests(ctx context.Context) ([]credential, error) {
	if _, err := v.proven(ctx); err != nil { // without the lock: Hooks.Refused may ask the visitor
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.discardUnlessKept() {
		return []credential{{Token: v.who.guest}}, nil
	}
	return v.brought.tokens, nil
}

// discardUnlessKept discards a guest that the request created in vain. It reports whether the
// visitor is one that it created and kept something under. The caller holds v.mu.
func (v *Visitor) discardUnlessKept() (kept bool) {
	if !v.who.isNew() {
		return false
	}
	if v.who.isKept(len(v.brought.tokens) > 0) {
		return true
	}
	v.who.discard()
	return false
}

// claimAtSignIn claims what a signed-in request brings, unless it proves too little or its claim
// failed just before.
func (v *Visitor) claimAtSignIn(r *http.Request) {
	autoClaim := v.site.autoClaim
	if checkAccountID(v.who.account) != nil || autoClaim != nil && !autoClaim(r) ||
		v.unproven() != nil {
		return
	}
	var due []credential
	for _, p := range v.brought.tokens {
		again, failed := v.site.claimer.retryAfter.Get(p.ID)
		switch {
		case v.site.claimer.isOver(p.ID, v.brought.has):
			v.release(p)
		case !failed || time.Now().After(again.at):
			due = append(due, p)
		}
	}
	_, err := v.claimEach(r.Context(), due, v.who.account, nil)
	if errors.Is(err, ErrClaimed) {
		v.change(func(id *identity) { id.replaced = true })
	}
}

// claimEach claims the first of these guests, and others while the request may ask, and clears the
// cookies of those that are done with; later requests go on with the others. The receipt is the
// first one's.
func (v *Visitor) claimEach(
	ctx context.Context, guests []credential, accountID string, rules mergeRules,
) (receipt Receipt, err error) {
	receipt = noReceipt(accountID)
	claimer, brought := v.site.claimer, credentials{tokens: guests}
	for i, p := range guests {
		switch {
		case i > 0 && claimer.isOver(p.ID, brought.has):
			v.release(p)
			continue
		case !v.mayAsk() && i > 0:
			continue
		}
		r, e := claimer.claim(ctx, v.storeBudget(), p.ID, p.inTicket, accountID, rules)
		if i == 0 {
			receipt = r
		}
		err = errors.Join(err, e)
		if e == nil || errors.Is(e, ErrClaimed) { // of one that is gone the cookie may know better
			g := claimedGuest{}
			if !r.At.IsZero() {
				g.at = r.At.UnixMilli()
			}
			claimer.claimedGuests.Put(p.ID, g)
			v.release(p)
		}
	}
	return receipt, err
}

// release takes a guest's token back from the client: it is worth nothing any more.
func (v *Visitor) release(p credential) {
	v.mu.Lock()
	defer v.mu.Unlock()
	own := v.who.state != noGuest && p.ID == v.who.guest.ID
	if own && v.who.isNew() {
		v.who.discard()
		v.brought.tokens = []credential{p} // a claim that is repeated finds it
		return
	}
	if own {
		v.who.release(p.inHeader)
	}
	if v.site.cookies.isMain(p) {
		v.who.clearMain()
	}
	v.who.clearProvisional(v.site.cookies.provisionalNameOf(p))
	v.who.clearProvisional(p.provisional)
	if p.inHeader {
		v.who.endHeader()
	}
}

// signIn ends the visitor's time as a guest: from now on it is a member. header is the response's,
// nil if there is none.
func (v *Visitor) signIn(header http.Header, accountID string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	// fasthttp's strings change when the request is over; a context may outlive it.
	v.who.account = strings.Clone(accountID)
	v.writes.Add(1)
	v.writeHeader(header)
}

// forget erases the guests of the request, and clears their cookies.
func (v *Visitor) forget(ctx context.Context, header http.Header) error {
	who := v.identity()
	unsent := who.state == newGuest && who.use != written // so there is nothing to erase
	guests, err := v.ownGuests(ctx)
	if err != nil {
		return err
	}
	claimer, brought := v.site.claimer, credentials{tokens: guests}
	for _, p := range guests {
		if !unsent && !claimer.isOver(p.ID, brought.has) {
			if err := claimer.eraseFollowing(ctx, v.storeBudget(), p.ID); err != nil {
				return err
			}
			claimer.claimedGuests.Put(p.ID, claimedGuest{forgotten: true})
		}
		v.release(p)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.writes.Add(1)
	v.writeHeader(header)
	return nil
}
