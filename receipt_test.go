package guest

import (
	"reflect"
	"testing"

	"github.com/guestkit/guest/internal/record"
	"github.com/guestkit/guest/internal/token"
)

// A marker of a cart and a theme, in a field of its own, leaves a record in Redis's compact encoding:
// names and values of at most 64 bytes.
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
		m := record.Marker{
			Incarnation: record.NewIncarnation(), Guest: record.GuestKey(token.ID{255, 255}),
			At: 2_000_000_000, Kinds: packKinds(kinds),
		}
		name, value := record.MarkerField(m.Incarnation), m.String()
		if len(name) > 64 || len(value) > 64 {
			t.Errorf("%s = %q: %d bytes", name, value, len(value))
		}
		if got, err := unpackKinds(m.Kinds); err != nil || !reflect.DeepEqual(got, kinds) {
			t.Errorf("%q is %+v, %v, want %+v", m.Kinds, got, err, kinds)
		}
	}
}

func TestKindsThatDoNotUnpack(t *testing.T) {
	for _, s := range []string{"cart", "cart=", "cart=m!", "cart=m1,1,1,1,1,1,1,1", "cart=m;"} {
		if kinds, err := unpackKinds(s); err != record.ErrMalformed {
			t.Errorf("%q is %+v, %v", s, kinds, err)
		}
	}
}
