package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"regexp"
	"strings"
	"time"
)

const (
	codeLife    = 10 * time.Minute
	askerCookie = "asker"
)

// codes are those that were sent by SMS, one for a number. With each goes the ticket of the guest
// that asked for it, as a code may be typed on another device.
type codes struct{ db *sql.DB }

var errCode = &mistake{"code", "This is not the code that was sent last, or it is older than 10 minutes."}

// make replaces the code of a number. The asker is a token of the browser that asks for it.
func (c codes) make(ctx context.Context, phone, asker, ticket string) (code string, err error) {
	n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
	if err != nil {
		return "", err
	}
	code = fmt.Sprintf("%06d", n)
	hash, err := hashPassword(ctx, code) // slow, as there are only a million
	if err != nil {
		return "", err
	}
	now := time.Now()
	if _, err := c.db.ExecContext(ctx, `DELETE FROM codes WHERE expires <= ?`, now.Unix()); err != nil {
		return "", err
	}
	_, err = c.db.ExecContext(ctx, `INSERT INTO codes (phone, code, asker, ticket, expires) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (phone) DO UPDATE SET code = excluded.code, asker = excluded.asker, ticket = excluded.ticket, expires = excluded.expires`,
		phone, hash, hashToken(asker), ticket, now.Add(codeLife).Unix())
	return code, err
}

// askedBy reports whether this browser has asked for the number's code.
func (c codes) askedBy(ctx context.Context, phone, asker string) (yes bool) {
	err := c.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM codes WHERE phone = ? AND asker = ?)`,
		phone, hashToken(asker)).Scan(&yes)
	return err == nil && yes
}

// use returns the ticket that came with the code, once.
func (c codes) use(ctx context.Context, phone, code string) (ticket string, err error) {
	var hash string
	err = c.db.QueryRowContext(ctx, `SELECT code, ticket FROM codes WHERE phone = ? AND expires > ?`,
		phone, time.Now().Unix()).Scan(&hash, &ticket)
	if errors.Is(err, sql.ErrNoRows) {
		return "", errCode
	} else if err != nil {
		return "", err
	}
	ok, err := checkPassword(ctx, hash, code)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", errCode
	}
	res, err := c.db.ExecContext(ctx, `DELETE FROM codes WHERE phone = ? AND code = ?`, phone, hash)
	if err != nil {
		return "", err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 { // typed twice at once
		return "", errors.Join(err, errCode)
	}
	return ticket, nil
}

var phoneForm = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)

// normalPhone is the form in which a number is stored and looked up.
func normalPhone(phone string) (string, bool) {
	phone = strings.NewReplacer(" ", "", "-", "", "/", "", "(", "", ")", "").Replace(phone)
	return phone, phoneForm.MatchString(phone)
}

// A codePage asks for the code that was sent.
type codePage struct {
	Phone, Next string
	Sent        bool
	Outbox      bool // the SMS can be read here
	Mistake     mistake
}

// sendCode sends a code, whether there is an account or not.
func (s *shop) sendCode(w http.ResponseWriter, r *http.Request) {
	phone, ok := normalPhone(r.FormValue("phone"))
	if !ok {
		s.tryAgain(w, r, logInForm, errPhone)
		return
	}
	if s.limited(w, r, codeLimits, phone, s.known.browser(r, phone)) {
		return
	}
	asker := rand.Text()
	code, err := s.codes.make(r.Context(), phone, asker, s.ticket(r, phoneAudience(phone)))
	if err != nil {
		fail(w, r, err)
		return
	}
	s.cookies.set(w, askerCookie, asker, codeLife)
	if err := s.sms.Text(r.Context(), phone, code+" is your code for Windowsill. Give it to no one."); err != nil {
		fail(w, r, err)
		return
	}
	s.askCode(w, r, codePage{Phone: phone, Sent: true})
}

var errPhone = &mistake{"phone", "Enter a number with its country, like +49 30 1234567."}

// showCode is for the code that another device has asked for.
func (s *shop) showCode(w http.ResponseWriter, r *http.Request) { s.askCode(w, r, codePage{}) }

func (s *shop) askCode(w http.ResponseWriter, r *http.Request, body codePage) {
	status := http.StatusOK
	if body.Mistake.Text != "" {
		status = http.StatusUnprocessableEntity
	}
	body.Next, body.Outbox = next(r), s.sms == texter(s.outbox)
	p := s.newPage(w, r, "Type the code")
	p.Body = body
	p.render(w, r, status, "code")
}

func (s *shop) typeCode(w http.ResponseWriter, r *http.Request) {
	phone, _ := normalPhone(r.FormValue("phone"))
	apart := s.known.browser(r, phone)
	if asker := s.cookies.get(r, askerCookie); s.codes.askedBy(r.Context(), phone, asker) {
		apart = asker // five tries of its own for a code that it asked for
	}
	if s.limited(w, r, typingLimits, phone, apart) { // before the code is looked at: parallel guesses are counted too
		return
	}
	ticket, err := s.codes.use(r.Context(), phone, strings.TrimSpace(r.FormValue("code")))
	var m *mistake
	if errors.As(err, &m) {
		s.askCode(w, r, codePage{Phone: r.FormValue("phone"), Mistake: *m})
		return
	} else if err != nil {
		fail(w, r, err)
		return
	}
	user, isNew, err := s.accounts.byPhone(r.Context(), phone)
	if err != nil {
		fail(w, r, err)
		return
	}
	s.welcome(w, r, arrival{user: user, isNew: isNew, ticket: ticket, audience: phoneAudience(phone)})
}
