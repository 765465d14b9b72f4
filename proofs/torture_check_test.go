package proofs

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/guestkit/guest"
)

func accountKey(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "a:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// An audit has all that a store holds in the end.
type audit struct {
	r       *torture
	records map[string]guest.Fields
}

// check checks that every promise was kept.
func (r *torture) check(ctx context.Context) {
	a := &audit{r, map[string]guest.Fields{}}
	for key, err := range r.backend.clean.Keys(ctx, "") {
		if err == nil {
			a.records[key], err = r.backend.clean.Get(ctx, key)
		}
		if err != nil {
			r.violation("reading the records: %v", err)
			return
		}
	}
	a.states()
	a.markers()
	items, common := a.items()
	for _, b := range r.browsers {
		if faults := slices.Concat(a.writes(b, items), a.claims(b), a.cookies(b)); len(faults) > 0 {
			r.violation("browser %d: %s\n%s", b.n, strings.Join(faults, "\n  and "), a.show(b))
		}
	}
	a.common(common)
}

// states: no claim is under way, and a claimed guest has no data.
func (a *audit) states() {
	for key, fields := range a.records {
		switch state := fields[".s"]; {
		case strings.HasPrefix(key, "o:") && len(fields) > 0:
			a.r.violation("the outbox holds %v", fields)
		case strings.HasPrefix(state, "f"):
			a.r.violation("%s stays frozen: %v", key, fields)
		case state != "" && len(dataOf(fields)) > 0:
			a.r.violation("%s is a tombstone with data: %v", key, fields)
		}
	}
}

func dataOf(fields guest.Fields) guest.Fields {
	data := maps.Clone(fields)
	maps.DeleteFunc(data, func(name, _ string) bool { return name[0] == '.' })
	return data
}

// home returns the record that has the data of this one now.
func (a *audit) home(key string) string {
	for range 20 {
		state := a.records[key][".s"]
		if !strings.HasPrefix(state, "c") {
			return key
		}
		key, _, _ = strings.Cut(state[1:], "@")
	}
	return "a circle"
}

// markersOf are the incarnations whose markers a record has: see docs/redis.md.
func markersOf(fields guest.Fields) map[string]bool {
	marked := map[string]bool{}
	for name := range fields {
		if incarnation, is := strings.CutPrefix(name, ".c"); is && incarnation != "" {
			marked[incarnation] = true
		}
	}
	return marked
}

// markers: each is in one record only, the one that has the guest's data.
func (a *audit) markers() {
	guests := map[string]string{} // by incarnation
	for key, fields := range a.records {
		if strings.HasPrefix(key, "g:") {
			guests[fields[".i"]] = key
		}
	}
	for key, fields := range a.records {
		if fields[".s"] != "" { // a tombstone keeps what it had absorbed
			continue
		}
		for incarnation := range markersOf(fields) {
			if g, known := guests[incarnation]; !known || g == key || a.home(g) != key {
				a.r.violation("%s has a marker of %q, which is in %s", key, g, a.home(g))
			}
		}
	}
}

// items returns the records that hold each item, and how much of it.
func (a *audit) items() (items map[string]map[string]int64, common map[string]int64) {
	items, common = map[string]map[string]int64{}, map[string]int64{}
	for key, fields := range a.records {
		for field, amount := range fields {
			item, is := strings.CutPrefix(field, basket.Name()+"/")
			if !is {
				continue
			}
			n, err := strconv.ParseInt(amount, 10, 64)
			if err != nil {
				a.r.violation("%s holds %s = %q", key, field, amount)
			}
			if items[item] == nil {
				items[item] = map[string]int64{}
			}
			items[item][key] += n
			common[item] += n
		}
	}
	return items, common
}

// common: several browsers added to these items, and their sums are right.
func (a *audit) common(sums map[string]int64) {
	counts := map[string]*[3]int64{}
	for _, b := range a.r.browsers {
		for _, w := range b.writes {
			if strings.HasPrefix(w.item, "common.") {
				if counts[w.item] == nil {
					counts[w.item] = &[3]int64{}
				}
				counts[w.item][w.result]++
			}
		}
	}
	for item, n := range counts {
		if sum := sums[item]; sum < n[acked] || sum > n[acked]+n[uncertain] {
			a.r.violation("%s is %d after %d acknowledged and %d uncertain additions", item, sum,
				n[acked], n[uncertain])
		}
	}
}

// writes: each acknowledged one was applied once in its place, an uncertain one at most once, a
// refused one not at all.
func (a *audit) writes(b *browser, items map[string]map[string]int64) (faults []string) {
	for _, w := range b.writes {
		home := a.home(w.landed)
		if w.result == acked && w.landed == "" {
			faults = append(faults, fmt.Sprintf("no record explains where this write went: %v", w))
			continue
		}
		if w.item == "" {
			faults = append(faults, a.choice(b, w, home)...)
			continue
		}
		if strings.HasPrefix(w.item, "common.") {
			continue
		}
		var total int64
		for key, n := range items[w.item] {
			total += n
			if key != home {
				faults = append(faults, fmt.Sprintf("%s is in %s instead of %s: %v", w.item, key,
					home, w))
			}
		}
		if total > 1 || total < 1 && w.result == acked || total > 0 && w.result == refused {
			faults = append(faults, fmt.Sprintf("%s is there %d times: %v", w.item, total, w))
		}
	}
	return faults
}

// choice: a home has a choice if a write was acknowledged, and not one that ended before a later
// one began.
func (a *audit) choice(b *browser, w *write, home string) (faults []string) {
	have, err := strconv.Unquote(a.records[home][choice.Name()])
	switch {
	case err != nil && w.result == acked:
		faults = append(faults, fmt.Sprintf("%s has no choice: %v", home, w))
	case have == w.value && w.result == refused:
		faults = append(faults, fmt.Sprintf("%s has it: %v", home, w))
	case have == w.value:
		for _, next := range b.writes {
			if next.item == "" && next.result == acked && next.landed == w.landed &&
				next.begin > w.end {
				faults = append(faults, fmt.Sprintf("%s has the choice of %v, not of %v", home, w,
					next))
			}
		}
	}
	return faults
}

// claims: one account has the guest, and all callers got the same answer.
func (a *audit) claims(b *browser) (faults []string) {
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Sprintf(format, args...))
	}
	home, g := a.home(b.origin), a.records[b.origin]
	receipts := map[string]guest.Receipt{}
	for _, c := range b.claims {
		switch {
		case c.err == nil && c.receipt.Claimed:
			if home != accountKey(c.account) {
				fault("%s got a receipt for the guest, whose data are in %s", c.account, home)
			}
			r := c.receipt
			r.Replayed = false
			if first, again := receipts[r.ID]; again && !reflect.DeepEqual(first, r) {
				fault("two receipts of one claim: %+v and %+v", first, r)
			}
			receipts[r.ID] = r
			if given := a.r.hooked[r.ID]; !reflect.DeepEqual(given, r) {
				fault("the receipt %+v, but OnClaim was called with %+v", r, given)
			}
		case c.err == nil:
			fault("a claim that did nothing and had no error: %+v", c)
		case errors.Is(c.err, guest.ErrClaimed):
			if home == accountKey(c.account) || home == b.origin {
				fault("%s was refused with %v, and the guest is in %s", c.account, c.err, home)
			}
		case !c.receipt.Pending || !errors.Is(c.err, guest.ErrUnavailable) && !errors.Is(c.err,
			errHook) && !strings.Contains(c.err.Error(), "OnClaim is still running"):
			fault("the claim by %s failed with %v: %+v", c.account, c.err, c.receipt)
		}
	}
	if len(b.due) == 0 && home != b.origin {
		fault("no account has claimed the guest, and its data are in %s", home)
	}
	for key, fields := range a.records {
		if markersOf(fields)[g[".i"]] && key != home {
			fault("%s has the marker", key)
		}
	}
	if !strings.HasPrefix(home, "a:") {
		return faults
	}
	wrote := slices.ContainsFunc(b.writes, func(w *write) bool {
		return w.landed == b.origin && w.result == acked
	})
	// If there are few claims, the account remembers all of them.
	if marked := markersOf(a.records[home]); wrote && !marked[g[".i"]] && len(marked) < 8 {
		fault("%s has no marker %q", home, g[".i"])
	}
	if !a.r.moved[g[".i"]] {
		fault("the claim is done, and OnClaim has never succeeded")
	}
	return faults
}

