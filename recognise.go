package guest

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// visit decides who sent the request: the heart of the package. It never fails: what does not verify is no guest.
func (m *Manager) visit(r *http.Request) *Visitor {
	v := &Visitor{m: m, request: r, open: true, foreign: m.foreign(r), work: mostWorked}
	if m.cfg.Account != nil {
		v.account = m.cfg.Account(r)
	}
	now := time.Now() // once, as it is a good part of what a known visitor costs
	held := m.held(r, now, v.room[:0])
	v.held, v.replaced, v.ambiguous, v.keepMain = held.tokens, held.lapsed, held.ambiguous, held.newer
	for _, name := range held.junk {
		v.drop(name)
	}
	switch {
	case len(held.tokens) == 0:
		if v.account == "" && m.admits(r) {
			v.mint(0)
		}
	case held.ambiguous:
		m.serveUnclaimed(r.Context(), v, held.tokens)
	case v.account != "":
		v.become(held.tokens[0].token)
		m.claimAtSignIn(r, v)
	default:
		m.recognise(r.Context(), v, held, now)
	}
	return v
}

// foreign reports whether another site's page sent the request, with an unsafe method. A page of another site cannot
// send Config.Header unless the app's own CORS rules allow it.
func (m *Manager) foreign(r *http.Request) bool {
	return crossOrigin.Check(r) != nil && !m.byHeader(r)
}

// byHeader reports whether the client uses Config.Header. It says so by sending it, empty before it has a token.
func (m *Manager) byHeader(r *http.Request) bool {
	return m.cfg.Header != "" && len(r.Header[m.cfg.Header]) > 0
}

// headerClientKey tells Browsers that a client has no cookies that a new guest could overwrite.
type headerClientKey struct{}

// admits asks Config.Admit whether the request gets a new guest.
func (m *Manager) admits(r *http.Request) bool {
	if m.byHeader(r) {
		r = r.WithContext(context.WithValue(r.Context(), headerClientKey{}, true))
	}
	return m.cfg.Admit(r)
}

// undecided is the request's context while it is not decided whose it is.
func (v *Visitor) undecided(ctx context.Context) context.Context {
	return context.WithValue(ctx, patienceKey{}, &v.patience)
}

// mostWorked is how many guests one request asks the store about: the visitor's own and seven others. A browser that
// brings more has them settled by its next requests.
const mostWorked = 8

// mayWork reports whether the request may ask about one more guest, which it then has done.
func (v *Visitor) mayWork() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.work--
	return v.work >= 0
}

// A departure says where a guest went that is known to be claimed.
type departure struct {
	sibling token // that absorbed it; zero: an account has it, or it was forgotten
	at      int64 // when it was claimed, Unix milliseconds by the store's clock; 0: not known
	nobody  bool  // it was forgotten
}

// departureOf reads the record of a guest that is claimed.
func departureOf(record Fields) (gone departure) {
	gone.sibling, _ = holderOf(record[fieldState]).owner.guest()
	gone.nobody = record[fieldState] == forgotten
	gone.at, _ = strconv.ParseInt(record[fieldClaimedAt], 10, 64)
	return gone
}

// isOver reports whether this process knows that the guest of this cookie has nothing left, so that the cookie can
// be cleared without asking the store: an account has it, it was forgotten, or a sibling that the request names too has it.
func (m *Manager) isOver(p presented, held []presented) bool {
	gone, known := m.moved.get(p.id)
	return known && (gone.sibling.id == (guestID{}) ||
		slices.ContainsFunc(held, func(o presented) bool { return o.id == gone.sibling.id }))
}

