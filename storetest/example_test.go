package storetest_test

import (
	"testing"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
	"github.com/guestkit/guest/storetest"
)

// In the test file of a store of your own.
func ExampleRun() {
	_ = func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) guest.Store { return memstore.New(memstore.Config{}) })
	}
}
