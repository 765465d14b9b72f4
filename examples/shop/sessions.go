package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"errors"
	"net/http"
	"time"
)

const (
	sessionCookie = "session"
	sessionLife   = 30 * 24 * time.Hour
)

// sessions keep users signed in: a random token in a cookie, its hash in the database.
type sessions struct {
	db      *sql.DB
	cookies cookies
}

// errProofVoid says that the account's password is another one, or gone, since the user showed who
// they are.
var errProofVoid = errors.New("what this login has shown counts no more")

// start signs the user in, in place of the user who is signed in with this browser. Whether the
// proof still counts is asked by the statement that signs in: asked before, it could end in
// between. (Where transactions run side by side, as in PostgreSQL, the SELECT needs FOR SHARE, so
// that it waits for the one that is changing the password.)
func (s sessions) start(w http.ResponseWriter, r *http.Request, user User) error {
	token := rand.Text()
	err := oneRow(s.db.ExecContext(r.Context(), `INSERT INTO sessions (token_hash, user_id, expires)
		SELECT ?, id, ? FROM users WHERE id = ? AND password = ?`,
		hashToken(token), time.Now().Add(sessionLife).Unix(), user.ID, user.password))
	if err != nil {
		return err
	}
	if err := s.delete(r); err != nil {
		return err
	}
	s.cookies.set(w, sessionCookie, token, sessionLife)
	return nil
}

// oneRow is errProofVoid if a statement that asks for the user's proof has found none.
func oneRow(res sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 1 {
		return err
	}
	return errProofVoid
}

// end signs out.
func (s sessions) end(w http.ResponseWriter, r *http.Request) error {
	s.cookies.clear(w, sessionCookie)
	return s.delete(r)
}

// delete deletes this browser's session, and those that have expired.
func (s sessions) delete(r *http.Request) error {
	_, err := s.db.ExecContext(r.Context(), `DELETE FROM sessions WHERE token_hash = ? OR expires <= ?`,
		hashToken(s.cookies.get(r, sessionCookie)), time.Now().Unix())
	return err
}

func (s sessions) user(r *http.Request) (user User, err error) {
	token := s.cookies.get(r, sessionCookie)
	if token == "" {
		return User{}, nil
	}
	err = s.db.QueryRowContext(r.Context(),
		`SELECT users.id, COALESCE(email, ''), COALESCE(phone, '') FROM sessions JOIN users ON users.id = user_id WHERE token_hash = ? AND expires > ?`,
		hashToken(token), time.Now().Unix()).Scan(&user.ID, &user.Email, &user.Phone)
	if errors.Is(err, sql.ErrNoRows) {
		return User{}, nil
	}
	return user, err
}

func hashToken(token string) []byte {
	hash := sha256.Sum256([]byte(token))
	return hash[:]
}

type userKey struct{}

// middleware finds out who is signed in, for userOf. No cache keeps an answer, also not the
// browser's own, which may keep what is only private: after a logout the back button would show it
// to the next visitor.
func (s sessions) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "private, no-store")
		user, err := s.user(r)
		if err != nil {
			fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userKey{}, user)))
	})
}

// userOf returns who sent the request; the zero User is not signed in.
func userOf(r *http.Request) User {
	user, _ := r.Context().Value(userKey{}).(User)
	return user
}
