// Package jsontype tells types whose values encoding/json cannot write and read back.
package jsontype

import (
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
		switch k := t.Key().Kind(); {
		case t.Key().Implements(textMarshaler), k == reflect.String, reflect.Int <= k && k <= reflect.Uintptr:
			return fault(t.Elem(), seen)
		}
		return t.String() + " has keys that JSON does not know"
	case reflect.Struct:
		return fieldFault(t, seen)
	}
	return ""
}

func fieldFault(t reflect.Type, seen map[reflect.Type]bool) string {
	kept := t.NumField() == 0
	for f := range t.Fields() {
		tag := f.Tag.Get("json")
		switch {
		case tag == "-":
			continue
		case !f.IsExported(): // of an embedded struct the exported fields count as this one's
			kept = kept || f.Anonymous && f.Type.Kind() == reflect.Struct && fault(f.Type, seen) == ""
			continue
		}
		kept = true
		if why := fault(f.Type, seen); why != "" {
			name, _, _ := strings.Cut(tag, ",")
			if name == "" {
				name = f.Name
			}
			return t.String() + "." + name + ": " + why
		}
	}
	if !kept {
		return t.String() + " has no exported field, so it would be stored as {}: export one, or give it UnmarshalJSON " +
			"and MarshalJSON, the latter not with a pointer as its receiver"
	}
	return ""
}
