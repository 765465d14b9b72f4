// Package outages has the tests in which a site under load loses its store: real servers are
// killed, frozen, filled, demoted and moved, and real proxies make the network slow or lossy.
// Pages, cookies and carts must survive.
package outages
