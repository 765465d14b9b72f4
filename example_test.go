package guest_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// exampleGuests is a manager as an app makes it at start.
func exampleGuests() *guest.Manager {
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Data:    []guest.Kind{Theme, Cart, Wishes, Email},
		Account: func(r *http.Request) string { return r.Header.Get("User") },
	})
	if err != nil {
		log.Fatal(err)
	}
	return guests
}

// visit sends one request of a browser through the app and keeps its cookies.
func visit(app http.Handler, jar map[string]*http.Cookie, method, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for _, c := range jar {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	app.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if jar[c.Name] = c; c.MaxAge < 0 {
			delete(jar, c.Name)
		}
	}
	return w
}

func Example() {
	guests := exampleGuests()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) {
		n, err := Cart.Add(r.Context(), r.PathValue("sku"), 1) // the same line for guests and members
		fmt.Println(n, err)
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		user := "ann" // the app has checked the password
		receipt, err := guests.Claim(w, r, user)
		fmt.Println(receipt.Claimed, receipt.Kinds[0].Name, receipt.Kinds[0].Outcome, err)
	})
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "POST", "/cart/tea")
	visit(app, browser, "POST", "/cart/tea")
	visit(app, browser, "POST", "/login")
	fmt.Println(Cart.Get(guests.As(context.Background(), "ann"), "tea"))
	// Output:
	// 1 <nil>
	// 2 <nil>
	// true cart moved <nil>
	// 2 <nil>
}

func ExampleNew_faults() {
	_, err := guest.New(guest.Config{Secrets: [][]byte{[]byte("too short")}})
	fmt.Println(err)
	// Output:
	// guest: Config.Store: is missing (use redisstore.New(client, redisstore.Config{}) or memstore.New(memstore.Config{}))
	// guest: Config.Secrets: secret 0 has 9 bytes (use at least 32 random bytes)
}

func ExampleManager_Middleware() {
	guests := exampleGuests()
	app := guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := guest.FromContext(r.Context())
		fmt.Println("guest:", v.IsGuest(), "new:", v.IsNew())
	}))
	browser := map[string]*http.Cookie{}
	visit(app, browser, "GET", "/")
	visit(app, browser, "GET", "/")
	// Output:
	// guest: true new: true
	// guest: true new: false
}

func ExampleManager_Identify() {
	guests := exampleGuests()
	// An adapter for a framework whose middleware is no func(http.Handler) http.Handler:
	adapter := func(w http.ResponseWriter, r *http.Request, next func(*http.Request)) {
		next(guests.Identify(w, r))
	}
	adapter(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil), func(r *http.Request) {
		fmt.Println(guest.FromContext(r.Context()).IsGuest())
	})
	// Output: true
}

func ExampleManager_Claim() {
	guests := exampleGuests()
	login := func(w http.ResponseWriter, r *http.Request) {
		user := struct{ ID string }{"ann"}          // the app has checked the password, the code, the link or the OAuth token
		receipt, err := guests.Claim(w, r, user.ID) // never a reason to fail the login
		if err != nil {
			log.Print(err)
		}
		for _, kind := range receipt.Kinds {
			fmt.Printf("%s: %d of yours, %d there before, %d now\n", kind.Name, kind.GuestTotal, kind.AccountTotal, kind.ResultTotal)
		}
	}
	Cart.Set(guests.As(context.Background(), "ann"), "cup", 2)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), r.PathValue("sku"), 3) })
	mux.HandleFunc("POST /login", login)
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "POST", "/cart/tea")
	visit(app, browser, "POST", "/login")
	// Output: cart: 3 of yours, 2 there before, 5 now
}

func ExampleWith() {
	guests := exampleGuests()
	account := guests.As(context.Background(), "ann")
	Theme.Set(account, "light")
	mux := http.NewServeMux()
	mux.HandleFunc("POST /theme", func(w http.ResponseWriter, r *http.Request) { Theme.Set(r.Context(), "dark") })
	mux.HandleFunc("POST /checkout", func(w http.ResponseWriter, r *http.Request) {
		guests.Claim(w, r, "ann", guest.With(Theme, guest.PreferGuest[string])) // what was just chosen wins
	})
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "POST", "/theme")
	visit(app, browser, "POST", "/checkout")
	fmt.Println(Theme.Get(account))
	// Output: dark <nil>
}

