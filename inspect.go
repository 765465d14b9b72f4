package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An Inspector tells what tokens say and what is stored, for operators' tools such as cmd/guestctl. It changes nothing:
// no life is extended, no claim goes on. What it tells is no proof of anything, so no handler should act on it.
type Inspector struct{ m *Manager }

// Inspect returns the Manager's Inspector.
func (m *Manager) Inspect() Inspector { return Inspector{m} }

// What a token turned out to be.
const (
	TokenValid     = "valid"
	TokenExpired   = "expired"   // it is ours, but older than Config.TTL
	TokenForged    = "forged"    // it has the form of ours, but none of Config.Secrets signed it under this name
	TokenMalformed = "malformed" // it does not have the form of ours
)

// A TokenInfo is what a cookie says. Of a forged token it is what the token says, which may be a lie.
type TokenInfo struct {
	Verdict     string    `json:"verdict"` // TokenValid, TokenExpired, TokenForged or TokenMalformed
	Secret      int       `json:"secret"`  // which of Config.Secrets signed it, from 0; -1: none
	GuestID     string    `json:"guest_id,omitempty"`
	Born        time.Time `json:"born,omitzero"`    // when the guest was minted
	Issued      time.Time `json:"issued,omitzero"`  // when the cookie was made
	Expires     time.Time `json:"expires,omitzero"` // from when on the cookie is worth nothing
	Provisional bool      `json:"provisional"`      // it has not come back yet
}

// Token tells what the value of the cookie of that name says.
func (i Inspector) Token(name, value string) TokenInfo {
	info := TokenInfo{Verdict: TokenMalformed, Secret: -1}
	t, ok := unverified(value)
	if !ok {
		return info
	}
	issued := time.Unix(t.issued, 0)
	info = TokenInfo{
		Verdict: TokenForged, Secret: -1,
		GuestID:     t.id.String(),
		Born:        time.UnixMilli(t.born).UTC(),
		Issued:      issued.UTC(),
		Expires:     issued.Add(i.m.cfg.TTL).UTC(),
		Provisional: t.provisional,
	}
	for n := range i.m.ring.lapsed {
		if _, err := open(i.m.ring.lapsed[n:n+1], name, value); err == nil {
			info.Secret = n
		}
	}
	switch _, lapsed, err := i.m.ring.openToken(name, value); {
	case lapsed:
		info.Verdict = TokenExpired
	case err == nil:
		info.Verdict = TokenValid
	}
	return info
}

// unverified reads a token without its signature. What securecookie makes is base64 of date|base64 of the token|MAC.
func unverified(value string) (token, bool) {
	if len(value) > longestToken {
		return token{}, false
	}
	outer, err := base64.URLEncoding.DecodeString(value)
	parts := bytes.SplitN(outer, []byte("|"), 3)
	if err != nil || len(parts) != 3 || len(parts[2]) != sha256.Size {
		return token{}, false
	}
	b, err := base64.URLEncoding.DecodeString(string(parts[1]))
	if err != nil {
		return token{}, false
	}
	return parseToken(b)
}

// States of a record. An account's is none or open.
const (
	StateNone    = "none"    // there is no record
	StateOpen    = "open"    // it can be read and written
	StateFrozen  = "sealed"  // a guest whose claim is under way: its data are its owner's, but not there yet
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
	AccountID string     `json:"account_id,omitempty"` // of a sealed guest: the account; a tombstone has only its key
	Kinds     []KindInfo `json:"kinds"`
	// The latest claims that brought data into this record, the oldest first, with what is remembered
	// of them: ID, GuestID, At, Kinds.
	Claims []Receipt `json:"claims"`
}

// A KindInfo is what a record holds of one kind of data.
type KindInfo struct {
	Name      string          `json:"name"`
	PerItem   bool            `json:"per_item"` // a Map or Counters
	Encrypted bool            `json:"encrypted"`
	Items     int             `json:"items"`
	Bytes     int             `json:"bytes"`          // names and values, as stored
	Data      json.RawMessage `json:"data,omitempty"` // as of Manager.Export; absent if it is sealed and no secret opens it
}

// Guest tells what is stored of a guest. The error is [ErrInvalid] if guestID has not the form of an ID, or wraps
// [ErrUnavailable].
func (i Inspector) Guest(ctx context.Context, guestID string) (RecordInfo, error) {
	id, err := checkGuestID(guestID)
	if err != nil {
		return RecordInfo{}, err
	}
	return i.record(ctx, guestKey(id))
}

// Account tells what is stored of an account. The error is [ErrInvalid] if accountID is empty or over 512 bytes, or
// wraps [ErrUnavailable].
func (i Inspector) Account(ctx context.Context, accountID string) (RecordInfo, error) {
	if err := checkAccountID(accountID); err != nil {
		return RecordInfo{}, err
	}
	return i.record(ctx, accountKey(accountID))
}

func checkGuestID(s string) (guestID, error) {
	id, ok := parseGuestID(s)
	if !ok {
		return id, fmt.Errorf("%w: a guest ID has 22 characters, as Visitor.GuestID returns it", ErrInvalid)
	}
	return id, nil
}

