package guest

import (
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a response's header says of its visitor: the tokens, and who may keep the page.

// A headerLine is one of our lines in the response's header, whose name is canonical: a cookie by its name, or the token
// header.
type headerLine struct{ header, name, value string }

// carry sends the guest's token with the response.
func (v *Visitor) carry() {
	cfg := &v.m.cfg
	name, attributes := cfg.Cookie.Name, v.m.attributes
	if v.guest.provisional {
		name, attributes = spareName(cfg.Cookie.Name, v.guest.id), v.m.attributesOfSpare
	}
	value, err := v.m.ring.sealToken(name, v.guest)
	if err != nil {
		v.m.warn("a guest token was not made", err)
		return
	}
	if !v.keepMain || v.guest.provisional {
		v.line(headerLine{"Set-Cookie", name, name + "=" + value + attributes})
	}
	if !v.keepMain && !v.guest.provisional {
		v.dropFormer()
	}
	if v.m.byHeader(v.request) { // scripts can read it, so it is sent to those who ask for it
		if value, err := v.m.ring.sealToken(cfg.Cookie.Name, v.guest); err == nil {
			v.line(headerLine{v.m.cfg.Header, "", value})
		}
	}
}

// drop clears the cookie of that name in the browser, the main one also in its former scopes, or leaves that to a later
// response: see line.
func (v *Visitor) drop(name string) {
	v.line(headerLine{"Set-Cookie", name, v.m.cfg.Cookie.with(name, "", -1)})
	if name == v.m.cfg.Cookie.Name {
		v.dropFormer()
	}
}

// within reports whether a browser sends a cookie of this Path with a request of that path (RFC 6265bis, section 5.1.4).
func within(cookie, path string) bool {
	rest, ok := strings.CutPrefix(path, cookie)
	return ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(cookie, "/"))
}

// dropFormer clears the main cookie in its former scopes.
func (v *Visitor) dropFormer() {
	name := v.m.cfg.Cookie.Name
	for i, former := range v.m.cfg.FormerCookies {
		if !within(former.Path, v.request.URL.Path) { // it would not have come, so we do not know whose it is
			continue
		}
		v.line(headerLine{"Set-Cookie", name + strconv.Itoa(i), former.with(name, "", -1)})
	}
}

// Proxies bound a response's header, nginx's default to 4 KiB, and answer 502 to more. So our lines take less than
// mostBytes, whatever cookies the request brings: of those that are done with a few are cleared, and the browser brings
// the others again. 128 bytes are for Vary and Cache-Control, which are no headerLines.
const (
	mostBytes  = 3<<10 - 128
	mostClears = 4
)

// line adds one of our lines, in place of an older one for the same. Tokens come first, and a spare cookie is cleared
// where there is room.
func (v *Visitor) line(l headerLine) {
	v.unline(l.header, l.name)
	at := slices.IndexFunc(v.lines, func(other headerLine) bool { return v.rank(l) < v.rank(other) })
	if at < 0 {
		at = len(v.lines)
	}
	v.lines = slices.Insert(v.lines, at, l)
	for v.crowded() {
		v.lines = v.lines[:len(v.lines)-1]
	}
}

const (
	rankToken = iota
	rankMain
	rankSpare
)

// rank says how urgent the line is: the client's new token, the end of its main cookie, or that of a spare one.
func (v *Visitor) rank(l headerLine) int {
	name, rest, _ := strings.Cut(l.value, "=")
	switch {
	case l.header != "Set-Cookie" || !strings.HasPrefix(rest, ";"):
		return rankToken
	case name == v.m.cfg.Cookie.Name:
		return rankMain
	}
	return rankSpare
}

// crowded reports whether the last line is one too many, and can wait.
func (v *Visitor) crowded() bool {
	if n := len(v.lines); n == 0 || v.rank(v.lines[n-1]) != rankSpare {
		return false
	}
	bytes, clears := 0, 0
	for _, l := range v.lines {
		bytes += len(l.header) + len(": ") + len(l.value) + len("\r\n")
		if v.rank(l) != rankToken {
			clears++
		}
	}
	return bytes > mostBytes || clears > mostClears
}

// unline takes one of our lines back, and reports whether there was one.
func (v *Visitor) unline(header, name string) bool {
	for i, old := range v.lines {
		if old.header == header && old.name == name {
			v.lines = append(v.lines[:i:i], v.lines[i+1:]...)
			return true
		}
	}
	return false
}

