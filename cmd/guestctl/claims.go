package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/guestkit/guest"
)

type pending struct {
	Overdue time.Duration `default:"10m" help:"Exit with 1 if a claim is older than this."`
}

func (*pending) Help() string {
	return "A claim takes milliseconds, so a claim that is here for minutes was interrupted: by a crash, an outage, or an OnClaim that fails."
}

type pendingInfo struct {
	guest.PendingClaim
	AgeSeconds int64  `json:"age_seconds"`
	Outcome    string `json:"outcome,omitempty"` // of recover: finished, removed (only its outbox entry was left), or left
	Why        string `json:"why,omitempty"`     // why it was left
}

func (c *pending) Run(s *session) error {
	_, store, err := s.open()
	if err != nil {
		return err
	}
	claims, err := s.pending(store)
	if err != nil {
		return err
	}
	overdue := slices.ContainsFunc(claims, func(p pendingInfo) bool { return p.Age > c.Overdue })
	err = s.print(claims, func(t *tabwriter.Writer) {
		if len(claims) == 0 {
			row(t, "no claim is under way")
			return
		}
		row(t, "AGE", "STATE", "GUEST", "BY")
		for _, p := range claims {
			row(t, span(p.Age), p.State, p.GuestID, claimer(p.PendingClaim))
		}
	})
	if err == nil && overdue {
		return negative{}
	}
	return err
}

// pending returns the claims under way, the oldest first.
func (s *session) pending(store guest.Store) ([]pendingInfo, error) {
	m, err := s.manager(func(c *guest.Config) { c.Store = store })
	if err != nil {
		return nil, err
	}
	found, err := m.Inspect().Pending(s.ctx)
	if err != nil {
		return nil, err
	}
	claims := []pendingInfo{}
	for _, p := range found {
		claims = append(claims, pendingInfo{PendingClaim: p, AgeSeconds: int64(p.Age.Seconds())})
	}
	slices.SortFunc(claims, func(a, b pendingInfo) int { return a.Started.Compare(b.Started) })
	return claims, nil
}

type recovery struct {
	Rule           map[string]string `placeholder:"KIND=RULE" help:"How to merge a kind that both guest and account hold: account or guest (whose data stay, item by item), sum or max (of whole numbers)."`
	Older          time.Duration     `default:"1m" help:"Leave out younger claims, which may still be under way."`
	WithoutOnclaim bool              `help:"The app has no Config.OnClaim, or none is due for these claims."`
	TTL            time.Duration     `name:"ttl" default:"720h" help:"Config.TTL of the app."`
	AccountTTL     time.Duration     `name:"account-ttl" default:"0" help:"Config.AccountTTL of the app; 0: for ever."`
}

func (*recovery) Help() string {
	return `The app's own Manager.Recover finishes claims better: it has the merge rules and OnClaim. This
command does what can be done without them. It moves data to an account that holds none of the
kind, and removes outbox entries of claims that are done or never began. It leaves claims that need
a rule or an OnClaim, unless you give --rule and --without-onclaim. It is safe to run while the app runs.`
}

var errOnClaim = errors.New(
	"the app's OnClaim is due (let the app's Recover call it, or give --without-onclaim if it has none)")

func (c *recovery) Run(s *session) error {
	for kind, rule := range c.Rule {
		if !slices.Contains([]string{"account", "guest", "sum", "max"}, rule) {
			return usagef("--rule %s=%s: a rule is account, guest, sum or max", kind, rule)
		}
	}
	_, store, err := s.open()
	if err != nil {
		return err
	}
	claims, err := s.pending(store)
	if err != nil {
		return err
	}
	left, unavailable := false, error(nil)
	for i := range claims {
		p := &claims[i]
		if p.Age < c.Older || p.State == guest.ClaimStarted && p.Age < entryLife {
			p.Outcome, p.Why, left = "left", "it may still be under way", true
			continue
		}
		finished, err := c.finish(s, store, p.PendingClaim)
		switch {
		case finished:
			p.Outcome = "finished"
		case err != nil:
			p.Outcome, p.Why = "left", err.Error()
			if errors.Is(err, guest.ErrUnavailable) {
				unavailable = err
			}
		case p.Age >= entryLife:
			p.Outcome = "removed"
		default: // its guest belongs to another owner, but the entry is young
			p.Outcome, p.Why = "left", "its outbox entry is removed when it is 10 minutes old"
		}
		left = left || p.Outcome == "left"
	}
	err = s.print(claims, func(t *tabwriter.Writer) {
		if len(claims) == 0 {
			row(t, "no claim is under way")
			return
		}
		row(t, "AGE", "WAS", "GUEST", "BY", "OUTCOME")
		for _, p := range claims {
			outcome := p.Outcome
			if p.Why != "" {
				outcome += ": " + p.Why
			}
			row(t, span(p.Age), p.State, p.GuestID, claimer(p.PendingClaim), outcome)
		}
	})
	switch {
	case err != nil:
		return err
	case unavailable != nil:
		return unavailable
	case left:
		return negative{}
	}
	return nil
}

// After entryLife a claim that has not frozen its guest cannot do so any more, and Recover removes
// its outbox entry.
const entryLife = 10 * time.Minute

