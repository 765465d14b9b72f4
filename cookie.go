package guest

import (
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/guestkit/guest/internal/token"
)

// Cookie shapes the guest cookie. The zero value is right for a site served over https: it is then
// named __Host-Http-guest, and Secure, HttpOnly, SameSite=Lax and Path=/.
type Cookie struct {
	// Name is the name without its prefix. New adds __Host-Http-, or __Secure- if Domain or Path is
	// set. "": "guest".
	Name string

	// Domain is the attribute of that name, at most 253 bytes. "": this host only.
	Domain string

	// Path is the attribute of that name, at most 512 bytes, because every Set-Cookie line repeats
	// it. "": "/".
	Path string

	// SameSite is the attribute of that name. 0: Lax.
	SameSite http.SameSite

	// Partitioned gives a visitor one guest for each top-level site that embeds the app (CHIPS).
	Partitioned bool

	// Insecure is for plain http: the cookie has no Secure attribute and no prefix, so any
	// subdomain can set it.
	Insecure bool
}

var cookieName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

const (
	// Every browser accepts a cookie whose name begins with __Host- only from the host itself.
	// Newer browsers also refuse __Host-Http- without HttpOnly, so that no script can set it
	// (draft-ietf-httpbis-rfc6265bis, layered cookies).
	hostPrefix   = "__Host-Http-"
	securePrefix = "__Secure-"
)

// complete gives the cookie its defaults and its prefix, and reports its faults.
func (c *Cookie) complete(field string, fault func(field, format string, args ...any)) {
	if c.Name == "" {
		c.Name = "guest"
	}
	if !cookieName.MatchString(c.Name) || strings.HasPrefix(c.Name, "__") {
		fault(field+".Name", "%q is not a name of 1 to 64 of A-Z, a-z, 0-9, _ and - (leave "+
			"__Host-Http- and __Secure- out, New adds them)", c.Name)
	}
	if strings.ContainsAny(c.Domain, " ;,\r\n\t/:") || len(c.Domain) > 253 {
		fault(field+".Domain", "%q is not a domain name", c.Domain)
	}
	if c.Path == "" {
		c.Path = "/"
	}
	if c.Path[0] != '/' || strings.ContainsAny(c.Path, " ;\r\n\t") || len(c.Path) > 512 {
		fault(field+".Path", "%q is not a path (begin with /, use no space and no semicolon, and "+
			"at most 512 bytes)", c.Path)
	}
	if c.SameSite == 0 {
		c.SameSite = http.SameSiteLaxMode
	}
	if c.Insecure && (c.SameSite == http.SameSiteNoneMode || c.Partitioned) {
		fault(field+".Insecure", "is set, but browsers refuse SameSite=None and Partitioned "+
			"without Secure (serve https and leave Insecure false)")
	}
	switch {
	case c.Insecure:
	case c.Domain == "" && c.Path == "/":
		c.Name = hostPrefix + c.Name
	default:
		c.Name = securePrefix + c.Name
	}
}

// settableByOthers reports whether others than the site itself, for example its subdomains, can set
// the cookie.
func (c *Cookie) settableByOthers() bool { return !strings.HasPrefix(c.Name, hostPrefix) }

// comesWith reports whether a browser sends a cookie of this Path with a request of that path (RFC
// 6265bis, section 5.1.4).
func (c *Cookie) comesWith(path string) bool {
	rest, ok := strings.CutPrefix(path, c.Path)
	return ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(c.Path, "/"))
}

// line returns the value of a Set-Cookie line.
func (c *Cookie) line(name, value string, maxAge int) string {
	return (&http.Cookie{
		Name: name, Value: value, MaxAge: maxAge,
		Domain: c.Domain, Path: c.Path, SameSite: c.SameSite,
		Secure: !c.Insecure, HttpOnly: true, Partitioned: c.Partitioned,
	}).String()
}

// clearing returns the value of a Set-Cookie line that removes the cookie of this name.
func (c *Cookie) clearing(name string) string { return c.line(name, "", -1) }

// attributes returns what follows name and value in the line of a cookie with this life.
func (c *Cookie) attributes(life time.Duration) string {
	_, attributes, _ := strings.Cut(c.line("name", "value", int(life/time.Second)), "value")
	return attributes
}

// provisionalName returns the name of a provisional guest's cookie. Each has its own, so that a
// browser keeps those of parallel first requests.
func (c *Cookie) provisionalName(id token.ID) string {
	return c.Name + "." + id.String()[:suffixLen]
}

// isProvisionalName reports whether provisionalName can have made this name. A cookie of another
// name is not ours: we neither read nor write it.
func (c *Cookie) isProvisionalName(name string) bool {
	suffix, ok := strings.CutPrefix(name, c.Name)
	return ok && len(suffix) == 1+suffixLen && suffix[0] == '.' &&
		strings.Trim(suffix[1:], base64url) == ""
}

const (
	suffixLen = 6 // characters of the guest's ID
	base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
)

// Proxies limit the header of a response, nginx by default to 4 KiB, and answer 502 if it is
// longer. So our lines take less than mostHeaderBytes, whatever cookies the request brings. Only a
// few of the cookies that are to be cleared are cleared by one response; the browser sends the
// others again. 128 bytes are for Vary and Cache-Control, which the lines do not include.
const (
	mostHeaderBytes = 3<<10 - 128
	mostClears      = 4
)
