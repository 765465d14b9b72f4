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

// Config configures a [Manager]. Only Store and Secrets are required. New copies what it keeps.
type Config struct {
	// Store keeps the records: redisstore.New or memstore.New. Required.
	Store Store

	// Secrets sign cookies and tickets, and encrypt the data of kinds that are Encrypted. Each has
	// at least 32 random bytes. The first one signs and encrypts; all of them verify and decrypt.
	//
	// A rotation takes two deployments, because a process cannot verify what was signed with a
	// secret that it does not have. First add the new secret behind the others; when every process
	// has it, move it to the front. Remove the old secret once Config.TTL has passed since then;
	// data that it encrypted must have been written again by that time (docs/operations.md).
	//
	// Required. New generates none: two replicas that generate their own would reject each other's
	// guests.
	Secrets [][]byte

	// App is a name that separates this app from others that use the same Secrets: none of them
	// accepts another's cookies and tickets, or decrypts its data. Changing it has the same effect
	// as changing all Secrets at once. "": no name, which is right if each app has its own secrets.
	App string

	// Data are the kinds of data that the app keeps. A kind that is not listed cannot be used, and
	// a claim of a guest that holds data of it stays Pending: list a kind that is gone for good as
	// [Retired].
	Data []Kind

	// Account returns the ID of the signed-in account, up to 512 bytes, or "" if the request is not
	// signed in. It is called once per request, before the handler. nil: data calls always act on
	// the guest, and members are reached through [Manager.Claim] and [Manager.As].
	Account func(*http.Request) string

	// OnClaim lets the app move rows of its own from Receipt.GuestID to Receipt.AccountID. It is
	// called at least once for each claim, with an equal receipt each time; Receipt.ID is the
	// idempotency key. If it returns an error, the claim is Pending and is tried again. nil: there
	// is nothing to move.
	OnClaim func(context.Context, Receipt) error

	// Admit decides whether a request without a guest, or with one that was claimed, gets a new
	// one. nil: [Browsers].
	Admit func(*http.Request) bool

	// Create says when a new guest's record is stored. Zero value: [OnFirstVisit].
	Create Create

	// AutoClaim decides whether a signed-in request claims the guest that its cookie names. It is
	// called only if the request has both an account and a guest. If it returns false, the guest
	// and its cookie stay as they are: for example while a support agent acts as a customer, or in
	// an app where only [Manager.Claim], [Manager.ClaimHandler] and [Manager.ClaimTicket] claim;
	// these do not call it. nil: every signed-in request claims.
	AutoClaim func(*http.Request) bool

	// Cookie shapes the guest cookie.
	Cookie Cookie

	// FormerCookies are the scopes in which this app has set its cookie before: Domain, Path and
	// Partitioned; their other fields are not used. Whenever the cookie is set or cleared, it is
	// cleared in these scopes too, because a browser keeps cookies of several scopes side by side
	// and would go on sending the old one. At most 3.
	//
	// A scope for which New makes another name (with a Domain or Path the prefix is another one) is
	// another cookie, and its guests are not carried over.
	FormerCookies []Cookie

	// Header is the name of a header that carries the guest's token for clients without cookies.
	// The client sends it with every request: empty at first, then with what the last response
	// said in this header. A response has the header only if the request had it, because scripts
	// can read it. A request with this header counts as sent by a client of your own and not by a
	// page of another site, which cannot send it: let CORS allow the header only to origins that
	// you trust. "": off.
	Header string

	// TTL is the life of a guest since its last request, exact to a day. 0: 30 days. At most 400
	// days, which is the longest life that browsers give a cookie.
	TTL time.Duration

	// ProvisionalTTL is the life of a guest whose cookie has not come back yet. 0: 1 hour, or TTL
	// if that is shorter.
	ProvisionalTTL time.Duration

	// TombstoneTTL is how long a claimed or forgotten guest is remembered, and at least TTL. 0: 30
	// days, or TTL if that is longer.
	TombstoneTTL time.Duration

	// AccountTTL is the life of an account's record since its last write. 0: for ever.
	AccountTTL time.Duration

	// ClaimTimeout is how long a request waits for a claim. A claim that takes longer is Pending
	// and goes on later. 0: 5 seconds.
	ClaimTimeout time.Duration

	// StoreBudget is how long a request waits in total for store calls that fail. The first such
	// call may take as long as the store's own deadline; later calls get what is left, or fail at
	// once. 0: 240 ms, so that the first pages of an outage take a quarter of a second.
	StoreBudget time.Duration

	// Quota bounds one record. Zero fields: 256 fields, 64 KiB. A claim may bring an account up to
	// twice that.
	Quota Quota

	// Hooks observe what happens: see adapters/promguest and adapters/otelguest. A nil function
	// costs nothing.
	Hooks Hooks

	// Logger gets what an operator should know, such as a pending claim or a store that fails. It
	// is never given a secret, a token, an ID or a value. nil: slog.Default().
	Logger *slog.Logger
}

// Create says when the record of a new guest is stored.
type Create int

const (
	// OnFirstVisit: with the first data if the handler writes any, else with the first response.
	OnFirstVisit Create = iota

	// OnFirstWrite: with the first data. A visitor who keeps nothing costs no memory and no round
	// trip.
	OnFirstWrite
)

// A ConfigError is one fault of a [Config]. New returns all of them, joined.
type ConfigError struct {
	Field string // the field of Config, such as "Cookie.Name"
	Fault string // what is wrong, and in parentheses what to do
}

func (e *ConfigError) Error() string { return "guest: Config." + e.Field + ": " + e.Fault }

var (
	kindName   = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)
	headerName = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
)

