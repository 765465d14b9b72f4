package guest

import (
	"context"
	"time"
)

// Recover finishes the claims that a crash, an outage or a failing OnClaim left half done, and returns
// how many. Any process may run it at any time, several at once too. What fails is joined in the error
// and is tried again by the next Recover.
func (m *Manager) Recover(ctx context.Context) (finished int, err error) {
	claimer := m.site.claimer
	err = claimer.eachEntry(ctx, func(e entryInOutbox) error {
		done, err := claimer.settle(ctx, claimer.newClaim(e.Guest, e.Owner).finish(), e)
		if done {
			finished++
		}
		return err
	})
	return finished, err
}

// RecoverClaim is [Manager.Recover] for one claim of [Inspector.Pending]. It reports whether the claim
// is finished.
func (m *Manager) RecoverClaim(ctx context.Context, p PendingClaim) (finished bool, err error) {
	claimer, e := m.site.claimer, p.entry
	return claimer.settle(ctx, claimer.newClaim(e.Guest, e.Owner).finish(), e)
}

// Run calls Recover every so often (0: every minute) until ctx ends. The app starts it, in a goroutine
// of its own, and stops it: go guests.Run(ctx, 0). One process is enough, any number is safe.
func (m *Manager) Run(ctx context.Context, every time.Duration) {
	if every <= 0 {
		every = time.Minute
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if _, err := m.Recover(ctx); err != nil && ctx.Err() == nil {
			m.site.report.warn("Recover left claims unfinished", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
