package guest_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// Visitors, and what a Manager does with them.

func ExampleNew() {
	// os.Getenv("GUEST_SECRET"), made by openssl rand -base64 32
	secret, err := base64.StdEncoding.DecodeString("dGhpcyBvbmUgaXMgaW4gdGhlIGRvY3VtZW50YXRpb24=")
	if err != nil {
		log.Fatal(err)
	}
	cart := guest.NewCounters("cart", guest.EachItem(guest.Sum[int64])) // a package variable, in an app
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}), // or redisstore.New
		Secrets: [][]byte{secret},
		Data:    []guest.Kind{cart},
		Account: func(r *http.Request) string { return r.Header.Get("User") }, // your own sessions here
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(cart.Add(r.Context(), r.PathValue("sku"), 1))
	})
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{} // http.ListenAndServe(":8080", app)
	visit(app, browser, "POST", "/cart/tea")
	visit(app, browser, "POST", "/cart/tea")
	// Output:
	// 1 <nil>
	// 2 <nil>
}

// A program that takes its settings from the environment says which of them to change.
func ExampleConfigError() {
	variable := map[string]string{"TTL": "GUEST_TTL", "Secrets": "GUEST_SECRETS"}
	_, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		TTL:     500 * 24 * time.Hour,
	})
	var fault *guest.ConfigError
	if errors.As(err, &fault) { // the first fault; err itself tells all
		fmt.Println(variable[fault.Field], fault.Fault)
	}
	// Output: GUEST_TTL is 12000h0m0s (browsers keep a cookie for at most 400 days)
}

// The app's own rows of the guest follow it to the account.
func ExampleConfig_onClaim() {
	type review struct{ author, text string }
	var reviews []review // a table, in an app
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		OnClaim: func(ctx context.Context, receipt guest.Receipt) error { // on an error it is tried again
			for i := range reviews { // UPDATE reviews SET author = $2 WHERE author = $1
				if reviews[i].author == receipt.GuestID {
					reviews[i].author = receipt.AccountID
				}
			}
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /review", func(w http.ResponseWriter, r *http.Request) {
		reviews = append(reviews, review{guest.FromContext(r.Context()).GuestID(), "good tea"})
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) { guests.Claim(w, r, "ann") })
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "POST", "/review")
	visit(app, browser, "POST", "/login")
	fmt.Println(reviews)
	// Output: [{ann good tea}]
}

func ExampleBrowsers() {
	for _, header := range []http.Header{
		{"User-Agent": {"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}},
		{"User-Agent": {"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"}},
		{"Sec-Fetch-Dest": {"image"}},
		{"Sec-Purpose": {"prefetch"}},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header = header
		fmt.Println(guest.Browsers(r))
	}
	// Output:
	// true
	// false
	// false
	// false
}

// The ID is for the app's own rows and logs.
func ExampleVisitor_GuestID() {
	votes := map[string]string{} // a table, in an app
	app := exampleGuests().Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := guest.FromContext(r.Context()).GuestID()
		if id == "" { // a member, or a crawler
			http.Error(w, "This is for guests.", http.StatusForbidden)
			return
		}
		votes[id] = r.FormValue("for")
	}))
	browser := map[string]*http.Cookie{}
	visit(app, browser, "POST", "/vote?for=tea")
	visit(app, browser, "POST", "/vote?for=tea")
	visit(app, map[string]*http.Cookie{}, "POST", "/vote?for=tea") // somebody else
	fmt.Println(len(votes), "votes")
	// Output: 2 votes
}

func ExampleVisitor_AccountID() {
	guests := exampleGuests()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		v := guest.FromContext(r.Context())
		fmt.Printf("%q\n", v.AccountID())
		guests.Claim(w, r, "ann")
		fmt.Printf("%q\n", v.AccountID()) // for the rest of the request; later it is what Config.Account says
	})
	visit(guests.Middleware(mux), map[string]*http.Cookie{}, "POST", "/login")
	// Output:
	// ""
	// "ann"
}

