package guest

import (
	"hash/maphash"
	"math"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Limit admits so many new guests per client: burst at once, and one more every so often. A client is an IPv4 address
// or an IPv6 /64, as networks hand them out. Over its limit a client is served like anybody, but without a guest. For
// Config.Admit:
//
//	Admit: guest.All(guest.Browsers, guest.Limit(time.Minute, 20, nil)),
//
// The function client says whose request it is; nil: http.Request.RemoteAddr. Behind a proxy that is the proxy, so all
// visitors would be one client: read the header there that your proxy itself sets, and no other. Addresses that are not
// valid are one client. A client function that returns the same address for all makes a limit for all.
//
// A Limit takes 1 MiB and no more, whoever comes. No client ever gets more than the limit, also not with the help of many
// others, and all of them together get at most 131,072 times the limit. They share what they are counted in, so from
// some 65,000 new guests per every on some are refused that are within theirs. It counts for one process. It panics if
// every or burst is not positive.
func Limit(every time.Duration, burst int, client func(*http.Request) netip.Addr) func(*http.Request) bool {
	if every <= 0 || burst <= 0 {
		panic("guest: Limit needs a positive time and a positive burst")
	}
	if client == nil {
		client = remoteAddr
	}
	l := &limiter{
		start: time.Now(),
		seed:  maphash.MakeSeed(),
		every: int64(every),
		ahead: min(int64(burst-1), math.MaxInt64/4/int64(every)) * int64(every),
	}
	return func(r *http.Request) bool { return l.allow(client(r)) }
}

// A limiter is a count-min sketch of GCRA's arrival times: each client has a cell in each row, which it may share with
// others. A cell is never behind any of its clients, so the earliest of a client's cells grants too little at worst.
// Nothing is evicted, so nothing can be made to forget.
type limiter struct {
	start time.Time
	seed  maphash.Seed
	every int64 // nanoseconds for one guest
	ahead int64 // how far a client may be ahead of that

	mu   sync.Mutex
	rows [2][1 << 16]int64 // nanoseconds since start at which a client that has used all is owed nothing
}

func (l *limiter) allow(addr netip.Addr) bool {
	prefix := clientPrefix(addr)
	hash := maphash.Bytes(l.seed, prefix[:])
	a, b := &l.rows[0][uint16(hash)], &l.rows[1][uint16(hash>>32)]

	l.mu.Lock()
	defer l.mu.Unlock()
	now := int64(time.Since(l.start))
	due := min(*a, *b)
	if due > now+l.ahead {
		return false
	}
	due = max(due, now) + l.every
	*a, *b = max(*a, due), max(*b, due)
	return true
}

// clientPrefix is an IPv4 address, also in its IPv6 form, or the /64 of an IPv6 address; zeros for none.
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
