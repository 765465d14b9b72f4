package guest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/guestkit/guest/internal/jsontype"
)

// Config says how a [Manager] works. Only Store and Secrets are required. New copies what it keeps.
type Config struct {
	// Store keeps the records: redisstore.New or memstore.New. Required.
	Store Store

	// Secrets sign the cookies and tickets and encrypt encrypted data: at least 32 random bytes
	// each. The first one signs and encrypts; all of them verify and decrypt. A rotation takes two
	// deployments, as a process cannot read what a secret has signed that it does not have: first
	// add the new one behind the others, and when every process has it, put it in front. Remove the
	// old one when Config.TTL has passed since; what it sealed must have been written anew by then
	// (docs/operations.md). Required, never invented: two replicas that invent their own reject
	// each other's guests.
	Secrets [][]byte

	// App is a name that tells this app from others that are given the same Secrets: then none
	// accepts another's cookies and tickets or opens its encrypted data. Changing it is like
	// changing all Secrets at once. "": none, which is right where each app has secrets of its own.
	App string

	// Data are the kinds of data the app keeps. A kind that is not listed cannot be used, and a
	// claim of a guest that holds some of it stays Pending: list kinds that are gone for good as
	// [Retired].
	Data []Kind

	// Account returns the ID of the signed-in account, up to 512 bytes, or "" if the request is not
	// signed in. It is called once a request, before the handler. nil: data calls always act on the
	// guest, and members are reached through [Manager.Claim] and [Manager.As].
	Account func(*http.Request) string

	// OnClaim lets the app move rows of its own from Receipt.GuestID to Receipt.AccountID. It is
	// called at least once for each claim, with an equal receipt each time; Receipt.ID is the
	// idempotency key. While it fails the claim is Pending and is tried again. nil: nothing to
	// move.
	OnClaim func(context.Context, Receipt) error

	// Admit decides whether a request without a guest, or with one that was claimed, gets a new
	// one. nil: [Browsers].
	Admit func(*http.Request) bool

	// Create says when a new guest's record is stored. Zero value: [OnFirstVisit].
	Create Create

	// AutoClaim decides whether a request that is signed in claims the guest that its cookie names.
	// It is asked only when there are both. nil: yes. If it returns false the guest and its cookie
	// stay as they are: for an agent who acts as a customer, say, or where only [Manager.Claim],
	// [Manager.ClaimHandler] and [Manager.ClaimTicket] are to claim; those do not ask it.
	AutoClaim func(*http.Request) bool

	// Cookie shapes the guest cookie.
	Cookie Cookie

	// FormerCookies are the scopes (Domain, Path, Partitioned; the rest is not looked at) in which
	// this app, under the same name, has set its cookie before. Whenever a cookie is set or cleared
	// it is cleared in these too: a browser keeps cookies of several scopes side by side, and would
	// go on sending the old one. A scope for which New makes another name, as with and without
	// Domain or Path, is another cookie, and its guests are not carried over. At most 3.
	FormerCookies []Cookie

	// Header is the name of a header that carries the guest's token for clients without cookies.
	// They send it with every request, empty at first, and then what the last response with this
	// header said. A response has it only if the request had it, as scripts can read it. A request
	// with this header counts as sent by a client of your own and not by another site's page, which
	// cannot send it: let CORS allow it only to origins that you trust. "": off.
	Header string

	TTL            time.Duration // life of a guest since it was last seen, to a day. 0: 30 days. At most 400 days, as cookies
	ProvisionalTTL time.Duration // life of a guest whose cookie has not come back yet. 0: 1 hour, or TTL if that is shorter
	TombstoneTTL   time.Duration // how long a claimed or forgotten guest is remembered. 0: 30 days, or TTL if that is longer. Never under TTL
	AccountTTL     time.Duration // life of an account's record since it was last written. 0: for ever
	ClaimTimeout   time.Duration // how long a request waits for a claim; it goes on later. 0: 2 seconds

	// StoreBudget is how long a request waits for calls of the store that fail, all of them
	// together. What the store's own deadline gives to the first is not cut; later ones get what is
	// left, or fail at once. 0: 240 ms, so that the first pages of an outage take a quarter of a
	// second.
	StoreBudget time.Duration

	// Quota bounds one record. Zero fields: 256 fields, 64 KiB. A claim may bring an account up to
	// twice that.
	Quota Quota

	// Hooks observe what happens: see adapters/promguest and adapters/otelguest. nil functions cost
	// nothing.
	Hooks Hooks

	// Logger gets what an operator should know: pending claims, a store that fails. nil:
	// slog.Default(). It is never given a secret, a token, an ID or a value.
	Logger *slog.Logger
}

