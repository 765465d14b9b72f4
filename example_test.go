package guest_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
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
func visit(
	app http.Handler, jar map[string]*http.Cookie, method, path string,
) *httptest.ResponseRecorder {
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

func ExampleNew() {
	// os.Getenv("GUEST_SECRET"), made by openssl rand -base64 32
	secret, err := base64.StdEncoding.DecodeString("dGhpcyBvbmUgaXMgaW4gdGhlIGRvY3VtZW50YXRpb24=")
	if err != nil {
		log.Fatal(err)
	}
	// a package variable, in an app
	cart := guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))
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
	// http.ListenAndServe(":8080", app)
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "POST", "/cart/tea")
	visit(app, browser, "POST", "/cart/tea")
	// Output:
	// 1 <nil>
	// 2 <nil>
}

func ExampleNew_faults() {
	_, err := guest.New(guest.Config{Secrets: [][]byte{[]byte("too short")}})
	fmt.Println(err)
	// Output:
	// guest: Config.Store: is missing (use redisstore.New(client, redisstore.Config{}) or memstore.New(memstore.Config{}))
	// guest: Config.Secrets: secret 0 has 9 bytes (use at least 32 random bytes)
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
	if errors.As(err, &fault) { // the first fault; err itself lists all
		fmt.Println(variable[fault.Field], fault.Fault)
	}
	// Output: GUEST_TTL is 12000h0m0s (browsers keep a cookie for at most 400 days)
}

// Where the law asks for consent first: nothing is set or stored before the visitor's yes, and a no
// takes it back.
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
		http.SetCookie(w, &http.Cookie{Name: "consent", Value: r.PathValue("answer"), Path: "/",
			MaxAge: 180 * 24 * 3600})
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
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		guests.Claim(w, r, "ann")
	})
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "POST", "/review")
	visit(app, browser, "POST", "/login")
	fmt.Println(reviews)
	// Output: [{ann good tea}]
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
	mux.HandleFunc("POST /cart", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 1)
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		guests.Claim(w, r, "ann")
	})
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

// An agent of the help desk signs in as a customer, and has a guest of their own in that browser.
func ExampleConfig_autoClaim() {
	// your own sessions here
	actsForCustomer := func(r *http.Request) bool { return r.Header.Get("Agent") != "" }
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
	mux.HandleFunc("POST /cart", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 1)
	})
	mux.HandleFunc("GET /cart", func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(Cart.All(r.Context()))
	})
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

func ExampleAll() {
	admit := guest.All(guest.Browsers, guest.Limit(time.Minute, 20, nil))
	fmt.Println(admit(httptest.NewRequest("GET", "/", nil)),
		admit(httptest.NewRequest("HEAD", "/", nil)))
	// Output: true false
}

