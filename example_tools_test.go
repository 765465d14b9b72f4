package guest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

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
	app := guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { guests.Claim(w, r, "ann") }))
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
		// Any visitor who sends an ID becomes that guest. A guest is known by its cookie alone: use r.Context().
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
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) { guests.Claim(w, r, "ann") })
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
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), r.PathValue("sku"), 1) })
	mux.HandleFunc("POST /login/{user}", func(w http.ResponseWriter, r *http.Request) { guests.Claim(w, r, r.PathValue("user")) })
	app, browser := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, browser, "GET", "/")
	visit(app, browser, "POST", "/cart/tea")
	visit(app, browser, "POST", "/login/ann")
	visit(app, map[string]*http.Cookie{"__Host-Http-guest": {Name: "__Host-Http-guest", Value: "made up"}}, "HEAD", "/")
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
	app := adapter(func(w http.ResponseWriter, r *http.Request) error { return errors.New("no coffee") })
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
	fmt.Println(w.Header().Get("Cache-Control"), "and", len(w.Result().Cookies()), "cookies") // a cache would give one to all
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
	header, body := serve(httptest.NewRequest("POST", "/cart/tea", nil), func(ctx context.Context) string {
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
