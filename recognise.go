package guest

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"time"
)

// From a request to its visitor: which guest it is, which siblings that guest absorbs, and which
// tokens of the client change. No header is written here; Begin does that afterwards.

// recognise decides who sent a request. It never fails: what does not verify counts as no guest.
func (s *site) recognise(r *http.Request, account func(*http.Request) string) *Visitor {
	now := time.Now() // once: a good part of what a known visitor costs
	v := s.newVisitor(r, now)
	if account != nil {
		v.who.account = account(r)
	}
	v.who.replaced = v.brought.expired
	for _, name := range v.brought.invalid {
		v.who.clearProvisional(name)
	}
	switch {
	case len(v.brought.tokens) == 0:
		if v.who.account == "" && s.admits(r) {
			v.createGuest(0)
		}
	case v.brought.ambiguous:
		v.chooseUnclaimed(r.Context())
	case v.who.account != "":
		v.who.adopt(v.brought.tokens[0].Token)
		v.claimAtSignIn(r)
	default:
		v.recogniseGuest(r.Context(), now)
	}
	return v
}

// recogniseGuest makes the visitor the guest that it was before. Of several guests that is the
// oldest, which absorbs the others. All requests of a browser choose in the same way, whichever of
// its cookies they carry, so no two guests ever absorb each other.
func (v *Visitor) recogniseGuest(ctx context.Context, now time.Time) {
	first := v.brought.tokens[0]
	known, isKnown := v.site.claimer.claimedGuests.Get(first.ID)
	switch alone := len(v.brought.tokens) == 1; {
	case alone && isKnown && !known.isAbsorbed(): // claimed: no need to ask the store
		v.who.adopt(first.Token)
		v.replaceGuest(known)
		v.who.clearProvisional(v.site.cookies.provisionalNameOf(first))
	case alone && !isKnown && !first.Provisional && !v.site.lifetimes.renewalDue(first.Token, now):
		v.who.adopt(first.Token)
		if first.provisional != "" && !keepsProvisional(first, now) {
			v.who.clearProvisional(first.provisional)
		}
	default:
		v.confirmOldest(context.WithoutCancel(ctx), now)
	}
}

// keepsProvisional reports whether the browser keeps the guest's provisional cookie beside the main
// one. The response of a claim clears the main cookie. If that response is late, the main cookie is
// the successor's by then. So a successor has both cookies for two minutes.
func keepsProvisional(cred credential, now time.Time) bool {
	return cred.Successor && now.Sub(time.UnixMilli(cred.CreatedAt)) < lateResponse
}

const lateResponse = 2 * time.Minute

// confirmOldest makes the visitor the oldest of its guests that is not claimed, extends the life of
// that guest's record to Config.TTL from now, and lets it absorb the others.
func (v *Visitor) confirmOldest(ctx context.Context, now time.Time) {
	mainNeeded := false // the main cookie names a claimed guest that has siblings left
	for rest := v.brought.tokens; ; {
		oldest := rest[0]
		rest = rest[1:]
		v.who.adopt(oldest.Token)
		if !keepsProvisional(oldest, now) {
			v.who.clearProvisional(oldest.provisional)
		}
		if v.brought.keepMain { // a process that can verify the main cookie decides
			return
		}
		claimed, err := v.confirm(ctx, oldest)
		if err != nil {
			if err != errAskedEnough {
				v.site.warn("a guest was not recognised", err)
			}
			return // its cookie stays, and the next request tries again
		}
		if claimed != nil {
			// An account has claimed it. Siblings that were created before the claim belong to the
			// account too; a guest that was created since does not. A forgotten guest has no
			// siblings.
			byCreation := func(c credential, at int64) int { return cmp.Compare(c.CreatedAt, at) }
			since, _ := slices.BinarySearchFunc(rest, claimed.at, byCreation)
			if len(v.absorb(ctx, rest[:since])) == 0 {
				v.who.clearProvisional(v.site.cookies.provisionalNameOf(oldest))
			} else if v.site.cookies.isMain(oldest) {
				mainNeeded = true // by the next request, to know that its siblings are claimed
			}
			if rest = rest[since:]; len(rest) > 0 {
				continue
			}
			v.replaceGuest(*claimed)
			return
		}
		v.absorbAll(ctx, oldest, rest, mainNeeded, now)
		return
	}
}

// absorbAll lets the visitor's guest, which came as oldest, absorb the rest, and renews its cookie.
func (v *Visitor) absorbAll(
	ctx context.Context, oldest credential, rest []credential, mainNeeded bool, now time.Time,
) {
	// The guest of the main cookie comes first: that cookie is overwritten, so its guest must be
	// absorbed by then.
	if i := slices.IndexFunc(rest, v.site.cookies.isMain); i > 0 {
		rest[0], rest[i] = rest[i], rest[0]
	}
	left := v.absorb(ctx, rest)
	if !mainNeeded && (len(left) == 0 || !v.site.cookies.isMain(left[0])) {
		v.who.sendToken()
		if !keepsProvisional(oldest, now) || oldest.ID != v.who.guest.ID {
			v.who.clearProvisional(v.site.cookies.provisionalNameOf(oldest))
		}
	}
	oldest.Token = v.who.guest
	v.brought.tokens = append(v.brought.room[:0], oldest)
	v.brought.tokens = append(v.brought.tokens, left...)
}

