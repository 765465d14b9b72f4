package main

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// A limit lets through so many at once, and then one more every so often.
type limit struct {
	burst int
	every time.Duration
}

// formLimits are those of a form: for a client, for what it is about (an address, a number), and
// for all together.
type formLimits struct {
	form               string
	client, about, all limit
}

// What they are set to is a matter of the shop's traffic, and of what an SMS costs. docs/signin.md
// says who can lock out whom with them.
var (
	passwordLimits = formLimits{"password", limit{20, time.Minute}, limit{10, 10 * time.Minute}, limit{200, time.Second / 5}}
	linkLimits     = formLimits{"link", limit{10, 2 * time.Minute}, limit{5, 10 * time.Minute}, limit{100, time.Second}}
	codeLimits     = formLimits{"code", limit{10, 5 * time.Minute}, limit{5, 30 * time.Minute}, limit{30, 30 * time.Second}}
	typingLimits   = formLimits{"typing", limit{20, time.Minute}, limit{5, 5 * time.Minute}, limit{100, time.Second}}
	oauthLimits    = formLimits{"oauth", limit{20, 10 * time.Second}, limit{20, 10 * time.Second}, limit{200, time.Second / 5}}
)

// A use of a limit is counted for whom it limits.
type use struct {
	who string
	limit
}

// limits count uses in the database, so that they hold for all processes and outlive each. A row is
// there while some of a limit is used. Only what is let through makes rows, so the limits for all
// together bound how many there are.
type limits struct{ db *sql.DB }

// allow counts these uses, or none of them if one is over its limit: then wait is for how long. The
// method is GCRA.
func (l limits) allow(ctx context.Context, uses ...use) (wait time.Duration, err error) {
	now := time.Now().UnixMilli()
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `DELETE FROM limits WHERE due <= ?`, now); err != nil {
		return 0, err
	}
	for _, u := range uses {
		every := u.every.Milliseconds()
		var due int64
		err := tx.QueryRowContext(ctx, `INSERT INTO limits (who, due) VALUES (?, ?)
			ON CONFLICT (who) DO UPDATE SET due = due + ? RETURNING due`, hashToken(u.who), now+every, every).Scan(&due)
		if err != nil {
			return 0, err
		}
		over := due - now - int64(u.burst)*every
		wait = max(wait, time.Duration(over)*time.Millisecond)
	}
	if wait > 0 {
		return wait, nil
	}
	return 0, tx.Commit()
}

// limited counts a form that is sent, and answers it if that is too often. A browser that is
// counted apart, by a token that strangers do not have, cannot be kept out by them, however many
// they are.
func (s *shop) limited(w http.ResponseWriter, r *http.Request, l formLimits, about, apart string) bool {
	uses := []use{{l.form, l.all}, {l.form + " by " + s.client(r), l.client}}
	if about != "" {
		uses = append(uses, use{l.form + " for " + about, l.about})
	}
	if apart != "" {
		uses = []use{{l.form + " apart", l.all}, {l.form + " apart " + apart, l.about}}
	}
	wait, err := s.limits.allow(r.Context(), uses...)
	switch {
	case err != nil:
		fail(w, r, err)
	case wait > 0:
		wait = (wait + time.Second - 1).Truncate(time.Second)
		w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)))
		s.tell(w, r, http.StatusTooManyRequests, note{
			Heading: "Too often just now",
			Text:    "This was tried many times, here or by others. Nothing has changed: try again in " + inMinutes(wait) + ", or sign in another way.",
			Again:   userOf(r).ID == "",
		})
	default:
		return false
	}
	return true
}

func inMinutes(wait time.Duration) string {
	if wait < 2*time.Minute {
		return plural(int64(wait/time.Second), "second")
	}
	return fmt.Sprintf("%d minutes", (wait+time.Minute-1)/time.Minute)
}

// client is whose request it is: an IPv4 address or an IPv6 /64, as networks hand them out. Behind
// a proxy all requests have its address, and the visitor's is in a header. Any client can send such
// a header, so only the one is believed that the proxy sets, and of several addresses in it the
// last one, which is what the proxy has seen.
func (s *shop) client(r *http.Request) string {
	text := r.RemoteAddr
	if peer, err := netip.ParseAddrPort(text); err == nil {
		text = peer.Addr().String()
	}
	if s.clientHeader != "" {
		all := strings.Join(r.Header.Values(s.clientHeader), ",")
		text = strings.TrimSpace(all[strings.LastIndex(all, ",")+1:])
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return "" // all of these are one client
	}
	if addr = addr.Unmap(); addr.Is4() {
		return addr.String()
	}
	prefix, _ := addr.Prefix(64)
	return prefix.String()
}