func (i Inspector) record(ctx context.Context, key string) (RecordInfo, error) {
	fields, err := i.m.get(ctx, key)
	if err != nil {
		return RecordInfo{}, err
	}
	info := RecordInfo{Key: key, State: StateOpen, ClaimID: fields[fieldIncarnation], Kinds: []KindInfo{}, Claims: []Receipt{}}
	switch state := fields[fieldState]; {
	case len(fields) == 0:
		info.State = StateNone
	case state == forgotten:
		info.State = StateForgotten
	case state != "":
		h := holderOf(state)
		info.State = StateClaimed
		if h.sealed {
			info.State = StateFrozen
		}
		info.OwnerKey, info.AccountID = h.key, h.owner.account()
		if milli, _ := strconv.ParseInt(fields[fieldClaimedAt], 10, 64); milli > 0 {
			info.ClaimedAt = time.UnixMilli(milli).UTC()
		}
	}
	data := dataOf(fields)
	for _, k := range i.m.merger(nil).kindsOf(data) {
		kind := KindInfo{Name: k.name, PerItem: k.perItem}
		for field, stored := range data {
			if name, _ := splitField(field); name == k.name {
				kind.Items++
				kind.Bytes += len(field) + len(stored)
				kind.Encrypted = kind.Encrypted || stored[0] == sealedMark
			}
		}
		if shown, err := k.export(i.m.ring, key, data); err == nil && json.Valid(shown) {
			kind.Data = shown
		}
		info.Kinds = append(info.Kinds, kind)
	}
	if _, err := generationOf(fields); err != nil { // it has the version
		return RecordInfo{}, err
	}
	for _, incarnation := range markersIn(fields) {
		k, err := markerOf(fields, incarnation)
		if err != nil {
			return RecordInfo{}, err
		}
		info.Claims = append(info.Claims, Receipt{
			ID: incarnation, GuestID: strings.TrimPrefix(k.guest, "g:"), At: time.Unix(k.at, 0).UTC(),
			Kinds: k.kinds, Claimed: true,
		})
	}
	slices.SortStableFunc(info.Claims, func(a, b Receipt) int { return a.At.Compare(b.At) })
	return info, nil
}

// Where a claim is that was noted and not struck.
const (
	ClaimStarted  = "started"  // its guest is open: it is about to be sealed, or its claimer died
	ClaimFrozen   = "frozen"   // its guest is frozen, the data are not the owner's yet
	ClaimMerged   = "merged"   // the data are the owner's; OnClaim is due, or the burial
	ClaimFinished = "finished" // it is done but for the note
	ClaimLost     = "lost"     // its guest is another's, or lives anew: only the note is left
)

// A PendingClaim is a claim under way, or one that a crash, an outage or a failing OnClaim left half done.
type PendingClaim struct {
	ID        string        `json:"id"`
	GuestID   string        `json:"guest_id"`
	AccountID string        `json:"account_id,omitempty"` // that claims it
	SiblingID string        `json:"sibling_id,omitempty"` // or the guest of the same browser that absorbs it
	State     string        `json:"state"`                // ClaimStarted, ClaimFrozen, ClaimMerged, ClaimFinished or ClaimLost
	Started   time.Time     `json:"started"`              // when it began, by the store's clock
	Age       time.Duration `json:"-"`                    // since then, by the same clock

	note note
	made string
}

// Pending returns the claims under way. [Manager.Recover] finishes them, [Manager.RecoverClaim] one of them.
func (i Inspector) Pending(ctx context.Context) (pending []PendingClaim, err error) {
	err = i.m.eachNote(ctx, func(n note, made string, now time.Time) error {
		milli, _ := strconv.ParseInt(made, 10, 64)
		sibling, isSibling := n.owner.guest()
		p := PendingClaim{
			ID:        n.incarnation,
			GuestID:   strings.TrimPrefix(n.guest, "g:"),
			AccountID: n.owner.account(),
			Started:   time.UnixMilli(milli).UTC(),
			note:      n,
			made:      made,
		}
		p.Age = now.Sub(p.Started)
		if isSibling {
			p.SiblingID = sibling.id.String()
		}
		p.State, err = i.stateOf(ctx, n)
		pending = append(pending, p)
		return err
	})
	return pending, err
}

func (i Inspector) stateOf(ctx context.Context, n note) (string, error) {
	guest, err := i.m.get(ctx, n.guest, fieldState, fieldIncarnation)
	if err != nil {
		return "", err
	}
	switch state := guest[fieldState]; {
	case state == "":
		return ClaimStarted, nil
	case guest[fieldIncarnation] != n.incarnation:
		return ClaimLost, nil
	case state == n.owner.tombstone():
		return ClaimFinished, nil
	case state != sealedBy+string(n.owner):
		return ClaimLost, nil
	}
	marked := fieldMarker + n.incarnation
	target, err := i.m.get(ctx, n.owner.key(), marked)
	if err != nil {
		return "", err
	}
	if target[marked] != "" {
		return ClaimMerged, nil
	}
	return ClaimFrozen, nil
}
