package guest

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"strconv"
	"time"
)

// A Value is one piece of data of type T, such as a theme. T must be a type that encoding/json can
// write and read back; New refuses others. Its methods are safe for concurrent use. Each method is
// one atomic step and one round trip; Update takes two or more.
type Value[T any] struct{ *kind }

// NewValue declares a value. merge is called in a claim if both the account and the guest have one.
func NewValue[T any](name string, merge Merge[T]) *Value[T] {
	v := &Value[T]{&kind{name: name, hasRule: merge != nil, typ: reflect.TypeFor[T]()}}
	v.merge = v.mergeWith(merge)
	return v
}

// Encrypted returns the value with encryption at rest: XChaCha20-Poly1305 under a key derived from
// Config.Secrets, bound to the record and the field. It is for personal data. A stored value that
// is not encrypted is refused: [ErrUnreadable].
func (v *Value[T]) Encrypted() *Value[T] {
	k := *v.kind
	k.encrypted = true
	return &Value[T]{&k}
}

// InsecureAcceptPlaintext returns the encrypted value such that it also reads what is stored in the
// clear. The next write encrypts it, and so does a claim that moves it. It is for the time after a
// kind became Encrypted. As long as it is used, a program that can write to the store can replace
// encrypted values by its own, which are refused otherwise: [ErrUnreadable].
func (v *Value[T]) InsecureAcceptPlaintext() *Value[T] {
	k := *v.kind
	k.lenient = true
	return &Value[T]{&k}
}

// Get returns the visitor's value, or the zero value if there is none.
func (v *Value[T]) Get(ctx context.Context) (T, error) { return v.value().get(ctx) }

// Set stores the visitor's value.
func (v *Value[T]) Set(ctx context.Context, value T) error { return v.value().set(ctx, value) }

// Update stores what change returns for the visitor's value, or for the zero value if there is
// none. If another request writes the value meanwhile, change is called again with the new value;
// after 64 times the error is [ErrConflict]. An error of change is returned as it is, and nothing
// is stored.
func (v *Value[T]) Update(ctx context.Context, change func(T) (T, error)) error {
	return v.value().update(ctx, change)
}

// Delete removes the visitor's value.
func (v *Value[T]) Delete(ctx context.Context) error { return v.value().delete(ctx) }

func (v *Value[T]) value() fieldOf[T] { return fieldOf[T]{k: v.kind} }

func (v *Value[T]) mergeWith(rule Merge[T]) mergeFunc {
	return func(account, guest map[string]string) (map[string]string, error) {
		a, err := decode[T](v.kind, account[""])
		if err != nil {
			return nil, errUndecodable
		}
		g, err := decode[T](v.kind, guest[""])
		if err != nil {
			return nil, errUndecodable
		}
		encodedA, _ := encode(v.kind, a) // before the rule, which may change what a and g point to
		encodedG, _ := encode(v.kind, g)
		merged, err := encode(v.kind, rule(a, g))
		merged = sameBytes(merged, encodedA, account[""], encodedG, guest[""])
		return map[string]string{"": merged}, err
	}
}

// A Map is data of type T by item, such as the comments on the products of a wish list. An item's
// name is UTF-8 without control characters, of 1 to 128 bytes. Its methods are safe for concurrent
// use. Each method is one atomic step on the items that it names and one round trip; Update takes
// two or more.
type Map[T any] struct{ *kind }

// NewMap declares a map. merge is called in a claim if both the account and the guest have items;
// see [EachItem].
func NewMap[T any](name string, merge Merge[map[string]T]) *Map[T] {
	m := &Map[T]{&kind{name: name, perItem: true, hasRule: merge != nil, typ: reflect.TypeFor[T]()}}
	m.merge = m.mergeWith(merge)
	return m
}

// Encrypted returns the map with encryption at rest of the values, but not of the names of the
// items. See [Value.Encrypted].
func (m *Map[T]) Encrypted() *Map[T] {
	k := *m.kind
	k.encrypted = true
	return &Map[T]{&k}
}

