package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// A Manager gives visitors their identity. Make one with [New]; it is safe for concurrent use.
type Manager struct {
	cfg      Config
	ring     *keyring
	kinds    map[string]*kind
	declared []*kind

	moved  recent[token] // guests known to be claimed; a token if a sibling absorbed them
	later  recent[retry] // claims that failed, and when a request may try them again
	hooks  hookCalls
	warned atomic.Int64
}

// New returns a Manager, or all faults of the Config at once, joined; each is a [*ConfigError].
func New(cfg Config) (*Manager, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	m := &Manager{cfg: cfg, kinds: map[string]*kind{}, ring: newKeyring(cfg.Secrets, cfg.TTL)}
	for _, k := range cfg.Data {
		def := k.define()
		m.kinds[def.name] = def
		m.declared = append(m.declared, def)
	}
	m.cfg.Data, m.cfg.Secrets = nil, nil
	return m, nil
}

// Middleware gives each request its visitor: see [FromContext]. Mount it outside what reads guest data, and inside
// what the app's Account needs.
func (m *Manager) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v := FromContext(r.Context()); v != nil && v.m == m { // mounted twice
			next.ServeHTTP(w, r)
			return
		}
		v := m.visit(r)
		r = r.WithContext(v.in(r.Context()))
		v.stamp(w.Header())
		if !v.mayNeedHeader(r) {
			v.open = false
			next.ServeHTTP(w, r)
			return
		}
		res := &response{ResponseWriter: w, v: v}
		next.ServeHTTP(res, r)
		res.commit()
		v.settleNew(r.Context())
	})
}

// Identify is the plain step of Middleware, for adapters of frameworks: it decides who the visitor is, writes the
// response's headers, and returns the request with the visitor in its context. A new guest's record is stored at
// once, and the response is not watched: a guest that turns out claimed during the handler cannot be replaced.
func (m *Manager) Identify(w http.ResponseWriter, r *http.Request) *http.Request {
	v := m.visit(r)
	v.stamp(w.Header())
	v.open = false
	v.settleNew(r.Context())
	return r.WithContext(v.in(r.Context()))
}

// visit decides who sent the request: the heart of the package. It never fails: what does not verify is no guest.
func (m *Manager) visit(r *http.Request) *Visitor {
	v := &Visitor{m: m, open: true}
	if m.cfg.Account != nil {
		v.account = m.cfg.Account(r)
	}
	held := m.held(r)
	v.held, v.replaced, v.ambiguous = held.tokens, held.lapsed, held.ambiguous
	for _, name := range held.junk {
		v.drop(name)
	}
	ctx := context.WithoutCancel(r.Context())
	switch {
	case len(held.tokens) == 0:
		if v.account == "" && m.cfg.Admit(r) {
			v.mint()
			m.minted(ctx)
		}
	case held.ambiguous:
		v.become(held.tokens[0].token)
	case v.account != "":
		v.become(held.tokens[0].token)
		m.claimAtSignIn(r, v)
	default:
		m.recognise(ctx, v, held)
	}
	return v
}

func (m *Manager) minted(ctx context.Context) {
	if m.cfg.Hooks.Minted != nil {
		m.cfg.Hooks.Minted(ctx)
	}
}

// recognise makes the visitor the guest that it was: of several the oldest, which absorbs the others. All requests
// of a browser choose alike, whatever part of its cookies they carry, so no two guests ever absorb each other.
func (m *Manager) recognise(ctx context.Context, v *Visitor, held held) {
	if m.known(ctx, v, held) {
		return
	}
	for rest := held.tokens; ; {
		main := rest[0]
		rest = rest[1:]
		v.become(main.token)
		v.stored = true
		young := time.Since(time.UnixMilli(main.born)) < lateResponse
		if main.spare != "" && !young {
			v.drop(main.spare)
		}
		due := time.Since(time.Unix(main.issued, 0)) >= min(day, m.cfg.TTL/2)
		if !main.provisional && !due && len(held.tokens) == 1 {
			return
		}

		// Confirm, or slide: the record lives for TTL from now.
		res, err := m.update(ctx, v.key, Update{
			If:      Fields{fieldState: ""},
			Default: Fields{fieldIncarnation: newIncarnation()},
			TTL:     m.cfg.TTL,
			Return:  []string{fieldClaimedAt},
		})
		if err == nil && !res.Applied {
			err = m.resolve(ctx, v.key, res.Fields[fieldState], true)
		}
		if err != nil {
			m.warn("a guest was not recognised", err) // its cookie stays and the next request tries again
			return
		}
		if spare := main.name != m.cfg.Cookie.Name && main.name != ""; spare && !(res.Applied && main.heir && young) {
			v.drop(main.name)
		}
		sibling, isSibling := holderOf(res.Fields[fieldState]).owner.guest()
		switch {
		case res.Applied:
			v.guest.provisional = false
			v.guest.issued = time.Now().Unix()
			v.carry()
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
			if v.replace() {
				m.minted(ctx)
			}
			return
		}
		m.absorb(ctx, v, v.guest, rest)
		v.held = []presented{{v.guest, main.name, main.spare}}
		return
	}
}

// lateResponse is how long the response of a claim may be under way. It clears the main cookie, which by then may be
// that of the next guest; so for that long the browser keeps the next guest's spare cookie too.
const lateResponse = 2 * time.Minute