// errAskedEnough: the request has asked about as many guests as it may; the next one goes on.
var errAskedEnough = errors.New("guest: the request has asked the store about enough guests")

// confirm makes the visitor the guest of this credential, or the sibling that absorbed that guest,
// and so on, and extends the life of its record. claimed is nil, or says that the guest was claimed
// by an account or forgotten.
func (v *Visitor) confirm(
	ctx context.Context, oldest credential,
) (claimed *claimedGuest, err error) {
	claimer := v.site.claimer
	for range mostHops {
		g, known := claimer.claimedGuests.Get(v.who.guest.ID)
		if !known || g == (claimedGuest{}) { // the caller needs to know when it was claimed
			if !v.mayAsk() {
				return nil, errAskedEnough
			}
			askFirst := oldest.Provisional && oldest.ID == v.who.guest.ID
			claimed, first, err := claimer.renew(ctx, v.storeBudget(), v.who.guest, askFirst)
			if err != nil {
				return nil, err
			}
			if first {
				v.reportReturned(ctx)
			}
			if claimed == nil {
				v.who.confirm(time.Now())
				return nil, nil
			}
			g = *claimed
		}
		if !g.isAbsorbed() {
			return &g, nil
		}
		v.who.adoptSibling(g.sibling, v.site.lifetimes, time.Now())
	}
	return nil, errors.New("guest: siblings absorb each other in a circle")
}

// absorb claims other guests of the browser for the visitor's, as long as the request may ask the
// store. Guests that cannot be siblings are left out. It returns those that are left; their cookies
// stay, and the next request goes on with them.
func (v *Visitor) absorb(ctx context.Context, others []credential) (left []credential) {
	main := v.who.guest
	for _, cred := range others {
		if cred.ID != main.ID && v.site.cookies.areSiblings(cred.Token, main) &&
			!v.site.claimer.isOver(cred.ID, v.brought.has) {
			if !v.mayAsk() || !v.site.claimer.absorb(ctx, v.storeBudget(), cred.ID, main) {
				left = append(left, cred)
				continue
			}
		}
		v.who.clearProvisional(v.site.cookies.provisionalNameOf(cred))
	}
	return left
}

// chooseUnclaimed chooses between different guests under the main name, which a browser sends if it
// has cookies of several scopes: the first one that is not claimed. This request may claim none of
// them, because another site may have set one. If a claimed one is replaced, our cookie takes its
// place, and the name is cleared in the former scopes.
func (v *Visitor) chooseUnclaimed(ctx context.Context) {
	var mains []credential
	for _, cred := range v.brought.tokens {
		if v.site.cookies.isMain(cred) {
			mains = append(mains, cred)
		}
	}
	v.who.adopt(mains[0].Token)
	open, complete, err := v.unclaimed(ctx, mains)
	switch {
	case err != nil:
		v.site.warn("of two guest cookies none was chosen", err) // the visitor is the first guest
	case len(open) == len(mains):
	case len(open) > 0:
		v.who.adopt(open[0].Token)
		if len(open) == 1 && complete { // otherwise ours might replace one that is not claimed
			v.who.sendToken()
		}
	default:
		v.who.clearMain()
		if g, _ := v.site.claimer.claimedGuests.Get(mains[0].ID); g.isAbsorbed() {
			v.who.adoptSibling(g.sibling, v.site.lifetimes, time.Now())
			v.who.sendToken()
		} else if v.who.account == "" {
			v.replaceGuest(claimedGuest{})
		}
	}
}

// unclaimed returns the guests that are not claimed, and those that the request may not ask about;
// complete reports that there are none of the latter.
func (v *Visitor) unclaimed(
	ctx context.Context, mains []credential,
) (open []credential, complete bool, err error) {
	for _, cred := range mains {
		if _, known := v.site.claimer.claimedGuests.Get(cred.ID); !known {
			open = append(open, cred)
		}
	}
	if len(open) <= 1 { // one alone is served without asking the store
		return open, true, nil
	}
	maybe := open
	open, complete = nil, true
	for _, cred := range maybe {
		if !v.mayAsk() {
			complete = false
			open = append(open, cred)
			continue
		}
		isClaimed, err := v.site.claimer.isClaimed(ctx, v.storeBudget(), cred.ID)
		if err != nil {
			return nil, false, err
		}
		if !isClaimed {
			open = append(open, cred)
		}
	}
	return open, complete, nil
}
