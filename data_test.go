package guest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

func TestValue(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	ctx := s.guests.As(t.Context(), "ann")
	if v, err := Theme.Get(ctx); v != "" || err != nil {
		t.Errorf("none: %q, %v", v, err)
	}
	Theme.Set(ctx, "dark")
	if v, err := Theme.Get(ctx); v != "dark" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	if err := Theme.Update(ctx, func(old string) (string, error) {
		return old + "er", nil
	}); err != nil {
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
	t.Parallel()
	s := newSite(t, nil)
	ctx := s.guests.As(t.Context(), "ann")
	Wishes.Set(ctx, "tea", wish{"green"})
	Wishes.Set(ctx, "pot/large", wish{"blue"})
	Theme.Set(ctx, "dark")
	Wishes.Update(ctx, "tea", func(w wish) (wish, error) { w.Note += ", loose"; return w, nil })
	if w, err := Wishes.Get(ctx, "tea"); w.Note != "green, loose" || err != nil {
		t.Errorf("%v, %v", w, err)
	}
	want := map[string]wish{"tea": {"green, loose"}, "pot/large": {"blue"}}
	if all, err := Wishes.All(ctx); !maps.Equal(all, want) || err != nil {
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
	t.Parallel()
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

// AddAll and SetAll write many items in one step, all or none.
func TestManyItemsInOneStep(t *testing.T) {
	t.Parallel()

	t.Run("AddAll", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		ctx := s.guests.As(t.Context(), "ann")
		Cart.Set(ctx, "tea", 2)
		Cart.Set(ctx, "cup", 1)
		Cart.Set(ctx, "jar", 7)
		Cart.Set(ctx, "lid", 5)
		amounts := map[string]int64{"tea": 3, "cup": -1, "pot": 4, "bag": -2, "jar": 0, "none": 0}
		given := maps.Clone(amounts)
		want := map[string]int64{"tea": 5, "cup": 0, "pot": 4, "bag": -2, "jar": 7, "none": 0}
		if got, err := Cart.AddAll(ctx, amounts); !maps.Equal(got, want) || err != nil {
			t.Errorf("AddAll = %v, %v; want %v", got, err, want)
		}
		if !maps.Equal(amounts, given) {
			t.Errorf("the caller's map became %v", amounts)
		}
		clear(amounts) // it is the caller's
		held := map[string]int64{"tea": 5, "pot": 4, "bag": -2, "jar": 7, "lid": 5}
		if all, err := Cart.All(ctx); !maps.Equal(all, held) || err != nil {
			t.Errorf("the cart is %v, %v; want %v", all, err, held)
		}

		// Only zeros: a read. No items: nothing at all.
		updates := 0
		s.store.on(func(op, _ string, _ guest.Update) error {
			if op == "update" {
				updates++
			}
			return nil
		})
		if got, err := Cart.AddAll(ctx, map[string]int64{"tea": 0, "none": 0}); err != nil ||
			!maps.Equal(got, map[string]int64{"tea": 5, "none": 0}) {
			t.Errorf("zeros: %v, %v", got, err)
		}
		if n := s.store.took(func() {
			if got, err := Cart.AddAll(ctx, nil); got == nil || len(got) != 0 || err != nil {
				t.Errorf("no items: %v, %v", got, err)
			}
		}); n != 0 || updates != 0 {
			t.Errorf("%d round trips for no items, %d writes of nothing", n, updates)
		}
	})

	t.Run("SetAll", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		ctx := s.guests.As(t.Context(), "ann")
		Wishes.Set(ctx, "tea", wish{"green"})
		Wishes.Set(ctx, "jar", wish{"large"})
		items := map[string]wish{"tea": {"black"}, "pot": {"blue"}}
		if err := Wishes.SetAll(ctx, items); err != nil {
			t.Error(err)
		}
		if !maps.Equal(items, map[string]wish{"tea": {"black"}, "pot": {"blue"}}) {
			t.Errorf("the caller's map became %v", items)
		}
		clear(items)
		want := map[string]wish{"tea": {"black"}, "pot": {"blue"}, "jar": {"large"}}
		if all, err := Wishes.All(ctx); !maps.Equal(all, want) || err != nil {
			t.Errorf("%v, %v; want %v", all, err, want)
		}
		if n := s.store.took(func() {
			if err := Wishes.SetAll(ctx, nil); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("%d round trips for no items", n)
		}
	})

	// One item that is refused refuses all, whatever the order in which Go visits the map.
	t.Run("one bad item refuses all", func(t *testing.T) {
		t.Parallel()
		scores := guest.NewMap("scores", guest.EachItem(guest.PreferGuest[float64]))
		s := newSite(t, func(c *guest.Config) { c.Data = append(c.Data, scores) })
		ctx := s.guests.As(t.Context(), "ann")
		const most = 1 << 53
		Cart.Set(ctx, "full", most)
		var key string
		for _, key = range s.store.keys(t, "a:") {
			broken := guest.Update{Set: guest.Fields{"cart/text": "x"}}
			if _, err := s.store.Store.Update(ctx, key, broken); err != nil {
				t.Fatal(err)
			}
		}
		before, _ := s.store.Get(ctx, key)
		for name, bad := range map[string]struct {
			item  string
			n     int64
			trips int
		}{
			"no name":                 {"", 1, 0},
			"a long name":             {strings.Repeat("secret", 22), 1, 0},
			"a name that is no UTF-8": {"secret\xff", 1, 0},
			"too large an amount":     {"secret", most + 1, 0},
			"too small an amount":     {"secret", -most - 1, 0},
			"a sum that is too large": {"full", 1, 1},
			"not a number":            {"text", 1, 1},
			"not a number, only read": {"text", 0, 1},
		} {
			amounts := map[string]int64{"a": 1, "b": 2, "c": 3, bad.item: bad.n}
			var got map[string]int64
			var err error
			n := s.store.took(func() { got, err = Cart.AddAll(ctx, amounts) })
			if !errors.Is(err, guest.ErrInvalid) || got != nil || n != bad.trips ||
				strings.Contains(err.Error(), "secret") {
				t.Errorf("AddAll, %s: %v, %v, %d round trips", name, got, err, n)
			}
			if bad.trips == 0 && bad.n == 1 {
				items := map[string]wish{"a": {}, "b": {}, "c": {}, bad.item: {}}
				n := s.store.took(func() { err = Wishes.SetAll(ctx, items) })
				if !errors.Is(err, guest.ErrInvalid) || n != 0 ||
					strings.Contains(err.Error(), "secret") {
					t.Errorf("SetAll, %s: %v, %d round trips", name, err, n)
				}
			}
		}
		err := scores.SetAll(ctx, map[string]float64{"a": 1, "b": math.NaN(), "c": 3})
		if !errors.Is(err, guest.ErrInvalid) {
			t.Errorf("a value that JSON cannot encode: %v", err)
		}
		if after, _ := s.store.Get(ctx, key); !maps.Equal(after, before) {
			t.Errorf("refused calls made %v of %v", after, before)
		}
	})

	t.Run("the quota refuses all", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, func(c *guest.Config) { c.Quota = guest.Quota{Fields: 4, Bytes: 200} })
		ctx := s.guests.As(t.Context(), "ann")
		Cart.Set(ctx, "tea", 1)
		Wishes.Set(ctx, "pot", wish{"blue"})
		refused := func(what string, trips int, call func() error) {
			t.Helper()
			var err error
			if n := s.store.took(func() { err = call() }); n != trips || !errors.Is(err, guest.ErrQuota) {
				t.Errorf("%s: %v after %d round trips, want %d", what, err, n, trips)
			}
		}
		add := func(ctx context.Context, items ...string) error {
			amounts := map[string]int64{}
			for _, item := range items {
				amounts[item] = 1
			}
			_, err := Cart.AddAll(ctx, amounts)
			return err
		}
		set := func(ctx context.Context, items ...string) error {
			notes := map[string]wish{}
			for _, item := range items {
				notes[item] = wish{"x"}
			}
			return Wishes.SetAll(ctx, notes)
		}
		refused("AddAll", 1, func() error { return add(ctx, "tea", "a", "b", "c") })
		refused("SetAll", 1, func() error { return set(ctx, "pot", "a", "b", "c") })
		refused("SetAll of too many bytes", 1, func() error {
			return Wishes.SetAll(ctx, map[string]wish{"pot": {}, "a": {strings.Repeat("x", 200)}})
		})
		// More than any record holds is not even sent.
		nine := []string{"1", "2", "3", "4", "5", "6", "7", "8", "9"}
		refused("AddAll of nine items", 0, func() error { return add(ctx, nine...) })
		refused("SetAll of nine items", 0, func() error { return set(ctx, nine...) })
		cart, err := Cart.All(ctx)
		wishes, err2 := Wishes.All(ctx)
		if !maps.Equal(cart, map[string]int64{"tea": 1}) ||
			!maps.Equal(wishes, map[string]wish{"pot": {"blue"}}) || err != nil || err2 != nil {
			t.Errorf("after refused calls: %v, %v, %v, %v", cart, err, wishes, err2)
		}
		if err := errors.Join(add(ctx, "tea", "a"), set(ctx, "pot", "b")); err != nil {
			t.Errorf("what fits is refused: %v", err)
		}
		// a new guest, whose first write is another script of redisstore
		s.mux.HandleFunc("POST /five", func(w http.ResponseWriter, r *http.Request) {
			refused("AddAll by a new guest", 1, func() error {
				return add(r.Context(), "1", "2", "3", "4", "5")
			})
		})
		b := s.browser()
		b.request("POST", "/five")
		if p := b.page(); len(p.Cart) != 0 {
			t.Errorf("the new guest has %v", p.Cart)
		}
	})

	t.Run("no visitor", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		other := guest.NewCounters("other", guest.EachItem(guest.Sum[int64]))
		notes := guest.NewMap("notes", guest.EachItem(guest.PreferGuest[string]))
		ann := s.guests.As(t.Context(), "ann")
		for _, n := range []int64{1, 0} {
			_, err := Cart.AddAll(t.Context(), map[string]int64{"tea": n})
			if !errors.Is(err, guest.ErrNoVisitor) {
				t.Errorf("AddAll of %d: %v", n, err)
			}
		}
		_, none := Cart.AddAll(t.Context(), nil)
		for i, err := range []error{
			none, Wishes.SetAll(t.Context(), nil), Wishes.SetAll(t.Context(), map[string]wish{"a": {}}),
		} {
			if !errors.Is(err, guest.ErrNoVisitor) {
				t.Errorf("%d: %v", i, err)
			}
		}
		_, undeclared := other.AddAll(ann, nil)
		for i, err := range []error{undeclared, notes.SetAll(ann, nil)} {
			if !errors.Is(err, guest.ErrInvalid) {
				t.Errorf("a kind that is not declared, %d: %v", i, err)
			}
		}
	})

	// Two hundred items of any visitor: one round trip.
	t.Run("200 items, one round trip", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, func(c *guest.Config) { c.Quota = guest.Quota{Fields: 1000} })
		amounts, notes, want := map[string]int64{}, map[string]wish{}, map[string]int64{}
		for i := range 200 {
			item := fmt.Sprint("item", i)
			amounts[item], notes[item] = int64(i+1), wish{item}
		}
		call := func(ctx context.Context, who string, times int64) {
			t.Helper()
			for item, n := range amounts {
				want[item] = n * times
			}
			if n := s.store.took(func() {
				if got, err := Cart.AddAll(ctx, amounts); !maps.Equal(got, want) || err != nil {
					t.Errorf("%s: AddAll = %v, %v", who, got, err)
				}
			}); n != 1 {
				t.Errorf("%s: AddAll of 200 items takes %d round trips", who, n)
			}
			if n := s.store.took(func() {
				if err := Wishes.SetAll(ctx, notes); err != nil {
					t.Errorf("%s: %v", who, err)
				}
			}); n != 1 {
				t.Errorf("%s: SetAll of 200 items takes %d round trips", who, n)
			}
			if all, err := Wishes.All(ctx); !maps.Equal(all, notes) || err != nil {
				t.Errorf("%s: All = %v, %v", who, all, err)
			}
		}
		var id string
		first := at(s.guests, "", func(w http.ResponseWriter, r *http.Request) {
			call(r.Context(), "a new guest", 1)
			id = guest.FromContext(r.Context()).GuestID()
		})
		at(s.guests, first, func(w http.ResponseWriter, r *http.Request) {
			call(r.Context(), "a guest that comes back", 2)
		})
		call(s.guests.AsGuest(t.Context(), id), "a job for the guest", 3)
		call(s.guests.As(t.Context(), "ann"), "an account", 1)
		call(s.guests.As(t.Context(), "ann"), "an account with data", 2)
		// SetAll as the first write of a new guest
		at(s.guests, "", func(w http.ResponseWriter, r *http.Request) {
			if n := s.store.took(func() {
				if err := Wishes.SetAll(r.Context(), notes); err != nil {
					t.Error(err)
				}
			}); n != 1 {
				t.Errorf("a new guest's SetAll takes %d round trips", n)
			}
		})
	})

	// With a quota that allows them. storetest writes ten thousand.
	t.Run("a thousand items", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, func(c *guest.Config) {
			c.Quota = guest.Quota{Fields: 2000, Bytes: 1 << 20}
		})
		amounts, notes := map[string]int64{}, map[string]wish{}
		for i := range 1000 {
			item := fmt.Sprint("item", i)
			amounts[item], notes[item] = 1, wish{item}
		}
		write := func(ctx context.Context, who string) {
			for times := range int64(2) {
				sums, err := Cart.AddAll(ctx, amounts)
				if err != nil || len(sums) != 1000 || sums["item7"] != times+1 {
					t.Errorf("%s: AddAll returns %d, %v", who, len(sums), err)
				}
			}
			if err := Wishes.SetAll(ctx, notes); err != nil {
				t.Errorf("%s: SetAll: %v", who, err)
			}
			if all, err := Wishes.All(ctx); !maps.Equal(all, notes) || err != nil {
				t.Errorf("%s: SetAll leaves %d, %v", who, len(all), err)
			}
		}
		write(s.guests.As(t.Context(), "ann"), "an account")
		at(s.guests, "", func(_ http.ResponseWriter, r *http.Request) {
			write(r.Context(), "a new guest")
		})
	})

	t.Run("sixteen tabs abreast lose nothing", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		amounts := map[string]int64{}
		for i := range 20 {
			amounts[fmt.Sprint("item", i)] = int64(i + 1)
		}
		s.mux.HandleFunc("POST /add", func(w http.ResponseWriter, r *http.Request) {
			sums, err := Cart.AddAll(r.Context(), amounts)
			for item, n := range sums {
				if n*amounts["item0"] != sums["item0"]*amounts[item] { // of one moment
					t.Errorf("AddAll returns %v, a part of which is older", sums)
				}
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
		})
		b := s.browser()
		b.page()
		b.page()
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for range 25 {
					if res, body := b.request("POST", "/add"); res.StatusCode != 200 {
						t.Errorf("%s: %s", res.Status, body)
					}
				}
			})
		}
		wg.Wait()
		p := b.page()
		for item, n := range amounts {
			if p.Cart[item] != 400*n {
				t.Errorf("%s: 400 additions of %d make %d", item, n, p.Cart[item])
			}
		}
	})

	// Wherever a claim stops, an old tab's items arrive once and together: with the account if the
	// claim had not begun, else with the new guest that the tab's visitor has become.
	t.Run("during a claim", func(t *testing.T) {
		t.Parallel()
		for _, setFirst := range []bool{false, true} {
			duringAClaim(t, setFirst)
		}
	})

	// AsGuest is for jobs, which learn that the guest is no longer there.
	t.Run("of a guest that was claimed", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		b := s.browser()
		b.add("tea")
		ctx := s.guests.AsGuest(t.Context(), b.page().Guest)
		if sums, err := Cart.AddAll(ctx, map[string]int64{"tea": 1, "cup": 1}); sums["tea"] != 2 ||
			err != nil {
			t.Errorf("%v, %v", sums, err)
		}
		b.login("ann")
		_, err := Cart.AddAll(ctx, map[string]int64{"tea": 1, "cup": 1})
		_, err2 := Cart.AddAll(ctx, map[string]int64{"tea": 0, "cup": 0})
		err3 := Wishes.SetAll(ctx, map[string]wish{"tea": {}, "cup": {}})
		for i, err := range []error{err, err2, err3} {
			if !errors.Is(err, guest.ErrClaimed) {
				t.Errorf("%d: %v", i, err)
			}
		}
		if got := s.account("ann"); !maps.Equal(got, map[string]int64{"tea": 2, "cup": 1}) {
			t.Errorf("ann has %v", got)
		}
	})

	// Each item is encrypted for its own field.
	t.Run("encrypted", func(t *testing.T) {
		t.Parallel()
		notes := guest.NewMap("notes", guest.EachItem(guest.PreferGuest[string])).Encrypted()
		store := newStore()
		m := newManager(t, guest.Config{Store: store, Data: []guest.Kind{notes}})
		ctx := m.As(t.Context(), "ann")
		texts := map[string]string{"home": "1 Main Street", "work": "2 High Street"}
		if err := notes.SetAll(ctx, texts); err != nil {
			t.Fatal(err)
		}
		stored := record(t, store, "a:")
		if shown := fmt.Sprint(stored); strings.Contains(shown, "Street") ||
			len(stored["notes/home"]) < len(texts["home"]) {
			t.Errorf("stored %q", stored)
		}
		if all, err := notes.All(ctx); !maps.Equal(all, texts) || err != nil {
			t.Errorf("%v, %v", all, err)
		}
		for key := range store.Keys(ctx, "a:") {
			store.Update(ctx, key, guest.Update{Set: guest.Fields{"notes/work": stored["notes/home"]}})
		}
		if text, err := notes.Get(ctx, "work"); !errors.Is(err, guest.ErrUnreadable) {
			t.Errorf("one item's value opens as another's: %q, %v", text, err)
		}
	})

	t.Run("after Prefetch", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		ctx := s.guests.As(t.Context(), "ann")
		Cart.Set(ctx, "tea", 1)
		fetch := func() context.Context {
			fetched, err := guest.Prefetch(ctx, Cart, Wishes)
			if err != nil {
				t.Fatal(err)
			}
			return fetched
		}
		fetched := fetch()
		if n := s.store.took(func() { // what was prefetched answers a call that only reads
			if sums, err := Cart.AddAll(fetched, map[string]int64{"tea": 0, "cup": 0}); sums["tea"] != 1 ||
				err != nil {
				t.Errorf("%v, %v", sums, err)
			}
		}); n != 0 {
			t.Errorf("%d round trips", n)
		}
		Cart.AddAll(fetched, map[string]int64{"tea": 1, "cup": 1})
		if n, err := Cart.Get(fetched, "tea"); n != 2 || err != nil {
			t.Errorf("after AddAll the prefetched %d is served, %v", n, err)
		}
		fetched = fetch()
		Wishes.SetAll(fetched, map[string]wish{"tea": {"green"}, "cup": {"small"}})
		if w, err := Wishes.Get(fetched, "cup"); w.Note != "small" || err != nil {
			t.Errorf("after SetAll the prefetched %v is served, %v", w, err)
		}
	})
}

