package guest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/guestkit/guest/internal/record"
)

// Forget erases the guests of the request and their cookies. Later a copy of such a cookie, or a
// ticket, finds nothing and brings nothing back: see [ErrGone]. Data that an account has claimed
// belong to the account and stay. Without a guest Forget does nothing.
//
// If there is an error, the cookie is kept so that Forget can be called again. The error is
// [ErrCrossOrigin] or [ErrAmbiguous] if the request does not prove that the guest is its own, as
// for [Manager.Claim], or it wraps [ErrUnavailable].
func (m *Manager) Forget(w http.ResponseWriter, r *http.Request) error {
	return m.site.visitorOf(r).forget(r.Context(), w.Header())
}

// ForgetContext is [Manager.Forget] for code that has only the context of a request: see
// [Manager.ClaimContext].
func (m *Manager) ForgetContext(ctx context.Context) error {
	v := m.site.visitorOfRequest(ctx)
	if v == nil {
		return ErrNoVisitor
	}
	return v.forget(ctx, v.responseHeader())
}

// EraseGuest erases what is held on the guest, as [Manager.Forget] does: for jobs and tools, like
// [Manager.AsGuest]. A claimed guest is left alone, because its data belong to its owner:
// [ErrClaimed]. The error is [ErrInvalid] if guestID does not have the form of an ID, or it wraps
// [ErrUnavailable].
func (m *Manager) EraseGuest(ctx context.Context, guestID string) error {
	id, err := checkGuestID(guestID)
	if err != nil {
		return err
	}
	return m.site.claimer.erase(context.WithoutCancel(ctx), nil, id)
}

// EraseAccount erases what is held on the account. It finishes the claims for the account first, so
// that nothing comes back later; data in them that this process cannot read are dropped. If a claim
// cannot be finished, the error says so: call EraseAccount again. The error is [ErrInvalid] if
// accountID is empty or over 512 bytes.
func (m *Manager) EraseAccount(ctx context.Context, accountID string) error {
	if err := checkAccountID(accountID); err != nil {
		return err
	}
	return m.site.claimer.eraseAccount(context.WithoutCancel(ctx), accountID)
}

// Export returns what is held on the visitor of ctx, by kind: a Value as its JSON, a Map and
// Counters as a JSON object. With the context of [Manager.As] it exports an account. Items that
// cannot be read are left out; then the rest is returned together with an error that wraps
// [ErrUnreadable] and names the kinds.
func (m *Manager) Export(ctx context.Context) (map[string]json.RawMessage, error) {
	v := m.site.visitorIn(ctx)
	if v == nil {
		return nil, ErrNoVisitor
	}
	key, fields, err := v.get(ctx)
	if err != nil {
		return nil, err
	}
	all := map[string]json.RawMessage{}
	var unreadable error
	for _, k := range m.site.kinds.heldBy(record.DataOf(fields)) {
		shown, err := k.export(m.site.keyring, key, fields)
		unreadable = errors.Join(unreadable, err)
		if shown != nil {
			all[k.name] = shown
		}
	}
	return all, unreadable
}