// known spares the store when this process has seen the guest's end already.
func (m *Manager) known(ctx context.Context, v *Visitor, held held) bool {
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
	} else {
		v.become(t)
		v.replace()
		m.minted(ctx)
	}
	if name := held.tokens[0].name; name != m.cfg.Cookie.Name && name != "" {
		v.drop(name)
	}
	return true
}

// absorb claims other guests of the same browser for the main one.
func (m *Manager) absorb(ctx context.Context, v *Visitor, main token, spares []presented) {
	for _, spare := range spares {
		if spare.id != main.id {
			if c := m.drive(ctx, m.newClaim(guestKey(spare.id.String()), ownerGuest(main))); c.outcome == failed {
				m.warn("a sibling guest was not absorbed", c.err) // its cookie stays and the next request tries again
				continue
			}
			m.moved.put(spare.id, main)
		}
		if spare.name != m.cfg.Cookie.Name {
			v.drop(spare.name)
		}
	}
}

// settleNew stores the record of a new guest that kept nothing, so that its return is recognised as one.
func (v *Visitor) settleNew(ctx context.Context) {
	v.mu.Lock()
	due := v.isNew && !v.stored && v.account == "" && v.key != "" && len(v.lines) > 0
	key := v.key
	v.mu.Unlock()
	if !due || v.m.cfg.Create != OnFirstVisit {
		return
	}
	_, err := v.m.update(context.WithoutCancel(ctx), key, Update{
		If:      Fields{fieldState: ""},
		Default: Fields{fieldIncarnation: newIncarnation()},
		TTL:     v.m.cfg.ProvisionalTTL,
	})
	if err != nil {
		v.m.warn("a new guest was not stored", err) // its first write stores it
	}
}

// A presented token came with a request.
type presented struct {
	token
	name  string // of its cookie; "" for the header
	spare string // of its spare cookie, if that came beside the main one
}

type held struct {
	tokens    []presented // verified and different, the oldest first
	ambiguous bool        // two different guests under the main name
	lapsed    bool        // one was ours but its life is over
	junk      []string    // names of spare cookies that do not verify, if there are too many to look at all
}

const mostPresented = 64 // cookies of ours looked at in a request

// held returns the guests that the request names.
func (m *Manager) held(r *http.Request) (h held) {
	name := m.cfg.Cookie.Name
	looked, mains := 0, 0
	for _, line := range r.Header["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			key, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if !strings.HasPrefix(key, name) || key != name && key[len(name)] != '.' {
				continue
			}
			if looked++; looked > mostPresented {
				break
			}
			switch fresh := m.present(r.Context(), &h, key, strings.Trim(value, `"`)); {
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
		if value := r.Header.Get(m.cfg.Header); value != "" && m.present(r.Context(), &h, name, value) {
			h.tokens[0].name = ""
		}
	}
	if len(h.tokens) > 0 {
		h.lapsed = false
	}
	if h.ambiguous = mains > 1; h.ambiguous {
		m.refused(r.Context(), "two different guest cookies")
		return h // the first one in the request is served
	}
	slices.SortFunc(h.tokens, func(a, b presented) int {
		return cmp.Or(cmp.Compare(a.born, b.born), slices.Compare(a.id[:], b.id[:]))
	})
	return h
}

// present adds what a cookie says, if it verifies and is not known yet.
func (m *Manager) present(ctx context.Context, h *held, name, value string) bool {
	t, lapsed, err := m.ring.openToken(name, value)
	switch {
	case err != nil:
		m.refused(ctx, "a token that does not verify")
		return false
	case lapsed:
		h.lapsed = true
		return false
	}
	for i, other := range h.tokens {
		if other.id == t.id {
			switch {
			case name != m.cfg.Cookie.Name:
				h.tokens[i].spare = name
			case other.name != name:
				h.tokens[i] = presented{t, name, other.name}
			}
			return false
		}
	}
	h.tokens = append(h.tokens, presented{t, name, ""})
	return true
}

func (m *Manager) refused(ctx context.Context, reason string) {
	if m.cfg.Hooks.Refused != nil {
		m.cfg.Hooks.Refused(ctx, reason)
	}
}

// get and update call the store, and tell its errors from the caller's.
func (m *Manager) get(ctx context.Context, key string, names ...string) (Fields, error) {
	start := m.clock()
	fields, err := m.cfg.Store.Get(ctx, key, names...)
	return fields, m.called(ctx, "get", start, err)
}

func (m *Manager) update(ctx context.Context, key string, u Update) (Result, error) {
	start := m.clock()
	res, err := m.cfg.Store.Update(ctx, key, u)
	return res, m.called(ctx, "update", start, err)
}

func (m *Manager) clock() (t time.Time) {
	if m.cfg.Hooks.StoreCall != nil {
		t = time.Now()
	}
	return t
}

func (m *Manager) called(ctx context.Context, op string, start time.Time, err error) error {
	if m.cfg.Hooks.StoreCall != nil {
		m.cfg.Hooks.StoreCall(ctx, op, time.Since(start), err)
	}
	if err == nil || errors.Is(err, ErrQuota) || errors.Is(err, ErrInvalid) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

const warnEvery = 10 * time.Second

// warn logs a failure that no caller is told of, at most once in ten seconds.
func (m *Manager) warn(msg string, err error) {
	now := time.Now().UnixNano()
	last := m.warned.Load()
	if now-last >= int64(warnEvery) && m.warned.CompareAndSwap(last, now) {
		m.cfg.Logger.Warn("guest: "+msg, "error", err)
	}
}
