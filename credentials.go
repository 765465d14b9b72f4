package guest

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/guestkit/guest/internal/lru"
	"github.com/guestkit/guest/internal/token"
)

// A credential is a verified token that came with a request.
type credential struct {
	token.Token
	cookie      string // name of the cookie that it came in; "": none
	provisional string // name of its provisional cookie, if that came beside the main one
	inHeader    bool   // it came in Config.Header
	inTicket    bool   // it came in a ticket
}

// credentials are what a request brings: the tokens that verified, and what is to be known about
// the others. They are read once and do not know who the visitor is; recognise.go decides that.
type credentials struct {
	tokens      []credential // of different guests, the oldest first
	ambiguous   bool         // two different guests came under the main name
	expired     bool         // an expired token of ours came
	crossOrigin bool         // a page of another site sent the request, with an unsafe method
	byHeader    bool         // the client uses Config.Header, which is empty before it has a token

	// The main cookie does not verify, but a newer process may have issued it: see
	// cookies.maybeNewer. It is left alone.
	keepMain bool

	// Names of provisional cookies to clear: those without the form of a token; and if there are
	// too many to verify all of them, also those that add no guest.
	invalid []string

	refused []string      // reasons for Hooks.Refused
	room    [1]credential // for tokens: most requests bring one, which then needs no allocation
}

// inCookie reports whether a guest came in a cookie, which a browser sends by itself.
func (c *credentials) inCookie() bool {
	return slices.ContainsFunc(c.tokens, func(cred credential) bool { return cred.cookie != "" })
}

// has reports whether the request names this guest.
func (c *credentials) has(id token.ID) bool {
	return slices.ContainsFunc(c.tokens, func(cred credential) bool { return cred.ID == id })
}

// cookies reads and writes the tokens of a client, in its guest cookies and in Config.Header. It
// owns the form of the lines and what this process remembers of verified tokens; it does not know
// who the visitor is or whether the header was sent.
type cookies struct {
	Cookie
	former    []Cookie // Config.FormerCookies
	header    string   // Config.Header
	ttl       lifetimes
	keyring   *token.Keyring
	startedAt time.Time

	// What follows the value in a Set-Cookie line.
	mainAttributes, provisionalAttributes string

	// The tokens of verified cookies, by value: verification is most of what a known visitor costs.
	verified lru.Cache[string, token.Token]
}

func newCookies(
	main Cookie, former []Cookie, header string, keyring *token.Keyring, ttl lifetimes,
) *cookies {
	return &cookies{
		Cookie: main, former: former, header: header, ttl: ttl, keyring: keyring,
		mainAttributes:        main.attributes(ttl.guest),
		provisionalAttributes: main.attributes(ttl.provisional),
		startedAt:             time.Now(),
	}
}

// isMain reports whether a credential came in the main cookie.
func (c *cookies) isMain(cred credential) bool { return cred.cookie == c.Name }

// provisionalNameOf returns the name of the provisional cookie that a credential came in, or "".
func (c *cookies) provisionalNameOf(cred credential) string {
	if c.isMain(cred) {
		return ""
	}
	return cred.cookie
}

// mostCookies is how many main cookies, and how many provisional ones, a request has verified.
const mostCookies = 64

