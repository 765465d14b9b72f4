package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/guestkit/guest"
	"github.com/redis/go-redis/v9"
)

// subject names the record that a command is about.
type subject struct {
	Type string `arg:"" enum:"guest,account" help:"guest or account."`
	ID   string `arg:"" help:"The guest's ID as Visitor.GuestID returns it, or the account's as the app gives it."`
}

type show struct {
	subject
	Data bool `help:"Show the data, too."`
}

type export struct{ subject }

type erase struct {
	subject
	Yes bool `help:"Do not ask."`
}

// record is what the commands print of a record.
type record struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	guest.RecordInfo
	Expires *time.Time           `json:"expires"` // null: for ever
	Memory  int64                `json:"memory"`  // bytes in Redis; 0: unknown
	Pending []guest.PendingClaim `json:"pending"` // claims under way that involve it
}

func (u subject) read(s *session) (r record, store guest.Store, err error) {
	rdb, store, err := s.open()
	if err != nil {
		return r, nil, err
	}
	m, err := s.manager(func(c *guest.Config) { c.Store = store })
	if err != nil {
		return r, nil, err
	}
	r = record{Type: u.Type, ID: u.ID, Pending: []guest.PendingClaim{}}
	if u.Type == "guest" {
		r.RecordInfo, err = m.Inspect().Guest(s.ctx, u.ID)
	} else {
		r.RecordInfo, err = m.Inspect().Account(s.ctx, u.ID)
	}
	if err != nil {
		return r, nil, err
	}
	all, err := m.Inspect().Pending(s.ctx)
	if err != nil {
		return r, nil, err
	}
	for _, p := range all {
		if u.Type == "guest" && (p.GuestID == u.ID || p.SiblingID == u.ID) ||
			u.Type == "account" && p.AccountID == u.ID {
			r.Pending = append(r.Pending, p)
		}
	}
	key := s.Prefix + ":" + r.Key
	left, err := rdb.PTTL(s.ctx, key).Result()
	if err != nil {
		return r, nil, err
	}
	if left > 0 {
		until := time.Now().Add(left).UTC().Truncate(time.Second)
		r.Expires = &until
	}
	r.Memory, err = rdb.MemoryUsage(s.ctx, key).Result()
	if err != nil && !errors.Is(err, redis.Nil) && !redis.HasErrorPrefix(err, "NOPERM") {
		return r, nil, err
	}
	return r, store, nil
}

func (r *record) isEmpty() bool {
	return (r.State == guest.StateNone || r.State == guest.StateForgotten) && len(r.Pending) == 0
}

var states = map[string]string{
	guest.StateNone:    "none: there is no record, so nothing is stored",
	guest.StateOpen:    "open",
	guest.StateFrozen:  "frozen: a claim is under way, which moves the data to the account",
	guest.StateClaimed: "claimed: its data are now its owner's",

	guest.StateForgotten: "forgotten: its visitor or an operator had it erased",
}

func (c *show) Run(s *session) error {
	r, _, err := c.read(s)
	if err != nil {
		return err
	}
	if !c.Data {
		for i := range r.Kinds {
			r.Kinds[i].Data = nil
		}
	}
	err = s.print(r, func(t *tabwriter.Writer) { c.table(t, r) })
	if err == nil && r.isEmpty() {
		return negative{}
	}
	return err
}

func (c *show) table(t *tabwriter.Writer, r record) {
	row(t, r.Type, plain(r.ID))
	row(t, "key", r.Key)
	row(t, "state", states[r.State])
	if r.State == guest.StateFrozen || r.State == guest.StateClaimed {
		row(t, "claimed", stamp(r.ClaimedAt))
		owner := r.OwnerKey
		if r.AccountID != "" {
			owner = "account " + plain(r.AccountID)
		}
		row(t, "by", owner)
	}
	switch {
	case r.State == guest.StateNone:
	case r.Expires == nil:
		row(t, "expires", "never")
	default:
		row(t, "expires", stamp(*r.Expires)+", in "+span(time.Until(*r.Expires)))
	}
	if r.Memory > 0 {
		row(t, "memory", size(float64(r.Memory)))
	}
	for _, p := range r.Pending {
		row(t, "pending", "the claim of guest "+p.GuestID+" by "+claimer(p)+", "+p.State+" for "+span(p.Age))
	}
	for _, claim := range r.Claims {
		row(t, "claim", claim.ID+" at "+stamp(claim.At)+": "+outcomes(claim.Kinds))
	}
	if len(r.Kinds) == 0 {
		return
	}
	row(t)
	row(t, "KIND", "ITEMS", "BYTES", "")
	for _, k := range r.Kinds {
		encrypted := ""
		if k.Encrypted {
			encrypted = "encrypted"
		}
		row(t, k.Name, k.Items, k.Bytes, encrypted)
		if c.Data {
			data := string(k.Data)
			if k.Data == nil {
				data = "not shown: the secret that encrypted it is not among these"
			}
			row(t, "  "+plain(data))
		}
	}
}