func ExampleManager_ClaimHandler() {
	guests := exampleGuests()
	mux := http.NewServeMux()
	mux.Handle("/claim", guests.ClaimHandler(func(r *http.Request) (string, error) {
		return "", errors.New("nobody is signed in") // the app's own session says who
	}))
	fmt.Println(visit(guests.Middleware(mux), map[string]*http.Cookie{}, "POST", "/claim").Code)
	// Output: 401
}

func ExampleManager_Ticket() {
	guests := exampleGuests()
	var link string
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), r.PathValue("sku"), 1) })
	mux.HandleFunc("POST /send-link", func(w http.ResponseWriter, r *http.Request) {
		link, _ = guests.Ticket(r.Context(), "ann@example.com", 15*time.Minute) // goes into the e-mail
	})
	mux.HandleFunc("POST /open-link", func(w http.ResponseWriter, r *http.Request) { // in any browser
		receipt, err := guests.ClaimTicket(w, r, link, "ann@example.com", "ann")
		fmt.Println(receipt.Claimed, err)
	})
	app := guests.Middleware(mux)
	laptop, phone := map[string]*http.Cookie{}, map[string]*http.Cookie{}
	visit(app, laptop, "POST", "/cart/tea")
	visit(app, laptop, "POST", "/send-link")
	visit(app, phone, "POST", "/open-link")
	fmt.Println(Cart.All(guests.As(context.Background(), "ann")))
	// Output:
	// true <nil>
	// map[tea:1] <nil>
}

func ExampleManager_Preview() {
	guests := exampleGuests()
	Cart.Set(guests.As(context.Background(), "ann"), "tea", 1)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), r.PathValue("sku"), 1) })
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		receipt, err := guests.Preview(r.Context(), "ann") // to ask: keep both, this browser's or the account's?
		fmt.Println(receipt.Kinds[0].GuestTotal, receipt.Kinds[0].AccountTotal, receipt.Kinds[0].ResultTotal, err)
	})
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "POST", "/cart/tea")
	visit(app, browser, "GET", "/login")
	// Output: 1 1 2 <nil>
}

func ExampleManager_As() {
	guests := exampleGuests()
	ctx := guests.As(context.Background(), "ann") // in a job, without a request
	Cart.Add(ctx, "gift", 1)
	fmt.Println(Cart.All(ctx))
	// Output: map[gift:1] <nil>
}

func ExampleManager_Recover() {
	guests := exampleGuests()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go guests.Run(ctx, time.Minute) // in one process or in all of them

	fmt.Println(guests.Recover(ctx)) // or once, by hand
	// Output: 0 <nil>
}

func ExampleManager_Export() {
	guests := exampleGuests()
	ctx := guests.As(context.Background(), "ann")
	Theme.Set(ctx, "dark")
	Cart.Add(ctx, "tea", 2)
	data, err := guests.Export(ctx)
	fmt.Printf("%s %s %v\n", data["theme"], data["cart"], err)
	fmt.Println(guests.EraseAccount(ctx, "ann"))
	// Output:
	// "dark" {"tea":2} <nil>
	// <nil>
}

func ExampleManager_Forget() {
	guests := exampleGuests()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), r.PathValue("sku"), 1) })
	mux.HandleFunc("POST /forget-me", func(w http.ResponseWriter, r *http.Request) { fmt.Println(guests.Forget(w, r)) })
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "POST", "/cart/tea")
	visit(app, browser, "POST", "/forget-me")
	fmt.Println(len(browser), "cookies")
	// Output:
	// <nil>
	// 0 cookies
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

