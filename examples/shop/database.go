package main

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"

	_ "modernc.org/sqlite"
)

const schema = `
CREATE TABLE IF NOT EXISTS users (
	id       TEXT PRIMARY KEY,
	email    TEXT UNIQUE,
	verified INTEGER NOT NULL DEFAULT 0, -- its mail was read by the user
	phone    TEXT UNIQUE,
	password TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS links (
	token_hash BLOB PRIMARY KEY,
	email      TEXT NOT NULL,
	expires    INTEGER NOT NULL,
	used       INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS codes (
	phone   TEXT PRIMARY KEY,
	code    TEXT NOT NULL,
	asker   BLOB NOT NULL, -- the hash of a token in the browser that asked for it
	ticket  TEXT NOT NULL,
	expires INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS identities (
	issuer  TEXT NOT NULL,
	subject TEXT NOT NULL,
	user_id TEXT NOT NULL REFERENCES users (id),
	PRIMARY KEY (issuer, subject)
);
CREATE TABLE IF NOT EXISTS flows (
	state_hash   BLOB PRIMARY KEY,
	browser_hash BLOB NOT NULL,
	verifier     TEXT NOT NULL,
	nonce        TEXT NOT NULL,
	ticket       TEXT NOT NULL,
	next         TEXT NOT NULL,
	code         TEXT NOT NULL DEFAULT '',
	expires      INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS choices (
	token_hash BLOB PRIMARY KEY,
	user_id    TEXT NOT NULL REFERENCES users (id),
	password   TEXT NOT NULL, -- the account's, when its user showed who they are
	next       TEXT NOT NULL,
	expires    INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS sessions (
	token_hash BLOB PRIMARY KEY,
	user_id    TEXT NOT NULL REFERENCES users (id),
	expires    INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS known_browsers (
	token_hash BLOB PRIMARY KEY,
	user_id    TEXT NOT NULL REFERENCES users (id),
	expires    INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS limits (
	who BLOB PRIMARY KEY, -- a hash
	due INTEGER NOT NULL  -- when nothing of the limit is used, in milliseconds
);
CREATE INDEX IF NOT EXISTS limits_due ON limits (due);
CREATE TABLE IF NOT EXISTS orders (
	id      INTEGER PRIMARY KEY AUTOINCREMENT,
	user_id TEXT NOT NULL REFERENCES users (id),
	form    TEXT NOT NULL,
	placed  INTEGER NOT NULL,
	UNIQUE (user_id, form)
);
CREATE TABLE IF NOT EXISTS order_lines (
	order_id INTEGER NOT NULL REFERENCES orders (id),
	name     TEXT NOT NULL,
	amount   INTEGER NOT NULL,
	price    INTEGER NOT NULL
);`

// openDatabase opens the file, or a database in memory if there is none.
func openDatabase(file string) (*sql.DB, error) {
	dsn := ":memory:?_pragma=foreign_keys(1)"
	if file != "" {
		dsn = "file:" + (&url.URL{Path: file}).EscapedPath() + "?_pragma=foreign_keys(1)&_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)"
	}
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // each connection to :memory: would be a database of its own
	if _, err := db.Exec(schema); err != nil {
		db.Close()
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	return db, nil
}

// transact does all of it or nothing.
func transact(ctx context.Context, db *sql.DB, do func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}
