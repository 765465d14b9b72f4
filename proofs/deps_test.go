package proofs

import (
	_ "github.com/anishathalye/porcupine"
	_ "pgregory.net/rapid"

	_ "github.com/guestkit/guest"
)
