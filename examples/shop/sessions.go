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

// start signs the user in, in place of whoever is signed in with this browser.
func (s sessions) start(w http.ResponseWriter, r *http.Request, user User) error {
	if err := s.delete(r); err != nil {
		return err
	}
	token := rand.Text()
	_, err := s.db.ExecContext(r.Context(), `INSERT INTO sessions (token_hash, user_id, expires) VALUES (?, ?, ?)`,
		hashToken(token), user.ID, time.Now().Add(sessionLife).Unix())
	if err != nil {
		return err
	}
	s.cookies.set(w, sessionCookie, token, sessionLife)
	return nil
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

// middleware finds out who is signed in, for userOf.
func (s sessions) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, err := s.user(r)
		if err != nil {
			fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userKey{}, user)))
	})
}

// userOf returns who sent the request; the zero User is nobody.
func userOf(r *http.Request) User {
	user, _ := r.Context().Value(userKey{}).(User)
	return user
}