// spareName is the name of a provisional guest's cookie: one for each, so that a browser keeps those of parallel
// first requests.
func spareName(name string, id guestID) string { return name + "." + id.String()[:spareLen] }

// isSpareName reports whether spareName could have made this cookie's name of the main one. Names with
// another byte are not ours: we neither read such a cookie nor write one.
func isSpareName(cookie, name string) bool {
	suffix, ok := strings.CutPrefix(cookie, name)
	return ok && len(suffix) == 1+spareLen && suffix[0] == '.' && strings.Trim(suffix[1:], base64url) == ""
}

const (
	spareLen  = 6 // characters of the guest's ID
	base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
)

func (c *Cookie) with(name, value string, maxAge int) string {
	return (&http.Cookie{
		Name: name, Value: value, MaxAge: maxAge,
		Domain: c.Domain, Path: c.Path, SameSite: c.SameSite,
		Secure: !c.Insecure, HttpOnly: true, Partitioned: c.Partitioned,
	}).String()
}

// attributes is what follows name and value in the line of a cookie that lives so long.
func (c *Cookie) attributes(life time.Duration) string {
	_, attributes, _ := strings.Cut(c.with("name", "value", int(life/time.Second)), "value")
	return attributes
}

// Two visitors must never share an identity through a cache. So the response that carries a guest's token is
// watched for one thing: a handler that makes it cacheable by others. The response of a known visitor is not
// watched, unless its request may write (then its guest may turn out claimed, and the visitor needs a fresh one).

const private = "private, no-store"

// mayNeedHeader reports whether the response carries one of our lines, or may have to.
func (v *Visitor) mayNeedHeader(r *http.Request) bool {
	switch {
	case len(v.lines) > 0:
		return true
	case v.key == "" || v.account != "":
		return false
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return false
	}
	return true
}

// settleHeader brings the header in line with what the handler made of the response; status 0 is not known yet. The
// caller holds v.mu.
func (v *Visitor) settleHeader(status int) {
	h := v.header
	v.open = false
	if !v.watched || len(v.lines) == 0 && v.mark == nil { // there is nothing of ours to keep from others
		v.stamp(h)
		return
	}
	if cc := h["Cache-Control"]; v.marked(h) && len(cc) > 1 { // the handler added to our line, taking it for the app's
		h["Cache-Control"] = slices.Concat(v.theirs, cc[1:])
	}
	public := shared(h)
	// A cache on the way keeps the Set-Cookie of a 304 to itself, or with the page that it has stored for others too
	// (RFC 9111, section 4.3.4). A cookie that a guest came under is safe there: Vary: Cookie makes the page its own.
	unmodified := status == http.StatusNotModified && v.isNew
	switch {
	case !v.wrote && (public || unmodified):
		v.takeBack(h)
	case public:
		v.unshare(h)
	}
	v.stamp(h)
}

// takeBack leaves the response as the app made it: the visitor is asked again next time. The caller holds v.mu.
func (v *Visitor) takeBack(h http.Header) {
	v.lines = nil
	if v.isNew {
		v.key, v.isNew = "", false
	}
	if v.marked(h) {
		h["Cache-Control"] = v.theirs
		if len(v.theirs) == 0 {
			delete(h, "Cache-Control")
		}
	}
}

// stamp brings the header in line with what the visitor needs. The caller holds v.mu or is alone.
func (v *Visitor) stamp(h http.Header) {
	v.addVary(h)
	if !v.stamped(h) {
		v.wipe(h)
		for _, l := range v.lines {
			h[l.header] = append(h[l.header], l.value)
		}
	}
	if len(v.lines) > 0 {
		v.unshare(h)
	}
}

// stamped reports that the header has our lines and no other cookie, as mostly.
func (v *Visitor) stamped(h http.Header) bool {
	return v.m.cfg.Header == "" && slices.EqualFunc(h["Set-Cookie"], v.lines, func(has string, l headerLine) bool { return has == l.value })
}

// wipe removes our lines from the header.
func (v *Visitor) wipe(h http.Header) {
	name := v.m.cfg.Cookie.Name
	lines := slices.DeleteFunc(h["Set-Cookie"], func(line string) bool {
		cookie, _, _ := strings.Cut(line, "=")
		return cookie == name || isSpareName(cookie, name)
	})
	if len(lines) > 0 {
		h["Set-Cookie"] = lines
	} else {
		delete(h, "Set-Cookie")
	}
	if v.m.cfg.Header != "" {
		h.Del(v.m.cfg.Header)
	}
}

