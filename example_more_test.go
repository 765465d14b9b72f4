package guest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// What apps need less often, and what they should not do.

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

// What support looks at, without changing anything.
func ExampleManager_Inspect() {
	guests := exampleGuests()
	Cart.Set(guests.As(context.Background(), "ann"), "tea", 2)
	record, err := guests.Inspect().Account(context.Background(), "ann")
	fmt.Println(record.State, record.Kinds[0].Name, record.Kinds[0].Items, err)
	// Output: open cart 1 <nil>
}

func ExampleManager_AsGuest_incorrect() {
	guests := exampleGuests()
	http.HandleFunc("/cart", func(w http.ResponseWriter, r *http.Request) {
		// Whoever sends an ID becomes that guest. A guest is known by its cookie alone: use r.Context().
		ctx := guests.AsGuest(r.Context(), r.FormValue("guest"))
		Cart.All(ctx)
	})
}

func ExampleFromContext_incorrect() {
	http.HandleFunc("/later", func(w http.ResponseWriter, r *http.Request) {
		go func() {
			// It has no visitor: ErrNoVisitor. Use context.WithoutCancel(r.Context()).
			Cart.Add(context.Background(), "tea", 1)
		}()
	})
}

func ExampleManager_Claim_incorrect() {
	guests := exampleGuests()
	http.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		// A login never fails because of a guest: on an error log it, and go on. The claim does, too.
		if _, err := guests.Claim(w, r, "ann"); err != nil {
			http.Error(w, "sign in again later", http.StatusServiceUnavailable)
		}
	})
}
