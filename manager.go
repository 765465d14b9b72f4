package guest

import (
	"context"
	"net/http"
)

// A Manager gives visitors their identity. Make one with [New]. It is safe for concurrent use.
type Manager struct {
	site    *site
	account func(*http.Request) string // Config.Account
}

// New returns a Manager, or all faults of the Config at once, joined. Each fault is a
// [*ConfigError]: errors.As finds the first, and the Unwrap() []error of the error returns all.
func New(cfg Config) (*Manager, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	return &Manager{newSite(&cfg), cfg.Account}, nil
}

// As returns a context whose data calls act on this account: for jobs, and for apps without
// Config.Account. The data calls return [ErrInvalid] if the ID is empty or over 512 bytes.
func (m *Manager) As(ctx context.Context, accountID string) context.Context {
	return m.site.newMember(accountID).in(ctx)
}

// AsGuest returns a context whose data calls act on this guest: for jobs and tools. Never take the
// ID from a request: its sender would become that guest. All data calls, also those that read,
// return [ErrClaimed] if an account has claimed the guest, [ErrGone] if it was forgotten, and
// [ErrInvalid] if guestID does not have the form of an ID.
func (m *Manager) AsGuest(ctx context.Context, guestID string) context.Context {
	return m.site.newGuest(guestID).in(ctx)
}
