package memstore

import (
	"testing"
	"testing/synctest"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/storetest"
)

func open(*testing.T) guest.Store { return New(Config{}) }

func TestContract(t *testing.T)          { storetest.RunIn(t, synctest.Test, open) }
func TestContractRealTime(t *testing.T)  { storetest.Run(t, open) }