const (
	day          = 24 * time.Hour
	longestTTL   = 400 * day // browsers cut a longer life of a cookie (RFC 6265bis, section 5.5)
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
		fault("Store", "is missing (use redisstore.New(client, redisstore.Config{}) or "+
			"memstore.New(memstore.Config{}))")
	}
	if len(c.Secrets) == 0 {
		fault("Secrets", "is empty (generate a secret with `openssl rand -base64 32`, keep it "+
			"with the app's other secrets, and give its bytes)")
	}
	for i, s := range c.Secrets {
		if len(s) < minSecretLen {
			fault("Secrets", "secret %d has %d bytes (use at least %d random bytes)",
				i, len(s), minSecretLen)
		}
	}

	seen := map[string]bool{}
	for i, k := range c.Data {
		p := reflect.ValueOf(k)
		if k == nil || p.Kind() == reflect.Pointer && p.IsNil() || k.define() == nil {
			fault("Data", "kind %d was not made by NewValue, NewMap, NewCounters or Retired", i)
			continue
		}
		def := k.define()
		switch {
		case !kindName.MatchString(def.name):
			fault("Data", "kind %d is named %q (use 1 to 32 of a-z, 0-9, _ and -, and begin with "+
				"a letter or a digit)", i, def.name)
		case seen[def.name]:
			fault("Data", "kind %q is declared twice (give one of them another name)", def.name)
		case !def.hasRule:
			fault("Data", "kind %q has no merge rule (give one, such as guest.PreferAccount)",
				def.name)
		case def.lenient && !def.encrypted:
			fault("Data", "kind %q is InsecureAcceptPlaintext but not Encrypted (call Encrypted "+
				"too)", def.name)
		case def.typ != nil && jsontype.Fault(def.typ) != "":
			fault("Data", "kind %q cannot be kept as JSON: %s (or give the kind another type)",
				def.name, jsontype.Fault(def.typ))
		}
		seen[def.name] = true
	}

	if c.Create != OnFirstVisit && c.Create != OnFirstWrite {
		fault("Create", "must be OnFirstVisit or OnFirstWrite")
	}
	c.Header = http.CanonicalHeaderKey(c.Header)
	before := len(faults)
	c.Cookie.complete("Cookie", fault)
	if len(faults) == before { // otherwise each of the former cookies has the same fault
		c.completeFormer(fault)
	}
	if c.Header != "" && !headerName.MatchString(c.Header) {
		fault("Header", "%q is not the name of a header (use letters, digits and -)", c.Header)
	}
	c.completeTimes(fault)

	if c.Quota.Fields < 0 || c.Quota.Bytes < 0 {
		fault("Quota", "is negative (0 is the default of 256 fields and 64 KiB)")
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

// completeTimes gives the durations their defaults, and reports their faults.
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
		{"ClaimTimeout", &c.ClaimTimeout, 5 * time.Second},
		{"StoreBudget", &c.StoreBudget, 240 * time.Millisecond},
	} {
		if *t.d < 0 {
			fault(t.field, "is %v, which is negative (0 is the default)", *t.d)
		}
		if *t.d == 0 {
			*t.d = t.def
		}
	}
	if c.TTL > longestTTL {
		fault("TTL", "is %v (browsers keep a cookie for at most 400 days)", c.TTL)
	}
	if 0 <= c.TTL && c.TTL < shortestTTL {
		fault("TTL", "is %v (use 1s or more: a cookie's life is counted in whole seconds)", c.TTL)
	}
	if c.ProvisionalTTL == 0 {
		c.ProvisionalTTL = min(time.Hour, c.TTL)
	}
	if c.ProvisionalTTL > 0 && c.ProvisionalTTL < shortestTTL || c.ProvisionalTTL > c.TTL {
		fault("ProvisionalTTL", "is %v (use from 1s to TTL, which is %v)", c.ProvisionalTTL, c.TTL)
	}
	if c.TombstoneTTL == 0 {
		c.TombstoneTTL = max(30*day, c.TTL)
	}
	if c.TombstoneTTL > 0 && c.TombstoneTTL < c.TTL {
		fault("TombstoneTTL", "is %v, shorter than TTL, which is %v (a claimed guest must be "+
			"remembered as long as its cookie can live)", c.TombstoneTTL, c.TTL)
	}
}

// completeFormer gives the former cookies what they have in common with the cookie, and reports
// their faults.
func (c *Config) completeFormer(fault func(field, format string, args ...any)) {
	former := make([]Cookie, len(c.FormerCookies))
	for i, f := range c.FormerCookies {
		field := fmt.Sprintf("FormerCookies[%d]", i)
		f.Name = strings.TrimPrefix(strings.TrimPrefix(c.Cookie.Name, hostPrefix), securePrefix)
		f.SameSite, f.Insecure = c.Cookie.SameSite, c.Cookie.Insecure
		f.complete(field, fault)
		switch {
		case f.Name != c.Cookie.Name:
			fault(field, "is a cookie of another name, %s and not %s, which needs no clearing "+
				"(leave it out)", f.Name, c.Cookie.Name)
		case f == c.Cookie:
			fault(field, "is the scope of Cookie itself (leave it out)")
		}
		former[i] = f
	}
	if len(former) > mostClears-1 {
		fault("FormerCookies", "has %d scopes (at most %d can be cleared in one response)",
			len(former), mostClears-1)
	}
	bytes := 0
	for _, f := range append(former, c.Cookie) {
		bytes += len(f.clearing(f.Name))
	}
	if bytes > mostHeaderBytes/2 && len(former) > 0 {
		fault("FormerCookies", "takes %d bytes of a response's header to clear, of at most %d "+
			"(use shorter Domains and Paths)", bytes, mostHeaderBytes/2)
	}
	c.FormerCookies = former
}
