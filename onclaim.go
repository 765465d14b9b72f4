package guest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// hookCalls are the OnClaim calls under way, by claim.
type hookCalls struct {
	mu      sync.Mutex
	running map[string]bool
}

func (h *hookCalls) begin(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running[id] {
		return false
	}
	if h.running == nil {
		h.running = map[string]bool{}
	}
	h.running[id] = true
	return true
}

func (h *hookCalls) end(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.running, id)
}

// callOnClaim waits for the app's hook until ctx ends. A hook that does not heed ctx runs on, but the login does not
// wait for it; meanwhile it is not called again for this claim by this process.
func (m *Manager) callOnClaim(ctx context.Context, c claim) error {
	if m.cfg.OnClaim == nil || !c.owner.isAccount() {
		return nil
	}
	receipt := c.receipt()
	if !m.hooks.begin(receipt.ID) {
		return errors.New("guest: Config.OnClaim is still running from an earlier attempt")
	}
	// The hook's time ends a little before ours, so that one that heeds it is seen to end.
	limit := ctx
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		limit, cancel = context.WithDeadline(ctx, deadline.Add(-m.cfg.ClaimTimeout/10))
		defer cancel()
	}
	result := make(chan error, 1)
	go func() {
		err := m.tryOnClaim(limit, receipt)
		m.hooks.end(receipt.ID)
		result <- err
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("guest: Config.OnClaim did not return in time: %w", ctx.Err())
	}
}

func (m *Manager) tryOnClaim(ctx context.Context, receipt Receipt) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("guest: Config.OnClaim panicked: %v", p)
		}
	}()
	return m.cfg.OnClaim(ctx, receipt)
}

// retry says when a request may try a failed claim again: after 1 s, 2 s, 4 s … up to 10 s while the store is down, up
// to an hour if it is OnClaim or a merge rule that fails.
type retry struct {
	at    time.Time
	pause time.Duration
}

func (r retry) next(cause error) retry {
	longest := time.Hour
	if errors.Is(cause, ErrUnavailable) {
		longest = 10 * time.Second
	}
	pause := max(time.Second, min(2*r.pause, longest))
	return retry{time.Now().Add(pause), pause}
}