// InsecureAcceptPlaintext returns the encrypted map such that it also reads items that are stored
// in the clear: see [Value.InsecureAcceptPlaintext].
func (m *Map[T]) InsecureAcceptPlaintext() *Map[T] {
	k := *m.kind
	k.lenient = true
	return &Map[T]{&k}
}

// Get returns the item of the visitor's map, or the zero value if there is none.
func (m *Map[T]) Get(ctx context.Context, item string) (v T, err error) {
	if err := m.checkItem(item); err != nil {
		return v, err
	}
	return m.item(item).get(ctx)
}

// Set stores the item.
func (m *Map[T]) Set(ctx context.Context, item string, value T) error {
	if err := m.checkItem(item); err != nil {
		return err
	}
	return m.item(item).set(ctx, value)
}

// SetAll stores these items in one step: all of them or none. If it returns an error, none was
// stored, except that after [ErrUncertain] it may have been all. Other items stay as they are. A
// call may name at most twice as many items as Config.Quota allows fields; more are [ErrQuota].
func (m *Map[T]) SetAll(ctx context.Context, items map[string]T) error {
	vis, err := m.visitorFor(ctx, len(items))
	if err != nil || len(items) == 0 {
		return err
	}
	encoded := make(Fields, len(items))
	for item, value := range items {
		if err := m.checkItem(item); err != nil {
			return err
		}
		if encoded[m.field(item)], err = encode(m.kind, value); err != nil {
			return err
		}
	}
	_, _, err = vis.update(ctx, func(key string) Update {
		set := make(Fields, len(encoded))
		for name, plain := range encoded {
			set[name] = m.encrypt(vis.site.keyring, key, name, plain)
		}
		return Update{Set: set}
	})
	return m.wrap(err)
}

// Update stores what change returns for the item, as [Value.Update] does.
func (m *Map[T]) Update(ctx context.Context, item string, change func(T) (T, error)) error {
	if err := m.checkItem(item); err != nil {
		return err
	}
	return m.item(item).update(ctx, change)
}

// Delete removes the item.
func (m *Map[T]) Delete(ctx context.Context, item string) error {
	if err := m.checkItem(item); err != nil {
		return err
	}
	return m.item(item).delete(ctx)
}

// All returns the visitor's items. The map is never nil and belongs to the caller. All reads the
// whole record.
func (m *Map[T]) All(ctx context.Context) (map[string]T, error) {
	items, err := m.all(ctx)
	if err != nil {
		return nil, err
	}
	return decodeItems(m.kind, items, decode[T])
}

// Clear removes all items.
func (m *Map[T]) Clear(ctx context.Context) error { return m.clear(ctx) }

func (m *Map[T]) item(item string) fieldOf[T] { return fieldOf[T]{m.kind, item} }

func (m *Map[T]) mergeWith(rule Merge[map[string]T]) mergeFunc {
	return mergeItems(m.kind, rule, decode[T], encode[T])
}

// Counters are amounts by item, such as a cart. An amount is a whole number from -2^53 to 2^53; an
// item whose amount becomes 0 is removed. An item's name is UTF-8 without control characters, of 1
// to 128 bytes. The methods are safe for concurrent use. Each method is one atomic step and one
// round trip, so no addition is lost when two requests add at once; Update takes two or more.
type Counters struct{ *kind }

// NewCounters declares counters. merge is called in a claim if both the account and the guest have
// items; for a cart use EachItem(Sum[int64]) or EachItem(Max[int64]).
func NewCounters(name string, merge Merge[map[string]int64]) *Counters {
	c := &Counters{&kind{name: name, perItem: true, counts: true, hasRule: merge != nil}}
	c.merge = c.mergeWith(merge)
	return c
}

func (c *Counters) mergeWith(rule Merge[map[string]int64]) mergeFunc {
	return mergeItems(c.kind, rule, decodeAmount, encodeAmount)
}

