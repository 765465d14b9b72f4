package guest

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Kind is one declared piece of data: a [Value], a [Map] or [Counters], or one that is [Retired]. Declare kinds as
// package variables and list them in Config.Data.
type Kind interface {
	// Name is the name given at declaration. It names the stored fields: data under another name are other data.
	Name() string

	define() *kind
}

// kind is what the types of data share. A Value is one field, named like the kind; a Map and Counters are a field
// for each item, named kind/item.
type kind struct {
	name    string
	perItem bool
	counts  bool // Counters: amounts can be summed
	sealed  bool
	lenient bool // sealed, but plaintext is read too
	retired bool
	hasRule bool
	typ     reflect.Type // of a value or an item; nil for Counters
	merge   mergeFunc
}

// Retired declares that the data of this name are of no use any more. They cannot be read or written; a claim drops
// what the guest holds of them, and its receipt counts it. Without this declaration a claim of a guest that holds data
// of a kind which is not in Config.Data stays Pending, for a process that knows the kind. What accounts hold of it stays
// until [Manager.EraseAccount].
func Retired(name string) Kind { return &kind{name: name, retired: true, hasRule: true} }

func (k *kind) define() *kind { return k }

// Name is the name given at declaration.
func (k *kind) Name() string { return k.name }

func (k *kind) field(item string) string {
	if k.perItem {
		return k.name + "/" + item
	}
	return k.name
}

// splitField is the reverse of kind.field: the name of the kind and the item.
func splitField(field string) (name, item string) {
	name, item, _ = strings.Cut(field, "/")
	return name, item
}

// kindFields names what to read for these kinds; nil means the whole record, since items are not known before.
func kindFields(kinds []*kind) (names []string) {
	for _, k := range kinds {
		if k.perItem {
			return nil
		}
		names = append(names, k.name)
	}
	return names
}

// items returns the decrypted fields of the kind, by item.
func (k *kind) items(ring *keyring, key string, fields Fields) (map[string]string, error) {
	items := map[string]string{}
	for item, stored := range k.stored(fields) {
		plain, err := k.open(ring, key, k.field(item), stored)
		if err != nil {
			return nil, err
		}
		items[item] = plain
	}
	return items, nil
}

// stored yields the kind's fields by item, but for those of another shape: of a Value that is a Map now, or the reverse.
func (k *kind) stored(fields Fields) iter.Seq2[string, string] {
	return func(yield func(item, stored string) bool) {
		for field, stored := range fields {
			name, item := splitField(field)
			if name == k.name && k.field(item) == field && stored != "" && !yield(item, stored) {
				return
			}
		}
	}
}

// open is the reverse of store. What was encrypted opens also after its kind is no longer encrypted.
func (k *kind) open(ring *keyring, key, field, stored string) (string, error) {
	if k.sealed && !k.lenient && stored != "" && stored[0] != sealedMark {
		return "", k.fault(fmt.Errorf("%w: the kind is Encrypted, but what is stored is not: use InsecureAcceptPlaintext until it has been written anew", ErrUnreadable))
	}
	plain, err := ring.openData(key, field, stored)
	return plain, k.wrap(err)
}

// store is the stored form of an encoded value.
func (k *kind) store(ring *keyring, key, field, plain string) string {
	if k.sealed {
		return ring.sealData(key, field, plain)
	}
	return plain
}

// fault says of which kind an error is. It names no item: items are data.
func (k *kind) fault(err error) error { return fmt.Errorf("guest: data %q: %w", k.name, err) }

func (k *kind) invalid(format string, args ...any) error {
	return k.fault(fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...)))
}

const longestItem = 128

// checkItem accepts what every store can hold and Export can show.
func (k *kind) checkItem(item string) error {
	switch {
	case item == "" || len(item) > longestItem:
		return k.invalid("an item's name has 1 to %d bytes, not %d", longestItem, len(item))
	case !utf8.ValidString(item) || strings.ContainsFunc(item, unicode.IsControl):
		return k.invalid("an item's name must be UTF-8 without control characters: encode other bytes first, for example as base64")
	}
	return nil
}

func encode[T any](k *kind, v T) (string, error) {
	if s, ok := any(v).(string); ok && isPlain(s) {
		return `"` + s + `"`, nil
	}
	b, err := json.Marshal(v)
	if err != nil { // its text may quote the value
		return "", k.invalid("encoding/json cannot encode this value: see what its MarshalJSON or MarshalText returns, and that it holds no NaN, no infinity and no cycle")
	}
	return string(b), nil
}