// duringAClaim claims a guest again and again. Before each claim's next step an old tab writes many
// items.
func duringAClaim(t *testing.T, setFirst bool) {
	notes := guest.NewMap("notes", guest.EachItem(guest.PreferGuest[string])).Encrypted()
	amounts := map[string]int64{"tea": 1, "cup": 2, "pot": 3}
	texts := map[string]string{"tea": "green", "cup": "small", "pot": "blue"}
	for step := 1; ; step++ {
		store := &spy{Store: newStore()}
		m := newManager(t, guest.Config{
			Store: store, Data: []guest.Kind{Cart, notes}, StoreBudget: time.Hour,
		})
		cookie := at(m, "", adds("tea"))
		cookie = at(m, cookie, adds("tea"))
		done, calls := false, 0
		var late map[string]int64 // what AddAll returns to the old tab
		var lateID string
		store.on(func(op, _ string, _ guest.Update) error {
			if calls++; calls != step || done {
				return nil
			}
			store.on(nil)
			done = true
			r := httptest.NewRequest("POST", "/", nil)
			r.Header.Set("Cookie", cookie)
			m.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				var err, err2 error
				if setFirst {
					err = notes.SetAll(r.Context(), texts)
				}
				late, err2 = Cart.AddAll(r.Context(), amounts)
				if !setFirst {
					err = notes.SetAll(r.Context(), texts)
				}
				if err != nil || err2 != nil {
					t.Fatalf("step %d: %v, %v", step, err, err2)
				}
				lateID = guest.FromContext(r.Context()).GuestID()
			})).ServeHTTP(httptest.NewRecorder(), r)
			return nil
		})
		if _, err := claimBy(m, cookie, "ann"); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		store.on(nil)
		if !done { // the claim has fewer steps
			if step < 7 {
				t.Errorf("a claim of %d steps", step-1)
			}
			break
		}
		ann := m.As(t.Context(), "ann")
		cart, err := Cart.All(ann)
		read, err2 := notes.All(ann)
		if late["tea"] == 1 { // a new guest
			of := m.AsGuest(t.Context(), lateID)
			if !maps.Equal(cart, map[string]int64{"tea": 2}) || len(read) != 0 {
				t.Errorf("step %d: ann has %v and %v of another guest", step, cart, read)
			}
			cart, err = Cart.All(of)
			read, err2 = notes.All(of)
			if !maps.Equal(cart, amounts) {
				t.Errorf("step %d: the new guest has %v", step, cart)
			}
		} else if !maps.Equal(cart, map[string]int64{"tea": 3, "cup": 2, "pot": 3}) {
			t.Errorf("step %d: ann has %v after %v", step, cart, late)
		}
		if !maps.Equal(read, texts) || err != nil || err2 != nil {
			t.Errorf("step %d: the notes are %v, %v, %v", step, read, err, err2)
		}
	}
}

