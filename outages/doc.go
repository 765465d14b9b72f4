// Package outages holds the tests that take the store away from a site under load: real servers are killed, frozen,
// filled, demoted and moved, real proxies make the network slow or lossy. Pages, cookies and carts must come through.
package outages