func decode[T any](k *kind, plain string) (v T, err error) {
	if plain == "" {
		return v, nil
	}
	if s, ok := any(&v).(*string); ok && len(plain) > 2 && plain[0] == '"' && plain[len(plain)-1] == '"' {
		if inner := plain[1 : len(plain)-1]; isPlain(inner) {
			*s = inner
			return v, nil
		}
	}
	if json.Unmarshal([]byte(plain), &v) != nil { // its error may quote the value
		return v, k.invalid("the stored value is not a %T any more: read it with its old type under this name, or choose a new name", v)
	}
	return v, nil
}

// isPlain reports whether JSON needs but quotes around s, as around most; encoding/json takes twenty times as long.
func isPlain(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&': // as encoding/json escapes them
			return false
		}
	}
	return true
}

// The largest amount that a JSON number and Redis's Lua hold exactly.
const maxAmount = 1 << 53

func decodeAmount(k *kind, plain string) (int64, error) {
	if plain == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(plain, 10, 64)
	if err != nil {
		return 0, k.invalid("the stored value is not a whole number: the name was used for another type before, choose a new one")
	}
	return n, nil
}

// field reads, writes and changes one field of the visitor's record: what Value, Map and Counters are made of.
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
	key, fields, err := vis.get(ctx, name)
	if err != nil {
		return v, f.k.fault(err)
	}
	plain, err := f.k.open(vis.m.ring, key, name, fields[name])
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
		return Update{Set: Fields{name: f.k.store(vis.m.ring, key, name, plain)}}
	})
	return f.k.wrap(err)
}

func (f fieldOf[T]) delete(ctx context.Context) error {
	vis, err := f.k.visitor(ctx)
	if err != nil {
		return err
	}
	_, _, err = vis.update(ctx, func(string) Update { return Update{Unset: []string{f.k.field(f.item)}} })
	return f.k.wrap(err)
}

const updateTries = 64

var longAgo = time.Unix(1, 0)

// update sets the field to change(its value) if nobody else wrote it meanwhile, else tries again with the new value.
func (f fieldOf[T]) update(ctx context.Context, change func(T) (T, error)) error {
	vis, err := f.k.visitor(ctx)
	if err != nil {
		return err
	}
	name := f.k.field(f.item)
	key, fields, err := vis.get(withoutPrefetch(ctx), name)
	if err != nil {
		return f.k.fault(err)
	}
	stored := fields[name]
	for range updateTries {
		plain, err := f.k.open(vis.m.ring, key, name, stored)
		if err != nil {
			return err
		}
		old, err := decode[T](f.k, plain)
		if err != nil {
			return err
		}
		v, err := change(old)
		if err != nil {
			return err
		}
		next, err := encode(f.k, v)
		if err != nil {
			return err
		}
		read := key
		var res Result
		key, res, err = vis.update(ctx, func(key string) Update {
			u := Update{If: Fields{name: stored}, Set: Fields{name: f.k.store(vis.m.ring, key, name, next)}}
			if key != read { // another record since the claim: nothing of it was read yet
				u = Update{NotAfter: longAgo, Return: []string{name}} // reads it
			}
			return u
		})
		if err != nil {
			return f.k.fault(err)
		}
		if res.Applied {
			return nil
		}
		stored = res.Fields[name]
	}
	return f.k.fault(ErrConflict)
}

func (k *kind) wrap(err error) error {
	if err == nil {
		return nil
	}
	return k.fault(err)
}

// visitor returns the visitor of ctx if this kind is its manager's.
func (k *kind) visitor(ctx context.Context) (*Visitor, error) {
	v := FromContext(ctx)
	if v == nil {
		return nil, k.fault(ErrNoVisitor)
	}
	if declared := v.m.kinds[k.name]; declared != k {
		if declared != nil && declared.retired {
			return nil, k.invalid("Config.Data lists it as Retired")
		}
		return nil, k.invalid("this very value is not listed in Config.Data: list it there (Encrypted and InsecureAcceptPlaintext return another one)")
	}
	return v, nil
}

// all returns the items of the visitor's record.
func (k *kind) all(ctx context.Context) (map[string]string, error) {
	v, err := k.visitor(ctx)
	if err != nil {
		return nil, err
	}
	key, fields, err := v.get(ctx)
	if err != nil {
		return nil, k.fault(err)
	}
	return k.items(v.m.ring, key, fields)
}

func (k *kind) clear(ctx context.Context) error {
	v, err := k.visitor(ctx)
	if err != nil {
		return err
	}
	_, _, err = v.update(ctx, func(string) Update { return Update{UnsetPrefix: []string{k.field("")}} })
	return k.wrap(err)
}
