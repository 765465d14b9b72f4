// Package frameworks shows the guest middleware in web stacks that need no adapter, one file for
// each: how to mount it, a handler that adds to a cart, a login that claims.
package frameworks

import "github.com/guestkit/guest"

// Cart holds the amount of each item that a visitor wants, guest or member.
var Cart = guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))

// signIn stands for the app's own sign-in: it returns the account's ID.
func signIn(user, password string) (id string, ok bool) {
	return user, user != "" && password == "tulip"
}
