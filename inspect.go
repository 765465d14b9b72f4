package guest

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/guestkit/guest/internal/record"
	"github.com/guestkit/guest/internal/token"
)

// An Inspector shows what tokens say and what is stored, for operators' tools such as cmd/guestctl.
// It changes nothing: it extends no life and continues no claim. What it shows proves nothing about
// a request, so no handler should act on it.
type Inspector struct{ site *site }

// Inspect returns the Manager's Inspector.
func (m *Manager) Inspect() Inspector { return Inspector{m.site} }

// What the verification of a token found.
const (
	TokenValid     = "valid"
	TokenExpired   = "expired"   // one of Config.Secrets signed it, but it is older than Config.TTL
	TokenForged    = "forged"    // none of Config.Secrets signed it for a cookie of this name
	TokenMalformed = "malformed" // it does not have the form of a token
)

// A TokenInfo is what the token of a cookie says. A forged token may say anything.
type TokenInfo struct {
	// Verdict is TokenValid, TokenExpired, TokenForged or TokenMalformed.
	Verdict string `json:"verdict"`

	Secret      int       `json:"secret"` // which of Config.Secrets signed it, from 0; -1: none
	GuestID     string    `json:"guest_id,omitempty"`
	Created     time.Time `json:"created,omitzero"` // when the guest was created
	Issued      time.Time `json:"issued,omitzero"`  // when the cookie was made
	Expires     time.Time `json:"expires,omitzero"` // when the cookie expires
	Provisional bool      `json:"provisional"`      // the cookie had not come back when it was made
}

// Token returns what the value of the cookie of that name says.
func (i Inspector) Token(name, value string) TokenInfo {
	info := TokenInfo{Verdict: TokenMalformed, Secret: -1}
	t, ok := token.Unverified(value)
	if !ok {
		return info
	}
	issued := time.Unix(t.IssuedAt, 0)
	keyring := i.site.keyring
	info = TokenInfo{
		Verdict:     TokenForged,
		Secret:      keyring.SignedBy(name, value),
		GuestID:     t.ID.String(),
		Created:     time.UnixMilli(t.CreatedAt).UTC(),
		Issued:      issued.UTC(),
		Expires:     issued.Add(i.site.lifetimes.guest).UTC(),
		Provisional: t.Provisional,
	}
	switch _, expired, err := keyring.Verify(name, value); {
	case expired:
		info.Verdict = TokenExpired
	case err == nil:
		info.Verdict = TokenValid
	}
	return info
}

// States of a record. The record of an account is StateNone or StateOpen.
const (
	StateNone = "none" // there is no record
	StateOpen = "open" // it can be read and written

	// StateFrozen: a guest whose claim is under way. Its data belong to its owner, but are not all
	// in the owner's record yet.
	StateFrozen = "frozen"

	StateClaimed   = "claimed"   // a claimed guest: a tombstone without data
	StateForgotten = "forgotten" // a guest that its visitor had erased: a tombstone without data
)

// A RecordInfo is what is stored of a guest or an account.
type RecordInfo struct {
	Key       string    `json:"key"`   // in the Store
	State     string    `json:"state"` // StateNone and so on
	ClaimID   string    `json:"claim_id,omitempty"`
	ClaimedAt time.Time `json:"claimed_at,omitzero"`

	// OwnerKey is the key of the record that has the data of a claimed guest, or gets those of a
	// frozen one.
	OwnerKey string `json:"owner_key,omitempty"`

	// AccountID is the account that claims a frozen guest. A tombstone holds only the OwnerKey.
	AccountID string `json:"account_id,omitempty"`

	Kinds []KindInfo `json:"kinds"`

	// Claims are the latest claims that brought data into this record, the oldest first, with what
	// is remembered of them: ID, GuestID, At and Kinds.
	Claims []Receipt `json:"claims"`
}

// A KindInfo is what a record holds of one kind of data.
type KindInfo struct {
	Name      string `json:"name"`
	PerItem   bool   `json:"per_item"` // a Map or Counters
	Encrypted bool   `json:"encrypted"`
	Items     int    `json:"items"`
	Bytes     int    `json:"bytes"` // of names and values, as stored

	// Data are in the form of Manager.Export; absent if no secret decrypts them.
	Data json.RawMessage `json:"data,omitempty"`
}

// Guest returns what is stored of a guest. The error is [ErrInvalid] if guestID does not have the
// form of an ID, or it wraps [ErrUnavailable].
func (i Inspector) Guest(ctx context.Context, guestID string) (RecordInfo, error) {
	id, err := checkGuestID(guestID)
	if err != nil {
		return RecordInfo{}, err
	}
	return i.record(ctx, record.GuestKey(id))
}

