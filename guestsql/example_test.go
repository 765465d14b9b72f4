package guestsql_test

import (
	"context"
	"database/sql"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/guestsql"
)

func ExampleOnClaim() {
	var db *sql.DB // the app's
	_ = guest.Config{
		OnClaim: guestsql.OnClaim(db, guestsql.PostgreSQL, func(ctx context.Context, tx *sql.Tx, r guest.Receipt) error {
			_, err := tx.ExecContext(ctx, "UPDATE drafts SET account_id = $1 WHERE guest_id = $2 AND account_id IS NULL", r.AccountID, r.GuestID)
			return err
		}),
	}
}