// finish finishes one claim, if it needs nothing of the app that was not given.
func (c *recovery) finish(s *session, store guest.Store, p guest.PendingClaim) (bool, error) {
	probe, err := s.manager(func(cfg *guest.Config) { cfg.Store = store })
	if err != nil {
		return false, err
	}
	var kinds []guest.Kind
	var due []string // kinds whose rule was needed but not given
	// a claim that has only started is not merged either; but its guest may be about to be frozen
	if p.State != guest.ClaimMerged {
		if kinds, err = c.kinds(s, probe, p, &due); err != nil {
			return false, err
		}
	}
	m, err := s.manager(func(cfg *guest.Config) {
		cfg.Store, cfg.Data = store, kinds
		cfg.TTL, cfg.ProvisionalTTL, cfg.AccountTTL = c.TTL, min(time.Hour, c.TTL), c.AccountTTL
		// As long as any app's can be. Otherwise markers would be removed while they are needed.
		cfg.TombstoneTTL = longestTTL
		cfg.OnClaim = func(context.Context, guest.Receipt) error {
			if c.WithoutOnclaim {
				return nil
			}
			return errOnClaim
		}
	})
	if err != nil {
		return false, err
	}
	finished, err := m.RecoverClaim(s.ctx, p)
	switch {
	case errors.Is(err, errOnClaim):
		err = errOnClaim
	case len(due) > 0:
		err = fmt.Errorf("guest and account both hold %s (let the app's Recover merge it by its own rule, or give --rule)", strings.Join(due, ", "))
	}
	return finished, err
}

const longestTTL = 400 * 24 * time.Hour

// kinds declares the kinds that are stored for the frozen guest, with the operator's rules.
// Encrypted data must be readable on both sides, or a merge would drop them.
func (c *recovery) kinds(s *session, m *guest.Manager, p guest.PendingClaim,
	due *[]string) (kinds []guest.Kind, err error) {
	source, err := m.Inspect().Guest(s.ctx, p.GuestID)
	if err != nil {
		return nil, err
	}
	var target guest.RecordInfo
	if p.SiblingID != "" {
		target, err = m.Inspect().Guest(s.ctx, p.SiblingID)
	} else {
		target, err = m.Inspect().Account(s.ctx, p.AccountID)
	}
	if err != nil {
		return nil, err
	}
	held := map[string]guest.KindInfo{}
	for _, k := range target.Kinds {
		held[k.Name] = k
	}
	for _, k := range source.Kinds {
		other, both := held[k.Name]
		if k.Data == nil || both && other.Data == nil {
			return nil, fmt.Errorf("%s is encrypted (give the app's secrets)", k.Name)
		}
		kind, err := declare(k, other, c.Rule[k.Name], func() { *due = append(*due, k.Name) })
		if err != nil {
			return nil, err
		}
		kinds = append(kinds, kind)
	}
	return kinds, nil
}

// declare returns a kind that fits what is stored. Without a rule its merge calls due, and refuses.
func declare(k, other guest.KindInfo, rule string, due func()) (guest.Kind, error) {
	encrypted := k.Encrypted || other.Encrypted
	if rule == "sum" || rule == "max" {
		var numbers guest.Merge[int64] = guest.Sum[int64]
		if rule == "max" {
			numbers = guest.Max[int64]
		}
		switch {
		case !whole(k) || other.Data != nil && !whole(other) || encrypted:
			return nil, fmt.Errorf("--rule %s=%s: %s does not hold only whole numbers", k.Name,
				rule, k.Name)
		case k.PerItem:
			return guest.NewCounters(k.Name, guest.EachItem(numbers)), nil
		}
		return guest.NewValue(k.Name, numbers), nil
	}
	var merge guest.Merge[json.RawMessage]
	switch rule {
	case "account":
		merge = guest.PreferAccount[json.RawMessage]
	case "guest":
		merge = guest.PreferGuest[json.RawMessage]
	default:
		merge = func(_, _ json.RawMessage) json.RawMessage {
			due()
			panic("no rule") // the Manager turns it into an error and changes nothing
		}
	}
	if k.PerItem {
		kind := guest.NewMap(k.Name, perItem(merge, rule == ""))
		if encrypted {
			return kind.Encrypted(), nil
		}
		return kind, nil
	}
	kind := guest.NewValue(k.Name, merge)
	if encrypted {
		return kind.Encrypted(), nil
	}
	return kind, nil
}

// perItem is guest.EachItem. Without a rule it refuses even if no item is on both sides, since the
// app's own rule may not work item by item.
func perItem(merge guest.Merge[json.RawMessage],
	refuse bool) guest.Merge[map[string]json.RawMessage] {
	if refuse {
		return func(_, _ map[string]json.RawMessage) map[string]json.RawMessage {
			merge(nil, nil)
			return nil
		}
	}
	return guest.EachItem(merge)
}

// whole reports whether a kind holds only whole numbers.
func whole(k guest.KindInfo) bool {
	if !k.PerItem {
		var n int64
		return json.Unmarshal(k.Data, &n) == nil
	}
	var items map[string]int64
	return json.Unmarshal(k.Data, &items) == nil
}
