package guest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
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
		if err := m.eraseGuest(ctx, p.id); err != nil && err != ErrClaimed { // then there is nothing of it left to erase
			return err
		}
		v.release(p)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.version.Add(1)
	if header != nil && !v.sent {
		v.stamp(header)
	}
	return nil
}

// EraseGuest erases what is held on the guest, whose cookie then is one of a guest without data: for jobs and tools, as
// [Manager.AsGuest]. A guest that was claimed is left alone, as its data are its owner's: [ErrClaimed].
func (m *Manager) EraseGuest(ctx context.Context, guestID string) error {
	id, err := checkGuestID(guestID)
	if err != nil {
		return err
	}
	return m.eraseGuest(ctx, id)
}

// eraseGuest leaves a record alone that is sealed or buried: it is the claim's, and goes by itself.
func (m *Manager) eraseGuest(ctx context.Context, id guestID) error {
	u := Update{If: Fields{fieldState: ""}, Drop: true}
	res, err := m.update(context.WithoutCancel(ctx), guestKey(id), u)
	if err == nil && !res.Applied {
		return ErrClaimed
	}
	return err
}

// EraseAccount erases what is held on the account. Claims for it that are under way are finished first, so that
// nothing comes back; data among them that this process cannot read are dropped. If one cannot be finished, the error
// says so: call it again.
func (m *Manager) EraseAccount(ctx context.Context, accountID string) error {
	if err := checkAccountID(accountID); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	pending := m.eachNote(ctx, func(n note, made string, now time.Time) error {
		if n.owner != ownerAccount(accountID) {
			return nil
		}
		c := m.newClaim(n.guest, n.owner)
		c.merge = m.mergeToErase(n.guest)
		c.only, c.fresh = n.incarnation, n.incarnation
		milli, _ := strconv.ParseInt(made, 10, 64)
		c.finishOnly = now.Sub(time.UnixMilli(milli)) > sealWithin // its claimer cannot seal any more
		_, err := m.settle(ctx, c, n, made, now)
		return err
	})
	// A merge that was prepared before does not apply after this: its markers are not those of a new record.
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
		if all[k.name], err = k.export(m.ring, key, fields); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (k *kind) export(ring *keyring, key string, fields Fields) (json.RawMessage, error) {
	items, err := k.items(ring, key, fields)
	if err != nil {
		return nil, err
	}
	if !k.perItem {
		return json.RawMessage(items[""]), nil
	}
	object := map[string]json.RawMessage{}
	for item, plain := range items {
		object[item] = json.RawMessage(plain)
	}
	all, err := json.Marshal(object)
	if err != nil {
		return nil, k.fault(err)
	}
	return all, nil
}
