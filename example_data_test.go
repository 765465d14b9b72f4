package guest_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// processOn is a process of an app whose version declares these kinds.
func processOn(store guest.Store, kinds ...guest.Kind) *guest.Manager {
	guests, err := guest.New(guest.Config{
		Store:   store,
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Data:    kinds,
	})
	if err != nil {
		log.Fatal(err)
	}
	return guests
}

func ExampleNewValue() {
	type settings struct {
		Theme    string `json:"theme"`
		Currency string `json:"currency"`
	}
	// what the account lacks comes from the guest
	prefs := guest.NewValue("settings", func(account, guest settings) settings {
		return settings{cmp.Or(account.Theme, guest.Theme), cmp.Or(account.Currency, guest.Currency)}
	})
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Data:    []guest.Kind{prefs}, // a kind that is not listed cannot be used
	})
	if err != nil {
		log.Fatal(err)
	}
	prefs.Set(guests.As(context.Background(), "ann"), settings{Theme: "light"})
	app := guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		prefs.Set(r.Context(), settings{Theme: "dark", Currency: "EUR"})
		guests.Claim(w, r, "ann")
		fmt.Println(prefs.Get(r.Context()))
	}))
	visit(app, map[string]*http.Cookie{}, "POST", "/")
	// Output: {light EUR} <nil>
}

func ExampleNewMap() {
	type note struct {
		Text string `json:"text"`
	}
	// all items of both; of one in both, the guest's
	notes := guest.NewMap("notes", guest.EachItem(guest.PreferGuest[note]))
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Data:    []guest.Kind{notes},
	})
	if err != nil {
		log.Fatal(err)
	}
	account := guests.As(context.Background(), "ann")
	notes.Set(account, "pot", note{"blue"})
	notes.Set(account, "tea", note{"green"})
	app := guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		notes.Set(r.Context(), "pot", note{"red"})
		notes.Set(r.Context(), "cup", note{"small"})
		guests.Claim(w, r, "ann")
	}))
	visit(app, map[string]*http.Cookie{}, "POST", "/")
	fmt.Println(notes.All(account))
	// Output: map[cup:{small} pot:{red} tea:{green}] <nil>
}

func ExampleNewCounters() {
	cart := guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Data:    []guest.Kind{cart},
	})
	if err != nil {
		log.Fatal(err)
	}
	account := guests.As(context.Background(), "ann")
	cart.Set(account, "tea", 2)
	app := guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cart.Add(r.Context(), "tea", 1)
		cart.Add(r.Context(), "cup", 1)
		guests.Claim(w, r, "ann")
	}))
	visit(app, map[string]*http.Cookie{}, "POST", "/")
	fmt.Println(cart.All(account))
	// Output: map[cup:1 tea:3] <nil>
}

// A rule of one's own: what was viewed last, each once, four at most.
func ExampleMerge() {
	rule := func(account, guest []string) (all []string) {
		for _, sku := range slices.Concat(guest, account) { // the guest's are newer
			if !slices.Contains(all, sku) {
				all = append(all, sku)
			}
		}
		return all[:min(len(all), 4)]
	}
	viewed := guest.NewValue("viewed", rule)
	fmt.Println(viewed.Name(), rule([]string{"tea", "pot", "jar"}, []string{"cup", "tea"}))
	// Output: viewed [cup tea pot jar]
}

func ExamplePreferAccount() {
	theme := guest.NewValue("theme", guest.PreferAccount[string])
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Data:    []guest.Kind{theme},
	})
	if err != nil {
		log.Fatal(err)
	}
	theme.Set(guests.As(context.Background(), "ann"), "light") // Bob has none
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login/{user}", func(w http.ResponseWriter, r *http.Request) {
		theme.Set(r.Context(), "dark")
		guests.Claim(w, r, r.PathValue("user"))
		fmt.Println(theme.Get(r.Context()))
	})
	app := guests.Middleware(mux)
	visit(app, map[string]*http.Cookie{}, "POST", "/login/ann")
	visit(app, map[string]*http.Cookie{}, "POST", "/login/bob")
	// Output:
	// light <nil>
	// dark <nil>
}