// Add adds n, which may be negative, to the item's amount and returns the new amount, which may be
// below 0. n is added once. If the reply was lost and the store was asked again, the returned
// amount includes what other requests have added meanwhile.
func (c *Counters) Add(ctx context.Context, item string, n int64) (int64, error) {
	if n == 0 {
		return c.Get(ctx, item)
	}
	v, err := c.check(ctx, item, n)
	if err != nil {
		return 0, err
	}
	field := c.field(item)
	_, res, err := v.update(ctx, func(string) Update {
		return Update{Add: map[string]int64{field: n}, Return: []string{field}}
	})
	if err != nil {
		return 0, c.fault(err)
	}
	return decodeAmount(c.kind, res.Fields[field])
}

// AddAll adds to these items in one step: to all of them or to none. It returns the new amount of
// each. An item to which 0 is added is only read. See [Counters.Add] for the rest, and
// [Map.SetAll] for errors and for how many items a call may name.
func (c *Counters) AddAll(
	ctx context.Context, amounts map[string]int64,
) (map[string]int64, error) {
	v, err := c.visitorFor(ctx, len(amounts))
	if err != nil {
		return nil, err
	}
	add := make(map[string]int64, len(amounts))
	fields := make([]string, 0, len(amounts))
	writes := false
	for item, n := range amounts {
		if err := cmp.Or(c.checkItem(item), c.checkAmount(n)); err != nil {
			return nil, err
		}
		field := c.field(item)
		add[field] = n // also 0: if what is stored is no number, the store refuses the whole
		fields = append(fields, field)
		writes = writes || n != 0
	}
	var stored Fields
	switch {
	case writes:
		var res Result
		_, res, err = v.update(ctx, func(string) Update {
			return Update{Add: add, Return: fields}
		})
		stored = res.Fields
	case len(fields) > 0:
		_, stored, err = read(ctx, v, fields...)
	}
	if err != nil {
		return nil, c.fault(err)
	}
	sums := make(map[string]int64, len(amounts))
	for item := range amounts {
		if sums[item], err = decodeAmount(c.kind, stored[c.field(item)]); err != nil {
			return nil, err
		}
	}
	return sums, nil
}

// Set sets the item to n; 0 removes it.
func (c *Counters) Set(ctx context.Context, item string, n int64) error {
	v, err := c.check(ctx, item, n)
	if err != nil {
		return err
	}
	field := c.field(item)
	_, _, err = v.update(ctx, func(string) Update {
		if n == 0 {
			return Update{Unset: []string{field}}
		}
		return Update{Set: Fields{field: strconv.FormatInt(n, 10)}}
	})
	return c.wrap(err)
}

// Update sets the item to what change returns for its amount, as [Value.Update] does: for a limit
// that differs from item to item, such as what is in stock. Add needs one round trip less.
func (c *Counters) Update(
	ctx context.Context, item string, change func(int64) (int64, error),
) error {
	if err := c.checkItem(item); err != nil {
		return err
	}
	encode := func(k *kind, n int64) (string, error) {
		if err := c.checkAmount(n); err != nil {
			return "", err
		}
		return encodeAmount(k, n)
	}
	return updateField(ctx, c.kind, item, decodeAmount, encode, change)
}

// Get returns the item's amount; 0 if there is none.
func (c *Counters) Get(ctx context.Context, item string) (int64, error) {
	v, err := c.check(ctx, item, 0)
	if err != nil {
		return 0, err
	}
	field := c.field(item)
	_, fields, err := read(ctx, v, field)
	if err != nil {
		return 0, c.fault(err)
	}
	return decodeAmount(c.kind, fields[field])
}

// Delete removes the item.
func (c *Counters) Delete(ctx context.Context, item string) error { return c.Set(ctx, item, 0) }

// All returns the visitor's amounts. The map is never nil and belongs to the caller. All reads the
// whole record.
func (c *Counters) All(ctx context.Context) (map[string]int64, error) {
	items, err := c.all(ctx)
	if err != nil {
		return nil, err
	}
	return decodeItems(c.kind, items, decodeAmount)
}

// Clear removes all items.
func (c *Counters) Clear(ctx context.Context) error { return c.clear(ctx) }

