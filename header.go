package guest

import (
	"maps"
	"net/http"
	"slices"

	"github.com/guestkit/guest/internal/cachecontrol"
)

// headerPhase says what may still be done to the header of a response.
type headerPhase uint8

const (
	detached headerPhase = iota // there is no response: a job
	fixed                       // written before the handler; its writer is not wrapped
	pending                     // watched: a token may be added until the header is sent
	settled                     // the handler has returned; the header is sent later
	sent
)

// A responseHeader is our part of a response's header: tokens, Vary, and the Cache-Control that
// keeps the response out of shared caches. It owns the phase of the header, and knows neither the
// store nor how it was decided who the visitor is.
//
// Two visitors must never share an identity through a cache. So a response that carries a token is
// watched until its header is sent: a handler may make it cacheable for others.
type responseHeader struct {
	phase   headerPhase
	header  http.Header // nil outside the middleware
	cookies *cookies
	lines   []headerLine
	private cachecontrol.Private
}

// begin takes over the header before the handler runs.
func (h *responseHeader) begin(header http.Header, watched bool) {
	h.header, h.phase = header, fixed
	if watched {
		h.phase = pending
	}
	if watched && cachecontrol.Shareable(header) {
		// An outer middleware made the response cacheable. Wait until the handler returns before
		// deciding whether to send a token.
		cachecontrol.AddVary(header, "Cookie", h.cookies.header)
		return
	}
	h.write(header)
}

// setLines makes our lines from the changes of the client's tokens.
func (h *responseHeader) setLines(who *identity, brought *credentials, path string) (err error) {
	h.lines, err = h.cookies.lines(&who.changes, who.guest, brought, path)
	return err
}

// canAddToken reports whether a token that is added now reaches the client.
func (h *responseHeader) canAddToken() bool { return h.phase == pending }

// settle adapts the header to what the handler made of the response. A status of 0 means that it is
// not known yet. If caches may keep the response for others, our lines are left out, and dropped is
// true; but with keep the client must have its token, so the response becomes private instead.
func (h *responseHeader) settle(status int, isNew, keep bool) (dropped bool) {
	watched := h.phase == pending || h.phase == settled
	if watched && (len(h.lines) > 0 || h.private.Used()) {
		h.private.UndoIfAdded(h.header)
		shareable := cachecontrol.Shareable(h.header)
		// A cache on the way keeps the Set-Cookie of a 304 to itself, or stores it with the page,
		// perhaps for others (RFC 9111, section 4.3.4). The cookie of a guest that came with the
		// request is safe there, because Vary: Cookie makes the stored page its own.
		unmodified := status == http.StatusNotModified && isNew
		switch {
		case !keep && (shareable || unmodified):
			dropped, h.lines = true, nil
			h.private.Undo(h.header)
		case shareable:
			h.private.Set(h.header)
		}
	}
	h.write(h.header)
	return dropped
}

// write adapts a header to what the visitor needs.
func (h *responseHeader) write(header http.Header) {
	cachecontrol.AddVary(header, "Cookie", h.cookies.header)
	// In the common case the header has our lines and no other cookie.
	hasOurLines := slices.EqualFunc(header["Set-Cookie"], h.lines, func(has string, l headerLine) bool {
		return has == l.value
	})
	if !hasOurLines || h.cookies.header != "" {
		h.cookies.removeFrom(header)
		for _, l := range h.lines {
			header[l.header] = append(header[l.header], l.value)
		}
	}
	if len(h.lines) > 0 {
		h.private.Set(header)
	}
}

// withhold takes our lines out of the header; putBack puts them back.
func (h *responseHeader) withhold() (putBack func()) {
	header, was := h.header, http.Header{}
	for _, name := range [...]string{"Set-Cookie", "Cache-Control", "Vary", h.cookies.header} {
		if lines, ok := header[name]; ok {
			was[name] = lines
			header[name] = slices.Clone(lines)
		}
	}
	h.cookies.removeFrom(header)
	if theirs, ours := h.private.Without(was); ours {
		header["Cache-Control"] = theirs
	}
	header["Vary"] = slices.DeleteFunc(header["Vary"], func(line string) bool {
		return line == "Cookie" || line == h.cookies.header
	})
	for _, name := range [...]string{"Cache-Control", "Vary"} {
		if len(header[name]) == 0 {
			delete(header, name)
		}
	}
	return func() { maps.Copy(header, was) }
}
