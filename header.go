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
	fixed                       // written before the handler, whose writer is not wrapped
	pending                     // watched: tokens may be added until it is sent
	settled                     // the handler has returned; the header may be sent later
	sent
)

// A responseHeader is what a response's header says of its visitor: tokens, Vary, and that caches
// must not keep it for others.
//
// Two visitors must never share an identity through a cache. So a response that carries a token is
// watched for one thing: a handler that makes it cacheable by others.
type responseHeader struct {
	phase   headerPhase
	header  http.Header // nil outside the middleware
	cookies *cookies
	lines   []headerLine
	private cachecontrol.Private
}

// begin takes the header over, before the handler.
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

// setLines makes the lines of what the client is to be told.
func (h *responseHeader) setLines(who *identity, brought *credentials, path string) (err error) {
	h.lines, err = h.cookies.lines(&who.tell, who.guest, brought, path)
	return err
}

// canAddToken reports whether a token that is added now reaches the client.
func (h *responseHeader) canAddToken() bool { return h.phase == pending }

// settle brings the header in line with what the handler made of it; a status of 0 is not known
// yet. Unless keep says that the client must have its token, the lines are left out of a response
// that caches may keep for others: then dropped is true.
func (h *responseHeader) settle(status int, isNew, keep bool) (dropped bool) {
	watched := h.phase == pending || h.phase == settled
	if watched && (len(h.lines) > 0 || h.private.Used()) {
		h.private.UndoIfAdded(h.header)
		shareable := cachecontrol.Shareable(h.header)
		// A cache on the way keeps the Set-Cookie of a 304 to itself, or with the page that it has
		// stored for others too (RFC 9111, section 4.3.4). A cookie that a guest came under is safe
		// there: Vary: Cookie makes the page its own.
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

// write brings a header in line with what the visitor needs.
func (h *responseHeader) write(header http.Header) {
	cachecontrol.AddVary(header, "Cookie", h.cookies.header)
	// Mostly the header has our lines and no other cookie.
	stands := slices.EqualFunc(header["Set-Cookie"], h.lines, func(has string, l headerLine) bool {
		return has == l.value
	})
	if !stands || h.cookies.header != "" {
		h.cookies.removeFrom(header)
		for _, l := range h.lines {
			header[l.header] = append(header[l.header], l.value)
		}
	}
	if len(h.lines) > 0 {
		h.private.Set(header)
	}
}

// withhold takes our lines out of the header until putBack is called.
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
