package main

import (
	"crypto/rand"
	"database/sql"
	"net/http"
	"time"
)

const (
	knownCookie = "known"
	knownLife   = 180 * 24 * time.Hour
)

// known are the browsers that have signed in: each remembers, by a random token, the account that
// it was last signed in to, also after a logout. It signs no one in. It only counts such a
// browser's logins apart from those of strangers, who else could use up what an account may try,
// and keep its owner out (OWASP, "Slow Down Online Guessing Attacks with Device Cookies").
type known struct {
	db      *sql.DB
	cookies cookies
}

// add remembers that the user has signed in with this browser, under a new token.
func (k known) add(w http.ResponseWriter, r *http.Request, user User) error {
	now := time.Now()
	_, err := k.db.ExecContext(r.Context(), `DELETE FROM known_browsers WHERE token_hash = ? OR expires <= ?`,
		hashToken(k.cookies.get(r, knownCookie)), now.Unix())
	if err != nil {
		return err
	}
	token := rand.Text()
	err = oneRow(k.db.ExecContext(r.Context(), `INSERT INTO known_browsers (token_hash, user_id, expires)
		SELECT ?, id, ? FROM users WHERE id = ? AND password = ?`,
		hashToken(token), now.Add(knownLife).Unix(), user.ID, user.password))
	if err == nil {
		k.cookies.set(w, knownCookie, token, knownLife)
	}
	return err
}

// browser returns the token if this browser was last signed in to the account of this address or
// number, or to any if that is "". Else it returns "".
func (k known) browser(r *http.Request, about string) (token string) {
	var yes bool
	token = k.cookies.get(r, knownCookie)
	err := k.db.QueryRowContext(r.Context(), `SELECT EXISTS (SELECT 1 FROM known_browsers JOIN users ON id = user_id
		WHERE token_hash = ? AND expires > ? AND ? IN ('', email, phone))`, hashToken(token), time.Now().Unix(), about).Scan(&yes)
	if err != nil || !yes {
		return ""
	}
	return token
}
