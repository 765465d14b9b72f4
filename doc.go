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
// request do it.
//
// # The model
//
// The cookie is the identity, the store holds the data. A returning visitor is recognised by a
// signature, without asking the store; a data call then takes one round trip.
//
// Data are fields, not a blob. Each call is one atomic step on the fields it names, so two requests
// of one visitor never overwrite each other, and nothing is committed at the end of a request. What
// a call has returned from without an error is kept.
//
// A claim is a small state machine on records: note, seal, merge, tell the app, bury, strike. Each
// step is one conditional write of one record, so a claim happens exactly once, any process can
// finish it after a crash, and it needs no transaction across the slots of a Redis Cluster. See
// docs/claim.md.
//
// # Security
//
// A guest is not an authenticated session: the holder of the cookie is the guest. The cookie is
// signed, __Host-Http-, Secure, HttpOnly and SameSite=Lax; whatever does not verify counts as no
// cookie and never as an error. A claimed guest's cookie is worth nothing. A response that carries
// a token is never left in a shared cache. A claim from a cookie is refused when another site sent
// the request, but it trusts the app to keep its own login safe from login CSRF. See
// docs/security.md.
//
// # Compatibility
//
// The two latest releases of Go. Tokens and records carry a version; a release reads what the
// release before it wrote. A kind's name names stored data, and its type must keep decoding what
// was stored, as with any schema.
package guest