func ExamplePreferGuest() {
	sizes := guest.EachItem(guest.PreferGuest[string]) // for NewMap: what was just chosen
	account := map[string]string{"shirt": "M", "shoes": "42"}
	visitor := map[string]string{"shirt": "L"}
	fmt.Println(sizes(account, visitor))
	// Output: map[shirt:L shoes:42]
}

func ExampleSum() {
	cart := guest.EachItem(guest.Sum[int64]) // for NewCounters
	account := map[string]int64{"tea": 2}
	visitor := map[string]int64{"tea": 1, "cup": 1}
	fmt.Println(cart(account, visitor))
	// Output: map[cup:1 tea:3]
}

func ExampleMax() {
	watched := guest.EachItem(guest.Max[time.Duration]) // for NewMap: how far each film was watched
	account := map[string]time.Duration{"film": 20 * time.Minute}
	visitor := map[string]time.Duration{"film": 5 * time.Minute, "trailer": time.Minute}
	fmt.Println(watched(account, visitor))
	// Output: map[film:20m0s trailer:1m0s]
}

func ExampleEachItem() {
	rule := guest.EachItem(guest.Max[int64])
	fmt.Println(rule(map[string]int64{"tea": 2, "cup": 1}, map[string]int64{"tea": 3, "pot": 1}))
	// Output: map[cup:1 pot:1 tea:3]
}

func ExampleValue() {
	ctx := exampleGuests().As(context.Background(), "ann") // or r.Context()
	Theme.Set(ctx, "dark")
	fmt.Println(Theme.Get(ctx))
	Theme.Update(ctx, func(old string) (string, error) { return "very " + old, nil })
	fmt.Println(Theme.Get(ctx))
	Theme.Delete(ctx)
	fmt.Println(Theme.Get(ctx))
	// Output:
	// dark <nil>
	// very dark <nil>
	//  <nil>
}

func ExampleValue_Get() {
	page := exampleGuests().Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		theme, err := Theme.Get(r.Context())
		if err != nil {
			log.Print(err) // the page works without the store, too
		}
		if theme == "" {
			theme = "light"
		}
		fmt.Fprintf(w, "<body class=%q>", theme)
	}))
	fmt.Println(visit(page, map[string]*http.Cookie{}, "GET", "/").Body)
	// Output: <body class="light">
}

func ExampleValue_Set() {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /theme/{theme}", func(w http.ResponseWriter, r *http.Request) {
		if err := Theme.Set(r.Context(), r.PathValue("theme")); err != nil {
			http.Error(w, "This was not saved. Please try again.", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(Theme.Get(r.Context()))
	})
	app, browser := exampleGuests().Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "POST", "/theme/dark")
	visit(app, browser, "GET", "/")
	visit(app, map[string]*http.Cookie{}, "GET", "/") // another visitor
	// Output:
	// dark <nil>
	//  <nil>
}

func ExampleValue_Update() {
	ctx := exampleGuests().As(context.Background(), "ann") // or r.Context()
	toggle := func(theme string) (string, error) {         // may be called again, so it only computes
		switch theme {
		case "dark":
			return "light", nil
		case "", "light":
			return "dark", nil
		}
		return "", errors.New("a theme of one's own stays")
	}
	fmt.Println(Theme.Update(ctx, toggle))
	fmt.Println(Theme.Get(ctx))
	Theme.Set(ctx, "sepia")
	fmt.Println(Theme.Update(ctx, toggle)) // an error changes nothing
	fmt.Println(Theme.Get(ctx))
	// Output:
	// <nil>
	// dark <nil>
	// a theme of one's own stays
	// sepia <nil>
}

