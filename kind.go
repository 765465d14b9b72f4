package guest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/guestkit/guest/internal/record"
	"github.com/guestkit/guest/internal/token"
)

// A Kind is one declared piece of data: a [Value], a [Map], [Counters], or one that is [Retired].
// Declare kinds as package variables and list them in Config.Data.
type Kind interface {
	// Name is the name given at declaration. It is the name of the stored fields: under another
	// name the kind has other data.
	Name() string

	define() *kind
}

// kind is what all kinds have in common. A Value is one field, named like the kind; a Map and
// Counters have a field for each item, named kind/item.
type kind struct {
	name      string
	perItem   bool
	counts    bool // Counters: amounts can be summed
	encrypted bool
	lenient   bool // encrypted, but values in the clear are read too
	retired   bool
	hasRule   bool
	typ       reflect.Type // of a value or an item; nil for Counters
	merge     mergeFunc
}

// A mergeFunc is a merge rule on the encoded data of both sides, by item. A Value has one item, "".
type mergeFunc func(account, guest map[string]string) (map[string]string, error)

// kinds are the kinds of Config.Data, with the keys that encrypt their data.
type kinds struct {
	declared []*kind
	byName   map[string]*kind
	keyring  *token.Keyring
}

func newKinds(declared []Kind, keyring *token.Keyring) *kinds {
	ks := &kinds{byName: map[string]*kind{}, keyring: keyring}
	for _, k := range declared {
		def := k.define()
		ks.byName[def.name] = def
		ks.declared = append(ks.declared, def)
	}
	return ks
}

// heldBy returns the kinds of which a record holds data, in the order of Config.Data. Kinds that
// are retired, or that this process does not know, come last and have no merge rule; their other
// properties are guessed from what is stored.
func (ks *kinds) heldBy(fields record.Fields) (held []*kind) {
	has, retired := map[string]bool{}, map[string]bool{}
	for field := range fields {
		name, _ := splitField(field)
		has[name] = true
	}
	for _, k := range ks.declared {
		switch {
		case k.retired:
			retired[k.name] = true
		case has[k.name]:
			held = append(held, k)
			delete(has, k.name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(has)) {
		k := &kind{name: name, retired: retired[name], lenient: true}
		for field, stored := range fields {
			if n, item := splitField(field); n == name {
				k.perItem = k.perItem || item != ""
				k.encrypted = k.encrypted || token.IsEncrypted(stored)
			}
		}
		held = append(held, k)
	}
	return held
}

// Retired declares that the data of this name are not needed any more. They cannot be read or
// written; a claim drops those of the guest, and its receipt counts them. The data of accounts stay
// until [Manager.EraseAccount].
//
// Without this declaration, the claim of a guest that holds data of a kind which is not in
// Config.Data stays Pending, for a process that knows the kind.
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

// kindFields returns the fields to read for these kinds; nil means the whole record, because the
// names of items are not known before.
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
func (k *kind) items(
	keyring *token.Keyring, key string, fields record.Fields,
) (map[string]string, error) {
	items := map[string]string{}
	for item, stored := range k.stored(fields) {
		plain, err := k.decrypt(keyring, key, k.field(item), stored)
		if err != nil {
			return nil, err
		}
		items[item] = plain
	}
	return items, nil
}

// stored yields the kind's fields by item. It leaves out those of another shape: a Value may have
// been a Map before, or the reverse.
func (k *kind) stored(fields record.Fields) iter.Seq2[string, string] {
	return func(yield func(item, stored string) bool) {
		for field, stored := range fields {
			name, item := splitField(field)
			if name == k.name && k.field(item) == field && stored != "" && !yield(item, stored) {
				return
			}
		}
	}
}

// decrypt is the reverse of encrypt. A value that was encrypted is decrypted even if its kind is no
// longer Encrypted.
func (k *kind) decrypt(keyring *token.Keyring, key, field, stored string) (string, error) {
	if k.encrypted && !k.lenient && stored != "" && !token.IsEncrypted(stored) {
		return "", k.fault(fmt.Errorf("%w: the kind is Encrypted, but the stored value is not "+
			"(use InsecureAcceptPlaintext until it has been written again)", ErrUnreadable))
	}
	plain, err := keyring.Decrypt(key, field, stored)
	if err != nil {
		err = k.fault(fmt.Errorf("%w: %w", ErrUnreadable, err))
	}
	return plain, err
}

// encrypt returns the stored form of an encoded value, which is encrypted only if the kind is
// Encrypted.
func (k *kind) encrypt(keyring *token.Keyring, key, field, plain string) string {
	if k.encrypted {
		return keyring.Encrypt(key, field, plain)
	}
	return plain
}

// fault adds the name of the kind to an error. It names no item, because items are data.
func (k *kind) fault(err error) error { return fmt.Errorf("guest: data %q: %w", k.name, err) }

// invalid returns an error that wraps ErrInvalid.
func (k *kind) invalid(format string, args ...any) error {
	return k.fault(fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...)))
}