// cookies: that of a claimed guest reads nothing, that of an open one reads what it has.
func (a *audit) cookies(b *browser) (faults []string) {
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Sprintf(format, args...))
	}
	read := func(cookies string) (items map[string]int64, chosen string, replaced bool) {
		p := a.r.process(a.r.backend.clean) // it has no memory of earlier requests
		p.serve("GET", cookies, "", func(_ http.ResponseWriter, req *http.Request) {
			var errs [2]error
			items, errs[0] = basket.All(req.Context())
			chosen, errs[1] = choice.Get(req.Context())
			if err := errors.Join(errs[:]...); err != nil {
				fault("reading with the cookies %s: %v", cookies, err)
			}
			replaced = guest.FromContext(req.Context()).Replaced()
		})
		return items, chosen, replaced
	}
	all := maps.Clone(b.given)
	if b.old != "" {
		all[b.origin] = b.old
	}
	for g, cookies := range all {
		if !strings.HasPrefix(g, "g:") {
			continue
		}
		items, chosen, replaced := read(cookies)
		home := a.home(g)
		if strings.HasPrefix(home, "a:") {
			if len(items) > 0 || chosen != "" || !replaced {
				fault("the cookie of a claimed guest reads %v, %q (replaced: %v)", items, chosen,
					replaced)
			}
			continue
		}
		for _, w := range b.writes { // also with cookies that it was given later
			if w.landed == g && w.result == acked && w.item != "" && items[w.item] == 0 {
				fault("the cookie that the browser was given with it does not read %v", w)
			}
		}
	}
	for tab, cookies := range b.left {
		items, _, _ := read(cookies)
		for _, w := range b.writes {
			if w.tab == tab && w.landed != b.origin && w.result == acked && w.item != "" &&
				strings.HasPrefix(a.home(w.landed), "g:") && items[w.item] == 0 {
				a.r.orphans++
			}
		}
	}
	return faults
}