func ExampleVisitor_IsGuest() {
	page := exampleGuests().Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if guest.FromContext(r.Context()).IsGuest() {
			fmt.Fprint(w, "Sign up to keep your cart. ")
		}
		fmt.Fprint(w, "Welcome.")
	}))
	for _, header := range []http.Header{{}, {"User": {"ann"}}, {"User-Agent": {"Googlebot/2.1"}}} {
		r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
		r.Header = header
		page.ServeHTTP(w, r)
		fmt.Println(w.Body)
	}
	// Output:
	// Sign up to keep your cart. Welcome.
	// Welcome.
	// Welcome.
}

func ExampleVisitor_IsNew() {
	page := exampleGuests().Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if guest.FromContext(r.Context()).IsNew() {
			fmt.Println("The first order is delivered free of charge.")
			return
		}
		fmt.Println("Welcome back.")
	}))
	browser := map[string]*http.Cookie{}
	visit(page, browser, "GET", "/")
	visit(page, browser, "GET", "/")
	// Output:
	// The first order is delivered free of charge.
	// Welcome back.
}

func ExampleVisitor_Replaced() {
	guests := exampleGuests()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), r.PathValue("sku"), 1) })
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) { guests.Claim(w, r, "ann") })
	mux.HandleFunc("GET /cart", func(w http.ResponseWriter, r *http.Request) {
		cart, _ := Cart.All(r.Context())
		if guest.FromContext(r.Context()).Replaced() { // asked after reading
			fmt.Println("Your cart is in your account: sign in.")
		}
		fmt.Println(cart)
	})
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "POST", "/cart/tea")
	old := maps.Clone(browser) // the login's response never arrived
	visit(app, browser, "POST", "/login")
	visit(app, old, "GET", "/cart")
	// Output:
	// Your cart is in your account: sign in.
	// map[]
}

// In a job, for the guests that the app has rows of.
func ExampleManager_AsGuest() {
	guests := exampleGuests()
	var orders []string // the guests' IDs; a column of a table, in an app
	app := guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 2)
		orders = append(orders, guest.FromContext(r.Context()).GuestID())
	}))
	visit(app, map[string]*http.Cookie{}, "POST", "/order")
	for _, id := range orders {
		fmt.Println(Cart.All(guests.AsGuest(context.Background(), id)))
	}
	// Output: map[tea:2] <nil>
}

// A code by SMS, which may be typed in another browser: the ticket waits with it.
func ExampleManager_ClaimTicket() {
	guests := exampleGuests()
	var ticket string
	mux := http.NewServeMux()
	mux.HandleFunc("POST /send-code/{number}", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 1)
		ticket, _ = guests.Ticket(r.Context(), r.PathValue("number"), 10*time.Minute)
	})
	mux.HandleFunc("POST /code/{number}", func(w http.ResponseWriter, r *http.Request) { // the app has checked the code
		receipt, err := guests.ClaimTicket(w, r, ticket, r.PathValue("number"), "ann")
		if errors.Is(err, guest.ErrTicket) {
			fmt.Println("signed in, without the cart")
			return
		}
		fmt.Println("claimed:", receipt.Claimed, "again:", receipt.Replayed)
	})
	app := guests.Middleware(mux)
	visit(app, map[string]*http.Cookie{}, "POST", "/send-code/15550100")
	visit(app, map[string]*http.Cookie{}, "POST", "/code/15550199") // another's
	visit(app, map[string]*http.Cookie{}, "POST", "/code/15550100")
	visit(app, map[string]*http.Cookie{}, "POST", "/code/15550100")
	// Output:
	// signed in, without the cart
	// claimed: true again: false
	// claimed: true again: true
}

// A resolver or an RPC has a context and no request.
func ExampleManager_ClaimTicketContext() {
	guests := exampleGuests()
	var ticket string
	signIn := func(ctx context.Context, state string) error { // the provider has said who this is
		receipt, err := guests.ClaimTicketContext(ctx, ticket, state, "ann") // never a reason to fail the login
		fmt.Println(receipt.AccountID, receipt.Claimed)
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /start", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 1)
		ticket, _ = guests.Ticket(r.Context(), "a random state", 10*time.Minute) // kept with the state
	})
	mux.HandleFunc("POST /rpc", func(w http.ResponseWriter, r *http.Request) { fmt.Println(signIn(r.Context(), "a random state")) })
	app := guests.Middleware(mux)
	visit(app, map[string]*http.Cookie{}, "POST", "/start")
	visit(app, map[string]*http.Cookie{}, "POST", "/rpc")
	// Output:
	// ann true
	// <nil>
}

