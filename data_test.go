package guest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

func TestValue(t *testing.T) {
	s := newSite(t, nil)
	ctx := s.guests.As(t.Context(), "ann")
	if v, err := Theme.Get(ctx); v != "" || err != nil {
		t.Errorf("none: %q, %v", v, err)
	}
	Theme.Set(ctx, "dark")
	if v, err := Theme.Get(ctx); v != "dark" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	if err := Theme.Update(ctx, func(old string) (string, error) { return old + "er", nil }); err != nil {
		t.Error(err)
	}
	refusal := errors.New("no")
	if err := Theme.Update(ctx, func(string) (string, error) { return "x", refusal }); err != refusal {
		t.Errorf("%v", err)
	}
	if v, _ := Theme.Get(ctx); v != "darker" {
		t.Errorf("%q", v)
	}
	Theme.Delete(ctx)
	if v, err := Theme.Get(ctx); v != "" || err != nil {
		t.Errorf("deleted: %q, %v", v, err)
	}
}

func TestMap(t *testing.T) {
	s := newSite(t, nil)
	ctx := s.guests.As(t.Context(), "ann")
	Wishes.Set(ctx, "tea", wish{"green"})
	Wishes.Set(ctx, "pot/large", wish{"blue"})
	Theme.Set(ctx, "dark")
	Wishes.Update(ctx, "tea", func(w wish) (wish, error) { w.Note += ", loose"; return w, nil })
	if w, err := Wishes.Get(ctx, "tea"); w.Note != "green, loose" || err != nil {
		t.Errorf("%v, %v", w, err)
	}
	if all, err := Wishes.All(ctx); !maps.Equal(all, map[string]wish{"tea": {"green, loose"}, "pot/large": {"blue"}}) || err != nil {
		t.Errorf("%v, %v", all, err)
	}
	Wishes.Delete(ctx, "tea")
	if w, _ := Wishes.Get(ctx, "tea"); w.Note != "" {
		t.Errorf("%v", w)
	}
	Wishes.Clear(ctx)
	if all, err := Wishes.All(ctx); all == nil || len(all) != 0 || err != nil {
		t.Errorf("%v, %v", all, err)
	}
	if theme, _ := Theme.Get(ctx); theme != "dark" {
		t.Errorf("Clear took another kind")
	}
}

func TestCounters(t *testing.T) {
	s := newSite(t, nil)
	ctx := s.guests.As(t.Context(), "ann")
	for _, tt := range []struct{ n, want int64 }{{2, 2}, {3, 5}, {0, 5}, {-1, 4}, {-4, 0}, {-2, -2}} {
		if got, err := Cart.Add(ctx, "tea", tt.n); got != tt.want || err != nil {
			t.Errorf("Add(%d) = %d, %v; want %d", tt.n, got, err, tt.want)
		}
	}
	Cart.Set(ctx, "cup", 7)
	Cart.Set(ctx, "tea", 0)
	if all, err := Cart.All(ctx); !maps.Equal(all, map[string]int64{"cup": 7}) || err != nil {
		t.Errorf("%v, %v", all, err)
	}
	if n, err := Cart.Get(ctx, "cup"); n != 7 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	Cart.Delete(ctx, "cup")
	Cart.Add(ctx, "pot", 1)
	Cart.Clear(ctx)
	if all, _ := Cart.All(ctx); len(all) != 0 {
		t.Errorf("%v", all)
	}
}