const longestItem = 128

// checkItem accepts names that every store can hold and that Export can show.
func (k *kind) checkItem(item string) error {
	switch {
	case item == "" || len(item) > longestItem:
		return k.invalid("an item's name has 1 to %d bytes, not %d", longestItem, len(item))
	case !utf8.ValidString(item) || strings.ContainsFunc(item, unicode.IsControl):
		return k.invalid("an item's name must be UTF-8 without control characters (encode other " +
			"bytes first, for example as base64)")
	}
	return nil
}

func encode[T any](k *kind, v T) (string, error) {
	if s, ok := any(v).(string); ok && isPlain(s) {
		return `"` + s + `"`, nil
	}
	b, err := json.Marshal(v)
	if err != nil { // not wrapped: its text may quote the value
		return "", k.invalid("encoding/json cannot encode this value (check that it holds no " +
			"NaN, infinity or cycle, and what its MarshalJSON or MarshalText returns)")
	}
	return string(b), nil
}

func decode[T any](k *kind, plain string) (v T, err error) {
	if plain == "" {
		return v, nil
	}
	s, ok := any(&v).(*string)
	if ok && len(plain) > 2 && plain[0] == '"' && plain[len(plain)-1] == '"' {
		if inner := plain[1 : len(plain)-1]; isPlain(inner) {
			*s = inner
			return v, nil
		}
	}
	if json.Unmarshal([]byte(plain), &v) != nil { // not wrapped: its text may quote the value
		return v, k.invalid("the stored value is not a %T (read it with its old type under this "+
			"name, or choose a new name)", v)
	}
	return v, nil
}

// isPlain reports whether the JSON of s is s in quotes, as for most strings. encoding/json takes
// twenty times as long to find out.
func isPlain(s string) bool {
	for i := range len(s) {
		switch c := s[i]; { // encoding/json escapes these
		case c < ' ', c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&':
			return false
		}
	}
	return true
}

// The largest amount that a JSON number and a number of Redis's Lua hold exactly.
const maxAmount = 1 << 53

func decodeAmount(k *kind, plain string) (int64, error) {
	if plain == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(plain, 10, 64)
	if err != nil {
		return 0, k.invalid("the stored value is not a whole number (the name was used for " +
			"another type before: choose a new name)")
	}
	return n, nil
}

// wrap is fault, but nil stays nil.
func (k *kind) wrap(err error) error {
	if err == nil {
		return nil
	}
	return k.fault(err)
}

func decodeItems[T any](
	k *kind, items map[string]string, decode func(*kind, string) (T, error),
) (map[string]T, error) {
	all := make(map[string]T, len(items))
	for item, plain := range items {
		v, err := decode(k, plain)
		if err != nil {
			return nil, err
		}
		all[item] = v
	}
	return all, nil
}

// export returns what can be read of the kind, as JSON, or nil. An error says that some of it
// cannot be read.
func (k *kind) export(
	keyring *token.Keyring, key string, fields record.Fields,
) (shown json.RawMessage, err error) {
	object := map[string]json.RawMessage{}
	for item, stored := range k.stored(fields) {
		switch plain, fault := k.decrypt(keyring, key, k.field(item), stored); {
		case fault != nil:
			err = fault // it is the same for each item
		case !json.Valid([]byte(plain)):
			err = k.fault(fmt.Errorf("%w: the stored value is not JSON", ErrUnreadable))
		default:
			object[item] = json.RawMessage(plain)
		}
	}
	if len(object) == 0 {
		return nil, err
	}
	if !k.perItem {
		return object[""], err
	}
	shown, fault := json.Marshal(object)
	return shown, cmp.Or(err, fault)
}
