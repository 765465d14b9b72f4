package memstore_test

import (
	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

func ExampleNew() {
	_ = guest.Config{Store: memstore.New(memstore.Config{MaxBytes: 64 << 20})}
}