// The names of items are the app's, such as paths: removing "/garden/" leaves "/garden/fern".
func TestAnItemWhoseNameEndsInASlashIsRemovedAlone(t *testing.T) {
	names := []string{"/", "/garden", "/garden/", "/garden/fern", "/garden/fern/"}
	fill := func(t *testing.T, ctx context.Context) {
		for i, name := range names {
			if err := errors.Join(Wishes.Set(ctx, name, wish{name}), Cart.Set(ctx, name, int64(i+1))); err != nil {
				t.Fatal(err)
			}
		}
	}
	// is demands that all items of names are there but for the one that was removed.
	is := func(t *testing.T, ctx context.Context, removed string) {
		t.Helper()
		wishes, err := Wishes.All(ctx)
		cart, err2 := Cart.All(ctx)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, name := range names {
			if name != removed {
				left = append(left, name)
			}
		}
		if got := slices.Sorted(maps.Keys(wishes)); !slices.Equal(got, left) {
			t.Errorf("after the removal of %q the map holds %q, want %q", removed, got, left)
		}
		if got := slices.Sorted(maps.Keys(cart)); !slices.Equal(got, left) {
			t.Errorf("after the removal of %q the counters hold %q, want %q", removed, got, left)
		}
	}
	for _, way := range []struct {
		name   string
		remove func(ctx context.Context, item string, amount int64) error
	}{
		{"Delete", func(ctx context.Context, item string, _ int64) error { return Cart.Delete(ctx, item) }},
		{"Set 0", func(ctx context.Context, item string, _ int64) error { return Cart.Set(ctx, item, 0) }},
		{"Add to 0", func(ctx context.Context, item string, amount int64) error {
			n, err := Cart.Add(ctx, item, -amount)
			if n != 0 {
				t.Errorf("the amount is %d", n)
			}
			return err
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			for i, name := range names {
				ctx := newSite(t, nil).guests.As(t.Context(), "ann")
				fill(t, ctx)
				if err := errors.Join(Wishes.Delete(ctx, name), way.remove(ctx, name, int64(i+1))); err != nil {
					t.Error(err)
				}
				is(t, ctx, name)
			}
		})
	}
	t.Run("merge", func(t *testing.T) {
		removed := "/garden/"
		s := newSite(t, nil)
		s.mux.HandleFunc("POST /merge", func(w http.ResponseWriter, r *http.Request) {
			receipt, err := s.guests.Claim(w, r, "ann",
				guest.With(Wishes, func(account, _ map[string]wish) map[string]wish { delete(account, removed); return account }),
				guest.With(Cart, func(account, _ map[string]int64) map[string]int64 { delete(account, removed); return account }))
			writeClaim(w, receipt, err)
		})
		s.mux.HandleFunc("POST /wish", func(_ http.ResponseWriter, r *http.Request) { Wishes.Set(r.Context(), "/pond/", wish{}) })
		ann := s.guests.As(t.Context(), "ann")
		fill(t, ann)
		b := s.browser()
		b.add("tea")
		b.request("POST", "/wish")
		b.request("POST", "/merge")
		is(t, ann, removed)
	})
	t.Run("Clear", func(t *testing.T) {
		ctx := newSite(t, nil).guests.As(t.Context(), "ann")
		fill(t, ctx)
		if err := Cart.Clear(ctx); err != nil {
			t.Error(err)
		}
		cart, _ := Cart.All(ctx)
		if wishes, err := Wishes.All(ctx); len(cart) != 0 || len(wishes) != len(names) || err != nil {
			t.Errorf("Clear of one kind leaves %v of it, and %v of another, %v", cart, wishes, err)
		}
	})
}

func TestSixteenRequestsAbreastLoseNothing(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	b.page()
	b.page()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 25 {
				b.add("tea")
			}
		})
	}
	wg.Wait()
	if p := b.page(); p.Cart["tea"] != 400 {
		t.Errorf("400 additions, %d survive", p.Cart["tea"])
	}
}

