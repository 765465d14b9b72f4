package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"net/mail"
	"strings"
	"unicode/utf8"
)

// A User has an account. The zero User is none.
type User struct {
	ID    string
	Email string // "" for those who signed up without
	Phone string

	// password is the hash that the account had when the user showed who they are. They are signed
	// in only while it has it: a proof ends with the password, also one of a login that is under
	// way.
	password string
}

// Name is what the user is called on the pages.
func (u User) Name() string { return cmp.Or(u.Email, u.Phone, "Member") }

// accounts are the people who signed up.
type accounts struct {
	db        *sql.DB
	noAccount string // a hash that belongs to no account
}

// A mistake is what the visitor can put right in a form.
type mistake struct{ Field, Text string }

func (m *mistake) Error() string { return m.Field + ": " + m.Text }

var (
	errEmail    = &mistake{"email", "Enter an e-mail address, like name@example.com."}
	errPassword = &mistake{"password", "Choose a password of 8 to 200 characters."}
	errTaken    = &mistake{"email", "There is an account with this e-mail address already. Log in instead."}
	errLogin    = &mistake{"password", "E-mail address and password do not match. Check both and try again."}
)

func newAccounts(ctx context.Context, db *sql.DB) (*accounts, error) {
	noAccount, err := hashPassword(ctx, rand.Text())
	return &accounts{db, noAccount}, err
}

// signUp makes an account.
func (a *accounts) signUp(ctx context.Context, email, password string) (User, error) {
	email, ok := normalEmail(email)
	if !ok {
		return User{}, errEmail
	}
	if n := utf8.RuneCountInString(password); n < 8 || n > 200 {
		return User{}, errPassword
	}
	hash, err := hashPassword(ctx, password)
	if err != nil {
		return User{}, err
	}
	// Random, so that an ID is never given twice: guest data may outlive this database.
	user := User{ID: rand.Text(), Email: email, password: hash}
	res, err := a.db.ExecContext(ctx, `INSERT INTO users (id, email, password) VALUES (?, ?, ?) ON CONFLICT (email) DO NOTHING`,
		user.ID, user.Email, user.password)
	if err != nil {
		return User{}, err
	}
	if n, err := res.RowsAffected(); err != nil {
		return User{}, err
	} else if n == 0 {
		return User{}, errTaken
	}
	return user, nil
}

// logIn returns the user whose password this is. It takes as long for an e-mail address that is
// unknown.
func (a *accounts) logIn(ctx context.Context, email, password string) (User, error) {
	email, _ = normalEmail(email)
	user := User{Email: email}
	err := a.db.QueryRowContext(ctx, `SELECT id, password FROM users WHERE email = ?`, email).Scan(&user.ID, &user.password)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return User{}, err
	}
	hash := cmp.Or(user.password, a.noAccount) // the account may have no password either
	ok, err := checkPassword(ctx, hash, password)
	if err != nil {
		return User{}, err
	}
	if !ok || user.password == "" {
		return User{}, errLogin
	}
	return user, nil
}

// normalEmail is the form in which an address is stored and looked up.
func normalEmail(email string) (string, bool) {
	email = strings.ToLower(strings.TrimSpace(email))
	addr, err := mail.ParseAddress(email)
	return email, err == nil && addr.Address == email && len(email) <= 254
}
