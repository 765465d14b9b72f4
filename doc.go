// Package guest gives every visitor of a web app an identity before they sign up, keeps data on it
// (a cart, a theme, a wish list), and binds the data to an account the moment the visitor signs up
// or logs in.
//
// # Use
//
// Declare the data as package variables, make a [Manager] with [New], wrap the app's handler in
// [Manager.Middleware], and call the data's methods with the request's context. The same line
// serves guests and members:
//
//	n, err := Cart.Add(r.Context(), "sku", 1)
//
// When a visitor signs in, by whatever method, call [Manager.Claim]; or let the first signed-in
// request claim the guest by itself.
//
// # Words
//
// A visitor is the sender of a request. It is a guest, or a member (a visitor who is signed in to
// an account), or neither if [Config.Admit] refused it a guest. A record holds the data of one
// guest or one account as named fields. A kind is one declared piece of data, such as the cart; a
// kind that has items, such as the products in the cart, keeps each item in a field of its own.
//
// # The model
//
// The cookie is the identity, the store holds the data. A returning visitor is recognised by the
// signature of its cookie, without asking the store; a data call then takes one round trip.
//
// Data are fields, not a blob. Each call is one atomic step on the fields that it names, so two
// requests of one visitor never overwrite each other, and nothing is left to commit at the end of
// a request. When a write returns without an error, it is stored. [Counters.AddAll] and
// [Map.SetAll] write many items in one step and one round trip.
//
// A claim is a small state machine on records: add an outbox entry, freeze, merge, call the app,
// leave a tombstone, remove the entry. Each step is one conditional write of one record. So a claim
// happens exactly once, any process can finish it after a crash, and it needs no transaction across
// the slots of a Redis Cluster. See docs/claim.md.
//
// # Security
//
// A guest is not an authenticated session: the holder of the cookie is the guest. The cookie is
// signed, its name begins with __Host-Http-, and it is Secure, HttpOnly and SameSite=Lax. A cookie
// that does not verify counts as no cookie and is never an error. The cookie of a claimed guest is
// worth nothing. A response that carries a token is never left in a shared cache. A claim from a
// cookie is refused when another site sent the request, but this package relies on the app to keep
// its own login safe from login CSRF. See docs/security.md.
//
// # Compatibility
//
// The two latest releases of Go. Tokens and records carry a version; a release reads what the
// release before it wrote. A kind's name is the name of stored data, and the kind's type must keep
// decoding what was stored, as with any schema.
package guest