func ExampleLimit() {
	// one client, so one limit for all
	oneClient := func(*http.Request) netip.Addr { return netip.Addr{} }
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Admit: guest.All(
			guest.Browsers,                          // first, so that crawlers use nothing up
			guest.Limit(time.Minute, 2, nil),        // per client
			guest.Limit(time.Second, 50, oneClient), // and in all, should a flood come from everywhere
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

// Behind a proxy, the client is who the proxy says it is, and no other word counts.
func ExampleLimit_proxy() {
	client := func(r *http.Request) netip.Addr {
		hops := strings.Split(r.Header.Get("X-Forwarded-For"), ",")
		// the last one is the proxy's word
		addr, _ := netip.ParseAddr(strings.TrimSpace(hops[len(hops)-1]))
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

func ExampleFromContext() {
	handler := func(w http.ResponseWriter, r *http.Request) {
		v := guest.FromContext(r.Context())
		switch {
		case v.AccountID() != "":
			fmt.Println("member")
		case v.IsGuest():
			fmt.Println("guest")
		default:
			fmt.Println("none: a crawler, or not behind the middleware")
		}
	}
	handler(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	// Output: none: a crawler, or not behind the middleware
}

func ExampleFromContext_incorrect() {
	http.HandleFunc("/later", func(w http.ResponseWriter, r *http.Request) {
		go func() {
			// It has no visitor: ErrNoVisitor. Use context.WithoutCancel(r.Context()).
			Cart.Add(context.Background(), "tea", 1)
		}()
	})
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
	visit(app, map[string]*http.Cookie{}, "POST", "/vote?for=tea") // another visitor
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
		// for the rest of the request; later it is what Config.Account says
		fmt.Printf("%q\n", v.AccountID())
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
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), r.PathValue("sku"), 1)
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		guests.Claim(w, r, "ann")
	})
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

func ExampleManager_Claim() {
	guests := exampleGuests()
	login := func(w http.ResponseWriter, r *http.Request) {
		// the app has checked the password, the code, the link or the OAuth token
		user := struct{ ID string }{"ann"}
		receipt, err := guests.Claim(w, r, user.ID) // never a reason to fail the login
		if err != nil {
			log.Print(err)
		}
		for _, kind := range receipt.Kinds {
			fmt.Printf("%s: %d of yours, %d there before, %d now\n", kind.Name, kind.GuestTotal,
				kind.AccountTotal, kind.ResultTotal)
		}
	}
	Cart.Set(guests.As(context.Background(), "ann"), "cup", 2)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), r.PathValue("sku"), 3)
	})
	mux.HandleFunc("POST /login", login)
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "POST", "/cart/tea")
	visit(app, browser, "POST", "/login")
	// Output: cart: 3 of yours, 2 there before, 5 now
}

func ExampleManager_Claim_incorrect() {
	guests := exampleGuests()
	http.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		// A login never fails because of a guest: on an error log it, and go on. The claim does,
		// too.
		if _, err := guests.Claim(w, r, "ann"); err != nil {
			http.Error(w, "sign in again later", http.StatusServiceUnavailable)
		}
	})
}

// A resolver or an RPC has a context and no request.
func ExampleManager_ClaimContext() {
	guests := exampleGuests()
	signIn := func(ctx context.Context, user string) (bool, error) {
		receipt, err := guests.ClaimContext(ctx, user) // never a reason to fail the login
		return receipt.Claimed, err
	}
	app := guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 1)
		fmt.Println(signIn(r.Context(), "ann"))
	}))
	visit(app, map[string]*http.Cookie{}, "POST", "/graphql")
	fmt.Println(Cart.All(guests.As(context.Background(), "ann")))
	// Output:
	// true <nil>
	// map[tea:1] <nil>
}

func ExampleManager_ClaimHandler() {
	guests := exampleGuests()
	mux := http.NewServeMux()
	mux.Handle("/claim", guests.ClaimHandler(func(r *http.Request) (string, error) {
		return "", errors.New("not signed in") // the app's own session says who
	}))
	fmt.Println(visit(guests.Middleware(mux), map[string]*http.Cookie{}, "POST", "/claim").Code)
	// Output: 401
}

func ExampleWith() {
	guests := exampleGuests()
	account := guests.As(context.Background(), "ann")
	Theme.Set(account, "light")
	mux := http.NewServeMux()
	mux.HandleFunc("POST /theme", func(w http.ResponseWriter, r *http.Request) {
		Theme.Set(r.Context(), "dark")
	})
	mux.HandleFunc("POST /checkout", func(w http.ResponseWriter, r *http.Request) {
		// what was just chosen wins
		guests.Claim(w, r, "ann", guest.With(Theme, guest.PreferGuest[string]))
	})
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "POST", "/theme")
	visit(app, browser, "POST", "/checkout")
	fmt.Println(Theme.Get(account))
	// Output: dark <nil>
}

