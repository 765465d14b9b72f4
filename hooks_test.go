package guest_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/guestkit/guest"
)

func TestHooks(t *testing.T) {
	var mu sync.Mutex
	var got []string
	note := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, s)
	}
	s := newSite(t, func(c *guest.Config) {
		c.Hooks = guest.Hooks{
			Minted:  func(context.Context) { note("minted") },
			Refused: func(_ context.Context, reason string) { note("refused: " + reason) },
			Claimed: func(_ context.Context, r guest.Receipt) {
				if r.Pending {
					note("pending")
				} else {
					note("claimed")
				}
			},
			StoreCall: func(_ context.Context, op string, d time.Duration, err error) {
				if d < 0 {
					t.Errorf("a store call took %v", d)
				}
				if err != nil {
					note(op + " failed")
				}
			},
		}
	})
	b := s.browser()
	b.add("tea")
	b.page()
	old := b.copy()
	s.store.down(errors.New("down"))
	b.login("ann")
	s.store.down(nil)
	b.login("ann")
	old.login("eve")
	forged := s.browser()
	forged.Jar.SetCookies(mustURL(t, s.url), []*http.Cookie{{Name: "guest", Value: "forged"}})
	forged.page()
	mu.Lock()
	defer mu.Unlock()
	want := []string{
		"minted", "get failed", "pending", "claimed",
		"minted", "refused: a claim of another account's guest", // eve's request found its guest claimed
		"refused: a token that does not verify", "minted",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}
