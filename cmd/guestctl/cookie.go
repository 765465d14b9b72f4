package main

import (
	"io"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/guestkit/guest"
)

type cookie struct {
	Cookie string        `arg:"" optional:"" help:"The cookie's value, name=value, or a whole Cookie header. Absent: read from standard input, which keeps it out of the shell's history."`
	Name   string        `default:"" help:"The cookie's name, if the app has chosen one: with its prefix, such as __Host-Http-shop."`
	TTL    time.Duration `name:"ttl" default:"720h" help:"Config.TTL of the app."`
}

func (c *cookie) Help() string {
	return "Exits with 0 if the cookie is valid; of several, if each is."
}

// A cookieInfo is what a cookie says.
type cookieInfo struct {
	Name string `json:"name"`
	guest.TokenInfo
	Secrets int `json:"secrets"` // how many were tried
}

func (c *cookie) Run(s *session) error {
	secrets, err := s.secrets()
	if err != nil {
		return err
	}
	if len(secrets) == 0 {
		return usagef("the app's secrets are needed to verify a cookie (give --secrets-file or GUEST_SECRETS)")
	}
	m, err := s.manager(func(cfg *guest.Config) {
		cfg.TTL, cfg.ProvisionalTTL = c.TTL, min(time.Hour, c.TTL)
	})
	if err != nil {
		return err
	}
	text := c.Cookie
	if text == "" {
		b, err := io.ReadAll(io.LimitReader(s.in, 1<<20))
		if err != nil {
			return err
		}
		text = string(b)
	}
	infos := c.read(m.Inspect(), text)
	if len(infos) == 0 {
		return usagef("there is no guest cookie in this (give its value, name=value, or a Cookie header, and --name if the app has chosen another name)")
	}
	allValid := true
	for i := range infos {
		infos[i].Secrets = len(secrets)
		allValid = allValid && infos[i].Verdict == guest.TokenValid
	}
	err = s.print(infos, func(t *tabwriter.Writer) {
		for i, info := range infos {
			if i > 0 {
				row(t)
			}
			explain(t, info)
		}
	})
	if err == nil && !allValid {
		return negative{}
	}
	return err
}

// names returns the default names: for https, with a Domain or Path, for plain http.
func (c *cookie) names() []string {
	if c.Name != "" {
		return []string{c.Name}
	}
	return []string{"__Host-Http-guest", "__Secure-guest", "guest"}
}

// read finds the guest cookies in what the operator pasted.
func (c *cookie) read(inspect guest.Inspector, text string) (infos []cookieInfo) {
	text = strings.Trim(text, " \t\r\n")
	if head, rest, ok := strings.Cut(text, ":"); ok && (strings.EqualFold(head, "Cookie") ||
		strings.EqualFold(head, "Set-Cookie")) {
		text = rest
	}
	for pair := range strings.SplitSeq(text, ";") {
		// as the middleware does: other spaces are part of the name
		pair = strings.Trim(pair, " \t")
		name, value, _ := strings.Cut(pair, "=")
		switch {
		case strings.Trim(value, "=") == "": // no name: at most base64 that ends in =
			if pair != "" && !strings.Contains(text, ";") {
				infos = append(infos, c.unnamed(inspect, pair))
			}
		case c.isGuest(name):
			infos = append(infos, cookieInfo{Name: name, TokenInfo: inspect.Token(name, strings.Trim(value, `"`))})
		}
	}
	return infos
}

// ofGuest matches what follows the main name in a cookie's name: nothing, or in that of a
// provisional cookie a dot and the first six characters of the guest's ID.
var ofGuest = regexp.MustCompile(`^(\.[A-Za-z0-9_-]{6})?$`)

func (c *cookie) isGuest(name string) bool {
	for _, n := range c.names() {
		if suffix, ok := strings.CutPrefix(name, n); ok && ofGuest.MatchString(suffix) {
			return true
		}
	}
	return false
}

// unnamed tries the names that a cookie of that value may have had. The signature covers the name.
func (c *cookie) unnamed(inspect guest.Inspector, value string) cookieInfo {
	var info cookieInfo
	for _, name := range c.names() {
		info = cookieInfo{Name: name, TokenInfo: inspect.Token(name, value)}
		// it may be a provisional cookie, whose name has the first six characters of the ID
		if info.Verdict == guest.TokenForged {
			provisional := name + "." + info.GuestID[:6]
			if i := inspect.Token(provisional, value); i.Verdict != guest.TokenForged {
				info = cookieInfo{Name: provisional, TokenInfo: i}
			}
		}
		if info.Verdict != guest.TokenForged {
			return info
		}
	}
	info.Name = ""
	return info
}

var verdicts = map[string]string{
	guest.TokenValid:     "valid",
	guest.TokenExpired:   "expired: it was signed by this app",
	guest.TokenForged:    "forged, or signed by a secret that is not among these, or under another name; its contents are not proven",
	guest.TokenMalformed: "malformed: not a guest cookie",
}

func explain(t *tabwriter.Writer, info cookieInfo) {
	if info.Name != "" {
		row(t, "cookie", plain(info.Name))
	}
	row(t, "verdict", verdicts[info.Verdict])
	switch {
	case info.Secret == 0:
		row(t, "signed by", "secret 1 of "+strconv.Itoa(info.Secrets)+", the one that signs")
	case info.Secret > 0:
		row(t, "signed by", "secret "+strconv.Itoa(info.Secret+1)+" of "+strconv.Itoa(info.Secrets)+", an older one")
	}
	if info.GuestID == "" {
		return
	}
	row(t, "guest", info.GuestID)
	row(t, "created", stamp(info.Created))
	row(t, "issued", stamp(info.Issued))
	row(t, "expires", stamp(info.Expires))
	if info.Provisional {
		row(t, "provisional",
			"yes: the browser has not sent it back before; the guest's record expires after Config.ProvisionalTTL")
	} else {
		row(t, "provisional", "no")
	}
}
