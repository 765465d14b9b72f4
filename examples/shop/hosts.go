package main

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// onlyFor serves requests that are for one of these hosts, by any port. A page of evil.example
// whose name is made to lead here, to 127.0.0.1 or behind the proxy, is of the same origin as what
// it gets from here (DNS rebinding): all that tells it apart is the Host that the browser sends.
func onlyFor(serves func(host string) bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !serves((&url.URL{Host: strings.ToLower(r.Host)}).Hostname()) {
			http.Error(w, "This host is not served here.", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// serves reports whether the shop is found at this host: that of its address, and in development
// any name of this machine for itself.
func (s *shop) serves(host string) bool {
	if u, err := url.Parse(s.url); err == nil && host != "" && host == strings.ToLower(u.Hostname()) {
		return true
	}
	return s.dev && isLoopback(host)
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}
