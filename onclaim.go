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
	running map[string]*hookCall
}

type hookCall struct {
	done chan struct{} // closed when err is there
	err  error
}

// join returns the call for this claim that is under way, or starts one.
func (h *hookCalls) join(id string, start func() error) *hookCall {
	h.mu.Lock()
	defer h.mu.Unlock()
	if call, ok := h.running[id]; ok {
		return call
	}
	if h.running == nil {
		h.running = map[string]*hookCall{}
	}
	call := &hookCall{done: make(chan struct{})}
	h.running[id] = call
	go func() {
		call.err = start()
		h.mu.Lock()
		delete(h.running, id)
		h.mu.Unlock()
		close(call.done)
	}()
	return call
}

// callOnClaim waits for the app's hook until ctx ends. A hook that does not heed its context runs on, but the login
// does not wait for it; meanwhile it is not called again for this claim by this process.
func (m *Manager) callOnClaim(ctx context.Context, c claim) error {
	if m.cfg.OnClaim == nil || !c.owner.isAccount() {
		return nil
	}
	receipt := c.receipt()
	call := m.hooks.join(receipt.ID, func() error {
		// The hook's time ends a little before ours, so that one that heeds it is seen to end.
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.ClaimTimeout*9/10)
		defer cancel()
		return m.tryOnClaim(limit, receipt)
	})
	select {
	case <-call.done:
		return call.err
	case <-ctx.Done():
		return fmt.Errorf("guest: Config.OnClaim did not return in time: %w", ctx.Err())
	}
}

func (m *Manager) tryOnClaim(ctx context.Context, receipt Receipt) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &appError{"Config.OnClaim panicked", fmt.Errorf("guest: Config.OnClaim panicked: %v", p)}
		}
	}()
	if err := m.cfg.OnClaim(ctx, receipt); err != nil {
		return &appError{"Config.OnClaim returned an error", err}
	}
	return nil
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
