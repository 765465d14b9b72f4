// Package jsontype tells types whose values encoding/json cannot write and read back.
package jsontype

import (
	"cmp"
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
)

// Fault says why encoding/json would not keep values of this type; "": it does. It looks at the
// type alone: what the methods of a type do is up to them.
func Fault(t reflect.Type) string { return fault(t, map[reflect.Type]bool{}) }

var (
	jsonMarshaler   = reflect.TypeFor[json.Marshaler]()
	textMarshaler   = reflect.TypeFor[encoding.TextMarshaler]()
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func fault(t reflect.Type, seen map[reflect.Type]bool) string {
	if seen[t] { // a type that contains itself
		return ""
	}
	seen[t] = true
	writes := t.Implements(jsonMarshaler) || t.Implements(textMarshaler)
	reads := false
	for _, t := range []reflect.Type{t, reflect.PointerTo(t)} {
		reads = reads || t.Implements(jsonUnmarshaler) || t.Implements(textUnmarshaler)
	}
	if writes && reads {
		return ""
	}
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return t.String() + " has no form in JSON"
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return fault(t.Elem(), seen)
	case reflect.Map:
		if !isKey(t.Key()) {
			return t.String() + " has keys that JSON does not know"
		}
		return fault(t.Elem(), seen)
	case reflect.Struct:
		kept, why := fieldsFault(t, seen)
		if why == "" && !kept {
			why = t.String() + " has no exported field, so it would be stored as {}: export one, " +
				"or give it UnmarshalJSON and MarshalJSON, " +
				"the latter not with a pointer as its receiver"
		}
		return why
	}
	return ""
}

// isKey reports whether encoding/json writes the keys of a map as this type, and reads them back.
func isKey(t reflect.Type) bool {
	switch k := t.Kind(); {
	case k == reflect.String:
		return true
	case t.Implements(textMarshaler):
		return reflect.PointerTo(t).Implements(textUnmarshaler)
	default:
		return reflect.Int <= k && k <= reflect.Uintptr
	}
}

// fieldsFault looks at the fields of a struct; kept: it has one that is stored, or none at all.
func fieldsFault(t reflect.Type, seen map[reflect.Type]bool) (kept bool, why string) {
	kept = t.NumField() == 0
	for f := range t.Fields() {
		tag := f.Tag.Get("json")
		switch {
		case tag == "-":
		case f.IsExported():
			kept = true
			if why := fault(f.Type, seen); why != "" {
				name, _, _ := strings.Cut(tag, ",")
				return true, t.String() + "." + cmp.Or(name, f.Name) + ": " + why
			}
		case f.Anonymous && f.Type.Kind() == reflect.Struct: // its fields count as this one's
			keptInside, why := fieldsFault(f.Type, seen)
			if why != "" {
				return true, why
			}
			kept = kept || keptInside
		}
	}
	return kept, ""
}
