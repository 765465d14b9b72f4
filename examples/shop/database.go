package main

import (
	"database/sql"
	"fmt"
	"net/url"

	_ "modernc.org/sqlite"
)

const schema = `
CREATE TABLE IF NOT EXISTS users (
	id       TEXT PRIMARY KEY,
	email    TEXT NOT NULL UNIQUE,
	password TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS sessions (
	token_hash BLOB PRIMARY KEY,
	user_id    TEXT NOT NULL REFERENCES users (id),
	expires    INTEGER NOT NULL
);
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