// read reads the credentials of a request.
func (c *cookies) read(r *http.Request, now time.Time, read *credentials) {
	read.tokens = read.room[:0]
	read.byHeader, read.crossOrigin = c.isByHeader(r), c.isCrossOrigin(r)
	var seen, seenMain, mains int
	var useless []string // provisional cookies that add no guest, at least in this process
	for _, line := range r.Header["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			// Browsers strip space and tab from a name, and nothing else (RFC 6265bis, section
			// 5.6). A parser that strips more would read "\u2000__Host-Http-guest", which any
			// subdomain may set, as ours.
			name, value, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
			if name != c.Name && !c.isProvisionalName(name) {
				continue
			}
			value = strings.Trim(value, `"`)
			count := &seen
			if name == c.Name { // counted apart, so that no number of others can hide the main one
				count = &seenMain
			} else if _, formed := token.Unverified(value); !formed {
				if len(read.invalid) < mostCookies {
					read.invalid = append(read.invalid, name)
				}
				continue
			}
			if *count++; *count > mostCookies {
				continue
			}
			switch added := c.add(read, name, value, now); {
			case added && name == c.Name:
				mains++
			case !added && name != c.Name:
				useless = append(useless, name)
			}
		}
	}
	if seen > mostCookies {
		read.invalid = append(read.invalid, useless...)
	}
	if len(read.tokens) == 0 && c.header != "" {
		value := r.Header.Get(c.header)
		if value != "" && c.add(read, c.Name, value, now) {
			read.tokens[0].cookie, read.tokens[0].inHeader = "", true
		}
	}
	if len(read.tokens) > 0 {
		read.expired = false
	}
	read.keepMain = read.keepMain && mains == 0 // if another one verifies, that is the visitor's
	if read.ambiguous = mains > 1; read.ambiguous {
		read.refused = append(read.refused, RefusedCookies)
		return // not sorted: the first one in the request is served
	}
	slices.SortFunc(read.tokens, func(a, b credential) int {
		return cmp.Or(cmp.Compare(a.CreatedAt, b.CreatedAt), slices.Compare(a.ID[:], b.ID[:]))
	})
}

// add adds the token of a cookie, if it verifies and its guest is not there yet. A main cookie
// takes the place of its guest's provisional one. The result is true if read.tokens has this token
// now.
func (c *cookies) add(read *credentials, name, value string, now time.Time) bool {
	t, expired, err := c.verify(name, value, now)
	switch {
	case err != nil:
		read.keepMain = read.keepMain || name == c.Name && c.maybeNewer(value, now)
		read.refused = append(read.refused, RefusedToken)
		return false
	case expired, name != c.Name && c.isOutdated(t, now):
		read.expired = true
		return false
	}
	for i, other := range read.tokens {
		if other.ID == t.ID {
			switch {
			case name != c.Name:
				read.tokens[i].provisional = name
			case other.cookie != name:
				read.tokens[i] = credential{Token: t, cookie: name, provisional: other.cookie}
				return true
			}
			return false
		}
	}
	read.tokens = append(read.tokens, credential{Token: t, cookie: name})
	return true
}

// verify verifies a token. One that this process has verified before is recognised by its bytes,
// until it expires.
func (c *cookies) verify(
	name, value string, now time.Time,
) (t token.Token, expired bool, err error) {
	if name != c.Name { // a provisional cookie comes once or twice: not worth remembering
		return c.keyring.Verify(name, value)
	}
	if t, ok := c.verified.Get(value); ok && now.Sub(time.Unix(t.IssuedAt, 0)) < c.ttl.guest {
		return t, false, nil
	}
	if t, expired, err = c.keyring.Verify(name, value); err == nil {
		c.verified.Put(strings.Clone(value), t) // value itself would keep the whole Cookie header
	}
	return t, expired, err
}

// maybeNewer reports whether a main cookie that does not verify may come from a process with a
// newer secret: while a new secret is rolled out, old and new processes serve the same browser.
// Such a cookie was issued after this process started, or shortly before, and less than a day ago.
// A forged cookie can claim that too.
func (c *cookies) maybeNewer(value string, now time.Time) bool {
	t, ok := token.Unverified(value)
	issued := time.Unix(t.IssuedAt, 0)
	return ok && issued.After(c.startedAt.Add(-clockSkew)) && now.Sub(issued).Abs() < 24*time.Hour
}

// isOutdated reports whether this provisional cookie is so old that no browser would still send it,
// so that another site must have set it.
func (c *cookies) isOutdated(t token.Token, now time.Time) bool {
	age := now.Sub(time.Unix(t.IssuedAt, 0))
	return c.settableByOthers() && age > c.ttl.provisional+clockSkew
}