// Account returns what is stored of an account. The error is [ErrInvalid] if accountID is empty or
// over 512 bytes, or it wraps [ErrUnavailable].
func (i Inspector) Account(ctx context.Context, accountID string) (RecordInfo, error) {
	if err := checkAccountID(accountID); err != nil {
		return RecordInfo{}, err
	}
	return i.record(ctx, record.AccountKey(accountID))
}

func (i Inspector) record(ctx context.Context, key string) (RecordInfo, error) {
	fields, err := i.site.records.get(ctx, nil, key)
	if err != nil {
		return RecordInfo{}, err
	}
	info := RecordInfo{
		Key: key, State: StateOpen,
		ClaimID: fields[record.Incarnation], Kinds: i.kinds(key, fields),
	}
	switch state := fields[record.State]; {
	case len(fields) == 0:
		info.State = StateNone
	case state == record.Forgotten:
		info.State = StateForgotten
	case state != "":
		h := record.HolderOf(state)
		info.State = StateClaimed
		if h.Frozen {
			info.State = StateFrozen
		}
		info.OwnerKey, info.AccountID = h.Key, h.Owner.Account()
		info.ClaimedAt = record.Time(fields[record.ClaimedAt])
	}
	info.Claims, err = claimsIn(fields)
	if err != nil {
		return RecordInfo{}, err
	}
	return info, nil
}

// kinds returns what a record holds, by kind.
func (i Inspector) kinds(key string, fields record.Fields) []KindInfo {
	infos := []KindInfo{}
	data := record.DataOf(fields)
	for _, k := range i.site.kinds.heldBy(data) {
		info := KindInfo{Name: k.name, PerItem: k.perItem}
		for field, stored := range data {
			if name, _ := splitField(field); name == k.name {
				info.Items++
				info.Bytes += len(field) + len(stored)
				info.Encrypted = info.Encrypted || token.IsEncrypted(stored)
			}
		}
		shown, err := k.export(i.site.keyring, key, data)
		if err == nil && json.Valid(shown) {
			info.Data = shown
		}
		infos = append(infos, info)
	}
	return infos
}

// claimsIn returns the receipts in the markers of a record, the oldest first.
func claimsIn(fields record.Fields) ([]Receipt, error) {
	claims := []Receipt{}
	if _, err := record.GenerationOf(fields); err != nil { // a newer release wrote the markers
		return nil, err
	}
	for _, incarnation := range record.MarkersIn(fields) {
		m, _, err := record.MarkerOf(fields, incarnation)
		if err != nil {
			return nil, err
		}
		kinds, err := unpackKinds(m.Kinds)
		if err != nil {
			return nil, err
		}
		claims = append(claims, Receipt{
			ID: incarnation, GuestID: record.GuestID(m.Guest), At: time.Unix(m.At, 0).UTC(),
			Kinds: kinds, Claimed: true,
		})
	}
	slices.SortStableFunc(claims, func(a, b Receipt) int { return a.At.Compare(b.At) })
	return claims, nil
}

// Pending returns the claims under way. [Manager.Recover] finishes all of them,
// [Manager.RecoverClaim] finishes one.
func (i Inspector) Pending(ctx context.Context) (pending []PendingClaim, err error) {
	err = i.site.claimer.eachEntry(ctx, func(e entryInOutbox) error {
		sibling, absorbs := e.Owner.Guest()
		p := PendingClaim{
			ID:        e.Incarnation,
			GuestID:   record.GuestID(e.Guest),
			AccountID: e.Owner.Account(),
			Started:   record.Time(e.added),
			Age:       e.age(),
			entry:     e,
		}
		if absorbs {
			p.SiblingID = sibling.ID.String()
		}
		p.State, err = i.stateOf(ctx, e)
		pending = append(pending, p)
		return err
	})
	return pending, err
}

// stateOf returns how far the claim of an outbox entry is: ClaimStarted and so on.
func (i Inspector) stateOf(ctx context.Context, e entryInOutbox) (string, error) {
	guest, err := i.site.records.get(ctx, nil, e.Guest, record.State, record.Incarnation)
	if err != nil {
		return "", err
	}
	switch state := guest[record.State]; {
	case state == "":
		return ClaimStarted, nil
	case guest[record.Incarnation] != e.Incarnation:
		return ClaimLost, nil
	case state == e.Owner.Claimed():
		return ClaimFinished, nil
	case state != e.Owner.Frozen():
		return ClaimLost, nil
	}
	marker := record.MarkerField(e.Incarnation)
	target, err := i.site.records.get(ctx, nil, e.Owner.Key(), marker)
	if err != nil {
		return "", err
	}
	if target[marker] != "" {
		return ClaimMerged, nil
	}
	return ClaimFrozen, nil
}
