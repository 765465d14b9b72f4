package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// proofLife is how long a link or a state is good for, and the guest's ticket with it.
const proofLife = 15 * time.Minute

// links are the sign-in links that were mailed: each proves its address once.
type links struct{ db *sql.DB }

var errLink = errors.New("this link is not good for signing in")
var errLinkUsed = errors.New("this link was used before")

func (l links) make(ctx context.Context, email string) (token string, err error) {
	token = rand.Text()
	now := time.Now()
	if _, err := l.db.ExecContext(ctx, `DELETE FROM links WHERE expires <= ?`, now.Add(-proofLife).Unix()); err != nil {
		return "", err
	}
	_, err = l.db.ExecContext(ctx, `INSERT INTO links (token_hash, email, expires) VALUES (?, ?, ?)`,
		hashToken(token), email, now.Add(proofLife).Unix())
	return token, err
}

// look returns the address of a link and leaves it good.
func (l links) look(ctx context.Context, token string) (email string, err error) {
	var used bool
	err = l.db.QueryRowContext(ctx, `SELECT email, used FROM links WHERE token_hash = ? AND expires > ?`,
		hashToken(token), time.Now().Unix()).Scan(&email, &used)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", errLink
	case err == nil && used:
		return email, errLinkUsed
	}
	return email, err
}

// use returns the address of a link, once.
func (l links) use(ctx context.Context, token string) (email string, err error) {
	err = l.db.QueryRowContext(ctx, `UPDATE links SET used = 1 WHERE token_hash = ? AND expires > ? AND NOT used RETURNING email`,
		hashToken(token), time.Now().Unix()).Scan(&email)
	if errors.Is(err, sql.ErrNoRows) {
		_, err = l.look(ctx, token) // says why
	}
	return email, err
}

// mailLink mails a link that signs in, whether there is an account or not.
func (s *shop) mailLink(w http.ResponseWriter, r *http.Request) {
	email, ok := normalEmail(r.FormValue("email"))
	if !ok {
		s.tryAgain(w, r, logInForm, &mistake{"link", errEmail.Text})
		return
	}
	if s.limited(w, r, linkLimits, email, s.known.browser(r, email)) {
		return
	}
	token, err := s.links.make(r.Context(), email)
	if err != nil {
		fail(w, r, err)
		return
	}
	// The guest's ticket is behind the #: no server and no log on the way sees it.
	query := url.Values{"token": {token}, "next": {next(r)}}
	link := s.url + "/link?" + query.Encode() + "#" + s.ticket(r, emailAudience(email))
	text := fmt.Sprintf("Hello!\n\nThis link signs you in to Windowsill, once, within 15 minutes:\n\n%s\n\nIf you did not ask for it, forget about it.\n", link)
	if err := s.mail.Mail(r.Context(), email, "Sign in to Windowsill", text); err != nil {
		fail(w, r, err)
		return
	}
	s.tell(w, r, http.StatusOK, note{
		Heading: "Look into your mail",
		Text:    "A link is on its way to " + email + ". Open it here or on any other device: what you chose here comes along.",
		Outbox:  s.mail == mailer(s.outbox),
	})
}

// A linkPage is where a mailed link leads.
type linkPage struct{ Email, Token, Next string }

// showLink changes nothing: mail scanners open links too. Signing in takes the button.
func (s *shop) showLink(w http.ResponseWriter, r *http.Request) {
	token := r.FormValue("token")
	email, err := s.links.look(r.Context(), token)
	if err != nil {
		s.badLink(w, r, err)
		return
	}
	w.Header().Set("Referrer-Policy", "no-referrer") // the address of this page signs in
	p := s.newPage(w, r, "Sign in")
	p.Body = linkPage{email, token, next(r)}
	p.render(w, r, http.StatusOK, "link")
}

func (s *shop) openLink(w http.ResponseWriter, r *http.Request) {
	email, err := s.links.use(r.Context(), r.FormValue("token"))
	if err != nil {
		s.badLink(w, r, err)
		return
	}
	user, isNew, err := s.accounts.byEmail(r.Context(), email)
	if err != nil {
		fail(w, r, err)
		return
	}
	s.welcome(w, r, arrival{user: user, isNew: isNew, ticket: r.FormValue("ticket"), audience: emailAudience(email)})
}

func (s *shop) badLink(w http.ResponseWriter, r *http.Request, err error) {
	text := "It is older than 15 minutes, or a part of it is missing. Nothing has changed: ask for a new one."
	switch {
	case errors.Is(err, errLinkUsed) && userOf(r).ID != "":
		text = "It was opened before, and you are signed in. There is nothing more to do."
	case errors.Is(err, errLinkUsed):
		text = "It was opened before, and a link signs in once. If that was not you, ask for a new one and look through your account."
	case !errors.Is(err, errLink):
		fail(w, r, err)
		return
	}
	s.tell(w, r, http.StatusGone, note{Heading: "This link does not work any more", Text: text, Again: userOf(r).ID == ""})
}