// The names of items are the app's, for example paths: removing "/garden/" leaves "/garden/fern".
func TestAnItemWhoseNameEndsInASlashIsRemovedAlone(t *testing.T) {
	t.Parallel()
	names := []string{"/", "/garden", "/garden/", "/garden/fern", "/garden/fern/"}
	fill := func(t *testing.T, ctx context.Context) {
		for i, name := range names {
			err := errors.Join(Wishes.Set(ctx, name, wish{name}), Cart.Set(ctx, name, int64(i+1)))
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	// is checks that all items of names are there, except the one that was removed.
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
		{"Delete", func(ctx context.Context, item string, _ int64) error {
			return Cart.Delete(ctx, item)
		}},
		{"Set 0", func(ctx context.Context, item string, _ int64) error {
			return Cart.Set(ctx, item, 0)
		}},
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
				guest.With(Wishes, func(account, _ map[string]wish) map[string]wish {
					delete(account, removed)
					return account
				}),
				guest.With(Cart, func(account, _ map[string]int64) map[string]int64 {
					delete(account, removed)
					return account
				}))
			writeClaim(w, receipt, err)
		})
		s.mux.HandleFunc("POST /wish", func(_ http.ResponseWriter, r *http.Request) {
			Wishes.Set(r.Context(), "/pond/", wish{})
		})
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
	t.Parallel()
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
	t.Parallel()
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
		return "mine", Theme.Set(ctx, old+"y") // another write is always quicker
	})
	if !errors.Is(err, guest.ErrConflict) {
		t.Errorf("%v", err)
	}
}

