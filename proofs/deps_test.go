package proofs

import (
	_ "github.com/anishathalye/porcupine"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"
	_ "pgregory.net/rapid"

	_ "github.com/guestkit/guest"
)