// Create says when the record of a new guest is stored.
type Create int

const (
	OnFirstVisit Create = iota // with the first response, or with the first data if the handler writes some
	OnFirstWrite               // with the first data: a visitor who keeps nothing costs no memory and no round trip
)

// A ConfigError is one fault of a [Config]. New returns all of them, joined.
type ConfigError struct {
	Field string // the field of Config, such as "Cookie.Name"
	Fault string // what is wrong and what to do
}

func (e *ConfigError) Error() string { return "guest: Config." + e.Field + ": " + e.Fault }

var (
	kindName   = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)
	headerName = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
)

const (
	day          = 24 * time.Hour
	longestTTL   = 400 * day // RFC 6265bis, section 5.5: user agents cut longer lives
	shortestTTL  = time.Second
	minSecretLen = 32
)

// complete returns c with its defaults, and all its faults joined.
func (c Config) complete() (Config, error) {
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, &ConfigError{field, fmt.Sprintf(format, args...)})
	}

	if c.Store == nil {
		fault("Store", "is missing: use redisstore.New(client, redisstore.Config{}) or memstore.New(memstore.Config{})")
	}
	if len(c.Secrets) == 0 {
		fault("Secrets", "is empty: generate one with `openssl rand -base64 32`, keep it with the app's other secrets, and give its bytes")
	}
	for i, s := range c.Secrets {
		if len(s) < minSecretLen {
			fault("Secrets", "secret %d has %d bytes; at least %d random bytes are needed", i, len(s), minSecretLen)
		}
	}

	seen := map[string]bool{}
	for i, k := range c.Data {
		if p := reflect.ValueOf(k); k == nil || p.Kind() == reflect.Pointer && p.IsNil() || k.define() == nil {
			fault("Data", "kind %d was not made by NewValue, NewMap, NewCounters or Retired", i)
			continue
		}
		def := k.define()
		switch {
		case !kindName.MatchString(def.name):
			fault("Data", "the name of kind %d (%q) must be 1 to 32 of a-z, 0-9, _ and -, and begin with a letter or digit", i, def.name)
		case seen[def.name]:
			fault("Data", "kind %q is declared twice: give one of them another name", def.name)
		case !def.hasRule:
			fault("Data", "kind %q has no merge rule: give one, such as guest.PreferAccount", def.name)
		case def.lenient && !def.encrypted:
			fault("Data", "kind %q accepts plaintext but is not Encrypted: call Encrypted, too", def.name)
		case def.typ != nil && jsontype.Fault(def.typ) != "":
			fault("Data", "kind %q: %s; give it another type", def.name, jsontype.Fault(def.typ))
		}
		seen[def.name] = true
	}

	if c.Create != OnFirstVisit && c.Create != OnFirstWrite {
		fault("Create", "must be OnFirstVisit or OnFirstWrite")
	}
	c.Header = http.CanonicalHeaderKey(c.Header)
	faultless := len(faults)
	if c.Cookie.complete("Cookie", fault); len(faults) == faultless { // else each of them has the same fault
		c.completeFormer(fault)
	}
	if c.Header != "" && !headerName.MatchString(c.Header) {
		fault("Header", "%q is not a header name: use letters, digits and -", c.Header)
	}
	c.completeTimes(fault)

	if c.Quota.Fields < 0 || c.Quota.Bytes < 0 {
		fault("Quota", "is negative: 0 is the default of 256 fields and 64 KiB")
	}
	if c.Quota.Fields == 0 {
		c.Quota.Fields = 256
	}
	if c.Quota.Bytes == 0 {
		c.Quota.Bytes = 64 << 10
	}
	if c.Admit == nil {
		c.Admit = Browsers
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, errors.Join(faults...)
}

