package outages

import (
	"testing"

	"go.uber.org/goleak"
)

// When everything is closed, no goroutine of ours is left.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
