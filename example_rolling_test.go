package guest_test

import (
	"context"
	"errors"
	"fmt"
	"log"

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

// The wish list was taken out of the app. Guests that still hold one can be claimed all the same.
func ExampleRetired() {
	guests := processOn(memstore.New(memstore.Config{}), Theme, Cart, guest.Retired("wishes"))
	ctx := guests.As(context.Background(), "ann")
	err := Wishes.Set(ctx, "pot", wish{Note: "blue"})
	fmt.Println(errors.Is(err, guest.ErrInvalid)) // it is not in use
	// Output: true
}

// A value is encrypted from now on; what is stored already is in the clear.
func ExampleValue_InsecureAcceptPlaintext() {
	store := memstore.New(memstore.Config{})
	plain := guest.NewValue("phone", guest.PreferGuest[string])
	plain.Set(processOn(store, plain).As(context.Background(), "ann"), "555 0100")

	sealed := plain.Encrypted()
	_, err := sealed.Get(processOn(store, sealed).As(context.Background(), "ann"))
	fmt.Println(errors.Is(err, guest.ErrUnreadable))

	migrating := sealed.InsecureAcceptPlaintext() // until all of it has been written anew
	fmt.Println(migrating.Get(processOn(store, migrating).As(context.Background(), "ann")))
	// Output:
	// true
	// 555 0100 <nil>
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
	sealed := plain.Encrypted()
	fmt.Println(sealed.Get(processOn(store, sealed).As(context.Background(), "ann"), "home"))
	// Output: 1 Main Street <nil>
}
