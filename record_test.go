package guest

import (
	"reflect"
	"strings"
	"testing"
)

// A marker of a cart and a theme, in a field of its own, leaves a record in Redis's compact encoding.
func TestMarkersAreShort(t *testing.T) {
	for _, kinds := range [][]KindReceipt{
		{
			{Name: "cart", Outcome: Moved, GuestItems: 20, ResultItems: 20, GuestTotal: 35, ResultTotal: 35},
			{Name: "theme", Outcome: Moved, GuestItems: 1, ResultItems: 1},
		},
		{
			{Name: "cart", Outcome: Merged, GuestItems: 3, AccountItems: 20, ResultItems: 22,
				GuestTotal: 5, AccountTotal: 40, ResultTotal: 45},
			{Name: "theme", Outcome: Kept, GuestItems: 1, AccountItems: 1, ResultItems: 1},
		},
		{{Name: "email", Outcome: Dropped, DroppedItems: 1, ResultTotal: -1}},
		{{Name: "a kind that is gone", Outcome: Dropped}},
	} {
		incarnation := newIncarnation()
		k := marker{incarnation, guestKey(guestID{255, 255}), 2_000_000_000, kinds}
		name, value := fieldMarker+incarnation, k.String()
		if len(name) > 64 || len(value) > 64 {
			t.Errorf("%s = %q: %d bytes", name, value, len(value))
		}
		record := Fields{fieldGeneration: firstGeneration(), name: value, "cart/tea": "1"}
		if got, err := markerOf(record, incarnation); err != nil || !reflect.DeepEqual(got, k) {
			t.Errorf("%q is %+v, %v, want %+v", value, got, err, k)
		}
		if held := markersIn(record); len(held) != 1 || held[0] != incarnation {
			t.Errorf("markers %q", held)
		}
	}
}

func TestFieldsThatAreNoMarkers(t *testing.T) {
	for _, value := range []string{
		"x", "x 0", "x 0 ", "x 0 cart", "x 0 cart=", "x ! cart=m", "x 0 cart=m!", "x 0 cart=m1,1,1,1,1,1,1,1",
		"x 0 cart=m;", strings.Repeat(" ", 9),
	} {
		if k, err := markerOf(Fields{fieldMarker + "1i": value}, "1i"); err != errMarkers {
			t.Errorf("%q is %+v, %v", value, k, err)
		}
	}
	for value, want := range map[string]error{
		"": nil, "1z": nil, "21": errNewer, "1": errMarkers, "1-1": errMarkers, "1 1": errMarkers,
	} {
		if n, err := generationOf(Fields{fieldGeneration: value}); err != want {
			t.Errorf("%q is %d, %v", value, n, err)
		}
	}
}