// check checks the arguments of a call, and returns its visitor.
func (c *Counters) check(ctx context.Context, item string, n int64) (*Visitor, error) {
	if err := cmp.Or(c.checkItem(item), c.checkAmount(n)); err != nil {
		return nil, err
	}
	return c.visitor(ctx)
}

func (c *Counters) checkAmount(n int64) error {
	if n > maxAmount || n < -maxAmount {
		return c.invalid("an amount is a whole number from -2^53 to 2^53")
	}
	return nil
}

// A fieldOf is one field of the visitor's record, with a value of type T: a Value, or an item of a
// Map.
type fieldOf[T any] struct {
	k    *kind
	item string
}

func (f fieldOf[T]) get(ctx context.Context) (v T, err error) {
	vis, err := f.k.visitor(ctx)
	if err != nil {
		return v, err
	}
	name := f.k.field(f.item)
	key, fields, err := read(ctx, vis, name)
	if err != nil {
		return v, f.k.fault(err)
	}
	plain, err := f.k.decrypt(vis.site.keyring, key, name, fields[name])
	if err != nil {
		return v, err
	}
	return decode[T](f.k, plain)
}

func (f fieldOf[T]) set(ctx context.Context, v T) error {
	vis, err := f.k.visitor(ctx)
	if err != nil {
		return err
	}
	plain, err := encode(f.k, v)
	if err != nil {
		return err
	}
	name := f.k.field(f.item)
	_, _, err = vis.update(ctx, func(key string) Update {
		return Update{Set: Fields{name: f.k.encrypt(vis.site.keyring, key, name, plain)}}
	})
	return f.k.wrap(err)
}

func (f fieldOf[T]) delete(ctx context.Context) error {
	vis, err := f.k.visitor(ctx)
	if err != nil {
		return err
	}
	_, _, err = vis.update(ctx, func(string) Update {
		return Update{Unset: []string{f.k.field(f.item)}}
	})
	return f.k.wrap(err)
}

const updateTries = 64

// longAgo makes an update with NotAfter fail, so that it only reads.
var longAgo = time.Unix(1, 0)

func (f fieldOf[T]) update(ctx context.Context, change func(T) (T, error)) error {
	return updateField(ctx, f.k, f.item, decode[T], encode[T], change)
}

// updateField sets the field to what change returns for its value, unless another request has
// written it meanwhile; then it tries again with the new value.
func updateField[T any](
	ctx context.Context, k *kind, item string,
	decode func(*kind, string) (T, error), encode func(*kind, T) (string, error),
	change func(T) (T, error),
) error {
	vis, err := k.visitor(ctx)
	if err != nil {
		return err
	}
	name := k.field(item)
	key, fields, err := vis.get(ctx, name)
	if err != nil {
		return k.fault(err)
	}
	stored := fields[name]
	for range updateTries {
		plain, err := k.decrypt(vis.site.keyring, key, name, stored)
		if err != nil {
			return err
		}
		old, err := decode(k, plain)
		if err != nil {
			return err
		}
		v, err := change(old)
		if err != nil {
			return err
		}
		next, err := encode(k, v)
		if err != nil {
			return err
		}
		readKey := key
		var res Result
		key, res, err = vis.update(ctx, func(key string) Update {
			// After a claim the visitor has another record, which was not read yet. Even if its
			// field holds the same, change may say something else of an account than of a guest.
			if key != readKey {
				return Update{NotAfter: longAgo, Return: []string{name}}
			}
			u := Update{If: Fields{name: stored}}
			if next == "" { // an amount of 0
				u.Unset = []string{name}
			} else {
				u.Set = Fields{name: k.encrypt(vis.site.keyring, key, name, next)}
			}
			return u
		})
		if err != nil {
			return k.fault(err)
		}
		if res.Applied {
			return nil
		}
		stored = res.Fields[name]
	}
	return k.fault(ErrConflict)
}

