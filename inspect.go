package guest

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/guestkit/guest/internal/record"
	"github.com/guestkit/guest/internal/token"
)

// An Inspector tells what tokens say and what is stored, for operators' tools such as cmd/guestctl.
// It changes nothing: no life is extended, no claim goes on. What it tells is no proof of anything,
// so no handler should act on it.
type Inspector struct{ site *site }

// Inspect returns the Manager's Inspector.
func (m *Manager) Inspect() Inspector { return Inspector{m.site} }

// What a token turned out to be.
const (
	TokenValid     = "valid"
	TokenExpired   = "expired"   // it is ours, but older than Config.TTL
	TokenForged    = "forged"    // it has the form of ours, but none of Config.Secrets signed it under this name
	TokenMalformed = "malformed" // it does not have the form of ours
)

// A TokenInfo is what a cookie says. Of a forged token it is what the token says, which may be a
// lie.
type TokenInfo struct {
	Verdict     string    `json:"verdict"` // TokenValid, TokenExpired, TokenForged or TokenMalformed
	Secret      int       `json:"secret"`  // which of Config.Secrets signed it, from 0; -1: none
	GuestID     string    `json:"guest_id,omitempty"`
	Created     time.Time `json:"created,omitzero"` // when the guest was created
	Issued      time.Time `json:"issued,omitzero"`  // when the cookie was made
	Expires     time.Time `json:"expires,omitzero"` // from when on the cookie is worth nothing
	Provisional bool      `json:"provisional"`      // it has not come back yet
}

// Token tells what the value of the cookie of that name says.
func (i Inspector) Token(name, value string) TokenInfo {
	info := TokenInfo{Verdict: TokenMalformed, Secret: -1}
	t, ok := token.Unverified(value)
	if !ok {
		return info
	}
	issued := time.Unix(t.IssuedAt, 0)
	keyring := i.site.kinds.keyring
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

// States of a record. An account's is none or open.
const (
	StateNone    = "none"    // there is no record
	StateOpen    = "open"    // it can be read and written
	StateFrozen  = "frozen"  // a guest whose claim is under way: its data are its owner's, but not there yet
	StateClaimed = "claimed" // a guest that was claimed: a tombstone without data

	StateForgotten = "forgotten" // a guest that its visitor had erased: a tombstone without data
)

// A RecordInfo is what is stored of a guest or an account.
type RecordInfo struct {
	Key       string     `json:"key"`   // in the Store
	State     string     `json:"state"` // StateNone, StateOpen, StateFrozen, StateClaimed or StateForgotten
	ClaimID   string     `json:"claim_id,omitempty"`
	ClaimedAt time.Time  `json:"claimed_at,omitzero"`
	OwnerKey  string     `json:"owner_key,omitempty"`  // of a claimed guest: the key of the record that gets or has its data
	AccountID string     `json:"account_id,omitempty"` // of a frozen guest: the account; a tombstone has only its key
	Kinds     []KindInfo `json:"kinds"`
	// The latest claims that brought data into this record, the oldest first, with what is
	// remembered of them: ID, GuestID, At, Kinds.
	Claims []Receipt `json:"claims"`
}

// A KindInfo is what a record holds of one kind of data.
type KindInfo struct {
	Name      string          `json:"name"`
	PerItem   bool            `json:"per_item"` // a Map or Counters
	Encrypted bool            `json:"encrypted"`
	Items     int             `json:"items"`
	Bytes     int             `json:"bytes"`          // names and values, as stored
	Data      json.RawMessage `json:"data,omitempty"` // as of Manager.Export; absent if no secret decrypts it
}

// Guest tells what is stored of a guest. The error is [ErrInvalid] if guestID has not the form of
// an ID, or wraps [ErrUnavailable].
func (i Inspector) Guest(ctx context.Context, guestID string) (RecordInfo, error) {
	id, err := checkGuestID(guestID)
	if err != nil {
		return RecordInfo{}, err
	}
	return i.record(ctx, record.GuestKey(id))
}

// Account tells what is stored of an account. The error is [ErrInvalid] if accountID is empty or
// over 512 bytes, or wraps [ErrUnavailable].
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
		Key: key, State: StateOpen, ClaimID: fields[record.Incarnation], Kinds: i.kinds(key, fields),
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

// kinds tells what a record holds, by kind.
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
		if shown, err := k.export(i.site.kinds.keyring, key, data); err == nil && json.Valid(shown) {
			info.Data = shown
		}
		infos = append(infos, info)
	}
	return infos
}

// claimsIn returns what the markers of a record say, the oldest first.
func claimsIn(fields record.Fields) ([]Receipt, error) {
	claims := []Receipt{}
	if _, err := record.GenerationOf(fields); err != nil { // it has the version
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

// Pending returns the claims under way. [Manager.Recover] finishes them, [Manager.RecoverClaim] one
// of them.
func (i Inspector) Pending(ctx context.Context) (pending []PendingClaim, err error) {
	err = i.site.claimer.eachEntry(ctx, func(e entryInOutbox) error {
		sibling, absorbs := e.Owner.Guest()
		p := PendingClaim{
			ID:        e.Incarnation,
			GuestID:   record.GuestID(e.Guest),
			AccountID: e.Owner.Account(),
			Started:   record.Time(e.added),
			Age:       e.age,
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