// recognise makes the visitor the guest that it was: of several the oldest, which absorbs the others. All requests
// of a browser choose alike, whatever part of its cookies they carry, so no two guests ever absorb each other.
func (m *Manager) recognise(ctx context.Context, v *Visitor, held held, now time.Time) {
	only := len(held.tokens) == 1
	var moved bool
	if only {
		var gone departure
		if gone, moved = m.moved.get(held.tokens[0].id); moved && gone.sibling.id == (guestID{}) { // the store is spared
			v.become(held.tokens[0].token)
			v.replace(gone.at)
			v.dropSpare(held.tokens[0])
			return
		}
	}
	keep := false // the main cookie
	for rest := held.tokens; ; {
		main := rest[0]
		rest = rest[1:]
		v.become(main.token)
		v.stored = true
		young := now.Sub(time.UnixMilli(main.born)) < lateResponse
		if main.spare != "" && !(main.heir && young) {
			v.drop(main.spare)
		}
		if only && !moved && !main.provisional && !m.dueToSlide(main.token, now) {
			return
		}
		if held.newer { // as it is: see maybeNewer
			return
		}

		ctx := v.undecided(context.WithoutCancel(ctx))
		gone, err := m.confirm(ctx, v, main)
		if err != nil {
			if err != errLater {
				m.warn("a guest was not recognised", err)
			}
			return // its cookie stays and the next request tries again
		}
		if gone != nil {
			// An account has it. What its siblings held then is the account's too; a guest made since is not. Nor
			// has a guest that was forgotten any siblings.
			since, _ := slices.BinarySearchFunc(rest, gone.at, func(p presented, at int64) int { return cmp.Compare(p.born, at) })
			if len(m.absorb(ctx, v, v.guest, rest[:since])) == 0 {
				v.dropSpare(main)
			} else if !m.isSpare(main) {
				keep = true // it tells the next request, too, whose those are that are left
			}
			if rest = rest[since:]; len(rest) > 0 {
				continue
			}
			v.replace(gone.at)
			return
		}
		// The guest under the main name comes first: its cookie is overwritten, so it must be absorbed by then.
		if i := slices.IndexFunc(rest, func(p presented) bool { return !m.isSpare(p) }); i > 0 {
			rest[0], rest[i] = rest[i], rest[0]
		}
		left := m.absorb(ctx, v, v.guest, rest)
		if !keep && (len(left) == 0 || m.isSpare(left[0])) {
			v.carry()
			if !(main.heir && young && main.id == v.guest.id) {
				v.dropSpare(main)
			}
		}
		main.token = v.guest
		v.held = append(v.room[:0], main)
		v.held = append(v.held, left...)
		return
	}
}

// errLater: the request has asked about as many guests as it may.
var errLater = errors.New("guest: the next request goes on")

// confirm makes the visitor the guest of this cookie, or the sibling that absorbed it, wherever that went in turn; its
// record lives for TTL from now. gone: that guest is claimed, or forgotten.
func (m *Manager) confirm(ctx context.Context, v *Visitor, main presented) (gone *departure, err error) {
	for range mostHops {
		gone, known := m.moved.get(v.guest.id)
		if !known || gone == (departure{}) {
			if !v.mayWork() {
				return nil, errLater
			}
			u := live(m.cfg.TTL)
			u.Return = []string{fieldClaimedAt}
			if m.cfg.Hooks.Returned != nil && main.provisional && main.id == v.guest.id {
				u.markFirst(fieldConfirmed)
			}
			res, err := m.update(ctx, v.key, u)
			if err == nil && !res.Applied {
				err = m.resolve(ctx, v.key, res.Fields[fieldState], true)
			}
			if err != nil {
				return nil, err
			}
			if res.first(u, fieldConfirmed) {
				m.cfg.Hooks.Returned(v.in(ctx))
			}
			if res.Applied {
				v.guest.provisional = false
				v.guest.issued = time.Now().Unix()
				return nil, nil
			}
			gone = departureOf(res.Fields)
			m.moved.put(v.guest.id, gone)
		}
		if gone.sibling.id == (guestID{}) {
			return &gone, nil
		}
		v.adopt(gone.sibling)
	}
	return nil, errors.New("guest: siblings absorb each other in a circle")
}

// isSpare reports whether the guest came under another name than the main one.
func (m *Manager) isSpare(p presented) bool { return p.name != m.cfg.Cookie.Name }

// A guest's TTL slides, with its cookie, when it has not for a day.
func (m *Manager) dueToSlide(t token, now time.Time) bool {
	return now.Sub(time.Unix(t.issued, 0)) >= m.slideAfter()
}

func (m *Manager) slideAfter() time.Duration { return min(day, m.cfg.TTL/2) }

// lateResponse is how long the response of a claim may be under way. It clears the main cookie, which by then may be
// that of the next guest; so for that long the browser keeps the next guest's spare cookie too.
const lateResponse = 2 * time.Minute

// serveUnclaimed chooses between different guests under the main name, as a browser sends them that has cookies of two
// scopes: the first one that is not claimed. None of them may be claimed by this request, as others may have set one. If
// one of them is claimed, our cookie takes its place, and it is cleared in the scopes that the cookie had formerly.
func (m *Manager) serveUnclaimed(ctx context.Context, v *Visitor, tokens []presented) {
	var mains, open []presented
	unseen := false
	for _, p := range tokens {
		if !m.isSpare(p) {
			mains = append(mains, p)
			if _, known := m.moved.get(p.id); !known {
				open = append(open, p)
			}
		}
	}
	v.become(mains[0].token)
	v.stored = true
	if len(open) > 1 { // one alone needs no look
		ctx = v.undecided(ctx)
		looked := open
		open = nil
		for _, p := range looked {
			if !v.mayWork() {
				unseen = true
				open = append(open, p)
				continue
			}
			record, err := m.get(ctx, guestKey(p.id), fieldState, fieldClaimedAt)
			if err != nil {
				m.warn("of two guest cookies none was chosen", err) // the first is served and nothing is cleared
				return
			}
			switch state := record[fieldState]; {
			case state == "":
				open = append(open, p)
			case !holderOf(state).sealed: // else its claim goes on
				m.moved.put(p.id, departureOf(record))
			}
		}
	}
	switch {
	case len(open) == len(mains):
	case len(open) > 0:
		v.become(open[0].token)
		if len(open) == 1 && !unseen { // else ours might take the place of another one that is not claimed
			v.carry()
		}
	default:
		v.drop(m.cfg.Cookie.Name)
		if gone, _ := m.moved.get(mains[0].id); gone.sibling.id != (guestID{}) {
			v.adopt(gone.sibling)
			v.carry()
		} else if v.account == "" {
			v.replace(0)
		}
	}
}

