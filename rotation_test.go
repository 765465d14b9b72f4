package guest_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// Three rotations lose none of ten thousand guests (under -race a tenth), nor their encrypted data. When the secret that
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
					t.Fatalf("rotation %d: encrypted data of guest %d: %q, %v", round+1, i, got, err)
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

// A new secret is rolled out while the same visitors are served by replicas of both ages, at random. In the two steps that
// Config.Secrets tells nothing is lost or seen twice at any time; in one step a visitor may see two carts for a while,
// but they become one.
func TestRotationWhileBothVersionsRun(t *testing.T) {
	a, b := []byte(strings.Repeat("a", 32)), []byte(strings.Repeat("b", 32))
	for name, tt := range map[string]struct {
		steps    [][2][][]byte // the secrets of the older and of the newer replica
		seamless bool
	}{
		"two steps": {[][2][][]byte{{{a}, {a, b}}, {{a, b}, {b, a}}}, true},
		"one step":  {[][2][][]byte{{{a}, {b, a}}, {{b, a}, {b, a}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			const visitors, adds = 40, 5
			store := &spy{Store: newStore()}
			rnd := rand.New(rand.NewPCG(1, 1))
			browsers := make([]*browser, visitors)
			total := 0
			for _, secrets := range tt.steps {
				var replicas [2]*site
				for i := range replicas {
					replicas[i] = newSite(t, func(c *guest.Config) { c.Store, c.Secrets = store, secrets[i] })
				}
				for i := range browsers {
					if browsers[i] == nil {
						browsers[i] = replicas[0].browser()
					}
				}
				for range adds {
					total++
					for i, b := range browsers {
						visit := func(s *site) page {
							jar := b.Jar.Cookies(mustURL(t, b.s.url))
							next := s.browser() // the same browser: the balancer has another replica for it
							next.Jar.SetCookies(mustURL(t, s.url), jar)
							browsers[i], b = next, next
							return b.page()
						}
						visit(replicas[rnd.IntN(2)])
						b.add("tea")
						if p := visit(replicas[rnd.IntN(2)]); tt.seamless && p.Cart["tea"] != int64(total) {
							t.Fatalf("visitor %d sees %v, not %d", i, p.Cart, total)
						}
					}
				}
			}
			for i, b := range browsers {
				b.page()
				if p := b.page(); p.Cart["tea"] != int64(total) {
					t.Errorf("in the end visitor %d has %v, not %d; cookies %v", i, p.Cart, total, b.cookies())
				}
			}
		})
	}
}

// A main cookie that does not verify gives way to a spare one if it cannot be a newer process's: one of a secret that was
// removed, or a forged one of another time.
func TestAnOldCookieGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Config{})
		make := func(secret string) *guest.Manager {
			m, err := guest.New(guest.Config{Store: store, Secrets: [][]byte{[]byte(strings.Repeat(secret, 32))}, Data: []guest.Kind{Cart}})
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		add := func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), "tea", 1) }
		leaked := make("a")
		old := at(leaked, at(leaked, "", add), add)
		time.Sleep(2 * time.Hour)
		m := make("b")
		spare := at(m, old, add)
		if main := at(m, old+"; "+spare, add); !strings.HasPrefix(main, "__Host-Http-guest=") {
			t.Errorf("the guest is not confirmed: %s", main)
		}
		newer := make("c")
		young := at(newer, at(newer, "", add), add)
		if got := at(m, young+"; "+spare, add); got != young+"; "+spare {
			t.Errorf("a newer process's cookie is overwritten: %s", got)
		}
		own := at(m, at(m, "", add), add)
		time.Sleep(25 * time.Hour)
		planted := at(newer, at(newer, "", add), add)
		if got := at(m, own+"; "+planted, add); got == own+"; "+planted {
			t.Error("a cookie of no secret of ours keeps the visitor's own from being renewed")
		}
	})
}
