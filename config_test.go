package guest_test

import (
	"errors"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

func TestNewReportsEveryFaultAtOnce(t *testing.T) {
	_, err := guest.New(guest.Config{
		Secrets:        [][]byte{make([]byte, 32), []byte("short")},
		Data:           []guest.Kind{Cart, guest.NewValue("cart", guest.PreferAccount[string]), guest.NewValue("No Good", guest.PreferAccount[int]), guest.NewValue[int]("ruleless", nil), nil},
		Create:         7,
		Cookie:         guest.Cookie{Name: "__Host-x y", Domain: "a b", Path: "x", Insecure: true, Partitioned: true},
		Header:         "not a header",
		TTL:            500 * 24 * time.Hour,
		ProvisionalTTL: -time.Second,
		TombstoneTTL:   time.Hour,
		AccountTTL:     -1,
		ClaimTimeout:   -1,
		StoreBudget:    -1,
		Quota:          guest.Quota{Fields: -1},
	})
	var got []string
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var fault *guest.ConfigError
		if !errors.As(e, &fault) || fault.Fault == "" {
			t.Errorf("%v is no ConfigError", e)
			continue
		}
		got = append(got, fault.Field)
	}
	slices.Sort(got)
	want := []string{"AccountTTL", "ClaimTimeout", "Cookie.Domain", "Cookie.Insecure", "Cookie.Name", "Cookie.Path", "Create", "Data", "Data", "Data", "Data", "Header", "ProvisionalTTL", "Quota", "Secrets", "Store", "StoreBudget", "TTL", "TombstoneTTL"}
	if !slices.Equal(got, want) {
		t.Errorf("faults of %v\nwant      %v\n%v", got, want, err)
	}
}

func TestFaultsNameTheFix(t *testing.T) {
	ok := func() guest.Config {
		return guest.Config{Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}}
	}
	for _, tt := range []struct {
		change func(*guest.Config)
		want   string
	}{
		{func(c *guest.Config) { c.Store = nil }, "memstore.New"},
		{func(c *guest.Config) { c.Secrets = nil }, "openssl rand"},
		{func(c *guest.Config) { c.Secrets = [][]byte{[]byte("x")} }, "at least 32"},
		{func(c *guest.Config) { c.Data = []guest.Kind{Cart, Cart} }, "declared twice (give one of them another name"},
		{func(c *guest.Config) { c.TTL = -time.Hour }, "0 is the default"},
		{func(c *guest.Config) { c.TTL = time.Millisecond }, "use 1s or more"},
		{func(c *guest.Config) { c.Cookie.Name = "__Host-Http-guest" }, "leave __Host-Http- and __Secure- out"},
		{func(c *guest.Config) { c.Cookie = guest.Cookie{Insecure: true, SameSite: http.SameSiteNoneMode} }, "serve https"},
	} {
		cfg := ok()
		tt.change(&cfg)
		if _, err := guest.New(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v; want %q in it", err, tt.want)
		}
	}
	if _, err := guest.New(ok()); err != nil {
		t.Error(err)
	}
}

func TestNewCopiesItsConfig(t *testing.T) {
	own := append([]byte{}, secret...)
	s := newSite(t, func(c *guest.Config) { c.Secrets = [][]byte{own}; c.Data = []guest.Kind{Cart, Theme} })
	b := s.browser()
	first := b.page()
	clear(own)
	if p := b.page(); p.Guest != first.Guest {
		t.Error("changing the secret after New changed the manager")
	}
}

func TestMisuseIsATypedErrorThatNamesTheFix(t *testing.T) {
	s := newSite(t, func(c *guest.Config) { c.Quota = guest.Quota{Fields: 3, Bytes: 100} })
	undeclared := guest.NewValue("undeclared", guest.PreferAccount[string])
	unencodable := guest.NewValue("theme", guest.PreferAccount[any])
	ctx := s.guests.As(t.Context(), "ann")
	if err := Theme.Set(ctx, "dark"); err != nil {
		t.Fatal(err)
	}
	odd := newSite(t, func(c *guest.Config) { c.Data = []guest.Kind{unencodable, Number}; c.Store = s.store })
	oddCtx := odd.guests.As(t.Context(), "ann")
	var infinite = math.Inf(1)
	add := func(item string, n int64) error { _, err := Cart.Add(ctx, item, n); return err }

	for _, tt := range []struct {
		name string
		err  error
		is   error
		text string
	}{
		{"outside the middleware", Theme.Set(t.Context(), "x"), guest.ErrNoVisitor, "wrap the handler in Manager.Middleware"},
		{"a value that does not encode", unencodable.Set(oddCtx, func() {}), guest.ErrInvalid, "cannot encode this value"},
		{"a number that does not encode", Number.Set(oddCtx, infinite), guest.ErrInvalid, "cannot encode this value"},
		{"an undeclared kind", undeclared.Set(ctx, "x"), guest.ErrInvalid, "list it there"},
		{"an empty item", add("", 1), guest.ErrInvalid, "1 to 128 bytes"},
		{"a long item", add(strings.Repeat("x", 129), 1), guest.ErrInvalid, "not 129"},
		{"NUL", add("a\x00b", 1), guest.ErrInvalid, "encode other bytes first"},
		{"a line break", add("a\nb", 1), guest.ErrInvalid, "without control characters"},
		{"bytes that are no UTF-8", add("\xff", 1), guest.ErrInvalid, "UTF-8"},
		{"an amount beyond 2^53", add("tea", 1<<53+1), guest.ErrInvalid, "2^53"},
		{"over the quota of bytes", Theme.Set(ctx, strings.Repeat("x", 100)), guest.ErrQuota, "raise the quota"},
		{"Wishes, too", Wishes.Set(ctx, "\x00", wish{}), guest.ErrInvalid, "UTF-8"},
	} {
		if !errors.Is(tt.err, tt.is) || !strings.Contains(tt.err.Error(), tt.text) {
			t.Errorf("%s: %v; want %q", tt.name, tt.err, tt.text)
		}
	}
	for i, item := range []string{"a", "b", "c"} {
		if err := add(item, 1); (err != nil) != (i == 2) || i == 2 && !errors.Is(err, guest.ErrQuota) {
			t.Errorf("item %d of 3 fields, one taken: %v", i, err)
		}
	}
	theme, _ := Theme.Get(ctx)
	if cart := s.account("ann"); len(cart) != 2 || theme != "dark" {
		t.Errorf("half-written: %v, %q", cart, theme)
	}
}

var Number = guest.NewValue("number", guest.Max[float64])
