package proofs

import (
	"net/http"
	"strings"
	"testing"

	"github.com/pquerna/cachecontrol/cacheobject"
)

// storedBy returns the caches that may store the response for other visitors. There are several
// ways to read one response: a cache may obey a field that only concerns it, understand
// must-understand, or use one line of a field that was sent twice.
func storedBy(req *http.Request, res *http.Response) (caches []string) {
	ask := func(cache string, h http.Header) {
		if storable(req, res.StatusCode, h) {
			caches = append(caches, cache)
		}
	}
	read := func(cacheControl string) http.Header {
		h := res.Header.Clone()
		h.Set("Cache-Control", cacheControl)
		return h
	}
	lines := res.Header.Values("Cache-Control")
	all := strings.Join(lines, ", ")
	ask("RFC 9111", read(all))
	// section 5.2.2.3: no-store is for caches that do not understand it
	if strings.Contains(strings.ToLower(all), "must-understand") {
		ask("RFC 9111, must-understand",
			read(strings.NewReplacer("no-store", "ignored").Replace(strings.ToLower(all))))
	}
	if len(lines) > 1 {
		for _, line := range lines {
			ask("one that reads "+line, read(line))
		}
	}
	for name, values := range res.Header {
		// RFC 9213, section 2.1: in place of Cache-Control and Expires
		h := read(strings.Join(values, ", "))
		h.Del("Expires")
		switch lower := strings.ToLower(name); {
		case lower == "x-accel-expires":
			if seconds := strings.TrimLeft(values[0], "@"); seconds != "0" {
				h.Set("Cache-Control", "max-age="+seconds)
				ask("nginx", h)
			}
		case lower == "surrogate-control", lower == "edge-control",
			strings.HasSuffix(lower, "-cache-control"):
			// otherwise it is ignored
			if _, err := cacheobject.ParseResponseCacheControl(h.Get("Cache-Control")); err == nil {
				ask("the one that "+name+" is for", h)
			}
		}
	}
	return caches
}

// storable reports whether RFC 9111 lets a shared cache store a response with this header. A
// response whose header cannot be parsed counts as storable.
func storable(req *http.Request, status int, h http.Header) bool {
	reasons, _, _, object, err := cacheobject.UsingRequestResponseWithObject(req, status, h, false)
	if err != nil {
		return true
	}
	for _, reason := range reasons {
		if reason == cacheobject.ReasonResponsePrivate && len(object.RespDirectives.Private) > 0 {
			continue // private="X-Field" keeps only that field private
		}
		return false
	}
	return true
}

// guestTokens returns the lines about the visitor's identity: cookies to set or clear, and the
// token header.
func guestTokens(h http.Header, cookie, header string) (tokens []string) {
	for _, line := range h.Values("Set-Cookie") {
		if strings.HasPrefix(line, cookie+"=") || strings.HasPrefix(line, cookie+".") {
			tokens = append(tokens, line)
		}
	}
	if header != "" {
		tokens = append(tokens, h.Values(header)...)
	}
	return tokens
}

// A test of the judge itself.
func TestCacheJudge(t *testing.T) {
	for _, tt := range []struct {
		header []string
		stored bool
	}{
		{nil, true}, // a 200 without caching headers: heuristics apply
		{[]string{"Cache-Control", "private, no-store"}, false},
		{[]string{"Cache-Control", "no-cache"}, true}, // stored, and revalidated each time
		{[]string{"Cache-Control", "public", "Cache-Control", "no-store"}, true},
		{[]string{"Cache-Control", "must-understand, no-store"}, true},
		{[]string{"Cache-Control", `ext="a, no-store, b"`}, true},
		{[]string{"Cache-Control", `private="X-Field"`}, true},
		{[]string{"Cache-Control", "private, no-store", "CDN-Cache-Control", "max-age=60"}, true},
		{[]string{"Cache-Control", "private, no-store", "ExampleCDN-Cache-Control", "max-age=60"},
			true},
		{[]string{"Cache-Control", "private, no-store", "X-LiteSpeed-Cache-Control", "public"},
			true},
		{[]string{"Cache-Control", "private, no-store", "Surrogate-Control", "max-age=60"}, true},
		{[]string{"Cache-Control", "private, no-store", "X-Accel-Expires", "60"}, true},
		{[]string{"Cache-Control", "private, no-store", "X-Accel-Expires", "0", "CDN-Cache-Control",
			"no-store"}, false},
	} {
		res := &http.Response{StatusCode: 200, Header: http.Header{}}
		for i := 0; i < len(tt.header); i += 2 {
			res.Header.Add(tt.header[i], tt.header[i+1])
		}
		req, _ := http.NewRequest("GET", "/", nil)
		if got := storedBy(req, res); len(got) > 0 != tt.stored {
			t.Errorf("%q: stored by %q, want any: %v", tt.header, got, tt.stored)
		}
	}
}
