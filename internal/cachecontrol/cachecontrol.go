// Package cachecontrol says whether shared caches may keep a response, and keeps them from it (RFC
// 9111, RFC 9213).
package cachecontrol

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// Shareable reports whether the header allows caches that serve several users to keep the response.
func Shareable(h http.Header) bool {
	if !hasElement(h, "Cache-Control", "no-store") && !hasElement(h, "Cache-Control", "private") &&
		(hasElement(h, "Cache-Control", "public") || hasElement(h, "Cache-Control", "s-maxage")) {
		return true
	}
	for name, values := range h {
		if isForSharedCaches(name) &&
			!hasElement(h, name, "no-store") && !hasElement(h, name, "private") &&
			!slices.Equal(values, []string{"0"}) { // X-Accel-Expires: 0 says what no-store says
			return true
		}
	}
	return false
}

// isForSharedCaches: the targeted fields of RFC 9213 and the older ones like them, which only
// shared caches read. Such a cache follows its own field and not Cache-Control. Handlers may write
// to the map itself, so the name may be in any case.
func isForSharedCaches(name string) bool {
	const targeted = "-Cache-Control"
	return strings.EqualFold(name[max(0, len(name)-len(targeted)):], targeted) ||
		strings.EqualFold(name, "Surrogate-Control") ||
		strings.EqualFold(name, "X-Accel-Expires") ||
		strings.EqualFold(name, "Edge-Control")
}

const private = "private, no-store"

// A Private makes one response private, and can take that back. The zero value has done neither.
type Private struct {
	ours   []string // our line of Cache-Control
	theirs []string // what stood in its place
}

// Used reports whether Set has changed a header.
func (p *Private) Used() bool { return p.ours != nil }

// Set keeps the response out of every shared cache. A no-store of the handler stays, if it cannot
// be read in another way.
func (p *Private) Set(h http.Header) {
	for name := range h {
		if isForSharedCaches(name) {
			delete(h, name)
		}
	}
	// With must-understand, no-store is for old caches only (RFC 9111, section 5.2.2.3). Quotes may
	// hide what looks like a directive.
	cc := h["Cache-Control"]
	if len(cc) == 1 && (p.stands(h) || hasElement(h, "Cache-Control", "no-store") &&
		!hasElement(h, "Cache-Control", "must-understand") && !strings.Contains(cc[0], `"`)) {
		return
	}
	if !p.stands(h) {
		p.theirs = cc
	}
	if p.ours == nil {
		p.ours = append(make([]string, 0, 4), private) // with room for what a handler adds
	}
	h["Cache-Control"] = p.ours[:1]
}

// stands reports whether Cache-Control begins with the very line that Set wrote: a handler may
// write an equal one, which is its own.
func (p *Private) stands(h http.Header) bool {
	cc := h["Cache-Control"]
	return len(cc) > 0 && len(p.ours) > 0 && &cc[0] == &p.ours[0]
}

// Undo puts back what stood there before Set, unless the handler has replaced our line since. Lines
// that the handler added after ours go.
func (p *Private) Undo(h http.Header) {
	if p.stands(h) {
		setOrDelete(h, "Cache-Control", p.theirs)
	}
}

// UndoIfAdded puts back what stood there before Set if the handler has added lines to ours, taking
// it for the app's; the lines that it added stay.
func (p *Private) UndoIfAdded(h http.Header) {
	if cc := h["Cache-Control"]; p.stands(h) && len(cc) > 1 {
		h["Cache-Control"] = slices.Concat(p.theirs, cc[1:])
	}
}

// Without returns Cache-Control as it is without our line; ours says whether that stands there.
func (p *Private) Without(h http.Header) (lines []string, ours bool) {
	if !p.stands(h) {
		return h["Cache-Control"], false
	}
	return slices.Concat(p.theirs, h["Cache-Control"][1:]), true
}

func setOrDelete(h http.Header, name string, lines []string) {
	if len(lines) == 0 {
		delete(h, name)
		return
	}
	h[name] = lines
}

// AddVary adds the names of request headers to Vary, but for those that it has, and "".
func AddVary(h http.Header, names ...string) {
	for _, name := range names {
		if name != "" && !hasElement(h, "Vary", name) && !hasElement(h, "Vary", "*") {
			h["Vary"] = append(h["Vary"], name)
		}
	}
}

// hasElement reports whether a header that is a list, such as Cache-Control, has an element of this
// name.
func hasElement(h http.Header, header, name string) bool {
	for _, line := range h[header] {
		if line == name { // mostly
			return true
		}
		for part := range strings.SplitSeq(line, ",") {
			part, _, _ = strings.Cut(part, "=")
			// Spaces and tabs surround the elements of a list (RFC 9110, section 5.6.1), and
			// net/http sends CR and LF as spaces. A cache does not see no-store in
			// "\u00a0no-store", nor may we.
			if strings.EqualFold(textproto.TrimString(part), name) {
				return true
			}
		}
	}
	return false
}
