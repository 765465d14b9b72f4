package guest

import (
	"net/http"
	"net/netip"
	"time"

	"github.com/guestkit/guest/internal/countmin"
)

// Limit returns a function for Config.Admit that admits a limited number of new guests per client:
// burst at once, and then one more each time every has passed. A client is an IPv4 address or an
// IPv6 /64, the size that networks give to one customer. A client over its limit is served like all
// others, but without a guest.
//
//	Admit: guest.All(guest.Browsers, guest.Limit(time.Minute, 20, nil)),
//
// The function client returns the client that sent a request; nil: http.Request.RemoteAddr. Behind
// a proxy that is the proxy's address, so all visitors would be one client: read the header that
// your own proxy sets there, and no other. All invalid addresses are one client. A function that
// returns the same address for all requests makes one limit for all.
//
// A Limit takes 1 MiB, however many clients there are. No client ever gets more than its limit,
// even with the help of many others, and all of them together get at most 131,072 times the limit.
// Clients share the cells in which they are counted, so from about 65,000 new guests per every on,
// some are refused that are within their limit. Each process counts for itself. Limit panics if
// every or burst is not positive.
func Limit(
	every time.Duration, burst int, client func(*http.Request) netip.Addr,
) func(*http.Request) bool {
	if every <= 0 || burst <= 0 {
		panic("guest: Limit needs a positive time and a positive burst")
	}
	if client == nil {
		client = remoteAddr
	}
	limiter := countmin.New(every, burst)
	return func(r *http.Request) bool {
		prefix := clientPrefix(client(r))
		return limiter.Allow(prefix[:])
	}
}

// clientPrefix returns an IPv4 address, also in its IPv6 form, or the /64 of an IPv6 address; zeros
// for no address.
func clientPrefix(addr netip.Addr) [16]byte {
	p := addr.As16()
	if !addr.Is4() && !addr.Is4In6() {
		clear(p[8:])
	}
	return p
}

func remoteAddr(r *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr)
	return peer.Addr()
}
