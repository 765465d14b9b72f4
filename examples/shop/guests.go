package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/guestkit/guest"
)

// What the shop keeps for a visitor. The same calls act on a guest's data and on a member's; the
// rules say what becomes of both when a guest signs in to an account that has some already.
var (
	Cart   = guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))
	Wishes = guest.NewMap("wishes", guest.EachItem(earlier))
	Theme  = guest.NewValue("theme", guest.PreferAccount[string])
)

// earlier is a merge rule: what was wished for twice was wished for at the earlier time.
func earlier(account, guest time.Time) time.Time {
	if guest.Before(account) {
		return guest
	}
	return account
}

func newGuests(store guest.Store, secrets [][]byte, insecure bool, hooks guest.Hooks) (*guest.Manager, error) {
	return guest.New(guest.Config{
		Store:   store,
		Secrets: secrets,
		Data:    []guest.Kind{Cart, Wishes, Theme},
		Account: func(r *http.Request) string { return userOf(r).ID },

		// Without https a browser would not send a Secure cookie back. Only for development on this
		// machine.
		Cookie: guest.Cookie{Insecure: insecure},
		Hooks:  hooks,
	})
}

// kept is what every page shows of a visitor's data.
type kept struct {
	Cart   map[string]int64
	Wishes map[string]time.Time
	Theme  string
}

func load(ctx context.Context) (k kept, err error) {
	ctx, err = guest.Prefetch(ctx, Cart, Wishes, Theme) // one round trip; what follows asks the store no more
	if err != nil {
		return k, err
	}
	var errCart, errWishes, errTheme error
	k.Cart, errCart = Cart.All(ctx)
	k.Wishes, errWishes = Wishes.All(ctx)
	k.Theme, errTheme = Theme.Get(ctx)
	return k, errors.Join(errCart, errWishes, errTheme)
}

// mostOfOne is how many of one plant fit into a cart.
const mostOfOne = 50

// addToCart adds n, which may be negative, in one atomic step: additions from two tabs are never
// lost. What they overshoot together is put back the same way.
func addToCart(ctx context.Context, sku string, n int64) error {
	amount, err := Cart.Add(ctx, sku, n)
	if err != nil {
		return err
	}
	if over := amount - max(0, min(amount, mostOfOne)); over != 0 {
		_, err = Cart.Add(ctx, sku, -over)
	}
	return err
}
