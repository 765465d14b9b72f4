package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
)

// byEmail returns the account of the user who has just shown that this address is theirs, and makes
// one if there is none.
func (a *accounts) byEmail(ctx context.Context, email string) (user User, isNew bool, err error) {
	err = transact(ctx, a.db, func(tx *sql.Tx) error {
		user, isNew, err = ofEmail(ctx, tx, email)
		return err
	})
	return user, isNew, err
}

func ofEmail(ctx context.Context, tx *sql.Tx, email string) (user User, isNew bool, err error) {
	user.Email = email
	var verified bool
	err = tx.QueryRowContext(ctx, `SELECT id, COALESCE(phone, ''), password, verified FROM users WHERE email = ?`, email).
		Scan(&user.ID, &user.Phone, &user.password, &verified)
	if errors.Is(err, sql.ErrNoRows) {
		user.ID = rand.Text()
		_, err = tx.ExecContext(ctx, `INSERT INTO users (id, email, verified) VALUES (?, ?, 1)`, user.ID, email)
		return user, true, err
	}
	if err != nil || verified {
		return user, false, err
	}
	// The user who signed up with this address may have been another one, who waits for its owner
	// to come: from now on only the owner gets in. Logins under way end with the password that they
	// have shown.
	user.password = ""
	for _, query := range []string{
		`UPDATE users SET verified = 1, password = '' WHERE id = ?`,
		`DELETE FROM sessions WHERE user_id = ?`,
		`DELETE FROM choices WHERE user_id = ?`,
		`DELETE FROM known_browsers WHERE user_id = ?`,
	} {
		if _, err := tx.ExecContext(ctx, query, user.ID); err != nil {
			return user, false, err
		}
	}
	return user, false, nil
}

// byPhone does the same for a number.
func (a *accounts) byPhone(ctx context.Context, phone string) (user User, isNew bool, err error) {
	err = transact(ctx, a.db, func(tx *sql.Tx) error {
		user.Phone = phone
		err := tx.QueryRowContext(ctx, `SELECT id, COALESCE(email, ''), password FROM users WHERE phone = ?`, phone).
			Scan(&user.ID, &user.Email, &user.password)
		if isNew = errors.Is(err, sql.ErrNoRows); isNew {
			user.ID = rand.Text()
			_, err = tx.ExecContext(ctx, `INSERT INTO users (id, phone) VALUES (?, ?)`, user.ID, phone)
		}
		return err
	})
	return user, isNew, err
}

// byIdentity does the same for whom an OpenID provider knows: by issuer and subject, which stay,
// and the first time by an address that the provider has verified.
func (a *accounts) byIdentity(ctx context.Context, id identity) (user User, isNew bool, err error) {
	err = transact(ctx, a.db, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `SELECT id, COALESCE(email, ''), COALESCE(phone, ''), password
			FROM identities JOIN users ON id = user_id WHERE issuer = ? AND subject = ?`, id.Issuer, id.Subject).
			Scan(&user.ID, &user.Email, &user.Phone, &user.password)
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if id.Email != "" {
			user, isNew, err = ofEmail(ctx, tx, id.Email)
		} else {
			user, isNew = User{ID: rand.Text()}, true
			_, err = tx.ExecContext(ctx, `INSERT INTO users (id) VALUES (?)`, user.ID)
		}
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO identities (issuer, subject, user_id) VALUES (?, ?, ?)`, id.Issuer, id.Subject, user.ID)
		return err
	})
	return user, isNew, err
}
