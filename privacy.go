package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/guestkit/guest/internal/record"
	"github.com/guestkit/guest/internal/token"
)

// Forget erases the guests of the request and their cookies. A copy of such a cookie, or a ticket, finds nothing
// afterwards and brings nothing back: see [ErrGone]. Data that an account has claimed are the account's and stay.
// Without a guest it does nothing. On an error the cookie is kept, so that it can be tried again: [ErrCrossOrigin] or
// [ErrAmbiguous] if the request proves too little, as for [Manager.Claim], or it wraps [ErrUnavailable].
func (m *Manager) Forget(w http.ResponseWriter, r *http.Request) error {
	return m.site.visitorOf(r).forget(r.Context(), w.Header())
}

// ForgetContext is [Manager.Forget] for code that has only the context of a request: see [Manager.ClaimContext].
func (m *Manager) ForgetContext(ctx context.Context) error {
	v := m.site.visitorOfRequest(ctx)
	if v == nil {
		return ErrNoVisitor
	}
	return v.forget(ctx, v.header.header)
}

func (v *Visitor) forget(ctx context.Context, header http.Header) error {
	who := v.identity()
	unsent := who.state == newGuest && who.use != written // so there is nothing to erase
	guests, err := v.ownGuests(ctx)
	if err != nil {
		return err
	}
	claimer, brought := v.site.claimer, credentials{tokens: guests}
	for _, p := range guests {
		if !unsent && !claimer.isOver(p.ID, &brought) {
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

// eraseFollowing erases the guest, or the sibling that absorbed it. Of one that an account has claimed
// nothing is left to erase.
func (c *claimer) eraseFollowing(
	ctx context.Context, b *requestBudget, id token.ID,
) error {
	ctx = context.WithoutCancel(ctx)
	for range mostHops {
		if err := c.erase(ctx, b, id); err != ErrClaimed {
			return err
		}
		key := record.GuestKey(id)
		fields, err := c.records.get(ctx, b, key, record.State)
		if err != nil {
			return err
		}
		state := fields[record.State]
		sibling, absorbed := record.HolderOf(state).Sibling()
		if !absorbed {
			return nil
		}
		if err := c.finish(ctx, b, key, state, false); err != nil {
			return err
		}
		id = sibling.ID
	}
	return errMoving
}

// EraseGuest erases what is held on the guest, as [Manager.Forget] does: for jobs and tools, as [Manager.AsGuest]. A
// guest that was claimed is left alone, as its data are its owner's: [ErrClaimed]. The error is [ErrInvalid] if guestID
// has not the form of an ID, or wraps [ErrUnavailable].
func (m *Manager) EraseGuest(ctx context.Context, guestID string) error {
	id, err := checkGuestID(guestID)
	if err != nil {
		return err
	}
	return m.site.claimer.erase(context.WithoutCancel(ctx), nil, id)
}

// erase replaces the guest's record by a tombstone without an owner. A record that is frozen or claimed
// is left alone: it is the claim's, and expires by itself. Then the error is [ErrClaimed].
func (c *claimer) erase(ctx context.Context, b *requestBudget, id token.ID) error {
	key := record.GuestKey(id)
	for range mostRounds {
		fields, err := c.records.get(ctx, b, key)
		if err != nil {
			return err
		}
		state, incarnation := fields[record.State], fields[record.Incarnation]
		if state != "" && state != record.Forgotten {
			return ErrClaimed
		}
		u := Update{
			If: Fields{record.State: state, record.Incarnation: incarnation},
			// A record of one field would count as empty.
			Default:   Fields{record.Incarnation: record.NewIncarnation()},
			Set:       Fields{record.State: record.Forgotten},
			TTL:       c.lifetimes.tombstone,
			Reserve:   true,
			ReturnAll: true,
		}
		for field := range fields {
			if field != record.State && field != record.Incarnation {
				u.Unset = append(u.Unset, field)
			}
		}
		res, err := c.records.update(ctx, b, key, u)
		switch {
		case err != nil:
			return err
		case res.Applied && len(res.Fields) == 2: // else a write came between: erase that in the next round
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
	claimer, owner := m.site.claimer, record.AccountOwner(accountID)
	pending := claimer.eachEntry(ctx, func(e entryInOutbox) error {
		if e.Owner != owner {
			return nil
		}
		run := claimer.newClaim(e.Guest, e.Owner)
		// What this process cannot read need not wait for another.
		merger := claimer.merger(nil)
		merger.erase = true
		run.merge = claimer.mergeOf(e.Guest, merger)
		run.only, run.newIncarnation = e.Incarnation, e.Incarnation
		run.finishOnly = e.age > freezeWithin // its process cannot freeze it any more
		_, err := claimer.settle(ctx, run, e)
		return err
	})
	// A merge that was prepared before does not apply after this: its generation is not that of a new
	// record.
	key := record.AccountKey(accountID)
	_, err := claimer.records.update(ctx, nil, key, Update{Drop: true})
	return errors.Join(pending, err)
}

// Export returns what is held on the visitor of ctx, by kind: a Value as its JSON, a Map and Counters as an object.
// Of [Manager.As] it exports an account. What cannot be read is left out, item by item; then the error wraps
// [ErrUnreadable] and names the kinds, and the rest is returned with it.
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