func ExampleMap() {
	ctx := exampleGuests().As(context.Background(), "ann")
	Wishes.Set(ctx, "pot", wish{Note: "blue"})
	fmt.Println(Wishes.Get(ctx, "pot"))
	fmt.Println(Wishes.All(ctx))
	// Output:
	// {blue} <nil>
	// map[pot:{blue}] <nil>
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

func ExampleValue_Update_incorrect() {
	ctx := exampleGuests().As(context.Background(), "ann")
	// Reading and then writing loses what another request writes in between. Use Update, or Counters.Add.
	theme, _ := Theme.Get(ctx)
	Theme.Set(ctx, theme+" blue")
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

func ExampleEachItem() {
	rule := guest.EachItem(guest.Max[int64])
	fmt.Println(rule(map[string]int64{"tea": 2, "cup": 1}, map[string]int64{"tea": 3, "pot": 1}))
	// Output: map[cup:1 pot:1 tea:3]
}

func ExampleAll() {
	admit := guest.All(guest.Browsers, guest.Limit(time.Minute, 20, nil))
	fmt.Println(admit(httptest.NewRequest("GET", "/", nil)), admit(httptest.NewRequest("HEAD", "/", nil)))
	// Output: true false
}

// Where the law asks for consent first: nothing is set or stored before the visitor's yes, and a no takes it back.
func ExampleConfig_consent() {
	store := memstore.New(memstore.Config{})
	guests, err := guest.New(guest.Config{
		Store:   store,
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Data:    []guest.Kind{Theme},
		Admit: guest.All(guest.Browsers, func(r *http.Request) bool {
			c, err := r.Cookie("consent") // your banner's
			return err == nil && c.Value == "yes"
		}),
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /theme", func(w http.ResponseWriter, r *http.Request) {
		if err := Theme.Set(r.Context(), "dark"); errors.Is(err, guest.ErrNotAdmitted) {
			fmt.Println("not kept")
		}
	})
	mux.HandleFunc("POST /consent/{answer}", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "consent", Value: r.PathValue("answer"), Path: "/", MaxAge: 180 * 24 * 3600})
		if r.PathValue("answer") == "no" {
			if err := guests.Forget(w, r); err != nil { // the visitor may try again
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
		}
	})
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	show := func() { fmt.Println(len(browser), "cookies,", store.Len(), "records") }
	visit(app, browser, "POST", "/theme")
	show()
	visit(app, browser, "POST", "/consent/yes")
	visit(app, browser, "POST", "/theme")
	show()
	visit(app, browser, "POST", "/consent/no")
	visit(app, browser, "POST", "/theme")
	show()
	// Output:
	// not kept
	// 0 cookies, 0 records
	// 2 cookies, 1 records
	// not kept
	// 1 cookies, 1 records
}

func ExampleLimit() {
	everybody := func(*http.Request) netip.Addr { return netip.Addr{} } // one client, so one limit for all
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Admit: guest.All(
			guest.Browsers,                          // first, so that crawlers use nothing up
			guest.Limit(time.Minute, 2, nil),        // per client
			guest.Limit(time.Second, 50, everybody), // and in all, should a flood come from everywhere
		),
	})
	if err != nil {
		log.Fatal(err)
	}
	app := guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("served, guest:", guest.FromContext(r.Context()).IsGuest())
	}))
	for range 3 {
		visit(app, map[string]*http.Cookie{}, "GET", "/") // without a cookie
	}
	// Output:
	// served, guest: true
	// served, guest: true
	// served, guest: false
}

// Behind a proxy, the client is who the proxy says it is, and nobody else may say so.
func ExampleLimit_proxy() {
	client := func(r *http.Request) netip.Addr {
		hops := strings.Split(r.Header.Get("X-Forwarded-For"), ",")
		addr, _ := netip.ParseAddr(strings.TrimSpace(hops[len(hops)-1])) // the last one is the proxy's word
		return addr
	}
	admit := guest.All(guest.Browsers, guest.Limit(time.Minute, 1, client))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Forwarded-For", "198.51.100.7, 192.0.2.1")
	fmt.Println(admit(r), admit(r))
	r.Header.Set("X-Forwarded-For", "a new lie, 192.0.2.1")
	fmt.Println(admit(r))
	// Output:
	// true false
	// false
}

func ExampleFromContext() {
	handler := func(w http.ResponseWriter, r *http.Request) {
		v := guest.FromContext(r.Context())
		switch {
		case v.AccountID() != "":
			fmt.Println("member")
		case v.IsGuest():
			fmt.Println("guest")
		default:
			fmt.Println("nobody: a crawler, or not behind the middleware")
		}
	}
	handler(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	// Output: nobody: a crawler, or not behind the middleware
}