func TestUpdateIsCompareAndSet(t *testing.T) {
	s := newSite(t, nil)
	ctx := s.guests.As(t.Context(), "ann")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				err := Theme.Update(ctx, func(old string) (string, error) { return old + "x", nil })
				for errors.Is(err, guest.ErrConflict) {
					err = Theme.Update(ctx, func(old string) (string, error) { return old + "x", nil })
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if v, _ := Theme.Get(ctx); len(v) != 160 {
		t.Errorf("%d of 160 updates survive", len(v))
	}
	err := Theme.Update(ctx, func(old string) (string, error) {
		return "mine", Theme.Set(ctx, old+"y") // somebody is always quicker
	})
	if !errors.Is(err, guest.ErrConflict) {
		t.Errorf("%v", err)
	}
}

func TestPrefetchReadsSeveralKindsInOneRoundTrip(t *testing.T) {
	s := newSite(t, nil)
	ctx := s.guests.As(t.Context(), "ann")
	Theme.Set(ctx, "dark")
	Email.Set(ctx, "ann@example.com")
	Cart.Add(ctx, "tea", 2)
	for _, kinds := range [][]guest.Kind{{Theme, Email}, {Theme, Cart, Wishes}} {
		Cart.Set(ctx, "tea", 2)
		var fetched = ctx
		if n := s.store.took(func() {
			var err error
			if fetched, err = guest.Prefetch(ctx, kinds...); err != nil {
				t.Error(err)
			}
			for _, k := range kinds {
				switch k {
				case guest.Kind(Theme):
					if v, _ := Theme.Get(fetched); v != "dark" {
						t.Errorf("theme %q", v)
					}
				case guest.Kind(Email):
					if v, _ := Email.Get(fetched); v != "ann@example.com" {
						t.Errorf("email %q", v)
					}
				case guest.Kind(Cart):
					if n, _ := Cart.Get(fetched, "tea"); n != 2 {
						t.Errorf("cart %d", n)
					}
					if all, _ := Cart.All(fetched); all["tea"] != 2 {
						t.Errorf("cart %v", all)
					}
				case guest.Kind(Wishes):
					if all, _ := Wishes.All(fetched); len(all) != 0 {
						t.Errorf("wishes %v", all)
					}
				}
			}
		}); n != 1 {
			t.Errorf("%d round trips for %d kinds", n, len(kinds))
		}
		if n, _ := Cart.Add(fetched, "tea", 1); n < 3 {
			t.Errorf("add %d", n)
		}
		want, _ := Cart.Get(ctx, "tea")
		if n, _ := Cart.Get(fetched, "tea"); n != want {
			t.Errorf("after a write the prefetched %d is served, not %d", n, want)
		}
	}
	if _, err := guest.Prefetch(t.Context(), Theme); !errors.Is(err, guest.ErrNoVisitor) {
		t.Errorf("%v", err)
	}
}

func TestSealedDataIsNeverInTheClear(t *testing.T) {
	s := newSite(t, nil)
	ctx := s.guests.As(t.Context(), "ann")
	const address = "ann@example.com"
	if err := Email.Set(ctx, address); err != nil {
		t.Fatal(err)
	}
	keys := s.store.keys(t, "a:")
	fields, _ := s.store.Store.Get(t.Context(), keys[0])
	if strings.Contains(fmt.Sprint(fields), address) || len(fields["email"]) < len(address) {
		t.Errorf("stored %q", fields)
	}
	put := func(key, field, value string) {
		if _, err := s.store.Store.Update(t.Context(), key, guest.Update{Set: guest.Fields{field: value}}); err != nil {
			t.Fatal(err)
		}
	}
	sealed := fields["email"]
	Email.Set(s.guests.As(t.Context(), "eve"), "eve@example.com")
	for _, key := range s.store.keys(t, "a:") {
		put(key, "email", sealed) // both records hold ann's now
	}
	if v, err := Email.Get(s.guests.As(t.Context(), "eve")); err == nil {
		t.Errorf("a sealed value opens in another record: %q", v)
	}
	if v, err := Email.Get(ctx); v != address || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	for i := range len(sealed) - 1 {
		put(keys[0], "email", sealed[:i+1]) // truncated
		if v, err := Email.Get(ctx); err == nil {
			t.Fatalf("%d of %d bytes open: %q", i+1, len(sealed), v)
		}
		put(keys[0], "email", sealed[:i+1]+string(sealed[i+1]^1)+sealed[i+2:])
		if v, err := Email.Get(ctx); err == nil {
			t.Fatalf("opens with byte %d changed: %q", i+1, v)
		}
	}

	// A claim moves it to another record, where it must open; a rotated secret still opens it.
	b := s.browser()
	s.mux.HandleFunc("POST /email", func(w http.ResponseWriter, r *http.Request) { Email.Set(r.Context(), "guest@example.com") })
	b.request("POST", "/email")
	if c := b.login("new"); kept(t, c.Receipt, "email").Outcome != guest.Moved {
		t.Errorf("%+v", c)
	}
	rotated := newSite(t, func(c *guest.Config) {
		c.Store = s.store
		c.Secrets = [][]byte{[]byte("a newer secret of 32 bytes......"), secret}
	})
	if v, err := Email.Get(rotated.guests.As(t.Context(), "new")); v != "guest@example.com" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	removed := newSite(t, func(c *guest.Config) {
		c.Store = s.store
		c.Secrets = [][]byte{[]byte("a newer secret of 32 bytes......")}
	})
	if v, err := Email.Get(removed.guests.As(t.Context(), "new")); err == nil || !strings.Contains(err.Error(), "Config.Secrets") {
		t.Errorf("%q, %v", v, err)
	}
}

func TestAKindWhoseTypeChanged(t *testing.T) {
	s := newSite(t, nil)
	ctx := s.guests.As(t.Context(), "ann")
	Theme.Set(ctx, "dark")
	type look struct{ Dark bool }
	changed := guest.NewValue("theme", guest.PreferAccount[look])
	next := newSite(t, func(c *guest.Config) { c.Store = s.store; c.Data = []guest.Kind{changed} })
	if _, err := changed.Get(next.guests.As(t.Context(), "ann")); !errors.Is(err, guest.ErrInvalid) || !strings.Contains(err.Error(), "choose a new name") {
		t.Errorf("%v", err)
	}
	next.mux.HandleFunc("POST /look", func(w http.ResponseWriter, r *http.Request) { changed.Set(r.Context(), look{true}) })
	b := next.browser()
	b.request("POST", "/look")
	c := b.login("ann")
	if k := kept(t, c.Receipt, "theme"); k.Outcome != guest.Dropped || k.DroppedItems != 0 && k.DroppedItems != 1 {
		t.Errorf("%+v", k)
	}
	if v, err := Theme.Get(ctx); v != "dark" || err != nil {
		t.Errorf("the account's data changed: %q, %v", v, err)
	}
}

// A kind that was a Value and is a Map or Counters now, under the same name, does not hold up claims.
func TestAKindThatBecameAnother(t *testing.T) {
	s := newSite(t, nil)
	b := s.browser()
	b.add("tea")
	id := b.page().Guest
	s.store.Update(t.Context(), "g:"+id, guest.Update{Set: guest.Fields{"cart": "5", "theme/old": `"x"`, "theme": `"dark"`}})
	Cart.Add(s.guests.As(t.Context(), "ann"), "cup", 1)
	if p := b.page(); p.Cart["tea"] != 1 || len(p.Cart) != 1 || p.Theme != "dark" || p.Err != "" {
		t.Errorf("%+v", p)
	}
	if c := b.login("ann"); c.Err != "" || c.Receipt.Pending || kept(t, c.Receipt, "cart").ResultTotal != 2 || kept(t, c.Receipt, "theme").Outcome != guest.Moved {
		t.Errorf("%+v", c)
	}
	if got := s.account("ann"); len(got) != 2 {
		t.Errorf("%v", got)
	}
}

// Whatever the string, it is stored as encoding/json writes it, and read back.
func TestStringsAreJSON(t *testing.T) {
	store := memstore.New(memstore.Config{})
	m, _ := guest.New(guest.Config{Store: store, Secrets: [][]byte{secret}, Data: []guest.Kind{Theme}})
	ctx := m.As(t.Context(), "ann")
	for _, s := range []string{"", "dark", "a b~!", `"`, `\`, `\u0041`, "<b>&", "naïve", "\x7f", "\n", "\xff", "\u2028", `"dark"`} {
		if err := Theme.Set(ctx, s); err != nil {
			t.Fatal(err)
		}
		want, _ := json.Marshal(s)
		var stored string
		for key := range store.Keys(ctx, "a:") {
			fields, _ := store.Get(ctx, key)
			stored = fields["theme"]
		}
		if stored != string(want) {
			t.Errorf("%q is stored as %s, want %s", s, stored, want)
		}
		var back string
		json.Unmarshal(want, &back)
		if have, err := Theme.Get(ctx); have != back || err != nil {
			t.Errorf("%q is read as %q, %v", s, have, err)
		}
	}
	for _, broken := range []string{`"`, `""x"`, `x"`, `"xy`, `"\"`} {
		for key := range store.Keys(ctx, "a:") {
			store.Update(ctx, key, guest.Update{Set: guest.Fields{"theme": broken}})
		}
		if have, err := Theme.Get(ctx); !errors.Is(err, guest.ErrInvalid) {
			t.Errorf("%s is read as %q, %v", broken, have, err)
		}
	}
}

// What was prefetched of one Manager's visitor does not answer for another's, though both have the same guest.
func TestPrefetchIsOneManagers(t *testing.T) {
	one, two := newSite(t, nil), newSite(t, nil) // the same secret and cookie; each has a store of its own
	cookie := one.newcomer("tea")
	for s, theme := range map[*site]string{one: "dark", two: "light"} {
		r := httptest.NewRequest("POST", "/theme/"+theme, nil)
		r.Header.Set("Cookie", cookie)
		s.guests.Middleware(s.mux).ServeHTTP(httptest.NewRecorder(), r)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", cookie)
	one.guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, err := guest.Prefetch(r.Context(), Theme)
		if err != nil {
			t.Fatal(err)
		}
		two.guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if got, err := Theme.Get(r.Context()); got != "light" || err != nil {
				t.Errorf("the other app reads %q, %v", got, err)
			}
		})).ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx))
	})).ServeHTTP(httptest.NewRecorder(), r)
}