func ExampleValue_Update_incorrect() {
	ctx := exampleGuests().As(context.Background(), "ann")
	// Reading and then writing loses what another request writes in between. Use Update, or
	// Counters.Add.
	theme, _ := Theme.Get(ctx)
	Theme.Set(ctx, theme+" blue")
}

func ExampleValue_Delete() {
	ctx := exampleGuests().As(context.Background(), "ann") // or r.Context()
	Theme.Set(ctx, "dark")
	fmt.Println(Theme.Delete(ctx)) // back to the default
	theme, err := Theme.Get(ctx)
	fmt.Printf("%q %v\n", theme, err)
	// Output:
	// <nil>
	// "" <nil>
}

// Personal data are encrypted in the store.
func ExampleValue_Encrypted() {
	email := guest.NewValue("contact", guest.PreferGuest[string]).Encrypted()
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Data:    []guest.Kind{email},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := guests.As(context.Background(), "ann")
	fmt.Println(email.Set(ctx, "ann@example.com"))
	fmt.Println(email.Get(ctx))
	// Output:
	// <nil>
	// ann@example.com <nil>
}

// A value is encrypted from now on; what is stored already is in the clear.
func ExampleValue_InsecureAcceptPlaintext() {
	store := memstore.New(memstore.Config{})
	plain := guest.NewValue("phone", guest.PreferGuest[string])
	plain.Set(processOn(store, plain).As(context.Background(), "ann"), "555 0100")

	encrypted := plain.Encrypted()
	_, err := encrypted.Get(processOn(store, encrypted).As(context.Background(), "ann"))
	fmt.Println(errors.Is(err, guest.ErrUnreadable))

	migrating := encrypted.InsecureAcceptPlaintext() // until all of it has been written anew
	fmt.Println(migrating.Get(processOn(store, migrating).As(context.Background(), "ann")))
	// Output:
	// true
	// 555 0100 <nil>
}

func ExampleMap() {
	ctx := exampleGuests().As(context.Background(), "ann")
	Wishes.Set(ctx, "pot", wish{Note: "blue"})
	fmt.Println(Wishes.Get(ctx, "pot"))
	fmt.Println(Wishes.All(ctx))
	// Output:
	// {blue} <nil>
	// map[pot:{blue}] <nil>
}

func ExampleMap_Get() {
	ctx := exampleGuests().As(context.Background(), "ann") // or r.Context()
	Wishes.Set(ctx, "pot", wish{Note: "blue"})
	fmt.Println(Wishes.Get(ctx, "pot"))
	fmt.Println(Wishes.Get(ctx, "cup")) // none: the zero value
	// Output:
	// {blue} <nil>
	// {} <nil>
}

func ExampleMap_Set() {
	guests := exampleGuests()
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /wishes/{sku}", func(w http.ResponseWriter, r *http.Request) {
		err := Wishes.Set(r.Context(), r.PathValue("sku"), wish{Note: r.FormValue("note")})
		switch {
		case errors.Is(err, guest.ErrInvalid), errors.Is(err, guest.ErrQuota):
			// such as a name of 200 bytes, a list of 300 items
			http.Error(w, "This cannot be on the list.", http.StatusBadRequest)
		case err != nil:
			http.Error(w, "This was not saved. Please try again.", http.StatusServiceUnavailable)
		}
	})
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	fmt.Println(visit(app, browser, "PUT", "/wishes/pot?note=blue").Code)
	fmt.Println(visit(app, browser, "PUT", "/wishes/pot%00?note=blue").Code)
	// Output:
	// 200
	// 400
}

func ExampleMap_SetAll() {
	ctx := exampleGuests().As(context.Background(), "ann") // or r.Context()
	Wishes.Set(ctx, "jar", wish{Note: "large"})
	fmt.Println(Wishes.SetAll(ctx, map[string]wish{"pot": {Note: "blue"}, "cup": {Note: "small"}}))
	fmt.Println(Wishes.All(ctx))
	// Output:
	// <nil>
	// map[cup:{small} jar:{large} pot:{blue}] <nil>
}

