// Package guestsql moves an app's own rows to an account exactly once, in one transaction with the
// claim's ID.
package guestsql

import (
	"context"
	"database/sql"

	"github.com/guestkit/guest"
)

// Schema makes the table that remembers claims. Rows older than Config.TombstoneTTL are no longer
// needed.
const Schema = `CREATE TABLE IF NOT EXISTS guest_claims (id VARCHAR(64) PRIMARY KEY, claimed_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)`

// An Insert is the statement that stores a claim's ID. It affects no row if the ID is there
// already.
type Insert string

const (
	PostgreSQL Insert = `INSERT INTO guest_claims (id) VALUES ($1) ON CONFLICT DO NOTHING`
	SQLite     Insert = `INSERT INTO guest_claims (id) VALUES (?) ON CONFLICT DO NOTHING`
	MySQL      Insert = `INSERT IGNORE INTO guest_claims (id) VALUES (?)`
)

// OnClaim returns a function for guest.Config.OnClaim. It calls move in a transaction that also
// stores the claim's ID, so what move does through tx happens exactly once, however often the claim
// is repeated and wherever a process stops. If move returns an error or panics, the transaction is
// rolled back; the claim stays Pending and is tried again. Let move leave rows alone that belong to
// an account already: if Redis has lost a guest's record, another account can claim the guest,
// under another ID.
func OnClaim(db *sql.DB, insert Insert,
	move func(ctx context.Context, tx *sql.Tx, r guest.Receipt) error) func(context.Context, guest.Receipt) error {
	return func(ctx context.Context, r guest.Receipt) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() // after Commit it does nothing
		inserted, err := tx.ExecContext(ctx, string(insert), r.ID)
		if err != nil {
			return err
		}
		if n, err := inserted.RowsAffected(); err != nil || n == 0 {
			return err // 0: done before
		}
		if err := move(ctx, tx, r); err != nil {
			return err
		}
		return tx.Commit()
	}
}
