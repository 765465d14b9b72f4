package guest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// A Manager gives visitors their identity. Make one with [New]; it is safe for concurrent use.
type Manager struct {
	cfg      Config
	ring     *keyring
	kinds    map[string]*kind
	declared []*kind

	attributes, attributesOfSpare string // of our cookies

	seen   recent[string, token]      // what verified cookies say, as verifying is most of what a known visitor costs
	moved  recent[guestID, departure] // guests known to be claimed or forgotten, and where they went
	later  recent[guestID, retry]     // claims that failed, and when a request may try them again
	hooks  hookCalls
	warned atomic.Int64
	began  time.Time // when New made the Manager
}

// New returns a Manager, or all faults of the Config at once, joined; each is a [*ConfigError]. errors.As finds the first;
// the error has Unwrap() []error for all.
func New(cfg Config) (*Manager, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	m := &Manager{
		cfg: cfg, kinds: map[string]*kind{}, ring: newKeyring(cfg.Secrets, cfg.App, cfg.TTL),
		began: time.Now(),
	}
	for _, k := range cfg.Data {
		def := k.define()
		m.kinds[def.name] = def
		m.declared = append(m.declared, def)
	}
	m.attributes, m.attributesOfSpare = cfg.Cookie.attributes(cfg.TTL), cfg.Cookie.attributes(cfg.ProvisionalTTL)
	m.cfg.Data, m.cfg.Secrets = nil, nil
	return m, nil
}

// Middleware gives each request its visitor: see [FromContext]. Mount it outside what reads guest data, and inside
// what the app's Account needs.
func (m *Manager) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := m.Begin(w.Header(), r)
		next.ServeHTTP(x.Writer(w), x.Request)
		if x.Watched() {
			x.End()
		}
	})
}

// Identify is Middleware's plain step for a caller that cannot come between handler and header: it decides who the
// visitor is, writes the response's header, and returns the request with the visitor in its context. A new guest's
// record is stored at once, and the response is not watched: a handler that makes it cacheable by others would share
// the visitor's identity, and a guest that turns out claimed during the handler cannot be replaced. Adapters use
// [Manager.Begin].
func (m *Manager) Identify(w http.ResponseWriter, r *http.Request) *http.Request {
	x := m.Begin(w.Header(), r)
	if x.v != nil {
		x.v.open, x.v.watched = false, false
		x.v.announce(x.Request.Context())
		x.v.settleNew(x.Request.Context())
	}
	return x.Request
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
	u := live(v.m.cfg.ProvisionalTTL)
	u.New = true
	if _, err := v.m.update(context.WithoutCancel(ctx), key, u); err != nil {
		v.m.warn("a new guest was not stored", err) // its first write stores it
	}
}

func (m *Manager) get(ctx context.Context, key string, names ...string) (fields Fields, err error) {
	err = m.call(ctx, "get", func(ctx context.Context) (err error) {
		fields, err = m.cfg.Store.Get(ctx, key, names...)
		return err
	})
	return fields, err
}

func (m *Manager) update(ctx context.Context, key string, u Update) (res Result, err error) {
	err = m.call(ctx, "update", func(ctx context.Context) (err error) {
		res, err = m.cfg.Store.Update(ctx, key, u)
		return err
	})
	return res, err
}

// call asks the store while the request of ctx, if it is one's, has patience, and tells its errors from the caller's.
func (m *Manager) call(ctx context.Context, op string, ask func(context.Context) error) error {
	start := time.Now()
	var p *patience
	if v := m.visitorIn(ctx); v == nil {
		p, _ = ctx.Value(patienceKey{}).(*patience)
	} else if v.request != nil {
		p = &v.patience
	}
	limited, cancel, err := p.limit(ctx, m.cfg.StoreBudget, start)
	if err == nil {
		err = ask(limited)
		cancel()
	}
	if m.cfg.Hooks.StoreCall != nil {
		m.cfg.Hooks.StoreCall(ctx, op, time.Since(start), err)
	}
	if err == nil || errors.Is(err, ErrQuota) || errors.Is(err, ErrInvalid) {
		return err
	}
	if err != errImpatient {
		p.spend(start)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

const warnEvery = 10 * time.Second

// An appError is what a function of the app returned or panicked with. Its text may hold IDs and data, so it goes to the
// caller and to hooks, and not into the log.
type appError struct {
	what string // went wrong, without that text
	err  error
}

func (e *appError) Error() string { return e.err.Error() }
func (e *appError) Unwrap() error { return e.err }

// warn logs a failure that no caller is told of, at most once in ten seconds.
func (m *Manager) warn(msg string, err error) {
	if app := (*appError)(nil); errors.As(err, &app) {
		err = errors.New(app.what + " (what it said is in the error of Claim, Recover and Hooks.Stuck)")
	}
	now := time.Now().UnixNano()
	last := m.warned.Load()
	if now-last >= int64(warnEvery) && m.warned.CompareAndSwap(last, now) {
		m.cfg.Logger.Warn("guest: "+msg, "error", err)
	}
}