func ExampleMap_Update() {
	ctx := exampleGuests().As(context.Background(), "ann") // or r.Context()
	large := func(w wish) (wish, error) {                  // may be called again, so it only computes
		w.Note += " large"
		return w, nil
	}
	Wishes.Set(ctx, "pot", wish{Note: "blue,"})
	fmt.Println(Wishes.Update(ctx, "pot", large))
	fmt.Println(Wishes.Get(ctx, "pot"))
	// Output:
	// <nil>
	// {blue, large} <nil>
}

func ExampleMap_Delete() {
	ctx := exampleGuests().As(context.Background(), "ann") // or r.Context()
	Wishes.Set(ctx, "pot", wish{Note: "blue"})
	Wishes.Set(ctx, "cup", wish{Note: "small"})
	fmt.Println(Wishes.Delete(ctx, "pot"))
	fmt.Println(Wishes.All(ctx))
	// Output:
	// <nil>
	// map[cup:{small}] <nil>
}

func ExampleMap_All() {
	ctx := exampleGuests().As(context.Background(), "ann") // or r.Context()
	Wishes.Set(ctx, "pot", wish{Note: "blue"})
	Wishes.Set(ctx, "cup", wish{Note: "small"})
	wishes, err := Wishes.All(ctx)
	if err != nil {
		log.Print(err) // the list is empty then, and the page works
	}
	for _, sku := range slices.Sorted(maps.Keys(wishes)) { // a map has no order
		fmt.Println(sku, wishes[sku].Note)
	}
	_, has := wishes["jar"]
	fmt.Println("jar:", has)
	// Output:
	// cup small
	// pot blue
	// jar: false
}

func ExampleMap_Clear() {
	ctx := exampleGuests().As(context.Background(), "ann") // or r.Context()
	Theme.Set(ctx, "dark")
	Wishes.Set(ctx, "pot", wish{Note: "blue"})
	Wishes.Set(ctx, "cup", wish{Note: "small"})
	fmt.Println(Wishes.Clear(ctx)) // one step, whatever the number of items
	fmt.Println(Wishes.All(ctx))
	fmt.Println(Theme.Get(ctx)) // another kind stays
	// Output:
	// <nil>
	// map[] <nil>
	// dark <nil>
}

