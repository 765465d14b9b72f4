package jsontype

//lint:file-ignore U1000 Unexported fields that are never used are what is tested here.

import (
	"encoding"
	"encoding/json"
	"math/big"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"
)

type (
	public struct{ Name string }
	tagged struct {
		Name string `json:"n,omitempty"`
		F    func() `json:"-"`
	}
	private  struct{ name string }
	embeds   struct{ public }
	hides    struct{ p public }
	embedsP  struct{ *public }
	embedsNo struct{ private }
	number   int
	embedsN  struct{ number }
	tree     struct {
		Value    string
		Children []*tree
	}
	mutual struct{ Other *other }
	other  struct {
		Back map[string]mutual
		C    chan int
	}
	renamed struct {
		C chan int `json:"channel"`
	}
	plainTag struct {
		C chan int `json:",omitempty"`
	}
	channel    struct{ C chan int }
	embedsC    struct{ channel }
	embedsCToo struct {
		Name string
		channel
	}
	embedsNoAndHas struct {
		private
		Name string
		P    []private
	}
	deep struct {
		Inner []map[string]struct{ F func() }
	}
)

// both has both methods, each of the others one.
type both struct{ hidden string }

func (both) MarshalJSON() ([]byte, error) { return []byte("1"), nil }
func (*both) UnmarshalJSON([]byte) error  { return nil }

type onlyWrites struct{ hidden string }

func (onlyWrites) MarshalJSON() ([]byte, error) { return []byte("1"), nil }

type onlyReads struct{ hidden string }

func (*onlyReads) UnmarshalJSON([]byte) error { return nil }

// writesByPointer is written as {} where encoding/json has no pointer to it.
type writesByPointer struct{ hidden string }

func (*writesByPointer) MarshalJSON() ([]byte, error) { return []byte("1"), nil }
func (*writesByPointer) UnmarshalJSON([]byte) error   { return nil }

type text struct{ hidden string }

func (text) MarshalText() ([]byte, error) { return nil, nil }
func (*text) UnmarshalText([]byte) error  { return nil }

// onlyWritesText has no way back, which a key needs.
type onlyWritesText int

func (onlyWritesText) MarshalText() ([]byte, error) { return []byte("one"), nil }

// writtenAsText is a string, and encoding/json writes that and does not call the method.
type writtenAsText string

func (writtenAsText) MarshalText() ([]byte, error) { return []byte("one"), nil }

