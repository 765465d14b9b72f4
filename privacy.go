package guest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/guestkit/guest/internal/record"
)

// Forget erases the guests of the request and their cookies. A copy of such a cookie, or a ticket,
// finds nothing afterwards and brings nothing back: see [ErrGone]. Data that an account has claimed
// are the account's and stay. Without a guest it does nothing. On an error the cookie is kept, so
// that it can be tried again: [ErrCrossOrigin] or [ErrAmbiguous] if the request proves too little,
// as for [Manager.Claim], or it wraps [ErrUnavailable].
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

// EraseGuest erases what is held on the guest, as [Manager.Forget] does: for jobs and tools, as
// [Manager.AsGuest]. A guest that was claimed is left alone, as its data are its owner's:
// [ErrClaimed]. The error is [ErrInvalid] if guestID has not the form of an ID, or wraps
// [ErrUnavailable].
func (m *Manager) EraseGuest(ctx context.Context, guestID string) error {
	id, err := checkGuestID(guestID)
	if err != nil {
		return err
	}
	return m.site.claimer.erase(context.WithoutCancel(ctx), nil, id)
}

// EraseAccount erases what is held on the account. Claims for it that are under way are finished
// first, so that nothing comes back; data among them that this process cannot read are dropped. If
// one cannot be finished, the error says so: call it again.
func (m *Manager) EraseAccount(ctx context.Context, accountID string) error {
	if err := checkAccountID(accountID); err != nil {
		return err
	}
	return m.site.claimer.eraseAccount(context.WithoutCancel(ctx), accountID)
}

// Export returns what is held on the visitor of ctx, by kind: a Value as its JSON, a Map and
// Counters as an object. Of [Manager.As] it exports an account. What cannot be read is left out,
// item by item; then the error wraps [ErrUnreadable] and names the kinds, and the rest is returned
// with it.
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
		shown, err := k.export(m.site.kinds.keyring, key, fields)
		unreadable = errors.Join(unreadable, err)
		if shown != nil {
			all[k.name] = shown
		}
	}
	return all, unreadable
}