// Addresses are encrypted in the store, the names "home" and "work" are not.
func ExampleMap_Encrypted() {
	addresses := guest.NewMap("addresses", guest.EachItem(guest.PreferGuest[string])).Encrypted()
	store := memstore.New(memstore.Config{})
	guests, err := guest.New(guest.Config{
		Store:   store,
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Data:    []guest.Kind{addresses},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := guests.As(context.Background(), "ann")
	addresses.Set(ctx, "home", "1 Main Street")
	fmt.Println(addresses.Get(ctx, "home"))
	for key := range store.Keys(ctx, "") {
		record, _ := store.Get(ctx, key)
		for field, stored := range record {
			fmt.Println(field, stored == `"1 Main Street"`)
		}
	}
	// Output:
	// 1 Main Street <nil>
	// addresses/home false
}

// A job that encrypts one account's addresses, which were stored in the clear.
func ExampleMap_InsecureAcceptPlaintext() {
	store := memstore.New(memstore.Config{})
	plain := guest.NewMap("addresses", guest.EachItem(guest.PreferGuest[string]))
	plain.Set(processOn(store, plain).As(context.Background(), "ann"), "home", "1 Main Street")

	migrating := plain.Encrypted().InsecureAcceptPlaintext()
	ctx := processOn(store, migrating).As(context.Background(), "ann")
	addresses, err := migrating.All(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for item := range addresses {
		same := func(address string) (string, error) { return address, nil }
		if err := migrating.Update(ctx, item, same); err != nil {
			log.Fatal(err)
		}
	}
	encrypted := plain.Encrypted()
	fmt.Println(encrypted.Get(processOn(store, encrypted).As(context.Background(), "ann"), "home"))
	// Output: 1 Main Street <nil>
}

func ExampleCounters() {
	ctx := exampleGuests().As(context.Background(), "ann")
	fmt.Println(Cart.Add(ctx, "tea", 2))
	fmt.Println(Cart.Add(ctx, "tea", 1))
	fmt.Println(Cart.Add(ctx, "cup", 1))
	Cart.Add(ctx, "tea", -3) // at 0 the item is gone
	fmt.Println(Cart.All(ctx))
	// Output:
	// 2 <nil>
	// 3 <nil>
	// 1 <nil>
	// map[cup:1] <nil>
}

func ExampleCounters_Get() {
	ctx := exampleGuests().As(context.Background(), "ann") // or r.Context()
	Cart.Set(ctx, "tea", 2)
	fmt.Println(Cart.Get(ctx, "tea"))
	fmt.Println(Cart.Get(ctx, "cup"))
	// Output:
	// 2 <nil>
	// 0 <nil>
}

func ExampleCounters_Set() {
	ctx := exampleGuests().As(context.Background(), "ann") // or r.Context()
	Cart.Add(ctx, "tea", 1)
	Cart.Set(ctx, "tea", 5) // what was typed into a form; a button that adds one calls Add
	fmt.Println(Cart.All(ctx))
	Cart.Set(ctx, "tea", 0)
	fmt.Println(Cart.All(ctx))
	// Output:
	// map[tea:5] <nil>
	// map[] <nil>
}

// Sixteen requests at once: none is lost.
func ExampleCounters_Add() {
	ctx := exampleGuests().As(context.Background(), "ann") // or r.Context()
	var clicks sync.WaitGroup
	for range 16 {
		clicks.Go(func() { Cart.Add(ctx, "tea", 1) })
	}
	clicks.Wait()
	fmt.Println(Cart.Add(ctx, "tea", -1))
	// Output: 15 <nil>
}

// "Order this again": all of it gets into the cart, or nothing.
func ExampleCounters_AddAll() {
	ctx := exampleGuests().As(context.Background(), "ann") // or r.Context()
	Cart.Set(ctx, "tea", 1)
	order := map[string]int64{"tea": 2, "cup": 6}
	fmt.Println(Cart.AddAll(ctx, order))
	fmt.Println(Cart.All(ctx))
	// Output:
	// map[cup:6 tea:3] <nil>
	// map[cup:6 tea:3] <nil>
}

// Of each item at most as many as are in stock.
func ExampleCounters_Update() {
	ctx := exampleGuests().As(context.Background(), "ann") // or r.Context()
	stock := map[string]int64{"tea": 5}
	errSoldOut := errors.New("sold out")
	add := func(n int64) (int64, error) { // may be called again, so it only computes
		if n >= stock["tea"] {
			return 0, errSoldOut
		}
		return n + 1, nil
	}
	Cart.Set(ctx, "tea", 4)
	fmt.Println(Cart.Update(ctx, "tea", add))
	fmt.Println(Cart.Update(ctx, "tea", add))
	fmt.Println(Cart.Get(ctx, "tea"))
	// Output:
	// <nil>
	// sold out
	// 5 <nil>
}

// replyLost is a store whose replies to updates are lost: they were made, and nothing says so.
type replyLost struct{ guest.Store }

func (s replyLost) Update(
	ctx context.Context, key string, u guest.Update,
) (guest.Result, error) {
	s.Store.Update(ctx, key, u)
	return guest.Result{}, fmt.Errorf("no answer: %w", guest.ErrUncertain)
}

// What a page answers when a data call fails.
func ExampleErrUnavailable() {
	guests := processOn(replyLost{memstore.New(memstore.Config{})}, Cart)
	add := func(w http.ResponseWriter, r *http.Request) {
		_, err := Cart.Add(r.Context(), "tea", 1)
		switch {
		case err == nil:
			http.Redirect(w, r, "/cart", http.StatusSeeOther)
		case errors.Is(err, guest.ErrUncertain): // the cart shows whether it was added
			http.Redirect(w, r, "/cart", http.StatusSeeOther)
		case errors.Is(err, guest.ErrUnavailable): // it was not, and may be a moment later
			w.Header().Set("Retry-After", "1")
			http.Error(w, "The cart cannot be reached now.", http.StatusServiceUnavailable)
		case errors.Is(err, guest.ErrQuota):
			http.Error(w, "The cart is full.", http.StatusConflict)
		default: // such as ErrInvalid
			http.Error(w, "This cannot be added.", http.StatusUnprocessableEntity)
		}
	}
	cart := func(w http.ResponseWriter, r *http.Request) {
		items, err := Cart.All(r.Context())
		if err != nil { // a page that only shows the cart goes without it
			fmt.Fprintln(w, "The cart cannot be reached now.")
			return
		}
		fmt.Fprintln(w, items)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add", add)
	mux.HandleFunc("GET /cart", cart)
	app, jar := guests.Middleware(mux), map[string]*http.Cookie{}
	fmt.Println(visit(app, jar, "POST", "/add").Header().Get("Location"))
	fmt.Print(visit(app, jar, "GET", "/cart").Body)
	// Output:
	// /cart
	// map[tea:1]
}

func ExampleCounters_Delete() {
	ctx := exampleGuests().As(context.Background(), "ann") // or r.Context()
	Cart.Set(ctx, "tea", 2)
	Cart.Set(ctx, "cup", 1)
	fmt.Println(Cart.Delete(ctx, "tea"))
	fmt.Println(Cart.All(ctx))
	// Output:
	// <nil>
	// map[cup:1] <nil>
}

func ExampleCounters_All() {
	ctx := exampleGuests().As(context.Background(), "ann") // or r.Context()
	Cart.Set(ctx, "tea", 2)
	Cart.Set(ctx, "cup", 1)
	cart, err := Cart.All(ctx)
	if err != nil {
		log.Print(err) // the cart is empty then, and the page works
	}
	for _, sku := range slices.Sorted(maps.Keys(cart)) { // a map has no order
		fmt.Println(cart[sku], "x", sku)
	}
	// Output:
	// 1 x cup
	// 2 x tea
}

func ExampleCounters_Clear() {
	ctx := exampleGuests().As(context.Background(), "ann") // or r.Context()
	Theme.Set(ctx, "dark")
	Cart.Set(ctx, "tea", 2)
	Cart.Set(ctx, "cup", 1)
	fmt.Println(Cart.Clear(ctx)) // one step, whatever the number of items
	fmt.Println(Cart.All(ctx))
	fmt.Println(Theme.Get(ctx)) // another kind stays
	// Output:
	// <nil>
	// map[] <nil>
	// dark <nil>
}

// The wish list was taken out of the app. Guests that still hold one can be claimed all the same.
func ExampleRetired() {
	guests := processOn(memstore.New(memstore.Config{}), Theme, Cart, guest.Retired("wishes"))
	ctx := guests.As(context.Background(), "ann")
	err := Wishes.Set(ctx, "pot", wish{Note: "blue"})
	fmt.Println(errors.Is(err, guest.ErrInvalid)) // it is not in use
	// Output: true
}

func ExamplePrefetch() {
	ctx := exampleGuests().As(context.Background(), "ann")
	Theme.Set(ctx, "dark")
	Cart.Add(ctx, "tea", 2)
	ctx, err := guest.Prefetch(ctx, Theme, Cart) // one round trip for the whole page
	if err != nil {
		log.Print(err)
	}
	fmt.Println(Theme.Get(ctx))
	fmt.Println(Cart.All(ctx))
	// Output:
	// dark <nil>
	// map[tea:2] <nil>
}