// absorb claims other guests of the same browser for the main one, if they may be, while there is work left. It returns
// those that are left; their cookies stay, and the next request goes on with them.
func (m *Manager) absorb(ctx context.Context, v *Visitor, main token, others []presented) (left []presented) {
	for _, p := range others {
		if p.id != main.id && m.siblings(p.token, main) && !m.isOver(p, v.held) {
			if !v.mayWork() {
				left = append(left, p)
				continue
			}
			switch c := m.drive(ctx, m.newClaim(guestKey(p.id), ownerGuest(main))); c.outcome {
			case failed:
				m.warn("a sibling guest was not absorbed", c.err)
				left = append(left, p)
				continue
			case notSealed:
				left = append(left, p)
				continue
			case claimed:
				m.moved.put(p.id, departure{sibling: main})
			case lost: // somebody has it already
				gone := departure{}
				gone.sibling, _ = c.holder.owner.guest()
				m.moved.put(p.id, gone)
			case noGuest:
				m.moved.put(p.id, departure{nobody: true})
			}
		}
		v.dropSpare(p)
	}
	return left
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

// maybeNewer reports whether a main cookie that does not verify may be of a process that has a newer secret than this
// one, which then leaves it alone: while a new secret is rolled out, both serve the same browser. Such a cookie was
// issued after this process began, or shortly before, and not long ago. A forged one can say so too, of course.
func (m *Manager) maybeNewer(value string, now time.Time) bool {
	t, ok := unverified(value)
	issued := time.Unix(t.issued, 0)
	return ok && issued.After(m.began.Add(-clockSkew)) && now.Sub(issued).Abs() < day
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
	ticket bool   // it came in a ticket
}

type held struct {
	tokens    []presented // verified and different, the oldest first
	ambiguous bool        // two different guests under the main name
	lapsed    bool        // one was ours but its life is over
	newer     bool        // the main cookie does not verify, but may be one of a newer process: see maybeNewer

	// Names of spare cookies that have no token's form; and of those that do not verify, if there are too many to
	// look at all of them.
	junk []string
}

const mostPresented = 64 // cookies of ours looked at in a request

// held returns the guests that the request names, in room if they fit.
func (m *Manager) held(r *http.Request, now time.Time, room []presented) (h held) {
	h.tokens = room
	name := m.cfg.Cookie.Name
	var looked, lookedMain, mains int
	var unproven []string // spare cookies that may be of a secret that only a newer process knows
	for _, line := range r.Header["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			// Browsers strip space and tab from a name, and nothing else (RFC 6265bis, section 5.6).
			// Whoever strips more takes "\u2000__Host-Http-guest", which any subdomain may set, for ours.
			key, value, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
			if key != name && !isSpareName(key, name) {
				continue
			}
			value = strings.Trim(value, `"`)
			count := &looked
			if key == name { // no number of others hides the main one
				count = &lookedMain
			} else if _, formed := unverified(value); !formed {
				if len(h.junk) < mostPresented {
					h.junk = append(h.junk, key)
				}
				continue
			}
			if *count++; *count > mostPresented {
				continue
			}
			switch fresh := m.present(r.Context(), &h, key, value, now); {
			case fresh && key == name:
				mains++
			case !fresh && key != name:
				unproven = append(unproven, key)
			}
		}
	}
	if looked > mostPresented {
		h.junk = append(h.junk, unproven...)
	}
	if len(h.tokens) == 0 && m.cfg.Header != "" {
		if value := r.Header.Get(m.cfg.Header); value != "" && m.present(r.Context(), &h, name, value, now) {
			h.tokens[0].name, h.tokens[0].header = "", true
		}
	}
	if len(h.tokens) > 0 {
		h.lapsed = false
	}
	h.newer = h.newer && mains == 0 // else it was planted beside the visitor's own
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
		h.newer = h.newer || name == m.cfg.Cookie.Name && m.maybeNewer(value, now)
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
