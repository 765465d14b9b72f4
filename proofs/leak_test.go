package proofs

import (
	"testing"

	"go.uber.org/goleak"
)

// Whatever happened, when all is closed nothing of ours goes on.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