// A resolver or an RPC has a context and no request.
func ExampleManager_ForgetContext() {
	guests := exampleGuests()
	forgetMe := func(ctx context.Context) error { return guests.ForgetContext(ctx) }
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), r.PathValue("sku"), 1) })
	mux.HandleFunc("POST /rpc", func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(forgetMe(r.Context()))
		fmt.Println(Cart.All(r.Context()))
	})
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "POST", "/cart/tea")
	visit(app, browser, "POST", "/rpc")
	fmt.Println(len(browser), "cookies")
	// Output:
	// <nil>
	// map[] <nil>
	// 0 cookies
}

// What to tell the visitor after a login.
func ExampleReceipt() {
	guests := exampleGuests()
	tell := func(receipt guest.Receipt) string {
		switch {
		case receipt.Pending:
			return "Your cart follows in a moment."
		case receipt.Replayed: // a double click
			return "Your cart is here."
		}
		for _, kind := range receipt.Kinds {
			if kind.Name == Cart.Name() && kind.Outcome == guest.Merged {
				return fmt.Sprintf("%d items joined the %d in your cart.", kind.GuestTotal, kind.AccountTotal)
			}
		}
		return "Welcome."
	}
	Cart.Set(guests.As(context.Background(), "ann"), "cup", 2)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), r.PathValue("sku"), 3) })
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		receipt, err := guests.Claim(w, r, "ann")
		if err != nil {
			log.Print(err)
		}
		fmt.Println(tell(receipt))
	})
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "POST", "/cart/tea")
	visit(app, maps.Clone(browser), "POST", "/login")
	visit(app, maps.Clone(browser), "POST", "/login") // the same cookies again
	// Output:
	// 3 items joined the 2 in your cart.
	// Your cart is here.
}

// The site was on www.shop.example alone, and has guests whose cookies are of that scope.
func ExampleConfig_formerCookies() {
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Data:    []guest.Kind{Cart},

		Cookie:        guest.Cookie{Domain: "shop.example"},
		FormerCookies: []guest.Cookie{{Domain: "www.shop.example"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart", func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), "tea", 1) })
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) { guests.Claim(w, r, "ann") })
	app := guests.Middleware(mux)
	first := httptest.NewRecorder()
	app.ServeHTTP(first, httptest.NewRequest("POST", "/cart", nil))
	login := httptest.NewRequest("POST", "/login", nil)
	login.AddCookie(first.Result().Cookies()[0])
	w := httptest.NewRecorder()
	app.ServeHTTP(w, login)
	for _, c := range w.Result().Cookies() {
		if c.Name == "__Secure-guest" {
			fmt.Println("cleared in", c.Domain)
		}
	}
	// Output:
	// cleared in shop.example
	// cleared in www.shop.example
}

// Somebody at the help desk signs in as a customer, with a guest of their own in that browser.
func ExampleConfig_autoClaim() {
	actsForCustomer := func(r *http.Request) bool { return r.Header.Get("Agent") != "" } // your own sessions here
	guests, err := guest.New(guest.Config{
		Store:     memstore.New(memstore.Config{}),
		Secrets:   [][]byte{[]byte("32 random bytes from your config")},
		Data:      []guest.Kind{Cart},
		Account:   func(r *http.Request) string { return r.Header.Get("User") },
		AutoClaim: func(r *http.Request) bool { return !actsForCustomer(r) },
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart", func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), "tea", 1) })
	mux.HandleFunc("GET /cart", func(w http.ResponseWriter, r *http.Request) { fmt.Println(Cart.All(r.Context())) })
	app := guests.Middleware(mux)
	w := httptest.NewRecorder()
	app.ServeHTTP(w, httptest.NewRequest("POST", "/cart", nil))
	page := func(header ...string) {
		r := httptest.NewRequest("GET", "/cart", nil)
		r.AddCookie(w.Result().Cookies()[0])
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		app.ServeHTTP(httptest.NewRecorder(), r)
	}
	page("User", "customer", "Agent", "ann")
	page()
	// Output:
	// map[] <nil>
	// map[tea:1] <nil>
}
