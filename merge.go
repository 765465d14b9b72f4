package guest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/guestkit/guest/internal/record"
)

// A Merge decides what an account holds after a claim. It is called only if both sides hold data of
// the kind; if only one side does, the account gets or keeps those. It must be a pure function,
// because it may be called again for the same claim.
type Merge[T any] func(account, guest T) T

// Number is a type that [Sum] and [Max] work on.
type Number interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 |
		~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 |
		~float32 | ~float64
}

// PreferAccount keeps the account's data: right for settings.
func PreferAccount[T any](account, guest T) T { return account }

// PreferGuest takes the guest's data: right for what was chosen just now.
func PreferGuest[T any](account, guest T) T { return guest }

// Sum adds the two: right for a cart if the guest's items come on top of the account's.
func Sum[N Number](account, guest N) N { return account + guest }

// Max takes the larger one: right for a cart if both sides may hold the same purchase.
func Max[N Number](account, guest N) N { return max(account, guest) }

// EachItem keeps all items of both sides, and merges each item that both have.
func EachItem[T any](merge Merge[T]) Merge[map[string]T] {
	return func(account, guest map[string]T) map[string]T {
		all := make(map[string]T, len(account)+len(guest))
		maps.Copy(all, account)
		for item, g := range guest {
			if a, both := account[item]; both {
				g = merge(a, g)
			}
			all[item] = g
		}
		return all
	}
}

// KindOf is a [Kind] whose merge rule is a Merge[T]: a *Value[T], a *Map[V] with T = map[string]V,
// or a *Counters with T = map[string]int64.
type KindOf[T any] interface {
	Kind
	mergeWith(Merge[T]) mergeFunc
}

// sameBytes returns the stored form of a rule's result. If the result equals one side's item, that
// is the stored bytes of that side: this process may have an older type, which would strip newer
// fields from them. encodedA and encodedG are what the two sides' items become when they are
// decoded and encoded again.
func sameBytes(merged, encodedA, account, encodedG, guest string) string {
	switch {
	case merged == "":
		return ""
	case merged == encodedA && account != "":
		return account
	case merged == encodedG && guest != "":
		return guest
	}
	return merged
}

// encodeAmount encodes an amount, after limiting it to the range; 0 becomes "", which removes the
// item.
func encodeAmount(_ *kind, n int64) (string, error) {
	n = max(-maxAmount, min(n, maxAmount))
	if n == 0 {
		return "", nil
	}
	return strconv.FormatInt(n, 10), nil
}

// mergeItems returns the rule of a Map or Counters on encoded data.
func mergeItems[T any](
	k *kind, rule Merge[map[string]T],
	decode func(*kind, string) (T, error), encode func(*kind, T) (string, error),
) mergeFunc {
	return func(account, guest map[string]string) (map[string]string, error) {
		a, err := decodeItems(k, account, decode)
		if err != nil {
			return nil, errUndecodable
		}
		g, err := decodeItems(k, guest, decode)
		if err != nil {
			return nil, errUndecodable
		}
		encodedA := encodeItems(k, a, encode) // before the rule, which may change a and g
		encodedG := encodeItems(k, g, encode)
		merged := map[string]string{}
		for item, v := range rule(a, g) {
			plain, err := encode(k, v)
			if err != nil {
				return nil, err
			}
			if err := k.checkItem(item); err != nil {
				return nil, err
			}
			if plain != "" {
				merged[item] = sameBytes(
					plain, encodedA[item], account[item], encodedG[item], guest[item],
				)
			}
		}
		return merged, nil
	}
}

func encodeItems[T any](
	k *kind, items map[string]T, encode func(*kind, T) (string, error),
) map[string]string {
	all := make(map[string]string, len(items))
	for item, v := range items {
		all[item], _ = encode(k, v)
	}
	return all
}

// mergeRules are the rules of one claim that replace declared ones.
type mergeRules map[*kind]mergeFunc

// A ClaimOption changes one claim; see [With].
type ClaimOption struct {
	kind *kind
	rule mergeFunc
}

