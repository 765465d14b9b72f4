package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/guestkit/guest"
)

// A choice is which cart a member wants who has one in this browser and one in the account.
type choice string

const (
	keepBoth    choice = "both" // as Cart is declared, and so for a visitor who is not asked
	keepBrowser choice = "browser"
	keepAccount choice = "account"
)

// options are the rules for this one claim.
func (c choice) options() []guest.ClaimOption {
	switch c {
	case keepBrowser:
		return []guest.ClaimOption{guest.With(Cart, guest.PreferGuest[map[string]int64])}
	case keepAccount:
		return []guest.ClaimOption{guest.With(Cart, guest.PreferAccount[map[string]int64])}
	}
	return nil
}

func (c choice) inWords(receipt guest.Receipt) []string {
	text := map[choice]string{keepBrowser: "Your cart is this browser’s.", keepAccount: "Your cart is your account’s."}[c]
	if text == "" || receipt.Pending {
		return inWords(receipt)
	}
	receipt.Kinds = slices.DeleteFunc(slices.Clone(receipt.Kinds), func(k guest.KindReceipt) bool { return k.Name == Cart.Name() })
	return append([]string{text}, inWords(receipt)...)
}

// preview is what a claim would do to the cart.
func (s *shop) preview(r *http.Request, user User) (cart guest.KindReceipt) {
	receipt, err := s.guests.Preview(r.Context(), user.ID)
	if err != nil {
		slog.WarnContext(r.Context(), "no preview of a claim", "error", err)
	}
	for _, k := range receipt.Kinds {
		if k.Name == Cart.Name() {
			cart = k
		}
	}
	return cart
}

func (s *shop) bothHaveCarts(r *http.Request, user User) bool {
	cart := s.preview(r, user)
	return cart.GuestTotal > 0 && cart.AccountTotal > 0
}

// choices are the members who have shown who they are and are asked before they are signed in: as
// soon as they are, what the browser holds is the account's. A choice ends with the password that
// the account had then.
type choices struct{ db *sql.DB }

const (
	choiceCookie = "choice"
	choiceLife   = 10 * time.Minute
)

var errChoice = errors.New("nothing to choose")

func (c choices) add(ctx context.Context, user User, next string) (token string, err error) {
	token = rand.Text()
	now := time.Now()
	if _, err := c.db.ExecContext(ctx, `DELETE FROM choices WHERE expires <= ?`, now.Unix()); err != nil {
		return "", err
	}
	err = oneRow(c.db.ExecContext(ctx, `INSERT INTO choices (token_hash, user_id, password, next, expires)
		SELECT ?, id, password, ?, ? FROM users WHERE id = ? AND password = ?`,
		hashToken(token), next, now.Add(choiceLife).Unix(), user.ID, user.password))
	return token, err
}

func (c choices) of(ctx context.Context, token string) (user User, next string, err error) {
	err = c.db.QueryRowContext(ctx, `SELECT id, COALESCE(email, ''), COALESCE(phone, ''), users.password, next
		FROM choices JOIN users ON id = user_id AND users.password = choices.password WHERE token_hash = ? AND expires > ?`, hashToken(token), time.Now().Unix()).
		Scan(&user.ID, &user.Email, &user.Phone, &user.password, &next)
	if errors.Is(err, sql.ErrNoRows) {
		err = errChoice
	}
	return user, next, err
}

// end ends a choice; false if it has ended before.
func (c choices) end(ctx context.Context, token string) (bool, error) {
	res, err := c.db.ExecContext(ctx, `DELETE FROM choices WHERE token_hash = ?`, hashToken(token))
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// ask lets a member choose, in place of welcome.
func (s *shop) ask(w http.ResponseWriter, r *http.Request, user User) {
	token, err := s.choices.add(r.Context(), user, next(r))
	if err != nil {
		s.notSignedIn(w, r, err)
		return
	}
	s.cookies.set(w, choiceCookie, token, choiceLife)
	http.Redirect(w, r, "/choose", http.StatusSeeOther)
}

func (s *shop) showChoice(w http.ResponseWriter, r *http.Request) {
	user, _, err := s.choices.of(r.Context(), s.cookies.get(r, choiceCookie))
	if err != nil {
		s.noChoice(w, r, err)
		return
	}
	p := s.newPage(w, r, "Which cart?")
	p.Body = s.preview(r, user)
	p.render(w, r, http.StatusOK, "choose")
}

func (s *shop) choose(w http.ResponseWriter, r *http.Request) {
	keep, token := choice(r.FormValue("keep")), s.cookies.get(r, choiceCookie)
	if !slices.Contains([]choice{keepBoth, keepBrowser, keepAccount}, keep) {
		http.Error(w, "keep both carts, or one", http.StatusBadRequest)
		return
	}
	user, to, err := s.choices.of(r.Context(), token)
	if err == nil {
		var mine bool
		if mine, err = s.choices.end(r.Context(), token); err == nil && !mine {
			err = errChoice
		}
	}
	if err != nil {
		s.noChoice(w, r, err)
		return
	}
	s.cookies.clear(w, choiceCookie)
	s.welcome(w, r, arrival{user: user, next: to, choice: keep})
}

func (s *shop) noChoice(w http.ResponseWriter, r *http.Request, err error) {
	if !errors.Is(err, errChoice) {
		fail(w, r, err)
		return
	}
	if userOf(r).ID != "" { // clicked twice
		http.Redirect(w, r, "/cart", http.StatusSeeOther)
		return
	}
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}