func TestCounters_Update(t *testing.T) {
	t.Parallel()
	errSoldOut := errors.New("sold out")
	upTo := func(stock int64) func(int64) (int64, error) {
		return func(n int64) (int64, error) {
			if n >= stock {
				return 0, errSoldOut
			}
			return n + 1, nil
		}
	}
	to := func(n int64) func(int64) (int64, error) {
		return func(int64) (int64, error) { return n, nil }
	}
	holds := func(t *testing.T, ctx context.Context, want map[string]int64) {
		t.Helper()
		if items, err := Cart.All(ctx); !maps.Equal(items, want) || err != nil {
			t.Errorf("the cart holds %v, %v; want %v", items, err, want)
		}
	}
	t.Run("many at once never pass the limit", func(t *testing.T) {
		s := newSite(t, nil)
		ctx := s.guests.As(t.Context(), "ann")
		Cart.Add(ctx, "cup", 3)
		var added, refused atomic.Int64
		var tabs sync.WaitGroup
		for range 16 {
			tabs.Go(func() {
				for range 5 {
					err := Cart.Update(ctx, "tea", upTo(10))
					for errors.Is(err, guest.ErrConflict) {
						err = Cart.Update(ctx, "tea", upTo(10))
					}
					switch err {
					case nil:
						added.Add(1)
					case errSoldOut:
						refused.Add(1)
					default:
						t.Error(err)
					}
				}
			})
		}
		tabs.Wait()
		if added.Load() != 10 || refused.Load() != 70 {
			t.Errorf("%d added, %d refused", added.Load(), refused.Load())
		}
		holds(t, ctx, map[string]int64{"cup": 3, "tea": 10})
	})
	t.Run("another tab in between", func(t *testing.T) {
		s := newSite(t, nil)
		ctx := s.guests.As(t.Context(), "ann")
		var asked []int64
		err := Cart.Update(ctx, "tea", func(n int64) (int64, error) {
			if asked = append(asked, n); len(asked) == 1 {
				Cart.Add(ctx, "tea", 4)
			}
			return n + 1, nil
		})
		if err != nil || !slices.Equal(asked, []int64{0, 4}) {
			t.Errorf("change was called with %v, want 0 and 4; %v", asked, err)
		}
		holds(t, ctx, map[string]int64{"tea": 5})
	})
	t.Run("0 removes the item", func(t *testing.T) {
		s := newSite(t, func(cfg *guest.Config) { cfg.Quota.Fields = 2 })
		ctx := s.guests.As(t.Context(), "ann")
		Cart.AddAll(ctx, map[string]int64{"tea": 1, "cup": 2})
		for range 2 { // also one that is absent
			if err := Cart.Update(ctx, "tea", to(0)); err != nil {
				t.Error(err)
			}
			holds(t, ctx, map[string]int64{"cup": 2})
		}
		if err := Cart.Set(ctx, "pot", 1); err != nil { // it has left its place
			t.Error(err)
		}
		Cart.Delete(ctx, "pot")
		if err := Cart.Update(ctx, "tea", upTo(1)); err != nil {
			t.Error(err)
		}
		holds(t, ctx, map[string]int64{"cup": 2, "tea": 1})
	})
	t.Run("what is refused changes nothing", func(t *testing.T) {
		s := newSite(t, nil)
		ctx := s.guests.As(t.Context(), "ann")
		Cart.Set(ctx, "tea", 1)
		called := false
		notCalled := func(int64) (int64, error) { called = true; return 1, nil }
		for _, row := range []struct {
			item   string
			change func(int64) (int64, error)
			want   error
		}{
			{"tea", upTo(1), errSoldOut},
			{"tea", to(1<<53 + 1), guest.ErrInvalid},
			{"tea", to(-1<<53 - 1), guest.ErrInvalid},
			{"", notCalled, guest.ErrInvalid},
		} {
			if err := Cart.Update(ctx, row.item, row.change); !errors.Is(err, row.want) {
				t.Errorf("%q: %v, want %v", row.item, err, row.want)
			}
		}
		if err := Cart.Update(t.Context(), "tea", notCalled); !errors.Is(err, guest.ErrNoVisitor) {
			t.Error(err)
		}
		if called {
			t.Error("change was called for a call that is refused")
		}
		holds(t, ctx, map[string]int64{"tea": 1})
	})
	t.Run("two round trips", func(t *testing.T) {
		s := newSite(t, nil)
		ctx := s.guests.As(t.Context(), "ann")
		Cart.Set(ctx, "tea", 1)
		if n := s.store.took(func() { Cart.Update(ctx, "tea", upTo(5)) }); n != 2 {
			t.Errorf("%d round trips", n)
		}
	})
	t.Run("a limit that a claim in between changes", func(t *testing.T) {
		s := newSite(t, nil) // neither the guest nor the account has tea
		claimed := false
		b := newBubble(s.guests, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/add" {
				Cart.Add(r.Context(), "cup", 1)
				return
			}
			err := Cart.Update(r.Context(), "tea", func(int64) (int64, error) {
				limit := int64(2)
				if guest.FromContext(r.Context()).IsGuest() {
					limit = 10
				}
				if !claimed {
					claimed = true
					if _, err := s.guests.Claim(w, r, "ann"); err != nil {
						t.Error(err)
					}
				}
				return limit, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		b.get("/add")
		b.get("/update")
		holds(t, s.guests.As(t.Context(), "ann"), map[string]int64{"cup": 1, "tea": 2})
	})
	t.Run("a claim in between", func(t *testing.T) { // the account's amount counts then
		s := newSite(t, nil)
		Cart.Set(s.guests.As(t.Context(), "ann"), "tea", 7)
		var asked []int64
		b := newBubble(s.guests, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/add" {
				Cart.Add(r.Context(), "tea", 1)
				return
			}
			err := Cart.Update(r.Context(), "tea", func(n int64) (int64, error) {
				if asked = append(asked, n); len(asked) == 1 {
					if _, err := s.guests.Claim(w, r, "ann"); err != nil {
						t.Error(err)
					}
				}
				return n + 1, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		b.get("/add")
		b.get("/update")
		if !slices.Equal(asked, []int64{1, 8}) {
			t.Errorf("change was called with %v, want 1 and 8", asked)
		}
		holds(t, s.guests.As(t.Context(), "ann"), map[string]int64{"tea": 9})
	})
}

func TestPrefetch(t *testing.T) {
	t.Parallel()
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

// What was prefetched for one Manager's visitor is not served to another's, though both have the
// same guest.
func TestPrefetchIsOneManagers(t *testing.T) {
	t.Parallel()
	// the same secret and cookie; each has a store of its own
	one, two := newSite(t, nil), newSite(t, nil)
	cookie := one.confirmedCookie("tea")
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

func TestEncryptedDataIsNeverInTheClear(t *testing.T) {
	t.Parallel()
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
		u := guest.Update{Set: guest.Fields{field: value}}
		if _, err := s.store.Store.Update(t.Context(), key, u); err != nil {
			t.Fatal(err)
		}
	}
	encrypted := fields["email"]
	Email.Set(s.guests.As(t.Context(), "eve"), "eve@example.com")
	for _, key := range s.store.keys(t, "a:") {
		put(key, "email", encrypted) // both records hold ann's now
	}
	if v, err := Email.Get(s.guests.As(t.Context(), "eve")); err == nil {
		t.Errorf("an encrypted value opens in another record: %q", v)
	}
	if v, err := Email.Get(ctx); v != address || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	for i := range len(encrypted) - 1 {
		put(keys[0], "email", encrypted[:i+1]) // truncated
		if v, err := Email.Get(ctx); err == nil {
			t.Fatalf("%d of %d bytes open: %q", i+1, len(encrypted), v)
		}
		put(keys[0], "email", encrypted[:i+1]+string(encrypted[i+1]^1)+encrypted[i+2:])
		if v, err := Email.Get(ctx); err == nil {
			t.Fatalf("opens with byte %d changed: %q", i+1, v)
		}
	}

	// A claim moves the value to another record, where it can be opened. A rotated secret still
	// opens it.
	b := s.browser()
	s.mux.HandleFunc("POST /email", func(w http.ResponseWriter, r *http.Request) {
		Email.Set(r.Context(), "guest@example.com")
	})
	b.request("POST", "/email")
	if c := b.login("new"); kept(t, c.Receipt, "email").Outcome != guest.Moved {
		t.Errorf("%+v", c)
	}
	rotated := newSite(t, func(c *guest.Config) {
		c.Store = s.store
		c.Secrets = [][]byte{[]byte("a newer secret of 32 bytes......"), secret}
	})
	if v, err := Email.Get(rotated.guests.As(t.Context(), "new")); v != "guest@example.com" ||
		err != nil {
		t.Errorf("%q, %v", v, err)
	}
	removed := newSite(t, func(c *guest.Config) {
		c.Store = s.store
		c.Secrets = [][]byte{[]byte("a newer secret of 32 bytes......")}
	})
	if v, err := Email.Get(removed.guests.As(t.Context(), "new")); err == nil ||
		!strings.Contains(err.Error(), "Config.Secrets") {
		t.Errorf("%q, %v", v, err)
	}
}

// Plaintext that was written into the store does not become data of a kind that is encrypted.
func TestAnEncryptedKindRefusesPlaintext(t *testing.T) {
	t.Parallel()
	store := newStore()
	email := guest.NewValue("email", guest.PreferGuest[string]).Encrypted()
	notes := guest.NewMap("notes", guest.EachItem(guest.PreferGuest[string])).Encrypted()
	m := replica(t, store, email, notes)
	lenientEmail, lenientNotes := email.InsecureAcceptPlaintext(), notes.InsecureAcceptPlaintext()
	lenient := replica(t, store, lenientEmail, lenientNotes)
	var id string
	cookie := at(m, "", func(w http.ResponseWriter, r *http.Request) {
		notes.Set(r.Context(), "own", "mine")
		id = guest.FromContext(r.Context()).GuestID()
	})
	plaintext := guest.Fields{"email": `"eve"`, "notes/a": `"planted"`, "notes/b": `"planted"`}
	if _, err := store.Update(t.Context(), "g:"+id, guest.Update{Set: plaintext}); err != nil {
		t.Fatal(err)
	}

	ctx := m.AsGuest(t.Context(), id)
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, guest.ErrUnreadable) || strings.Contains(err.Error(), "planted") ||
			strings.Contains(err.Error(), "eve") {
			t.Errorf("%s: %v", what, err)
		}
	}
	v, err := email.Get(ctx)
	refused("Value.Get returns "+v, err)
	v, err = notes.Get(ctx, "a")
	refused("Map.Get returns "+v, err)
	all, err := notes.All(ctx)
	refused(fmt.Sprint("Map.All returns ", all), err)
	same := func(s string) (string, error) { return s, nil }
	refused("Value.Update", email.Update(ctx, same))
	refused("Map.Update", notes.Update(ctx, "a", same))
	_, err = m.Preview(ctx, "ann")
	refused("Preview", err)
	if v, err := notes.Get(ctx, "own"); v != "mine" || err != nil {
		t.Errorf("what is encrypted reads %q, %v", v, err)
	}
	receipt, err := claimBy(m, cookie, "ann")
	refused("Claim", err)
	if !receipt.Pending {
		t.Errorf("%+v", receipt)
	}

	// A migration: plaintext is read, and the claim and the next write encrypt it.
	if n, err := lenient.Recover(t.Context()); n != 1 || err != nil {
		t.Fatalf("with InsecureAcceptPlaintext %d claims are finished, %v", n, err)
	}
	ann := m.As(t.Context(), "ann")
	if v, err := email.Get(ann); v != "eve" || err != nil {
		t.Errorf("the claim did not encrypt it: %q, %v", v, err)
	}
	if all, err := notes.All(ann); len(all) != 3 || err != nil {
		t.Errorf("the claim did not encrypt the items: %v, %v", all, err)
	}
	for key := range store.Keys(t.Context(), "a:") {
		store.Update(t.Context(), key, guest.Update{Set: guest.Fields{"email": `"old"`}})
	}
	if v, err := lenientEmail.Get(lenient.As(t.Context(), "ann")); v != "old" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	if err := lenientEmail.Update(lenient.As(t.Context(), "ann"), same); err != nil {
		t.Error(err)
	}
	if v, err := email.Get(ann); v != "old" || err != nil {
		t.Errorf("the write did not encrypt it: %q, %v", v, err)
	}
}

// A kind that was a Value and is a Map or Counters now, under the same name, does not hold up
// claims.
func TestAKindThatBecameAnother(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	b := s.browser()
	b.add("tea")
	id := b.page().Guest
	old := guest.Fields{"cart": "5", "theme/old": `"x"`, "theme": `"dark"`}
	s.store.Update(t.Context(), "g:"+id, guest.Update{Set: old})
	Cart.Add(s.guests.As(t.Context(), "ann"), "cup", 1)
	if p := b.page(); p.Cart["tea"] != 1 || len(p.Cart) != 1 || p.Theme != "dark" || p.Err != "" {
		t.Errorf("%+v", p)
	}
	if c := b.login("ann"); c.Err != "" || c.Receipt.Pending ||
		kept(t, c.Receipt, "cart").ResultTotal != 2 ||
		kept(t, c.Receipt, "theme").Outcome != guest.Moved {
		t.Errorf("%+v", c)
	}
	if got := s.account("ann"); len(got) != 2 {
		t.Errorf("%v", got)
	}
}

func TestAKindThatChanges(t *testing.T) {
	t.Parallel()

	t.Run("its type", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, nil)
		ctx := s.guests.As(t.Context(), "ann")
		Theme.Set(ctx, "dark")
		type look struct{ Dark bool }
		changed := guest.NewValue("theme", guest.PreferAccount[look])
		next := newSite(t, func(c *guest.Config) { c.Store = s.store; c.Data = []guest.Kind{changed} })
		if _, err := changed.Get(next.guests.As(t.Context(), "ann")); !errors.Is(err, guest.ErrInvalid) ||
			!strings.Contains(err.Error(), "choose a new name") {
			t.Errorf("%v", err)
		}
		next.mux.HandleFunc("POST /look", func(w http.ResponseWriter, r *http.Request) {
			changed.Set(r.Context(), look{true})
		})
		b := next.browser()
		b.request("POST", "/look")
		c := b.login("ann")
		if k := kept(t, c.Receipt, "theme"); k.Outcome != guest.Dropped || k.DroppedItems != 0 &&
			k.DroppedItems != 1 {
			t.Errorf("%+v", k)
		}
		if v, err := Theme.Get(ctx); v != "dark" || err != nil {
			t.Errorf("the account's data changed: %q, %v", v, err)
		}
	})

	// A Value has become a Map: the guest's field does not fit any more, and the receipt says so.
	t.Run("its shape", func(t *testing.T) {
		t.Parallel()
		store := newStore()
		value, items := guest.NewValue("notes", guest.PreferGuest[string]),
			guest.NewMap("notes", guest.EachItem(guest.PreferGuest[string]))
		before, after := replica(t, store, value), replica(t, store, items)
		cookie := at(before, "", func(w http.ResponseWriter, r *http.Request) {
			value.Set(r.Context(), "x")
		})
		receipt, err := claimBy(after, cookie, "ann")
		want := guest.KindReceipt{Name: "notes", Outcome: guest.Dropped, GuestItems: 1, DroppedItems: 1}
		if body, _ := json.Marshal(receipt.Kinds); err != nil || len(receipt.Kinds) != 1 ||
			receipt.Kinds[0] != want {
			t.Errorf("%s, %v", body, err)
		}
	})

	// What was encrypted can still be read after the kind is not encrypted any more.
	t.Run("and is encrypted no longer", func(t *testing.T) {
		t.Parallel()
		store := newStore()
		plain := guest.NewValue("email", guest.PreferGuest[string])
		encrypted := plain.Encrypted()
		before, after := replica(t, store, encrypted),
			replica(t, store, plain)
		cookie := at(before, "", func(w http.ResponseWriter, r *http.Request) {
			encrypted.Set(r.Context(), "ann@example.com")
		})
		if _, err := claimBy(after, cookie, "ann"); err != nil {
			t.Fatal(err)
		}
		if v, err := plain.Get(after.As(t.Context(), "ann")); v != "ann@example.com" || err != nil {
			t.Errorf("%q, %v", v, err)
		}
	})

	// A kind that is gone for good does not hold up claims, and cannot be used.
	t.Run("and is retired", func(t *testing.T) {
		t.Parallel()
		store := newStore()
		notes := guest.NewMap("notes", guest.EachItem(guest.PreferGuest[string])).Encrypted()
		before := newManager(t, guest.Config{
			Store: store, Secrets: [][]byte{[]byte("a secret that was thrown away...")},
			Data: []guest.Kind{notes},
		})
		undecided, after := replica(t, store, Cart), replica(t, store, guest.Retired("notes"), Cart)
		var id string
		cookie := at(undecided, "", func(w http.ResponseWriter, r *http.Request) {
			Cart.Add(r.Context(), "tea", 1)
			id = guest.FromContext(r.Context()).GuestID()
		})
		notes.Set(before.AsGuest(t.Context(), id), "a", "x")
		notes.Set(before.AsGuest(t.Context(), id), "b", "x")
		notes.Set(before.As(t.Context(), "ann"), "b", "y")
		if receipt, err := claimBy(undecided, cookie, "ann"); !errors.Is(err, guest.ErrUnreadable) ||
			!receipt.Pending {
			t.Fatalf("%+v, %v", receipt, err)
		}
		receipt, err := claimBy(after, cookie, "ann")
		want := guest.KindReceipt{
			Name: "notes", Outcome: guest.Dropped,
			GuestItems: 2, AccountItems: 1, ResultItems: 1, DroppedItems: 2,
		}
		if err != nil || len(receipt.Kinds) != 2 || kept(t, receipt, "notes") != want {
			t.Errorf("%+v, %v, want %+v", receipt, err, want)
		}
		if n, err := Cart.Get(after.As(t.Context(), "ann"), "tea"); n != 1 || err != nil {
			t.Errorf("%d cups, %v", n, err)
		}
		if got := slices.Sorted(maps.Keys(record(t, store, "a:"))); !slices.Contains(got, "notes/b") ||
			slices.Contains(got, "notes/a") {
			t.Errorf("the account's record holds %v", got)
		}
		if err := notes.Set(after.As(t.Context(), "ann"), "a", "x"); !errors.Is(err, guest.ErrInvalid) {
			t.Errorf("a retired kind is written: %v", err)
		}
		_, err = guest.New(guest.Config{
			Store: store, Secrets: [][]byte{secret}, Data: []guest.Kind{guest.Retired("cart"), Cart},
		})
		if err == nil {
			t.Error("a kind is in use and retired")
		}
	})
}

// Every string is stored as encoding/json writes it, and read back.
func TestStringsAreJSON(t *testing.T) {
	t.Parallel()
	store := memstore.New(memstore.Config{})
	m := newManager(t, guest.Config{Store: store, Data: []guest.Kind{Theme}})
	ctx := m.As(t.Context(), "ann")
	for _, s := range []string{
		"", "dark", "a b~!", `"`, `\`, `\u0041`, "<b>&", "naïve", "\x7f", "\n",
		"\xff", "\u2028", `"dark"`,
	} {
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

type (
	hidden   struct{ _ string }
	byMethod struct{ sku string }
	halfway  struct{ sku string }
	tree     struct{ Left, Right *tree }
	embeds   struct{ inner }
	inner    struct{ Sku string }
)

func (b byMethod) MarshalText() ([]byte, error) { return []byte(b.sku), nil }

func (b *byMethod) UnmarshalText(text []byte) error { b.sku = string(text); return nil }

func (h *halfway) MarshalJSON() ([]byte, error) { return json.Marshal(h.sku) }

func (h *halfway) UnmarshalJSON(text []byte) error { return json.Unmarshal(text, &h.sku) }

func valueOf[T any]() guest.Kind { return guest.NewValue("k", guest.PreferGuest[T]) }
func mapOf[T any]() guest.Kind   { return guest.NewMap("k", guest.EachItem(guest.PreferGuest[T])) }

// New refuses types that would come back empty or not at all, and no others.
func TestTypesThatJSONCannotKeep(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		kind guest.Kind
		want string // in the error; "": none
	}{
		"no exported field":           {valueOf[hidden](), "hidden has no exported field"},
		"in a map's items":            {mapOf[hidden](), "hidden has no exported field"},
		"in a slice":                  {valueOf[[]hidden](), "hidden has no exported field"},
		"in a pointer":                {valueOf[*hidden](), "hidden has no exported field"},
		"in a field":                  {valueOf[struct{ H hidden }](), "H: guest_test.hidden has no"},
		"a marshaler of pointers":     {valueOf[halfway](), "halfway has no exported field"},
		"a channel":                   {valueOf[chan int](), "has no form in JSON"},
		"a function in a field":       {valueOf[struct{ F func() }](), "F: func() has no form in JSON"},
		"keys":                        {valueOf[map[hidden]int](), "keys that JSON does not know"},
		"a time":                      {valueOf[time.Time](), ""},
		"a time in a field":           {valueOf[struct{ At time.Time }](), ""},
		"a marshaler of its own":      {valueOf[byMethod](), ""},
		"a pointer to a marshaler":    {valueOf[*halfway](), ""},
		"a set":                       {mapOf[struct{}](), ""},
		"a type that contains itself": {valueOf[tree](), ""},
		"an embedded struct":          {valueOf[embeds](), ""},
		"anything":                    {valueOf[any](), ""},
		"raw JSON":                    {valueOf[json.RawMessage](), ""},
		"a large number":              {valueOf[*big.Int](), ""},
		"a field that is left out": {guest.NewValue("k", guest.PreferGuest[struct {
			A int
			F func() `json:"-"`
		}]), ""},
	} {
		_, err := guest.New(guest.Config{
			Store: newStore(), Secrets: [][]byte{secret}, Data: []guest.Kind{tt.kind},
		})
		if tt.want == "" && err != nil ||
			tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// While two versions of an app run, one of them cannot read all data of a guest. Everything
// arrives, whichever claims first: a claim by the version that cannot is pending until the other
// finishes it.
func TestARollingDeployLosesNothing(t *testing.T) {
	t.Parallel()
	notes := guest.NewMap("notes", guest.EachItem(guest.PreferGuest[string]))
	secretNotes := guest.NewMap("notes", guest.EachItem(guest.PreferGuest[string])).Encrypted()
	newer := []byte("a newer secret of 32 bytes......")
	both := [][]byte{newer, secret}
	type version struct {
		secrets [][]byte
		kinds   []guest.Kind
	}
	for _, row := range []struct {
		name     string
		old, new version
		notes    *guest.Map[string] // of the new one
	}{
		{
			"the old one lacks a kind",
			version{nil, []guest.Kind{Cart}}, version{nil, []guest.Kind{Cart, notes}}, notes,
		},
		{
			"the old one lacks the secret",
			version{nil, []guest.Kind{Cart, secretNotes}},
			version{both, []guest.Kind{Cart, secretNotes}}, secretNotes,
		},
		{
			"the old one encrypts, and meets what is not",
			version{nil, []guest.Kind{Cart, secretNotes}}, version{nil, []guest.Kind{Cart, notes}}, notes,
		},
	} {
		for _, accountHolds := range []bool{false, true} {
			for _, oldFirst := range []bool{false, true} {
				name := fmt.Sprintf("%s/the account holds some: %v/the old one first: %v",
					row.name, accountHolds, oldFirst)
				t.Run(name, func(t *testing.T) {
					store := newStore()
					process := func(v version) *guest.Manager {
						return newManager(t, guest.Config{Store: store, Secrets: v.secrets, Data: v.kinds})
					}
					old, new := process(row.old), process(row.new)
					ann := new.As(t.Context(), "ann")
					want := map[string]string{"first": "guest", "second": "guest"}
					if accountHolds {
						row.notes.Set(ann, "third", "account")
						row.notes.Set(ann, "first", "account")
						want["third"] = "account"
					}
					var id string
					cookie := at(old, "", func(w http.ResponseWriter, r *http.Request) {
						Cart.Add(r.Context(), "tea", 2)
						id = guest.FromContext(r.Context()).GuestID()
					})
					row.notes.Set(new.AsGuest(t.Context(), id), "first", "guest")
					row.notes.Set(new.AsGuest(t.Context(), id), "second", "guest")
					if oldFirst {
						receipt, err := claimBy(old, cookie, "ann")
						if !errors.Is(err, guest.ErrUnreadable) || !receipt.Pending {
							t.Errorf("the old process answers %v, %+v", err, receipt)
						}
						if n, err := old.Recover(t.Context()); n != 0 || !errors.Is(err, guest.ErrUnreadable) {
							t.Errorf("the old process recovers %d, %v", n, err)
						}
						if n, err := new.Recover(t.Context()); n != 1 || err != nil {
							t.Errorf("the new process recovers %d, %v", n, err)
						}
					} else if receipt, err := claimBy(new, cookie, "ann"); err != nil || receipt.Pending {
						t.Errorf("the new process answers %v, %+v", err, receipt)
					}
					for range 2 { // a repetition by either changes nothing
						for _, m := range []*guest.Manager{old, new} {
							if receipt, err := claimBy(m, cookie, "ann"); err != nil || receipt.Pending {
								t.Errorf("repeated: %v, %+v", err, receipt)
							}
						}
					}
					got, err := row.notes.All(ann)
					if !maps.Equal(got, want) || err != nil {
						t.Errorf("the account holds %v, %v, want %v", got, err, want)
					}
					if n, err := Cart.Get(ann, "tea"); n != 2 || err != nil {
						t.Errorf("%d cups, %v", n, err)
					}
				})
			}
		}
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()

	// A struct of the new version has one field more. The old version claims, and its rule returns
	// items as they were: they keep their bytes, including the field that the old version does not
	// know. An item that the rule creates has only what the old version knows.
	t.Run("an older type keeps the bytes of what its rule returned unchanged", func(t *testing.T) {
		t.Parallel()
		type older struct {
			Colour string `json:"colour"`
		}
		type newer struct {
			Colour string `json:"colour"`
			Size   string `json:"size"`
		}
		pick := func(account, guest older) older { // neither changes
			if guest.Colour == "red" {
				return guest
			}
			return account
		}
		shout := func(account, guest older) older { return older{account.Colour + "!"} }
		for name, row := range map[string]struct {
			rule           guest.Merge[older]
			account, guest newer
			want           newer
		}{
			"the account's":         {pick, newer{"blue", "XL"}, newer{"green", "S"}, newer{"blue", "XL"}},
			"the guest's":           {pick, newer{"blue", "XL"}, newer{"red", "S"}, newer{"red", "S"}},
			"equal, as it sees it":  {pick, newer{"red", "XL"}, newer{"red", "S"}, newer{"red", "XL"}},
			"something new of both": {shout, newer{"blue", "XL"}, newer{"red", "S"}, newer{"blue!", ""}},
		} {
			for _, encrypted := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/encrypted: %v", name, encrypted), func(t *testing.T) {
					store := newStore()
					oldValue, newValue := guest.NewValue("look", row.rule),
						guest.NewValue("look", guest.PreferAccount[newer])
					oldMap, newMap := guest.NewMap("looks", guest.EachItem(row.rule)),
						guest.NewMap("looks", guest.PreferAccount[map[string]newer])
					if encrypted {
						oldValue, newValue, oldMap, newMap = oldValue.Encrypted(), newValue.Encrypted(),
							oldMap.Encrypted(), newMap.Encrypted()
					}
					old := replica(t, store, oldValue, oldMap)
					new := replica(t, store, newValue, newMap)
					ann := new.As(t.Context(), "ann")
					newValue.Set(ann, row.account)
					newMap.Set(ann, "pot", row.account)
					newMap.Set(ann, "mine", row.account)
					cookie := at(new, "", func(w http.ResponseWriter, r *http.Request) {
						newValue.Set(r.Context(), row.guest)
						newMap.Set(r.Context(), "pot", row.guest)
						newMap.Set(r.Context(), "yours", row.guest)
					})
					receipt, err := claimBy(old, cookie, "ann")
					if err != nil {
						t.Fatal(err)
					}
					if got, err := newValue.Get(ann); got != row.want || err != nil {
						t.Errorf("the value is %+v, %v, want %+v", got, err, row.want)
					}
					got, err := newMap.All(ann)
					want := map[string]newer{"pot": row.want, "mine": row.account, "yours": row.guest}
					if !maps.Equal(got, want) || err != nil {
						t.Errorf("the map is %+v, %v, want %+v", got, err, want)
					}
					if k := kept(t, receipt, "look"); (k.Outcome == guest.Kept) != (row.want == row.account) {
						t.Errorf("the receipt: %+v", k)
					}
				})
			}
		}
	})

	// An amount that another release wrote in another form keeps its bytes, too.
	t.Run("an unchanged amount keeps its bytes", func(t *testing.T) {
		t.Parallel()
		store := newStore()
		m := replica(t, store, Cart)
		Cart.Add(m.As(t.Context(), "ann"), "cup", 1)
		cookie := at(m, "", adds("tea"))
		for key := range store.Keys(t.Context(), "a:") {
			store.Update(t.Context(), key, guest.Update{Set: guest.Fields{"cart/cup": "+01"}})
		}
		if _, err := claimBy(m, cookie, "ann"); err != nil {
			t.Fatal(err)
		}
		if got := record(t, store, "a:"); got["cart/cup"] != "+01" || got["cart/tea"] != "1" {
			t.Errorf("%v", got)
		}
	})

	t.Run("a rule that panics", func(t *testing.T) {
		t.Parallel()
		broken := guest.NewValue("broken", func(account, guest int) int { panic("a bug") })
		s := newSite(t, func(c *guest.Config) { c.Data = append(c.Data, broken) })
		s.mux.HandleFunc("POST /broken", func(w http.ResponseWriter, r *http.Request) {
			broken.Set(r.Context(), 1)
		})
		broken.Set(s.guests.As(t.Context(), "ann"), 2)
		b := s.browser()
		b.add("tea")
		b.request("POST", "/broken")
		c := b.login("ann")
		if !c.Receipt.Pending ||
			!strings.Contains(c.Err, `data "broken": the merge rule panicked: a bug`) {
			t.Errorf("%+v", c)
		}
		if got := s.account("ann"); len(got) != 0 {
			t.Errorf("half of it was merged: %v", got)
		}
		mended := newSite(t, func(c *guest.Config) {
			c.Store, c.Data = s.store, append(c.Data, guest.NewValue("broken", guest.PreferAccount[int]))
		})
		if n, err := mended.guests.Recover(t.Context()); n != 1 || err != nil ||
			mended.account("ann")["tea"] != 1 {
			t.Errorf("with a mended rule: %d, %v, %v", n, err, mended.account("ann"))
		}
	})

	t.Run("a full account takes no more than twice its quota", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, func(c *guest.Config) { c.Quota = guest.Quota{Fields: 5} })
		var c claimed
		for round := range 3 {
			b := s.browser()
			for i := range 5 {
				b.add(fmt.Sprintf("item-%d-%d", round, i))
			}
			c = b.login("ann")
		}
		if k := kept(t, c.Receipt, "cart"); k.GuestItems != 5 || k.AccountItems != 10 ||
			k.ResultItems != 10 || k.DroppedItems != 5 {
			t.Errorf("the third claim: %+v", k)
		}
		if got := s.account("ann"); len(got) != 10 {
			t.Errorf("%d items", len(got))
		}
	})
}

// An item that grows counts like a new one: a rule that joins texts does not bring an account over
// twice its quota.
func TestItemsThatGrowInAClaimKeepWithinTwiceTheQuota(t *testing.T) {
	t.Parallel()
	join := func(account, guest string) string { return account + guest }
	notes := guest.NewMap("notes", guest.EachItem(join))
	draft := guest.NewValue("draft", join)
	m := newManager(t, guest.Config{
		Store: newStore(), Data: []guest.Kind{notes, draft}, Quota: guest.Quota{Bytes: 16 << 10},
	})
	ann := m.As(t.Context(), "ann")
	var refused int
	for i := range 64 {
		cookie := at(m, "", func(w http.ResponseWriter, r *http.Request) {
			for _, item := range []string{"a", "b", "c"} {
				if err := notes.Set(r.Context(), item, strings.Repeat("x", 4<<10)); err != nil {
					t.Fatal(err)
				}
			}
			if err := draft.Set(r.Context(), strings.Repeat("y", 3<<10)); err != nil {
				t.Fatal(err)
			}
		})
		receipt, err := claimBy(m, cookie, "ann")
		if err != nil {
			t.Fatal(err)
		}
		items, err := notes.All(ann)
		text, err2 := draft.Get(ann)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		size := len(text) + len(items["a"]) + len(items["b"]) + len(items["c"])
		if size > 32<<10 {
			t.Fatalf("after %d claims the account holds %d bytes; twice its quota are %d", i+1, size, 32<<10)
		}
		for _, k := range receipt.Kinds {
			refused += k.DroppedItems
		}
		if k := kept(t, receipt, "notes"); i == 63 && (k.DroppedItems != 3 || k.ResultItems != 3) {
			t.Errorf("the last receipt: %+v", k)
		}
	}
	if refused < 200 {
		t.Errorf("the receipts count %d items that were not taken", refused)
	}
}
