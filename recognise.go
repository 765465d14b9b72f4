package guest

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// visit decides who sent the request: the heart of the package. It never fails: what does not verify is no guest.
func (m *Manager) visit(r *http.Request) *Visitor {
	v := &Visitor{m: m, request: r, open: true, foreign: crossOrigin.Check(r) != nil}
	if m.cfg.Account != nil {
		v.account = m.cfg.Account(r)
	}
	now := time.Now() // once, as it is a good part of what a known visitor costs
	held := m.held(r, now, v.room[:0])
	v.held, v.replaced, v.ambiguous = held.tokens, held.lapsed, held.ambiguous
	for _, name := range held.junk {
		v.drop(name)
	}
	switch {
	case len(held.tokens) == 0:
		if v.account == "" && m.cfg.Admit(r) {
			v.mint()
		}
	case held.ambiguous:
		v.become(held.tokens[0].token)
	case v.account != "":
		v.become(held.tokens[0].token)
		m.claimAtSignIn(r, v)
	default:
		m.recognise(r.Context(), v, held, now)
	}
	return v
}

// undecided is the request's context while it is not decided whose it is.
func (v *Visitor) undecided(ctx context.Context) context.Context {
	return context.WithValue(ctx, patienceKey{}, &v.patience)
}

// recognise makes the visitor the guest that it was: of several the oldest, which absorbs the others. All requests
// of a browser choose alike, whatever part of its cookies they carry, so no two guests ever absorb each other.
func (m *Manager) recognise(ctx context.Context, v *Visitor, held held, now time.Time) {
	if m.known(v, held) {
		return
	}
	for rest := held.tokens; ; {
		main := rest[0]
		rest = rest[1:]
		v.become(main.token)
		v.stored = true
		young := now.Sub(time.UnixMilli(main.born)) < lateResponse
		if main.spare != "" && !young {
			v.drop(main.spare)
		}
		if !main.provisional && !m.dueToSlide(main.token, now) && len(held.tokens) == 1 {
			return
		}

		// Confirm, or slide: the record lives for TTL from now.
		ctx := v.undecided(context.WithoutCancel(ctx))
		u := live(m.cfg.TTL)
		u.Return = []string{fieldClaimedAt}
		if m.cfg.Hooks.Confirmed != nil && main.provisional {
			u.markFirst(fieldConfirmed)
		}
		res, err := m.update(ctx, v.key, u)
		if err == nil && !res.Applied {
			err = m.resolve(ctx, v.key, res.Fields[fieldState], true)
		}
		if err != nil {
			m.warn("a guest was not recognised", err) // its cookie stays and the next request tries again
			return
		}
		if !(res.Applied && main.heir && young) {
			v.dropSpare(main)
		}
		sibling, isSibling := holderOf(res.Fields[fieldState]).owner.guest()
		switch {
		case res.Applied:
			v.guest.provisional = false
			v.guest.issued = time.Now().Unix()
			v.carry()
			if res.first(u, fieldConfirmed) {
				m.cfg.Hooks.Confirmed(v.in(ctx))
			}
		case isSibling:
			m.moved.put(main.id, sibling)
			v.inherit(sibling)
		default:
			// An account has it. What its siblings held then is the account's too; a guest made since is not.
			m.moved.put(main.id, token{})
			claimedAt, _ := strconv.ParseInt(res.Fields[fieldClaimedAt], 10, 64)
			since, _ := slices.BinarySearchFunc(rest, claimedAt, func(p presented, at int64) int { return cmp.Compare(p.born, at) })
			m.absorb(ctx, v, main.token, rest[:since])
			if rest = rest[since:]; len(rest) > 0 {
				continue
			}
			v.replace()
			return
		}
		m.absorb(ctx, v, v.guest, rest)
		main.token = v.guest
		v.held = []presented{main}
		return
	}
}

// A guest's TTL slides, with its cookie, when it has not for a day.
func (m *Manager) dueToSlide(t token, now time.Time) bool {
	return now.Sub(time.Unix(t.issued, 0)) >= m.slideAfter()
}

func (m *Manager) slideAfter() time.Duration { return min(day, m.cfg.TTL/2) }

// lateResponse is how long the response of a claim may be under way. It clears the main cookie, which by then may be
// that of the next guest; so for that long the browser keeps the next guest's spare cookie too.
const lateResponse = 2 * time.Minute

// known spares the store when this process has seen the guest's end already.
func (m *Manager) known(v *Visitor, held held) bool {
	if len(held.tokens) != 1 {
		return false
	}
	t := held.tokens[0].token
	heir, gone := m.moved.get(t.id)
	if !gone {
		return false
	}
	if heir.id != (guestID{}) {
		v.inherit(heir)
		main := held.tokens[0]
		main.token = v.guest
		v.held = []presented{main}
	} else {
		v.become(t)
		v.replace()
	}
	v.dropSpare(held.tokens[0])
	return true
}

// absorb claims other guests of the same browser for the main one, if they may be.
func (m *Manager) absorb(ctx context.Context, v *Visitor, main token, spares []presented) {
	for _, spare := range spares {
		if spare.id != main.id && m.siblings(spare.token, main) {
			if c := m.drive(ctx, m.newClaim(guestKey(spare.id), ownerGuest(main))); c.outcome == failed {
				m.warn("a sibling guest was not absorbed", c.err) // its cookie stays and the next request tries again
				continue
			}
			m.moved.put(spare.id, main)
		}
		v.dropSpare(spare)
	}
}