func ExampleManager_Preview() {
	guests := exampleGuests()
	Cart.Set(guests.As(context.Background(), "ann"), "tea", 1)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), r.PathValue("sku"), 1)
	})
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		// to ask: keep both, this browser's or the account's?
		receipt, err := guests.Preview(r.Context(), "ann")
		fmt.Println(receipt.Kinds[0].GuestTotal, receipt.Kinds[0].AccountTotal,
			receipt.Kinds[0].ResultTotal, err)
	})
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "POST", "/cart/tea")
	visit(app, browser, "GET", "/login")
	// Output: 1 1 2 <nil>
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
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), r.PathValue("sku"), 3)
	})
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

func ExampleManager_Ticket() {
	guests := exampleGuests()
	var link string
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), r.PathValue("sku"), 1)
	})
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

// A code by SMS, which may be typed in another browser: the ticket waits with it.
func ExampleManager_ClaimTicket() {
	guests := exampleGuests()
	var ticket string
	mux := http.NewServeMux()
	mux.HandleFunc("POST /send-code/{number}", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 1)
		ticket, _ = guests.Ticket(r.Context(), r.PathValue("number"), 10*time.Minute)
	})
	// the app has checked the code
	mux.HandleFunc("POST /code/{number}", func(w http.ResponseWriter, r *http.Request) {
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
		// never a reason to fail the login
		receipt, err := guests.ClaimTicketContext(ctx, ticket, state, "ann")
		fmt.Println(receipt.AccountID, receipt.Claimed)
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /start", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 1)
		ticket, _ = guests.Ticket(r.Context(), "a random state", 10*time.Minute) // kept with the state
	})
	mux.HandleFunc("POST /rpc", func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(signIn(r.Context(), "a random state"))
	})
	app := guests.Middleware(mux)
	visit(app, map[string]*http.Cookie{}, "POST", "/start")
	visit(app, map[string]*http.Cookie{}, "POST", "/rpc")
	// Output:
	// ann true
	// <nil>
}

func ExampleManager_Forget() {
	guests := exampleGuests()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), r.PathValue("sku"), 1)
	})
	mux.HandleFunc("POST /forget-me", func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(guests.Forget(w, r))
	})
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "POST", "/cart/tea")
	visit(app, browser, "POST", "/forget-me")
	fmt.Println(len(browser), "cookies")
	// Output:
	// <nil>
	// 0 cookies
}

// A resolver or an RPC has a context and no request.
func ExampleManager_ForgetContext() {
	guests := exampleGuests()
	forgetMe := func(ctx context.Context) error { return guests.ForgetContext(ctx) }
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), r.PathValue("sku"), 1)
	})
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

// What operators, support and adapters of frameworks call.

// In every process, or in one: claims that were interrupted are finished.
func ExampleManager_Run() {
	guests := exampleGuests()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		guests.Run(ctx, time.Minute)
		close(done)
	}()
	stop() // at the end of the program
	<-done
}

func ExampleManager_Recover() {
	guests := exampleGuests()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go guests.Run(ctx, time.Minute) // in one process or in all of them

	fmt.Println(guests.Recover(ctx)) // or once, by hand
	// Output: 0 <nil>
}

func ExampleManager_RecoverClaim() {
	down := errors.New("the database is down")
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		OnClaim: func(context.Context, guest.Receipt) error { return down },
		Logger:  slog.New(slog.DiscardHandler), // it is warned of this claim
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	app := guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		guests.Claim(w, r, "ann")
	}))
	browser := map[string]*http.Cookie{}
	visit(guests.Middleware(http.NotFoundHandler()), browser, "GET", "/")
	visit(app, browser, "POST", "/login")
	pending, err := guests.Inspect().Pending(ctx)
	if err != nil || len(pending) != 1 {
		log.Fatal(len(pending), err)
	}
	fmt.Println(guests.RecoverClaim(ctx, pending[0]))
	down = nil
	fmt.Println(guests.RecoverClaim(ctx, pending[0]))
	// Output:
	// false the database is down
	// true <nil>
}

