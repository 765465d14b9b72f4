// Package cachecontrol finds out whether shared caches may keep a response, and makes responses
// private (RFC 9111, RFC 9213).
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
			!slices.Equal(values, []string{"0"}) { // X-Accel-Expires: 0 means no-store
			return true
		}
	}
	return false
}

// isForSharedCaches reports whether only shared caches read the field: the targeted fields of RFC
// 9213, and older fields of that purpose. Such a cache obeys its own field and not Cache-Control.
// Handlers may write to the map itself, so the name may be in any case.
func isForSharedCaches(name string) bool {
	const targeted = "-Cache-Control"
	return strings.EqualFold(name[max(0, len(name)-len(targeted)):], targeted) ||
		strings.EqualFold(name, "Surrogate-Control") ||
		strings.EqualFold(name, "X-Accel-Expires") ||
		strings.EqualFold(name, "Edge-Control")
}

const private = "private, no-store"

// A Private makes one response private, and can undo that. The zero value has done neither.
type Private struct {
	ours   []string // the line of Cache-Control that Set wrote
	theirs []string // the app's lines that it replaced
}

// Used reports whether Set has changed a header.
func (p *Private) Used() bool { return p.ours != nil }

// Set keeps the response out of every shared cache. A no-store of the handler stays as it is, if no
// cache can understand it in another way.
func (p *Private) Set(h http.Header) {
	for name := range h {
		if isForSharedCaches(name) {
			delete(h, name)
		}
	}
	// With must-understand, only old caches obey no-store (RFC 9111, section 5.2.2.3). What looks
	// like a directive may be part of a quoted string.
	cc := h["Cache-Control"]
	if len(cc) == 1 && (p.hasOurLine(h) || hasElement(h, "Cache-Control", "no-store") &&
		!hasElement(h, "Cache-Control", "must-understand") && !strings.Contains(cc[0], `"`)) {
		return
	}
	if !p.hasOurLine(h) {
		p.theirs = cc
	}
	if p.ours == nil {
		p.ours = append(make([]string, 0, 4), private) // room for a handler's lines
	}
	h["Cache-Control"] = p.ours[:1]
}

// hasOurLine reports whether Cache-Control begins with the very line that Set wrote. An equal line of a
// handler is its own.
func (p *Private) hasOurLine(h http.Header) bool {
	cc := h["Cache-Control"]
	return len(cc) > 0 && len(p.ours) > 0 && &cc[0] == &p.ours[0]
}

// Undo restores the lines that Set replaced, unless the handler has replaced our line since. Lines
// that the handler added after ours are removed.
func (p *Private) Undo(h http.Header) {
	if p.hasOurLine(h) {
		setOrDelete(h, "Cache-Control", p.theirs)
	}
}

// UndoIfAdded restores the lines that Set replaced if the handler has added lines to ours, which it
// took for the app's. The added lines stay.
func (p *Private) UndoIfAdded(h http.Header) {
	if cc := h["Cache-Control"]; p.hasOurLine(h) && len(cc) > 1 {
		h["Cache-Control"] = slices.Concat(p.theirs, cc[1:])
	}
}

// Without returns Cache-Control without our line; ours reports whether our line is there.
func (p *Private) Without(h http.Header) (lines []string, ours bool) {
	if !p.hasOurLine(h) {
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
		if line == name { // the common case
			return true
		}
		for part := range strings.SplitSeq(line, ",") {
			part, _, _ = strings.Cut(part, "=")
			// Spaces and tabs surround the elements of a list (RFC 9110, section 5.6.1), and
			// net/http sends CR and LF as spaces. A cache does not read "\u00a0no-store" as
			// no-store, so it is not read so here.
			if strings.EqualFold(textproto.TrimString(part), name) {
				return true
			}
		}
	}
	return false
}