// visitor returns the visitor of ctx. It is an error if the visitor's Manager does not have this
// kind.
func (k *kind) visitor(ctx context.Context) (*Visitor, error) {
	v := FromContext(ctx)
	if v == nil {
		return nil, k.fault(ErrNoVisitor)
	}
	if declared := v.site.kinds.byName[k.name]; declared != k {
		if declared != nil && declared.retired {
			return nil, k.invalid("Config.Data lists it as Retired")
		}
		return nil, k.invalid("this very value is not in Config.Data (list it there; Encrypted " +
			"and InsecureAcceptPlaintext return another value)")
	}
	return v, nil
}

// visitorFor is visitor for a call that names this many items. No record holds more fields than
// twice the quota, up to which a claim may bring an account. A call that names more is refused
// before it is sent, because Redis would do nothing else for about 10 µs per item.
func (k *kind) visitorFor(ctx context.Context, items int) (*Visitor, error) {
	v, err := k.visitor(ctx)
	if err != nil {
		return nil, err
	}
	if most := 2 * v.site.quota.Fields; items > most {
		return nil, k.fault(fmt.Errorf("%w: one call names %d items, more than %d", ErrQuota,
			items, most))
	}
	return v, nil
}

// all returns the decrypted items of the visitor's record, by name.
func (k *kind) all(ctx context.Context) (map[string]string, error) {
	v, err := k.visitor(ctx)
	if err != nil {
		return nil, err
	}
	key, fields, err := read(ctx, v)
	if err != nil {
		return nil, k.fault(err)
	}
	return k.items(v.site.keyring, key, fields)
}

func (k *kind) clear(ctx context.Context) error {
	v, err := k.visitor(ctx)
	if err != nil {
		return err
	}
	_, _, err = v.update(ctx, func(string) Update {
		return Update{UnsetPrefix: []string{k.field("")}}
	})
	return k.wrap(err)
}

// Prefetch reads these kinds in one round trip. Data calls with the returned context are answered
// from what was read, until the visitor writes through this process; after that they read the store
// again.
func Prefetch(ctx context.Context, kinds ...Kind) (context.Context, error) {
	v := FromContext(ctx)
	if v == nil {
		return ctx, ErrNoVisitor
	}
	defs := make([]*kind, len(kinds))
	for i, k := range kinds {
		defs[i] = k.define()
		if _, err := defs[i].visitor(ctx); err != nil {
			return ctx, err
		}
	}
	p := &prefetched{v: v, version: v.writes.Load(), kinds: defs, whole: kindFields(defs) == nil}
	var err error
	p.key, p.fields, err = v.get(ctx, kindFields(defs)...)
	if err != nil {
		return ctx, err
	}
	return context.WithValue(ctx, prefetchKey{}, p), nil
}

// read reads fields of the visitor's record, from the store or from what [Prefetch] has read.
func read(
	ctx context.Context, v *Visitor, names ...string,
) (key string, fields Fields, err error) {
	if p, _ := ctx.Value(prefetchKey{}).(*prefetched); p.holds(v, names) {
		return p.key, p.fields, nil
	}
	return v.get(ctx, names...)
}

type prefetchKey struct{}

// prefetched is what Prefetch has read of one record: the fields of these kinds, or the whole
// record.
type prefetched struct {
	v       *Visitor // the record's; another Manager may have a record of the same key
	version uint64   // v.writes at that time
	key     string
	fields  Fields
	kinds   []*kind
	whole   bool
}

// holds reports whether p can answer a read of these fields (without names: of all) of the
// visitor's record.
func (p *prefetched) holds(v *Visitor, names []string) bool {
	if p == nil || p.v != v || p.version != v.writes.Load() || p.key != v.recordKey() {
		return false
	}
	if p.whole {
		return true
	}
	for _, name := range names {
		if _, ok := indexKind(p.kinds, name); !ok {
			return false
		}
	}
	return len(names) > 0
}

func indexKind(kinds []*kind, field string) (int, bool) {
	name, _ := splitField(field)
	for i, k := range kinds {
		if k.name == name {
			return i, true
		}
	}
	return 0, false
}