// With uses another merge rule for this kind in this claim: at a checkout, for example, the guest's
// choice may win. If the claim is interrupted and another process finishes it, that process uses
// the declared rule.
func With[T any](kind KindOf[T], rule Merge[T]) ClaimOption {
	return ClaimOption{kind.define(), kind.mergeWith(rule)}
}

func rulesOf(opts []ClaimOption) mergeRules {
	rules := mergeRules{}
	for _, o := range opts {
		rules[o.kind] = o.rule
	}
	return rules
}

// A merger computes what a claim changes in the record of its owner. It is pure, except for the
// nonces of encrypted data.
type merger struct {
	kinds *kinds
	rules mergeRules
	quota Quota // of the target, which is the owner's record
	erase bool  // the account is about to be erased: data that cannot be read are dropped
}

// with returns a merger that uses these rules.
func (m merger) with(rules mergeRules) merger {
	m.rules = rules
	return m
}

// merge returns the update of the target (what to set and unset, under the condition that the
// fields it has read are unchanged), and what became of each kind. An error wraps ErrUnreadable, or
// a rule is its cause: it panicked, or its result cannot be stored.
func (m *merger) merge(
	guestKey string, guest Fields, targetKey string, target Fields,
) (u Update, kinds []KindReceipt, err error) {
	u = Update{If: Fields{}, Set: Fields{}}
	for _, k := range m.kinds.heldBy(guest) {
		receipt, err := m.mergeKind(k, &u, guestKey, guest, targetKey, target)
		if errors.Is(err, ErrUnreadable) && m.erase {
			receipt, err = k.dropped(guest, target), nil
		}
		if err != nil {
			return u, nil, err
		}
		kinds = append(kinds, receipt)
	}
	return u, kinds, nil
}

// mergeKind is merge for one kind. It adds to u.
func (m *merger) mergeKind(
	k *kind, u *Update, guestKey string, guest Fields, targetKey string, target Fields,
) (receipt KindReceipt, err error) {
	switch {
	case k.retired:
		return k.dropped(guest, target), nil
	case k.merge == nil:
		return receipt, k.fault(fmt.Errorf("%w: the kind is not in Config.Data (list it there, as "+
			"guest.Retired if it is gone for good)", ErrUnreadable))
	}
	guestItems, err := k.items(m.kinds.keyring, guestKey, guest)
	if err != nil {
		return receipt, err
	}
	accountItems, err := k.items(m.kinds.keyring, targetKey, target)
	if err != nil {
		return receipt, err
	}
	misfits := k.count(guest) - len(guestItems) // of another shape: see kind.stored
	merged, outcome := accountItems, Kept
	switch {
	case len(guestItems) == 0:
		outcome = Dropped
	case len(accountItems) == 0:
		merged, outcome = guestItems, Moved
	default:
		result, err := m.apply(k, accountItems, guestItems)
		switch {
		case err == errUndecodable:
			outcome = Dropped
		case err != nil:
			return receipt, err
		case !maps.Equal(result, accountItems):
			merged, outcome = result, Merged
		}
	}
	if outcome == Moved || outcome == Merged {
		for item, plain := range merged {
			if accountItems[item] != plain {
				field := k.field(item)
				u.Set[field] = k.encrypt(m.kinds.keyring, targetKey, field, plain)
			}
		}
		for item := range accountItems {
			if merged[item] == "" {
				u.Unset = append(u.Unset, k.field(item))
			}
		}
	}
	for item := range guestItems {
		u.If[k.field(item)] = target[k.field(item)]
	}
	for item := range accountItems {
		u.If[k.field(item)] = target[k.field(item)]
	}
	kept, refused := m.fit(k, u, target, accountItems, merged)
	receipt = KindReceipt{Name: k.name, Outcome: outcome}
	receipt.countGuest(k, guestItems)
	receipt.countAccount(k, accountItems)
	receipt.countResult(k, kept)
	if outcome == Dropped {
		refused = guestItems
	}
	receipt.countDropped(guestItems, accountItems, kept, refused)
	receipt.GuestItems += misfits
	receipt.DroppedItems += misfits
	return receipt, nil
}

// count returns how many fields there are of this name, of either shape.
func (k *kind) count(fields Fields) (n int) {
	for field := range fields {
		if name, _ := splitField(field); name == k.name {
			n++
		}
	}
	return n
}