func outcomes(kinds []guest.KindReceipt) string {
	var s []string
	for _, k := range kinds {
		s = append(s, fmt.Sprintf("%s %s (%d of the guest, %d of the account, %d now)", k.Name,
			k.Outcome, k.GuestItems, k.AccountItems, k.ResultItems))
	}
	return strings.Join(s, ", ")
}

func claimer(p guest.PendingClaim) string {
	if p.SiblingID != "" {
		return "guest " + p.SiblingID
	}
	return "account " + plain(p.AccountID)
}

// An exported record has all the data that can be decrypted, and names the kinds that cannot.
type exported struct {
	Type         string                     `json:"type"`
	ID           string                     `json:"id"`
	State        string                     `json:"state"`
	Expires      *time.Time                 `json:"expires"`
	Data         map[string]json.RawMessage `json:"data"`
	NotDecrypted []string                   `json:"not_decrypted"` // encrypted kinds whose secret was not given
	Pending      []guest.PendingClaim       `json:"pending"`       // claims under way, which move their guests' data here
}

func (c *export) Run(s *session) error {
	r, _, err := c.read(s)
	if err != nil {
		return err
	}
	x := exported{r.Type, r.ID, r.State, r.Expires, map[string]json.RawMessage{}, []string{},
		r.Pending}
	for _, k := range r.Kinds {
		if k.Data == nil {
			x.NotDecrypted = append(x.NotDecrypted, k.Name)
			continue
		}
		x.Data[k.Name] = k.Data
	}
	s.json = true
	if err := s.print(x, nil); err != nil {
		return err
	}
	if len(x.NotDecrypted) > 0 {
		fmt.Fprintln(s.err, "guestctl: not complete: no secret that was given decrypts these kinds:", strings.Join(x.NotDecrypted, ", "))
		return negative{}
	}
	if r.State == guest.StateNone && len(r.Pending) == 0 {
		return negative{}
	}
	return nil
}

// erased is what erase prints.
type erased struct {
	Type       string   `json:"type"`
	ID         string   `json:"id"`
	Erased     bool     `json:"erased"`
	NotClaimed []string `json:"on_claim_not_called"` // guests whose claims were finished without the app's OnClaim
}

func (c *erase) Run(s *session) error {
	r, store, err := c.read(s)
	if err != nil {
		return err
	}
	result := erased{Type: c.Type, ID: c.ID, NotClaimed: []string{}}
	switch {
	case r.Type == "guest" && (r.State == guest.StateFrozen || r.State == guest.StateClaimed):
		fmt.Fprintln(s.err, "guestctl: this guest was claimed, so its data are its owner's (erase the account)")
		return errors.Join(s.print(result,
			func(t *tabwriter.Writer) { row(t, "nothing was erased") }), negative{})
	case r.isEmpty():
		return errors.Join(s.print(result,
			func(t *tabwriter.Writer) { row(t, "nothing is stored, so nothing was erased") }),
			negative{})
	}
	if !c.Yes && !s.confirm(fmt.Sprintf("Erase all that is stored for %s %s, for good?", c.Type,
		plain(c.ID))) {
		return errors.Join(s.print(result,
			func(t *tabwriter.Writer) { row(t, "nothing was erased") }), negative{})
	}
	m, err := s.manager(func(cfg *guest.Config) { cfg.Store = store })
	if err != nil {
		return err
	}
	if c.Type == "guest" {
		err = m.EraseGuest(s.ctx, c.ID)
	} else {
		for _, p := range r.Pending {
			if p.State == guest.ClaimFrozen || p.State == guest.ClaimMerged {
				result.NotClaimed = append(result.NotClaimed, p.GuestID)
			}
		}
		err = m.EraseAccount(s.ctx, c.ID)
	}
	if err != nil {
		return err
	}
	result.Erased = true
	return s.print(result, func(t *tabwriter.Writer) {
		row(t, "erased "+c.Type+" "+plain(c.ID))
		for _, id := range result.NotClaimed {
			row(t, "The app's OnClaim was perhaps not called for guest "+id+": look after rows of this guest in the app's database.")
		}
	})
}

// confirm asks the operator. Any answer but yes counts as no, and so does the end of the input.
func (s *session) confirm(question string) bool {
	fmt.Fprint(s.err, question, " Type yes: ")
	answer, _ := s.in.ReadString('\n')
	return strings.TrimSpace(answer) == "yes"
}
