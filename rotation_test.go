package guest_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/guestkit/guest"
)

// Three rotations lose none of ten thousand guests (under -race a tenth), nor their Sealed data. When the secret that
// made their cookies is removed they begin anew, without an error.
func TestRotations(t *testing.T) {
	n := 10_000
	if guest.RaceEnabled || *storeFlag != "memory" {
		n /= 10
	}
	secrets := [][]byte{secret}
	s := newSite(t, nil)
	cookies := make([]string, n)
	ids := map[string]int{}
	for i := range cookies {
		cookies[i] = s.newcomer(fmt.Sprint("sku", i))
	}
	for i := 0; i < n; i += 100 {
		if err := Email.Set(s.guests.AsGuest(t.Context(), s.show(cookies[i]).Guest), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 3 {
		secrets = append([][]byte{[]byte(strings.Repeat(string(rune('a'+round)), 32))}, secrets...)
		s = newSite(t, func(c *guest.Config) { c.Store = s.store; c.Secrets = slices.Clone(secrets) })
		for i, cookie := range cookies {
			p := s.show(cookie)
			if p.New || p.Replaced || len(p.Cart) != 1 || p.Cart[fmt.Sprint("sku", i)] != 1 {
				t.Fatalf("rotation %d: guest %d is lost: %+v", round+1, i, p)
			}
			if round > 0 && ids[p.Guest] != i {
				t.Fatalf("rotation %d: guest %d is another", round+1, i)
			}
			ids[p.Guest] = i
			if i%100 == 0 {
				if got, err := Email.Get(s.guests.AsGuest(t.Context(), p.Guest)); got != fmt.Sprint(i) || err != nil {
					t.Fatalf("rotation %d: Sealed data of guest %d: %q, %v", round+1, i, got, err)
				}
			}
		}
	}
	if len(ids) != n {
		t.Errorf("%d guests", len(ids))
	}
	young := s.newcomer("young") // of the newest secret
	s = newSite(t, func(c *guest.Config) { c.Store = s.store; c.Secrets = secrets[:1] })
	if p := s.show(young); p.New || p.Cart["young"] != 1 {
		t.Errorf("signed with an old secret: %+v", p)
	}
	for i, cookie := range cookies {
		if p := s.show(cookie); !p.New || len(p.Cart) != 0 || p.Err != "" || ids[p.Guest] != 0 {
			t.Fatalf("without its secret guest %d is %+v", i, p)
		}
	}
}

// show is what the page shows to whoever has this cookie.
func (s *site) show(cookie string) (p page) {
	s.t.Helper()
	if err := json.Unmarshal(s.request("GET", "/page", cookie).Body.Bytes(), &p); err != nil {
		s.t.Fatal(err)
	}
	return p
}
