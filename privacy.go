package guest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// Forget erases the guest of the request and its cookie. Data that an account has claimed are the account's and
// stay. Without a guest it does nothing. On an error the cookie is kept, so that it can be tried again.
func (m *Manager) Forget(w http.ResponseWriter, r *http.Request) error {
	return m.forget(r.Context(), m.visitorOf(r), w.Header())
}

// ForgetContext is [Manager.Forget] for code that has only the context of a request: see [Manager.ClaimContext].
func (m *Manager) ForgetContext(ctx context.Context) error {
	v := m.visitorIn(ctx)
	if v == nil {
		return ErrNoVisitor
	}
	return m.forget(ctx, v, v.header)
}

func (m *Manager) forget(ctx context.Context, v *Visitor, header http.Header) error {
	v.mu.Lock()
	held := v.guests()
	v.mu.Unlock()
	for _, p := range held {
		// Sealed or buried, the record is the claim's: it goes by itself.
		u := Update{If: Fields{fieldState: ""}, Drop: true}
		if _, err := m.update(context.WithoutCancel(ctx), guestKey(p.id), u); err != nil {
			return err
		}
		v.release(p)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.version.Add(1)
	if header != nil {
		v.stamp(header)
	}
	return nil
}

// EraseAccount erases what is held on the account. Claims for it that are under way are finished first, so that
// nothing comes back; if one cannot be, the error says so: call it again.
func (m *Manager) EraseAccount(ctx context.Context, accountID string) error {
	if err := checkAccountID(accountID); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	pending := m.eachNote(ctx, func(n note, made string, now time.Time) error {
		if n.owner != ownerAccount(accountID) {
			return nil
		}
		_, err := m.settle(ctx, n, made, now)
		return err
	})
	_, err := m.update(ctx, accountKey(accountID), Update{Drop: true})
	return errors.Join(pending, err)
}

// Export returns what is held on the visitor of ctx, by kind: a Value as its JSON, a Map and Counters as an object.
// Of [Manager.As] it exports an account.
func (m *Manager) Export(ctx context.Context) (map[string]json.RawMessage, error) {
	v := FromContext(ctx)
	if v == nil {
		return nil, ErrNoVisitor
	}
	key, fields, err := v.get(withoutPrefetch(ctx))
	if err != nil {
		return nil, err
	}
	all := map[string]json.RawMessage{}
	for _, k := range m.merger(nil).kindsOf(dataOf(fields)) {
		items, err := k.items(m.ring, key, fields)
		if err != nil {
			return nil, err
		}
		if !k.perItem {
			all[k.name] = json.RawMessage(items[""])
			continue
		}
		object := map[string]json.RawMessage{}
		for item, plain := range items {
			object[item] = json.RawMessage(plain)
		}
		if all[k.name], err = json.Marshal(object); err != nil {
			return nil, k.fault(err)
		}
	}
	return all, nil
}