// siblings reports whether two guests may be one visitor's. Where others may have planted the one beside the other they must
// have been born together, as parallel first requests are: the visitor's guest of yesterday is safe.
func (m *Manager) siblings(a, b token) bool {
	apart := time.Duration(max(a.born-b.born, b.born-a.born)) * time.Millisecond
	return !m.cfg.Cookie.plantable() || apart <= m.cfg.ProvisionalTTL+clockSkew
}

// outlived reports whether no browser would still send this spare cookie of its own accord.
func (m *Manager) outlived(spare token, now time.Time) bool {
	return m.cfg.Cookie.plantable() && now.Sub(time.Unix(spare.issued, 0)) > m.cfg.ProvisionalTTL+clockSkew
}

// plantable reports whether others than the site itself, such as its subdomains, can set the cookie.
func (c *Cookie) plantable() bool { return !strings.HasPrefix(c.Name, hostPrefix) }

// clockSkew is how far apart the clocks of an app's nodes may be.
const clockSkew = time.Hour

// live extends the life of a guest that nobody has claimed, or begins it.
func live(ttl time.Duration) Update {
	return Update{If: whileOpen, Default: Fields{fieldIncarnation: newIncarnation()}, TTL: ttl}
}

// dropSpare clears the spare cookie that a guest came under.
func (v *Visitor) dropSpare(p presented) {
	if p.name != v.m.cfg.Cookie.Name && p.name != "" {
		v.drop(p.name)
	}
}

// A presented token came with a request.
type presented struct {
	token
	name   string // of its cookie; "" if it came in none
	spare  string // of its spare cookie, if that came beside the main one
	header bool   // it came in the header
}

type held struct {
	tokens    []presented // verified and different, the oldest first
	ambiguous bool        // two different guests under the main name
	lapsed    bool        // one was ours but its life is over
	junk      []string    // names of spare cookies that do not verify, if there are too many to look at all
}

const mostPresented = 64 // cookies of ours looked at in a request

// held returns the guests that the request names, in room if they fit.
func (m *Manager) held(r *http.Request, now time.Time, room []presented) (h held) {
	h.tokens = room
	name := m.cfg.Cookie.Name
	looked, mains := 0, 0
	for _, line := range r.Header["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			// Browsers strip space and tab from a name, and nothing else (RFC 6265bis, section 5.6).
			// Whoever strips more takes "\u2000__Host-Http-guest", which any subdomain may set, for ours.
			key, value, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
			if key != name && !isSpareName(key, name) {
				continue
			}
			if looked++; looked > mostPresented {
				break
			}
			switch fresh := m.present(r.Context(), &h, key, strings.Trim(value, `"`), now); {
			case fresh && key == name:
				mains++
			case !fresh && key != name:
				h.junk = append(h.junk, key)
			}
		}
	}
	if looked <= mostPresented { // a spare cookie may be of a secret that only a newer process knows
		h.junk = nil
	}
	if len(h.tokens) == 0 && m.cfg.Header != "" {
		if value := r.Header.Get(m.cfg.Header); value != "" && m.present(r.Context(), &h, name, value, now) {
			h.tokens[0].name, h.tokens[0].header = "", true
		}
	}
	if len(h.tokens) > 0 {
		h.lapsed = false
	}
	if h.ambiguous = mains > 1; h.ambiguous {
		m.refused(r.Context(), RefusedCookies)
		return h // the first one in the request is served
	}
	slices.SortFunc(h.tokens, func(a, b presented) int {
		return cmp.Or(cmp.Compare(a.born, b.born), slices.Compare(a.id[:], b.id[:]))
	})
	return h
}

// openToken verifies a token, once: one seen before is known by all its bytes, until it is too old.
func (m *Manager) openToken(name, value string, now time.Time) (t token, lapsed bool, err error) {
	if name != m.cfg.Cookie.Name { // a spare cookie comes once or twice
		return m.ring.openToken(name, value)
	}
	if t, ok := m.seen.get(value); ok && now.Sub(time.Unix(t.issued, 0)) < m.cfg.TTL {
		return t, false, nil
	}
	if t, lapsed, err = m.ring.openToken(name, value); err == nil {
		m.seen.put(strings.Clone(value), t) // not the whole Cookie header
	}
	return t, lapsed, err
}

// present adds what a cookie says, if it verifies and is not known yet.
func (m *Manager) present(ctx context.Context, h *held, name, value string, now time.Time) bool {
	t, lapsed, err := m.openToken(name, value, now)
	switch {
	case err != nil:
		m.refused(ctx, RefusedToken)
		return false
	case lapsed, name != m.cfg.Cookie.Name && m.outlived(t, now):
		h.lapsed = true
		return false
	}
	for i, other := range h.tokens {
		if other.id == t.id {
			switch {
			case name != m.cfg.Cookie.Name:
				h.tokens[i].spare = name
			case other.name != name:
				h.tokens[i] = presented{token: t, name: name, spare: other.name}
				return true
			}
			return false
		}
	}
	h.tokens = append(h.tokens, presented{token: t, name: name})
	return true
}
