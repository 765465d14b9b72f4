package proofs

import (
	_ "github.com/anishathalye/porcupine"

	_ "github.com/guestkit/guest"
)
