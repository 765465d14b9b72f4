package proofs

import (
	_ "github.com/guestkit/guest"
)
