package guest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
)

// Claim binds the guest of the request to an account and makes the visitor a member for the rest of
// the request. Call it once the app knows who signed in. A guest is claimed exactly once, however
// often Claim is called.
//
// A browser may have several guests, if its first requests were parallel. The receipt is then the
// main one's. One request claims at most eight of them; the account's next requests claim the
// others.
//
// An error of Claim is never a reason to fail a login. If Receipt.Pending is set, the guest and its
// cookie are kept and the claim goes on by itself. The error is [ErrClaimed] if another account has
// the guest, [ErrCrossOrigin] or [ErrAmbiguous] if the request does not prove that the guest is its
// own, [ErrInvalid] if the account ID is empty or over 512 bytes, or it wraps [ErrUnavailable] or
// what OnClaim returned. If there is no guest, the receipt says so and the error is nil.
func (m *Manager) Claim(
	w http.ResponseWriter, r *http.Request, accountID string, opts ...ClaimOption,
) (Receipt, error) {
	return m.site.visitorOf(r).claimOwn(r.Context(), w.Header(), accountID, rulesOf(opts))
}

// ClaimContext is [Manager.Claim] for code that has only the context of a request: a resolver, an
// RPC, or a handler of a framework that is not net/http. Call it before the response begins, and
// never while another goroutine may begin the response, as happens once http.TimeoutHandler has
// given up on the handler. The error is also [ErrNoVisitor], if the context is not of a request
// behind the middleware.
func (m *Manager) ClaimContext(
	ctx context.Context, accountID string, opts ...ClaimOption,
) (Receipt, error) {
	v := m.site.visitorOfRequest(ctx)
	if v == nil {
		return noReceipt(accountID), ErrNoVisitor
	}
	return v.claimOwn(ctx, v.responseHeader(), accountID, rulesOf(opts))
}

// ClaimHandler serves POST requests that claim; account returns the ID of the account that is
// signed in. The response is 200 with the receipt as JSON; 401 if account returns an error, "" or
// an ID that is too long; 403 if another site sent the request; 405 for other methods; 409 if the
// guest belongs to another account or is ambiguous; 503 with Retry-After and the receipt if the
// claim is Pending.
func (m *Manager) ClaimHandler(account func(*http.Request) (string, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "claims are POST requests", http.StatusMethodNotAllowed)
			return
		}
		if m.site.isCrossOrigin(r) {
			http.Error(w, "a claim must come from the same site", http.StatusForbidden)
			return
		}
		id, err := account(r)
		if err != nil || id == "" {
			http.Error(w, "sign in first", http.StatusUnauthorized)
			return
		}
		receipt, err := m.Claim(w, r, id)
		switch {
		case err == nil:
			writeReceipt(w, http.StatusOK, receipt)
		case errors.Is(err, ErrClaimed), errors.Is(err, ErrAmbiguous):
			http.Error(w, "this guest cannot be claimed by this account", http.StatusConflict)
		case errors.Is(err, ErrCrossOrigin):
			http.Error(w, "a claim must come from the same site", http.StatusForbidden)
		case errors.Is(err, ErrInvalid):
			http.Error(w, "the account cannot be used", http.StatusUnauthorized)
		default:
			w.Header().Set("Retry-After", "1")
			writeReceipt(w, http.StatusServiceUnavailable, receipt)
		}
	})
}

func writeReceipt(w http.ResponseWriter, status int, receipt Receipt) {
	body, err := json.Marshal(receipt)
	if err != nil {
		http.Error(w, "the receipt cannot be shown", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}

// Preview returns the receipt that a claim of the visitor's guest by this account would have,
// without claiming it. It returns the errors of [Manager.Claim], and [ErrNoVisitor] if the context
// has no visitor of this Manager.
func (m *Manager) Preview(ctx context.Context, accountID string) (Receipt, error) {
	receipt := noReceipt(accountID)
	if err := checkAccountID(accountID); err != nil {
		return receipt, err
	}
	v := m.site.visitorIn(ctx)
	if v == nil {
		return receipt, ErrNoVisitor
	}
	v.mu.Lock()
	who, err := v.who, v.unproven() // a preview is no claim, so Hooks.Refused is not called
	v.mu.Unlock()
	if err != nil || who.state == noGuest {
		return receipt, err
	}
	return m.site.claimer.preview(ctx, v.storeBudget(), who.guest.ID, accountID)
}
