package guest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Forget erases the guests of the request and their cookies. A copy of such a cookie, or a ticket, finds nothing
// afterwards and brings nothing back: see [ErrGone]. Data that an account has claimed are the account's and stay.
// Without a guest it does nothing. On an error the cookie is kept, so that it can be tried again: [ErrCrossOrigin] or
// [ErrAmbiguous] if the request proves too little, as for [Manager.Claim], or it wraps [ErrUnavailable].
func (m *Manager) Forget(w http.ResponseWriter, r *http.Request) error {
	return m.forget(r.Context(), m.visitorOf(r), w.Header())
}

// ForgetContext is [Manager.Forget] for code that has only the context of a request: see [Manager.ClaimContext].
func (m *Manager) ForgetContext(ctx context.Context) error {
	v := m.visitorOfRequest(ctx)
	if v == nil {
		return ErrNoVisitor
	}
	return m.forget(ctx, v, v.header)
}

func (m *Manager) forget(ctx context.Context, v *Visitor, header http.Header) error {
	v.mu.Lock()
	unknown := v.isNew && !v.stored && !v.wrote // its token was never sent, so there is nothing to erase
	v.mu.Unlock()
	held, err := v.claimable()
	if err != nil {
		m.refusedUnproven(ctx, err)
		return err
	}
	for _, p := range held {
		if !unknown && !m.isOver(p, held) {
			if err := m.eraseHeld(ctx, p.id); err != nil {
				return err
			}
			m.moved.put(p.id, departure{nobody: true})
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

// eraseHeld erases the guest, or the sibling that absorbed it. Of one that an account has nothing is left to erase.
func (m *Manager) eraseHeld(ctx context.Context, id guestID) error {
	for range mostHops {
		if err := m.eraseGuest(ctx, id); err != ErrClaimed {
			return err
		}
		key := guestKey(id)
		record, err := m.get(context.WithoutCancel(ctx), key, fieldState)
		if err != nil {
			return err
		}
		sibling, absorbed := holderOf(record[fieldState]).owner.guest()
		if !absorbed {
			return nil
		}
		if err := m.resolve(ctx, key, record[fieldState], false); err != nil {
			return err
		}
		id = sibling.id
	}
	return fmt.Errorf("%w: the guest's data are being moved", ErrUnavailable)
}

// EraseGuest erases what is held on the guest, as [Manager.Forget] does: for jobs and tools, as [Manager.AsGuest]. A
// guest that was claimed is left alone, as its data are its owner's: [ErrClaimed]. The error is [ErrInvalid] if guestID
// has not the form of an ID, or wraps [ErrUnavailable].
func (m *Manager) EraseGuest(ctx context.Context, guestID string) error {
	id, err := checkGuestID(guestID)
	if err != nil {
		return err
	}
	return m.eraseGuest(ctx, id)
}

// eraseGuest replaces the guest's record by a tombstone without an owner. A record that is sealed or buried is
// left alone: it is the claim's, and goes by itself.
func (m *Manager) eraseGuest(ctx context.Context, id guestID) error {
	ctx = context.WithoutCancel(ctx)
	key := guestKey(id)
	for range mostRounds {
		record, err := m.get(ctx, key)
		if err != nil {
			return err
		}
		state, incarnation := record[fieldState], record[fieldIncarnation]
		if state != "" && state != forgotten {
			return ErrClaimed
		}
		u := Update{
			If:        Fields{fieldState: state, fieldIncarnation: incarnation},
			Default:   Fields{fieldIncarnation: newIncarnation()}, // a record of one field would count as empty
			Set:       Fields{fieldState: forgotten},
			TTL:       m.cfg.TombstoneTTL,
			Reserve:   true,
			ReturnAll: true,
		}
		for field := range record {
			if field != fieldState && field != fieldIncarnation {
				u.Unset = append(u.Unset, field)
			}
		}
		res, err := m.update(ctx, key, u)
		switch {
		case err != nil:
			return err
		case res.Applied && len(res.Fields) == 2: // else a write came between, and is erased in the next round
			return nil
		}
	}
	return fmt.Errorf("%w: the guest kept changing", ErrUnavailable)
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
	// A merge that was prepared before does not apply after this: its generation is not that of a new record.
	_, err := m.update(ctx, accountKey(accountID), Update{Drop: true})
	return errors.Join(pending, err)
}

// Export returns what is held on the visitor of ctx, by kind: a Value as its JSON, a Map and Counters as an object.
// Of [Manager.As] it exports an account. What cannot be read is left out, item by item; then the error wraps
// [ErrUnreadable] and names the kinds, and the rest is returned with it.
func (m *Manager) Export(ctx context.Context) (map[string]json.RawMessage, error) {
	v := m.visitorIn(ctx)
	if v == nil {
		return nil, ErrNoVisitor
	}
	key, fields, err := v.get(withoutPrefetch(ctx))
	if err != nil {
		return nil, err
	}
	all := map[string]json.RawMessage{}
	var unreadable error
	for _, k := range m.merger(nil).kindsOf(dataOf(fields)) {
		shown, err := k.export(m.ring, key, fields)
		unreadable = errors.Join(unreadable, err)
		if shown != nil {
			all[k.name] = shown
		}
	}
	return all, unreadable
}

// export returns what can be read of the kind, or nil. The error says that it is not all.
func (k *kind) export(ring *keyring, key string, fields Fields) (shown json.RawMessage, err error) {
	object := map[string]json.RawMessage{}
	for item, stored := range k.stored(fields) {
		switch plain, fault := k.open(ring, key, k.field(item), stored); {
		case fault != nil:
			err = fault // of each item the same
		case !json.Valid([]byte(plain)):
			err = k.fault(fmt.Errorf("%w: what is stored is no JSON", ErrUnreadable))
		default:
			object[item] = json.RawMessage(plain)
		}
	}
	if len(object) == 0 {
		return nil, err
	}
	if !k.perItem {
		return object[""], err
	}
	shown, fault := json.Marshal(object)
	return shown, cmp.Or(err, fault)
}
