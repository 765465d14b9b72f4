package guest

import (
	"net/http"
	"net/netip"
	"time"

	"github.com/guestkit/guest/internal/countmin"
)

// Limit admits so many new guests per client: burst at once, and one more every so often. A client
// is an IPv4 address or an IPv6 /64, as networks hand them out. A client over its limit is served
// as all others are, but without a guest. For Config.Admit:
//
//	Admit: guest.All(guest.Browsers, guest.Limit(time.Minute, 20, nil)),
//
// The function client says which client sent a request; nil: http.Request.RemoteAddr. Behind a
// proxy that is the proxy, so all visitors would be one client: read the header there that your
// proxy itself sets, and no other. Addresses that are not valid are one client. A client function
// that returns the same address for all makes a limit for all.
//
// A Limit takes 1 MiB, however many clients there are. No client ever gets more than the limit,
// also not with the help of many others, and all of them together get at most 131,072 times the
// limit. They share what they are counted in, so from some 65,000 new guests per every on some are
// refused that are within their limit. It counts for one process. It panics if every or burst is
// not positive.
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

// clientPrefix is an IPv4 address, also in its IPv6 form, or the /64 of an IPv6 address; zeros for
// none.
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