// dropped returns the receipt of a kind whose data are dropped without being read.
func (k *kind) dropped(guest, target Fields) KindReceipt {
	lost, held := k.count(guest), k.count(target)
	return KindReceipt{
		Name: k.name, Outcome: Dropped,
		GuestItems: lost, AccountItems: held, ResultItems: held, DroppedItems: lost,
	}
}

// errUndecodable: one side holds data that another version of the app stored under another type.
// They are not merged.
var errUndecodable = errors.New("guest: stored data do not decode")

// apply calls the merge rule. A panic in it is an error.
func (m *merger) apply(
	k *kind, account, guest map[string]string,
) (merged map[string]string, err error) {
	rule := m.rules[k]
	if rule == nil {
		rule = k.merge
	}
	defer func() {
		if p := recover(); p != nil {
			err = &appError{
				fmt.Sprintf("the merge rule of data %q panicked", k.name),
				k.fault(fmt.Errorf("the merge rule panicked: %v", p)),
			}
		}
	}()
	return rule(account, guest)
}

// fit keeps the target within its quota; a target that was larger before may keep that size. It
// takes back what u sets of this kind: first new items, then items that grow, each from the last
// name to the first. It returns the items that the target will hold, and those that were taken
// back.
func (m *merger) fit(
	k *kind, u *Update, target Fields, account, merged map[string]string,
) (kept, refused map[string]string) {
	var before, after, most Quota
	for field, stored := range target {
		if record.IsData(field) {
			before.Fields, before.Bytes = before.Fields+1, before.Bytes+len(field)+len(stored)
		}
	}
	after = before
	most.Fields, most.Bytes = max(m.quota.Fields, before.Fields), max(m.quota.Bytes, before.Bytes)
	var added, grown []string
	for field, stored := range u.Set {
		old, had := target[field]
		after.Bytes += len(stored) - len(old)
		if !had {
			after.Fields, after.Bytes = after.Fields+1, after.Bytes+len(field)
		}
		switch name, _ := splitField(field); {
		case name != k.name: // of another kind, for which fit was called before
		case !had:
			added = append(added, field)
		case len(stored) > len(old):
			grown = append(grown, field)
		}
	}
	for _, field := range u.Unset {
		after.Fields, after.Bytes = after.Fields-1, after.Bytes-len(field)-len(target[field])
	}
	kept, refused = maps.Clone(merged), map[string]string{}
	slices.Sort(added)
	slices.Sort(grown)
	for _, field := range slices.Backward(slices.Concat(grown, added)) {
		if after.Fields <= most.Fields && after.Bytes <= most.Bytes {
			break
		}
		_, item := splitField(field)
		refused[item] = kept[item]
		old, had := target[field]
		after.Bytes -= len(u.Set[field]) - len(old)
		delete(u.Set, field)
		delete(kept, item)
		if had {
			kept[item] = account[item]
		} else {
			after.Fields, after.Bytes = after.Fields-1, after.Bytes-len(field)
		}
	}
	return kept, refused
}

func (r *KindReceipt) countGuest(k *kind, items map[string]string) {
	r.GuestItems, r.GuestTotal = len(items), k.total(items)
}

func (r *KindReceipt) countAccount(k *kind, items map[string]string) {
	r.AccountItems, r.AccountTotal = len(items), k.total(items)
}

func (r *KindReceipt) countResult(k *kind, items map[string]string) {
	r.ResultItems, r.ResultTotal = len(items), k.total(items)
}

func (r *KindReceipt) countDropped(guest, account, result, refused map[string]string) {
	for item := range guest {
		_, held := result[item]
		if _, not := refused[item]; !held || not {
			r.DroppedItems++
		}
	}
	for item := range account {
		_, inGuest := guest[item]
		if _, ok := result[item]; !ok && !inGuest {
			r.DroppedItems++
		}
	}
}

func (k *kind) total(items map[string]string) (sum int64) {
	if !k.counts {
		return 0
	}
	for _, plain := range items {
		n, _ := decodeAmount(k, plain)
		sum += n
	}
	return sum
}
