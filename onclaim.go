package guest

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// An onClaim calls Config.OnClaim, at most once at a time for each claim.
type onClaim struct {
	app func(context.Context, Receipt) error // Config.OnClaim; nil: there is nothing to call

	mu      sync.Mutex
	running map[string]*onClaimCall // by the receipt's ID, which is the claim's
}

type onClaimCall struct {
	done chan struct{} // closed when err is set
	err  error
}

// call calls the app's function and waits for it until ctx ends. A function that ignores its
// context runs on, but the login does not wait for it; until it returns, this process does not call
// it again for this claim.
func (o *onClaim) call(ctx context.Context, receipt Receipt, timeout time.Duration) error {
	if o.app == nil {
		return nil
	}
	call := o.join(receipt.ID, func() error {
		// The time of the function ends a little before ours, so that a function that obeys its
		// context returns before we stop waiting.
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout*9/10)
		defer cancel()
		return o.try(limit, receipt)
	})
	select {
	case <-call.done:
		return call.err
	case <-ctx.Done():
		return fmt.Errorf("guest: Config.OnClaim did not return in time: %w", ctx.Err())
	}
}

// join returns the call for this claim that is running, or starts one.
func (o *onClaim) join(id string, start func() error) *onClaimCall {
	o.mu.Lock()
	defer o.mu.Unlock()
	if call, ok := o.running[id]; ok {
		return call
	}
	if o.running == nil {
		o.running = map[string]*onClaimCall{}
	}
	call := &onClaimCall{done: make(chan struct{})}
	o.running[id] = call
	go func() {
		call.err = start()
		o.mu.Lock()
		delete(o.running, id)
		o.mu.Unlock()
		close(call.done)
	}()
	return call
}

// try calls the app's function once. A panic in it is an error.
func (o *onClaim) try(ctx context.Context, receipt Receipt) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &appError{
				"Config.OnClaim panicked", fmt.Errorf("guest: Config.OnClaim panicked: %v", p),
			}
		}
	}()
	if err := o.app(ctx, receipt); err != nil {
		return &appError{"Config.OnClaim returned an error", err}
	}
	return nil
}