// show returns all that is known of a browser.
func (a *audit) show(b *browser) string {
	var s strings.Builder
	fmt.Fprintf(&s, "guest %s, accounts %s (%s) and %s (%s)\n", b.origin, b.account,
		accountKey(b.account), b.other, accountKey(b.other))
	keys := map[string]bool{b.origin: true, accountKey(b.account): true, accountKey(b.other): true}
	for _, w := range b.writes {
		keys[w.landed] = true
		fmt.Fprintln(&s, "  ", w)
	}
	for _, c := range b.claims {
		fmt.Fprintf(&s, "   %s claims (died: %v): %+v, %v\n", c.account, c.died, c.receipt, c.err)
	}
	for key := range keys {
		fmt.Fprintf(&s, "   %s: %q\n", key, a.records[key])
	}
	return s.String()
}

// String says what has happened in the run.
func (r *torture) String() string {
	var writes [3]int
	var landed, claims, won, lost, pending, died int
	for _, b := range r.browsers {
		for _, w := range b.writes {
			writes[w.result]++
			if w.landed != b.origin && w.tab < tabs {
				landed++
			}
		}
		for _, c := range b.claims {
			claims++
			switch {
			case c.err == nil:
				won++
			case errors.Is(c.err, guest.ErrClaimed):
				lost++
			default:
				pending++
			}
			if c.died {
				died++
			}
		}
	}
	return fmt.Sprintf("%d guests; writes: %d acknowledged, %d uncertain, %d refused, %d of tabs came late; claims: %d, %d done, %d refused, %d pending, %d by a process that died; %d recovered; %d orphaned",
		len(r.browsers), writes[acked], writes[uncertain], writes[refused], landed, claims, won,
		lost, pending, died, r.recovered, r.orphans)
}
