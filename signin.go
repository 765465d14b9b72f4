package guest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/guestkit/guest/internal/token"
)

// What a claim does to the visitor: which guests it claims, what becomes of their cookies, and that
// the visitor is a member afterwards. How a guest is claimed is not known here: see claimer.go.

// visitorOf returns the visitor of a request. A request that is not behind Middleware gets one,
// too.
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

// visitorOfRequest returns this Manager's visitor of the context if it came with a request and not
// by As or AsGuest; else nil.
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

// unproven returns why the request does not prove that the guests it names belong to its sender;
// nil if it does. Unproven guests can be served, but not claimed, forgotten or put into a ticket.
// The caller holds v.mu, or the visitor is not in use yet.
func (v *Visitor) unproven() error {
	switch {
	case v.brought.ambiguous:
		return ErrAmbiguous
	case v.brought.crossOrigin && v.brought.inCookie():
		return ErrCrossOrigin
	}
	return nil
}

// proven returns who the visitor is, or the error of unproven, which it reports to Hooks.Refused.
func (v *Visitor) proven(ctx context.Context) (identity, error) {
	v.mu.Lock()
	who, err := v.who, v.unproven()
	v.mu.Unlock()
	v.refuse(ctx, err)
	return who, err
}

// refuse reports to Hooks.Refused that a claim, ticket or Forget returns this error.
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

// isCrossOrigin reports whether a page of another site sent the request, and if so calls
// Hooks.Refused.
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

// claimChosen claims the chosen guests, and signs the visitor in, also if the claim fails.
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

// named returns the credential of the guest that a ticket names; if the request brings that guest
// too, its cookie is part of the credential. A guest that this request created without need is
// discarded.
func (v *Visitor) named(id token.ID) []credential {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.discardUnlessKept()
	named := credential{Token: token.Token{ID: id}}
	for _, cred := range v.brought.tokens {
		if cred.ID == id {
			named = cred
		}
	}
	named.inTicket = true
	return []credential{named}
}

// ownGuests returns the guests that a claim or Forget is about: the guest that this request
// created, if something was kept under it, else those that the request named. Claimed ones are
// among them, because a claim may be repeated. A guest that the request created without need is
// discarded. The error is [ErrAmbiguous] or [ErrCrossOrigin] if the request does not prove that the
// guests are its own.
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

// discardUnlessKept discards a guest that this request created, unless something was kept under it;
// then it returns true. The caller holds v.mu.
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

// claimAtSignIn claims the guests that a signed-in request brings, unless the request does not
// prove that they are its own, or their claim failed just before.
func (v *Visitor) claimAtSignIn(r *http.Request) {
	autoClaim := v.site.autoClaim
	if checkAccountID(v.who.account) != nil || autoClaim != nil && !autoClaim(r) ||
		v.unproven() != nil {
		return
	}
	var due []credential
	for _, cred := range v.brought.tokens {
		again, failed := v.site.claimer.retryAfter.Get(cred.ID)
		switch {
		case v.site.claimer.isOver(cred.ID, v.brought.has):
			v.release(cred)
		case !failed || time.Now().After(again.at):
			due = append(due, cred)
		}
	}
	_, err := v.claimEach(r.Context(), due, v.who.account, nil)
	if errors.Is(err, ErrClaimed) {
		v.change(func(id *identity) { id.replaced = true })
	}
}

// claimEach claims the first of these guests, and the others as long as the request may ask the
// store, and takes back the tokens of those that are claimed. Later requests go on with the rest.
// The receipt is the first guest's.
func (v *Visitor) claimEach(
	ctx context.Context, guests []credential, accountID string, rules mergeRules,
) (receipt Receipt, err error) {
	receipt = noReceipt(accountID)
	claimer, brought := v.site.claimer, credentials{tokens: guests}
	for i, cred := range guests {
		switch {
		case i > 0 && claimer.isOver(cred.ID, brought.has):
			v.release(cred)
			continue
		case !v.mayAsk() && i > 0: // the first one counts, but is claimed in any case
			continue
		}
		r, e := claimer.claim(ctx, v.storeBudget(), cred.ID, cred.inTicket, accountID, rules)
		if i == 0 {
			receipt = r
		}
		err = errors.Join(err, e)
		// Not after ErrGone, which only a ticket gets: a cookie is good also without a record.
		if e == nil || errors.Is(e, ErrClaimed) {
			g := claimedGuest{}
			if !r.At.IsZero() {
				g.at = r.At.UnixMilli()
			}
			claimer.claimedGuests.Put(cred.ID, g)
			v.release(cred)
		}
	}
	return receipt, err
}

// release takes a guest's token back from the client: the guest was claimed or forgotten, so its
// token is worth nothing any more.
func (v *Visitor) release(cred credential) {
	v.mu.Lock()
	defer v.mu.Unlock()
	own := v.who.isGuest(cred.ID)
	if own && v.who.isNew() {
		v.who.discard()
		v.brought.tokens = []credential{cred} // so that a repeated claim finds it
		return
	}
	if own {
		v.who.release(cred.inHeader)
	}
	if v.site.cookies.isMain(cred) {
		v.who.clearMain()
	}
	v.who.clearProvisional(v.site.cookies.provisionalNameOf(cred))
	v.who.clearProvisional(cred.provisional)
	if cred.inHeader {
		v.who.endHeader()
	}
}

// signIn makes the visitor a member. header is the response's, nil if there is none.
func (v *Visitor) signIn(header http.Header, accountID string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	// The strings of fasthttp change when the request is over, but a context may outlive it.
	v.who.account = strings.Clone(accountID)
	v.writes.Add(1)
	v.writeHeader(header)
}

// forget erases the guests of the request, and clears their cookies.
func (v *Visitor) forget(ctx context.Context, header http.Header) error {
	who := v.identity()
	unstored := who.state == newGuest && who.use != written // then there is nothing to erase
	guests, err := v.ownGuests(ctx)
	if err != nil {
		return err
	}
	claimer, brought := v.site.claimer, credentials{tokens: guests}
	for _, cred := range guests {
		if !unstored && !claimer.isOver(cred.ID, brought.has) {
			if err := claimer.eraseFollowing(ctx, v.storeBudget(), cred.ID); err != nil {
				return err
			}
			claimer.claimedGuests.Put(cred.ID, claimedGuest{forgotten: true})
		}
		v.release(cred)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.writes.Add(1)
	v.writeHeader(header)
	return nil
}