func ExampleManager_As() {
	guests := exampleGuests()
	ctx := guests.As(context.Background(), "ann") // in a job, without a request
	Cart.Add(ctx, "gift", 1)
	fmt.Println(Cart.All(ctx))
	// Output: map[gift:1] <nil>
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

func ExampleManager_AsGuest_incorrect() {
	guests := exampleGuests()
	http.HandleFunc("/cart", func(w http.ResponseWriter, r *http.Request) {
		// Any visitor who sends an ID becomes that guest. A guest is known by its cookie alone: use
		// r.Context().
		ctx := guests.AsGuest(r.Context(), r.FormValue("guest"))
		Cart.All(ctx)
	})
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

func ExampleManager_EraseAccount() {
	guests := exampleGuests()
	account := guests.As(context.Background(), "ann")
	Cart.Set(account, "tea", 2)
	fmt.Println(guests.EraseAccount(context.Background(), "ann"))
	fmt.Println(Cart.All(account))
	// Output:
	// <nil>
	// map[] <nil>
}

// A visitor who has no cookie any more asks to be forgotten, and an order of theirs has the ID.
func ExampleManager_EraseGuest() {
	guests := exampleGuests()
	var id string
	mux := http.NewServeMux()
	mux.HandleFunc("POST /order", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 1)
		id = guest.FromContext(r.Context()).GuestID()
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		guests.Claim(w, r, "ann")
	})
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "POST", "/order")
	fmt.Println(guests.EraseGuest(context.Background(), id))
	_, err := Cart.All(guests.AsGuest(context.Background(), id))
	fmt.Println("gone:", errors.Is(err, guest.ErrGone))
	visit(app, browser, "POST", "/order") // by a fresh guest
	visit(app, browser, "POST", "/login")
	err = guests.EraseGuest(context.Background(), id)
	fmt.Println("the account's now:", errors.Is(err, guest.ErrClaimed)) // see EraseAccount
	// Output:
	// <nil>
	// gone: true
	// the account's now: true
}

// What support looks at, without changing anything.
func ExampleManager_Inspect() {
	guests := exampleGuests()
	Cart.Set(guests.As(context.Background(), "ann"), "tea", 2)
	record, err := guests.Inspect().Account(context.Background(), "ann")
	fmt.Println(record.State, record.Kinds[0].Name, record.Kinds[0].Items, err)
	// Output: open cart 1 <nil>
}

// Is this cookie ours? What support asks first.
func ExampleInspector_Token() {
	guests, browser := exampleGuests(), map[string]*http.Cookie{}
	visit(guests.Middleware(http.NotFoundHandler()), browser, "GET", "/")
	for name, cookie := range browser {
		info := guests.Inspect().Token(name, cookie.Value)
		fmt.Println(info.Verdict, "provisional:", info.Provisional)
		fmt.Println(guests.Inspect().Token("guest", cookie.Value).Verdict) // it is signed with its name
	}
	fmt.Println(guests.Inspect().Token("guest", "tea").Verdict)
	// Output:
	// valid provisional: true
	// forged
	// malformed
}

func ExampleInspector_Guest() {
	guests := exampleGuests()
	app := guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 2)
		id := guest.FromContext(r.Context()).GuestID()
		record, err := guests.Inspect().Guest(r.Context(), id)
		fmt.Println(record.State, string(record.Kinds[0].Data), err)
		guests.Claim(w, r, "ann")
		record, err = guests.Inspect().Guest(r.Context(), id)
		fmt.Println(record.State, len(record.Kinds), err)
	}))
	visit(app, map[string]*http.Cookie{}, "POST", "/")
	// Output:
	// open {"tea":2} <nil>
	// claimed 0 <nil>
}