type (
	hidden   struct{ _ string }
	byMethod struct{ sku string }
	halfway  struct{ sku string }
	tree     struct{ Left, Right *tree }
	embeds   struct{ inner }
	inner    struct{ Sku string }
)

func (b byMethod) MarshalText() ([]byte, error)     { return []byte(b.sku), nil }
func (b *byMethod) UnmarshalText(text []byte) error { b.sku = string(text); return nil }
func (h *halfway) MarshalJSON() ([]byte, error)     { return json.Marshal(h.sku) }
func (h *halfway) UnmarshalJSON(text []byte) error  { return json.Unmarshal(text, &h.sku) }

// New refuses types that would come back empty or not at all, and no others.
func TestTypesThatJSONCannotKeep(t *testing.T) {
	for name, tt := range map[string]struct {
		kind guest.Kind
		want string // in the error; "": none
	}{
		"no exported field":             {guest.NewValue("k", guest.PreferGuest[hidden]), "hidden has no exported field"},
		"in a map's items":              {guest.NewMap("k", guest.EachItem(guest.PreferGuest[hidden])), "hidden has no exported field"},
		"in a slice":                    {guest.NewValue("k", guest.PreferGuest[[]hidden]), "hidden has no exported field"},
		"in a pointer":                  {guest.NewValue("k", guest.PreferGuest[*hidden]), "hidden has no exported field"},
		"in a field":                    {guest.NewValue("k", guest.PreferGuest[struct{ H hidden }]), "H: guest_test.hidden has no exported field"},
		"a marshaler of pointers alone": {guest.NewValue("k", guest.PreferGuest[halfway]), "halfway has no exported field"},
		"a channel":                     {guest.NewValue("k", guest.PreferGuest[chan int]), "has no form in JSON"},
		"a function in a field":         {guest.NewValue("k", guest.PreferGuest[struct{ F func() }]), "F: func() has no form in JSON"},
		"keys":                          {guest.NewValue("k", guest.PreferGuest[map[hidden]int]), "keys that JSON does not know"},
		"a time":                        {guest.NewValue("k", guest.PreferGuest[time.Time]), ""},
		"a time in a field":             {guest.NewValue("k", guest.PreferGuest[struct{ At time.Time }]), ""},
		"a marshaler of its own":        {guest.NewValue("k", guest.PreferGuest[byMethod]), ""},
		"a pointer to a marshaler":      {guest.NewValue("k", guest.PreferGuest[*halfway]), ""},
		"a set":                         {guest.NewMap("k", guest.EachItem(guest.PreferGuest[struct{}])), ""},
		"a type that contains itself":   {guest.NewValue("k", guest.PreferGuest[tree]), ""},
		"an embedded struct":            {guest.NewValue("k", guest.PreferGuest[embeds]), ""},
		"anything":                      {guest.NewValue("k", guest.PreferGuest[any]), ""},
		"raw JSON":                      {guest.NewValue("k", guest.PreferGuest[json.RawMessage]), ""},
		"a large number":                {guest.NewValue("k", guest.PreferGuest[*big.Int]), ""},
		"a field that is left out": {guest.NewValue("k", guest.PreferGuest[struct {
			A int
			F func() `json:"-"`
		}]), ""},
	} {
		_, err := guest.New(guest.Config{Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Data: []guest.Kind{tt.kind}})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}