func TestFault(t *testing.T) {
	const (
		noForm = "has no form in JSON"
		keys   = "keys that JSON does not know"
		empty  = "no exported field"
	)
	for _, tt := range []struct {
		of   reflect.Type
		want string // in the fault; "": there is none
	}{
		{reflect.TypeFor[string](), ""},
		{reflect.TypeFor[bool](), ""},
		{reflect.TypeFor[float64](), ""},
		{reflect.TypeFor[[]byte](), ""},
		{reflect.TypeFor[[3]int8](), ""},
		{reflect.TypeFor[any](), ""}, // what is in it, the type does not say
		{reflect.TypeFor[*int](), ""},
		{reflect.TypeFor[struct{}](), ""},
		{reflect.TypeFor[public](), ""},
		{reflect.TypeFor[tagged](), ""},
		{reflect.TypeFor[tree](), ""},
		{reflect.TypeFor[json.RawMessage](), ""},
		{reflect.TypeFor[json.Number](), ""},
		{reflect.TypeFor[time.Time](), ""},
		{reflect.TypeFor[time.Duration](), ""},
		{reflect.TypeFor[netip.Addr](), ""},
		{reflect.TypeFor[*big.Int](), ""},
		{reflect.TypeFor[url.Values](), ""},
		{reflect.TypeFor[both](), ""},
		{reflect.TypeFor[text](), ""},
		{reflect.TypeFor[*both](), ""},
		{reflect.TypeFor[*writesByPointer](), ""},

		{reflect.TypeFor[chan int](), "chan int " + noForm},
		{reflect.TypeFor[func()](), "func() " + noForm},
		{reflect.TypeFor[complex64](), noForm},
		{reflect.TypeFor[complex128](), noForm},
		{reflect.TypeFor[unsafe.Pointer](), noForm},
		{reflect.TypeFor[*chan int](), noForm},
		{reflect.TypeFor[[]func()](), noForm},
		{reflect.TypeFor[[2]complex128](), noForm},

		{reflect.TypeFor[map[string]int](), ""},
		{reflect.TypeFor[map[number]int](), ""},
		{reflect.TypeFor[map[uintptr]int](), ""},
		{reflect.TypeFor[map[netip.Addr]int](), ""},
		{reflect.TypeFor[map[text]int](), ""},
		{reflect.TypeFor[map[bool]int](), keys},
		{reflect.TypeFor[map[float64]int](), keys},
		{reflect.TypeFor[map[public]int](), keys},
		{reflect.TypeFor[map[both]int](), keys},                   // MarshalJSON makes no key
		{reflect.TypeFor[map[onlyWritesText]int](), keys},         // "one" is no int
		{reflect.TypeFor[map[encoding.TextMarshaler]int](), keys}, // of which type?
		{reflect.TypeFor[map[writtenAsText]int](), ""},
		{reflect.TypeFor[map[string]chan int](), noForm},

		{reflect.TypeFor[private](), empty},
		{reflect.TypeFor[[]private](), empty},
		{reflect.TypeFor[struct {
			F func() `json:"-"`
		}](), empty},
		{reflect.TypeFor[onlyWrites](), empty},
		{reflect.TypeFor[onlyReads](), empty},
		{reflect.TypeFor[writesByPointer](), empty},

		{reflect.TypeFor[embeds](), ""}, // its Name counts as one of embeds
		{reflect.TypeFor[hides](), empty},
		{reflect.TypeFor[embedsNo](), empty},
		{reflect.TypeFor[embedsN](), empty},
		{reflect.TypeFor[embedsP](), empty}, // json cannot set the pointer

		{reflect.TypeFor[embedsC](), "jsontype.channel.C: chan int " + noForm},
		{reflect.TypeFor[embedsCToo](), "jsontype.channel.C: chan int " + noForm},
		{reflect.TypeFor[embedsNoAndHas](), "jsontype.private has " + empty},

		{reflect.TypeFor[renamed](), "jsontype.renamed.channel: chan int " + noForm},
		{reflect.TypeFor[plainTag](), "jsontype.plainTag.C: chan int " + noForm},
		{reflect.TypeFor[mutual](), "jsontype.mutual.Other: jsontype.other.C: chan int " + noForm},
		{reflect.TypeFor[deep](), "jsontype.deep.Inner: struct { F func() }.F: func() " + noForm},
	} {
		if got := Fault(tt.of); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%v: %q, want %q", tt.of, got, tt.want)
		}
	}
}

// What has no fault comes back from encoding/json.
func TestFault_RoundTrip(t *testing.T) {
	for _, v := range []any{
		"x", 1.5, []byte{0, 255}, public{"x"}, tagged{Name: "x"}, embeds{public{"x"}},
		tree{"x", []*tree{{"y", nil}}}, map[netip.Addr]int{netip.MustParseAddr("::1"): 1},
		url.Values{"a": {"b"}}, time.Unix(0, 1).UTC(),
	} {
		typ := reflect.TypeOf(v)
		if why := Fault(typ); why != "" {
			t.Errorf("%v: %s", typ, why)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		got := reflect.New(typ)
		err = json.Unmarshal(b, got.Interface())
		if err != nil || !reflect.DeepEqual(got.Elem().Interface(), v) {
			t.Errorf("%v %+v comes back as %+v, %v", typ, v, got.Elem(), err)
		}
	}
}