// withhold takes our lines out of the header, until putBack. The caller holds v.mu, and again for putBack.
func (v *Visitor) withhold() (putBack func()) {
	h, marked := v.header, v.marked(v.header)
	was := http.Header{}
	for _, name := range [...]string{"Set-Cookie", "Cache-Control", "Vary", v.m.cfg.Header} {
		if lines, ok := h[name]; ok {
			was[name] = lines
			h[name] = slices.Clone(lines)
		}
	}
	v.wipe(h)
	if marked {
		h["Cache-Control"] = slices.Concat(v.theirs, h["Cache-Control"][1:])
	}
	h["Vary"] = slices.DeleteFunc(h["Vary"], func(line string) bool { return line == "Cookie" || line == v.m.cfg.Header })
	for _, name := range [...]string{"Cache-Control", "Vary"} {
		if len(h[name]) == 0 {
			delete(h, name)
		}
	}
	return func() { maps.Copy(h, was) }
}

// addVary names what tells visitors apart.
func (v *Visitor) addVary(h http.Header) {
	for _, name := range [...]string{"Cookie", v.m.cfg.Header} {
		if name != "" && !directive(h, "Vary", name) && !directive(h, "Vary", "*") {
			h["Vary"] = append(h["Vary"], name)
		}
	}
}

// shared reports whether the handler allows caches that serve others to keep the response.
func shared(h http.Header) bool {
	if !directive(h, "Cache-Control", "no-store") && !directive(h, "Cache-Control", "private") &&
		(directive(h, "Cache-Control", "public") || directive(h, "Cache-Control", "s-maxage")) {
		return true
	}
	for name, values := range h {
		if forShared(name) && !directive(h, name, "no-store") && !directive(h, name, "private") &&
			!slices.Equal(values, []string{"0"}) { // X-Accel-Expires: 0 is its no-store
			return true
		}
	}
	return false
}

// forShared: RFC 9213 targeted fields and their elder relatives, which tell shared caches alone. Such a cache obeys
// its own field and not Cache-Control.
func forShared(name string) bool { // in any case, as a handler may write to the map
	const targeted = "-Cache-Control"
	return strings.EqualFold(name[max(0, len(name)-len(targeted)):], targeted) || strings.EqualFold(name, "Surrogate-Control") ||
		strings.EqualFold(name, "X-Accel-Expires") || strings.EqualFold(name, "Edge-Control")
}

// unshare keeps the response out of every shared cache. A handler's own no-store stays, if nobody can read it otherwise.
func (v *Visitor) unshare(h http.Header) {
	for name := range h {
		if forShared(name) {
			delete(h, name)
		}
	}
	// With must-understand no-store is for old caches only; quotes may hide what looks like a directive.
	cc := h["Cache-Control"]
	if len(cc) == 1 && (v.marked(h) || directive(h, "Cache-Control", "no-store") && !directive(h, "Cache-Control", "must-understand") &&
		!strings.Contains(cc[0], `"`)) {
		return
	}
	if !v.marked(h) {
		v.theirs = cc
	}
	if v.mark == nil {
		v.mark = append(make([]string, 0, 4), private) // with room for what a handler adds
	}
	h["Cache-Control"] = v.mark[:1]
}

// marked reports whether Cache-Control begins with the very line that unshare set: a handler may say the same.
func (v *Visitor) marked(h http.Header) bool {
	cc := h["Cache-Control"]
	return len(cc) > 0 && len(v.mark) > 0 && &cc[0] == &v.mark[0]
}

// directive reports whether a header that is a list, such as Cache-Control, has this directive.
func directive(h http.Header, header, name string) bool {
	for _, line := range h[header] {
		if line == name { // mostly
			return true
		}
		for part := range strings.SplitSeq(line, ",") {
			part, _, _ = strings.Cut(part, "=")
			// RFC 9110, section 5.6.1: a list's elements stand between spaces and tabs. net/http sends
			// CR and LF as spaces. A cache does not see no-store in "\u00a0no-store"; nor may we.
			if strings.EqualFold(textproto.TrimString(part), name) {
				return true
			}
		}
	}
	return false
}