func (c *Config) completeTimes(fault func(field, format string, args ...any)) {
	for _, t := range []struct {
		field string
		d     *time.Duration
		def   time.Duration
	}{
		{"TTL", &c.TTL, 30 * day},
		{"ProvisionalTTL", &c.ProvisionalTTL, 0},
		{"TombstoneTTL", &c.TombstoneTTL, 0},
		{"AccountTTL", &c.AccountTTL, 0},
		{"ClaimTimeout", &c.ClaimTimeout, 2 * time.Second},
		{"StoreBudget", &c.StoreBudget, 240 * time.Millisecond},
	} {
		if *t.d < 0 {
			fault(t.field, "is negative (%v): 0 is the default", *t.d)
		}
		if *t.d == 0 {
			*t.d = t.def
		}
	}
	if c.TTL > longestTTL {
		fault("TTL", "is %v; browsers keep a cookie for 400 days at most", c.TTL)
	}
	if 0 <= c.TTL && c.TTL < shortestTTL {
		fault("TTL", "is %v; a cookie's life is counted in whole seconds, so use 1s or more", c.TTL)
	}
	if c.ProvisionalTTL == 0 {
		c.ProvisionalTTL = min(time.Hour, c.TTL)
	}
	if c.ProvisionalTTL > 0 && c.ProvisionalTTL < shortestTTL || c.ProvisionalTTL > c.TTL {
		fault("ProvisionalTTL", "is %v; it must be from 1s to TTL (%v)", c.ProvisionalTTL, c.TTL)
	}
	if c.TombstoneTTL == 0 {
		c.TombstoneTTL = max(30*day, c.TTL)
	}
	if c.TombstoneTTL > 0 && c.TombstoneTTL < c.TTL {
		fault("TombstoneTTL", "is %v; a claimed guest must be remembered as long as its cookie can live (TTL, %v)", c.TombstoneTTL, c.TTL)
	}
}

// completeFormer gives the former cookies what they have in common with the cookie.
func (c *Config) completeFormer(fault func(field, format string, args ...any)) {
	former := make([]Cookie, len(c.FormerCookies))
	for i, f := range c.FormerCookies {
		field := fmt.Sprintf("FormerCookies[%d]", i)
		f.Name = strings.TrimPrefix(strings.TrimPrefix(c.Cookie.Name, hostPrefix), securePrefix)
		f.SameSite, f.Insecure = c.Cookie.SameSite, c.Cookie.Insecure
		f.complete(field, fault)
		switch {
		case f.Name != c.Cookie.Name:
			fault(field, "is a cookie of another name (%s, not %s), which needs no clearing: leave it out", f.Name, c.Cookie.Name)
		case f == c.Cookie:
			fault(field, "is the scope of Cookie itself: leave it out")
		}
		former[i] = f
	}
	if len(former) > mostClears-1 {
		fault("FormerCookies", "has %d scopes: at most %d can be cleared in a response", len(former), mostClears-1)
	}
	bytes := 0
	for _, f := range append(former, c.Cookie) {
		bytes += len(f.clearing(f.Name))
	}
	if bytes > mostHeaderBytes/2 && len(former) > 0 {
		fault("FormerCookies", "has such long Domains and Paths that clearing them takes %d bytes of a header, of at most %d", bytes, mostHeaderBytes/2)
	}
	c.FormerCookies = former
}