// Where did these data come from?
func ExampleInspector_Account() {
	guests := exampleGuests()
	app := guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 2)
		guests.Claim(w, r, "ann")
	}))
	visit(app, map[string]*http.Cookie{}, "POST", "/")
	record, err := guests.Inspect().Account(context.Background(), "ann")
	if err != nil {
		log.Fatal(err)
	}
	for _, claim := range record.Claims {
		fmt.Println(claim.Kinds[0].Name, claim.Kinds[0].Outcome, claim.Kinds[0].GuestTotal)
	}
	// Output: cart moved 2
}

func ExampleInspector_Pending() {
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Data:    []guest.Kind{Cart},
		OnClaim: func(context.Context, guest.Receipt) error { return errors.New("the database is down") },
		Logger:  slog.New(slog.DiscardHandler), // it is warned of this claim
	})
	if err != nil {
		log.Fatal(err)
	}
	app := guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 1)
		guests.Claim(w, r, "ann")
	}))
	visit(app, map[string]*http.Cookie{}, "POST", "/login")
	pending, err := guests.Inspect().Pending(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range pending {
		fmt.Println(p.AccountID, p.State, p.Age < time.Hour)
	}
	// Output: ann merged true
}

// Counters of one's own; adapters/promguest has them for Prometheus.
func ExampleHooks() {
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Data:    []guest.Kind{Cart},
		Hooks: guest.Hooks{
			Created:    func(context.Context) { fmt.Println("a new guest") },
			Returned:   func(context.Context) { fmt.Println("with a cookie") },
			FirstWrite: func(context.Context) { fmt.Println("with data") },
			Claimed:    func(_ context.Context, r guest.Receipt) { fmt.Println("claimed by", r.AccountID) },
			Refused:    func(_ context.Context, reason string) { fmt.Println("refused:", reason) },
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), r.PathValue("sku"), 1)
	})
	mux.HandleFunc("POST /login/{user}", func(w http.ResponseWriter, r *http.Request) {
		guests.Claim(w, r, r.PathValue("user"))
	})
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "GET", "/")
	visit(app, browser, "POST", "/cart/tea")
	visit(app, browser, "POST", "/login/ann")
	visit(app, map[string]*http.Cookie{"__Host-Http-guest": {Name: "__Host-Http-guest",
		Value: "made up"}}, "HEAD", "/")
	// Output:
	// a new guest
	// with a cookie
	// with data
	// claimed by ann
	// refused: invalid_token
}

// Two observers of one Manager.
func ExampleHooks_And() {
	count := guest.Hooks{Created: func(context.Context) { fmt.Println("counted") }}
	trace := guest.Hooks{Created: func(context.Context) { fmt.Println("traced") }}
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Hooks:   count.And(trace),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	visit(guests.Middleware(http.NotFoundHandler()), map[string]*http.Cookie{}, "GET", "/")
	// Output:
	// counted
	// traced
}

// A label for the errors of a store: few values, and none that names a visitor.
func ExampleStoreErrorClass() {
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("32 random bytes from your config")},
		Data:    []guest.Kind{Cart},
		Quota:   guest.Quota{Fields: 1},
		Hooks: guest.Hooks{StoreCall: func(ctx context.Context, op string, d time.Duration, err error) {
			fmt.Printf("%s %q\n", op, guest.StoreErrorClass(err))
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := guests.As(context.Background(), "ann")
	Cart.Add(ctx, "tea", 1)
	Cart.Add(ctx, "cup", 1)
	// Output:
	// update ""
	// update "quota"
}

// An adapter for a framework that writes to an http.ResponseWriter.
func ExampleManager_Begin() {
	guests := exampleGuests()
	adapter := func(next func(http.ResponseWriter, *http.Request) error) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			x := guests.Begin(w.Header(), r)
			w = x.Writer(w)
			err := next(w, x.Request)
			x.End()
			if err != nil { // written after the middleware, as some frameworks do
				http.Error(w, err.Error(), http.StatusTeapot)
			}
		})
	}
	app := adapter(func(w http.ResponseWriter, r *http.Request) error {
		return errors.New("no coffee")
	})
	w := visit(app, map[string]*http.Cookie{}, "GET", "/")
	fmt.Println(w.Code, len(w.Result().Cookies()), w.Header().Get("Cache-Control"))
	// Output: 418 1 private, no-store
}