// areSiblings reports whether two guests may belong to one visitor. If others can set the cookie,
// they may have planted one guest beside the other. Then both must have been created at about the
// same time, as by parallel first requests; so a planted guest never absorbs, or joins, the
// visitor's guest of yesterday.
func (c *cookies) areSiblings(a, b token.Token) bool {
	apart := time.Duration(max(a.CreatedAt-b.CreatedAt, b.CreatedAt-a.CreatedAt)) * time.Millisecond
	return !c.settableByOthers() || apart <= c.ttl.provisional+clockSkew
}

// clockSkew is how far apart the clocks of the app's processes may be.
const clockSkew = time.Hour

// isCrossOrigin reports whether a page of another site sent the request, with an unsafe method.
// Such a page cannot send Config.Header, unless the app's own CORS rules allow it.
func (c *cookies) isCrossOrigin(r *http.Request) bool {
	return !c.isByHeader(r) && crossOrigin.Check(r) != nil
}

// isByHeader reports whether the client uses Config.Header.
func (c *cookies) isByHeader(r *http.Request) bool {
	return c.header != "" && len(r.Header[c.header]) > 0
}

// forAdmit returns the request for Config.Admit: marked if the client uses Config.Header.
func (c *cookies) forAdmit(r *http.Request) *http.Request {
	if !c.isByHeader(r) {
		return r
	}
	return r.WithContext(context.WithValue(r.Context(), headerClientKey{}, true))
}

// A headerLine is one of our lines in the header of a response. The name is in canonical form.
type headerLine struct{ header, value string }

// lines returns the lines that carry the changes to the client, the urgent ones first: its token;
// then the end of its main cookie, also in the former scopes; then the end of provisional ones, as
// long as there is room.
func (c *cookies) lines(
	changes *tokenChanges, t token.Token, brought *credentials, path string,
) (lines []headerLine, err error) {
	sendMain := changes.send && !t.Provisional && !brought.keepMain
	if changes.send {
		name, attributes := c.Name, c.mainAttributes
		if t.Provisional {
			name, attributes = c.provisionalName(t.ID), c.provisionalAttributes
		}
		if t.Provisional || sendMain {
			value, err := c.keyring.Sign(name, t)
			if err != nil {
				return nil, err
			}
			lines = append(lines, headerLine{"Set-Cookie", name + "=" + value + attributes})
		}
		// Scripts can read it, so only clients that use it get it. An empty one says that it is over.
		if brought.byHeader && !changes.endHeader {
			value, err := c.keyring.Sign(c.Name, t)
			if err != nil {
				return nil, err
			}
			lines = append(lines, headerLine{c.header, value})
		}
	}
	if changes.endHeader {
		lines = append(lines, headerLine{c.header, ""})
	}
	tokens := len(lines)
	if changes.clearMain && !sendMain {
		lines = append(lines, headerLine{"Set-Cookie", c.clearing(c.Name)})
	}
	if changes.clearMain || sendMain {
		for _, former := range c.former {
			if former.comesWith(path) { // otherwise it was not read, and may be another app's
				lines = append(lines, headerLine{"Set-Cookie", former.clearing(c.Name)})
			}
		}
	}
	room := mostHeaderBytes
	for _, l := range lines {
		room -= l.size()
	}
	for _, name := range changes.clear {
		l := headerLine{"Set-Cookie", c.clearing(name)}
		if room -= l.size(); room < 0 || len(lines)-tokens == mostClears {
			break
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// size returns how many bytes of a header the line takes.
func (l headerLine) size() int { return len(l.header) + len(": ") + len(l.value) + len("\r\n") }

// removeFrom removes our lines from a header.
func (c *cookies) removeFrom(h http.Header) {
	lines := slices.DeleteFunc(h["Set-Cookie"], func(line string) bool {
		name, _, _ := strings.Cut(line, "=")
		return name == c.Name || c.isProvisionalName(name)
	})
	if len(lines) > 0 {
		h["Set-Cookie"] = lines
	} else {
		delete(h, "Set-Cookie")
	}
	if c.header != "" {
		h.Del(c.header)
	}
}
