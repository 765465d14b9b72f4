package record

import (
	"strings"
	"testing"
)

func TestMarkerOf(t *testing.T) {
	want := Marker{NewIncarnation(), "g:AAAAAAAAAAAAAAAAAAAAAA", 2_000_000_000, "cart=m1"}
	fields := Fields{
		Generation: FirstGeneration(), MarkerField(want.Incarnation): want.String(), "cart/tea": "1",
	}
	if got, ok, err := MarkerOf(fields, want.Incarnation); err != nil || !ok || got != want {
		t.Errorf("%+v, %v, %v, want %+v", got, ok, err, want)
	}
	if held := MarkersIn(fields); len(held) != 1 || held[0] != want.Incarnation {
		t.Errorf("markers %q", held)
	}
	if m, ok, err := MarkerOf(fields, "another"); ok || err != nil {
		t.Errorf("of a claim without a marker: %+v, %v, %v", m, ok, err)
	}
}

func TestMarkerOf_Malformed(t *testing.T) {
	for _, value := range []string{"x", "x 0", "x ! cart=m"} {
		if m, ok, err := MarkerOf(Fields{MarkerField("1i"): value}, "1i"); err != ErrMalformed {
			t.Errorf("%q is %+v, %v, %v", value, m, ok, err)
		}
	}
}

func TestGenerationOf(t *testing.T) {
	for value, want := range map[string]error{
		"": nil, "1z": nil, "21": ErrNewer, "1": ErrMalformed, "1-1": ErrMalformed, "1 1": ErrMalformed,
	} {
		if n, err := GenerationOf(Fields{Generation: value}); err != want {
			t.Errorf("%q is %d, %v, want %v", value, n, err, want)
		}
	}
	first := FirstGeneration()
	n, err := GenerationOf(Fields{Generation: first})
	if err != nil || EncodeGeneration(n) != first {
		t.Errorf("%q is %d, %v", first, n, err)
	}
}

// A state says which owner a guest has, also after the account's ID is no longer in it.
func TestHolderOf(t *testing.T) {
	ann := AccountOwner("ann@example.com")
	if h := HolderOf(ann.Frozen()); h.Owner != ann || h.Key != ann.Key() || !h.Frozen {
		t.Errorf("frozen for an account: %+v", h)
	}
	if h := HolderOf(ann.Claimed()); h.Owner != "" || h.Key != ann.Key() || h.Frozen {
		t.Errorf("claimed by an account: %+v", h)
	}
	if strings.Contains(ann.Claimed(), "ann") {
		t.Errorf("a tombstone names the account: %q", ann.Claimed())
	}
	if h := HolderOf(Forgotten); h != (Holder{}) {
		t.Errorf("forgotten: %+v", h)
	}
}