// A framework that sends its responses itself, when its plugins have had their say.
func ExampleExchange_Commit() {
	guests := exampleGuests()
	serve := func(w http.ResponseWriter, r *http.Request, handler http.HandlerFunc) {
		x := guests.Begin(w.Header(), r)
		handler(w, x.Request)
		x.End()
		w.Header().Set("Cache-Control", "public, max-age=60") // a plugin
		x.Commit(http.StatusOK)
		w.WriteHeader(http.StatusOK)
	}
	w := httptest.NewRecorder()
	serve(w, httptest.NewRequest("GET", "/news", nil), func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("new:", guest.FromContext(r.Context()).IsNew())
	})
	// a cache would give one to all
	fmt.Println(w.Header().Get("Cache-Control"), "and", len(w.Result().Cookies()), "cookies")
	// Output:
	// new: true
	// public, max-age=60 and 0 cookies
}

// A framework whose handlers may send hints before it is known who may keep the page.
func ExampleExchange_Inform() {
	guests := exampleGuests()
	header := http.Header{}
	send := func(status int) { fmt.Println(status, "with", len(header["Set-Cookie"]), "cookies") }

	x := guests.Begin(header, httptest.NewRequest("GET", "/", nil))
	x.Inform(func() { send(http.StatusEarlyHints) })
	x.Commit(http.StatusOK)
	send(http.StatusOK)
	x.End()
	// Output:
	// 103 with 0 cookies
	// 200 with 1 cookies
}

// A framework that runs the handler first and sends what it returns: there is no writer to watch.
func ExampleExchange_End() {
	guests := exampleGuests()
	serve := func(r *http.Request, handler func(context.Context) string) (http.Header, string) {
		header := http.Header{}
		x := guests.Begin(header, r)
		body := handler(x.Request.Context())
		x.End() // but not after a panic
		return header, body
	}
	header, body := serve(httptest.NewRequest("POST", "/cart/tea", nil),
		func(ctx context.Context) string {
			return fmt.Sprint(Cart.Add(ctx, "tea", 1))
		})
	fmt.Println(body)
	fmt.Println(len(header["Set-Cookie"]), header["Cache-Control"], header["Vary"])
	// Output:
	// 1 <nil>
	// 1 [private, no-store] [Cookie]
}

// Most requests are of known visitors, and cost no wrapping.
func ExampleExchange_Watched() {
	guests := exampleGuests()
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := guests.Begin(w.Header(), r)
		fmt.Println(r.Method, x.Watched())
		w = x.Writer(w) // w itself, unless the response is watched
		http.NotFound(w, x.Request)
		x.End()
	})
	browser := map[string]*http.Cookie{}
	visit(app, browser, "GET", "/")  // a new guest's cookie
	visit(app, browser, "GET", "/")  // its confirmation
	visit(app, browser, "GET", "/")  // a known visitor
	visit(app, browser, "POST", "/") // if it turns out claimed, it needs another cookie
	// Output:
	// GET true
	// GET true
	// GET false
	// POST true
}

// A handler shares a visitor's page by mistake: the writer takes that back.
func ExampleExchange_Writer() {
	guests := exampleGuests()
	w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/cart/tea", nil)
	x := guests.Begin(w.Header(), r)
	handler := func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 1)
		w.Header().Set("Cache-Control", "public, max-age=60")
		io.WriteString(w, "1 x tea")
	}
	handler(x.Writer(w), x.Request)
	x.End()
	fmt.Println(w.Header().Get("Cache-Control"), "and", len(w.Result().Cookies()), "cookies")
	// Output: private, no-store and 1 cookies
}
