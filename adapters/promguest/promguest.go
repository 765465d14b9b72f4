// Package promguest counts what a guest.Manager does, for Prometheus:
//
//	hooks, err := promguest.New(prometheus.DefaultRegisterer)
//	guests, err := guest.New(guest.Config{ …, Hooks: hooks })
//
// No metric has an ID, an account or a value as a label. dashboard.json is a dashboard for Grafana.
package promguest

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/guestkit/guest"
)

// New registers the metrics and returns the hooks that count them, for Config.Hooks;
// [guest.Hooks.And] adds others. Each Manager of a process needs a Registerer of its own, such as
// prometheus.WrapRegistererWith returns. If the Registerer returns an error, New returns it, and
// nothing is registered.
func New(reg prometheus.Registerer) (guest.Hooks, error) {
	created := counter("guest_created_total",
		"New guests: the token was sent, or data were stored.")
	returned := counter("guest_returned_total", "Guests whose cookie came back for the first time.")
	firstWrites := counter("guest_first_writes_total", "Guests that stored their first data.")
	refused := counters("guest_refused_total",
		"Tokens and claims that were turned away, by reason.", "reason")
	claims := counters("guest_claims_total",
		"Claims by outcome: claimed, replayed (done before), pending (an attempt that left it unfinished), refused.", "outcome")
	stuck := counter("guest_stuck_claims_total",
		"Times that Recover failed to finish a claim over 24 hours old.")
	calls := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "guest_store_call_duration_seconds",
		Help: "Duration of store calls, including failed ones.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .15, .3, .6,
			1, 2, 5}, // redisstore may wait for 2 s in its queue, then 2 s for the answer
	}, []string{"op"})
	failures := counters("guest_store_call_errors_total",
		"Store calls that failed, by class of error.", "op", "error")

	// Every series exists from the start, so that the first event is an increase.
	for _, reason := range reasons {
		refused.WithLabelValues(reason)
	}
	for _, outcome := range outcomes {
		claims.WithLabelValues(outcome)
	}
	for _, op := range []string{"get", "update"} {
		calls.WithLabelValues(op)
		for _, class := range classes {
			failures.WithLabelValues(op, class)
		}
	}
	if err := register(reg, created, returned, firstWrites, refused, claims, stuck, calls,
		failures); err != nil {
		return guest.Hooks{}, err
	}

	return guest.Hooks{
		Created:    func(context.Context) { created.Inc() },
		Returned:   func(context.Context) { returned.Inc() },
		FirstWrite: func(context.Context) { firstWrites.Inc() },
		Refused: func(_ context.Context, reason string) {
			refused.WithLabelValues(reason).Inc()
			if reason != guest.RefusedToken && reason != guest.RefusedCookies {
				claims.WithLabelValues("refused").Inc()
			}
		},
		Claimed: func(_ context.Context, r guest.Receipt) {
			claims.WithLabelValues(outcome(r)).Inc()
		},
		Stuck: func(context.Context, guest.Receipt, error) { stuck.Inc() },
		StoreCall: func(_ context.Context, op string, d time.Duration, err error) {
			calls.WithLabelValues(op).Observe(d.Seconds())
			if err != nil {
				failures.WithLabelValues(op, guest.StoreErrorClass(err)).Inc()
			}
		},
	}, nil
}

// Lost registers guest_lost_total, the number of guests that expired with data. lost is the Lost
// method of a memstore.Store.
func Lost(reg prometheus.Registerer, lost func() int64) error {
	return register(reg, prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "guest_lost_total",
		Help: "Guests that expired with data that no account had claimed.",
	}, func() float64 { return float64(lost()) }))
}

var (
	reasons = []string{guest.RefusedToken, guest.RefusedCookies, guest.RefusedAmbiguous,
		guest.RefusedCrossOrigin, guest.RefusedClaimed, guest.RefusedTicket}
	outcomes = []string{"claimed", "replayed", "pending", "refused"}
	classes  = []string{"quota", "invalid", "uncertain", "canceled", "timeout", "unavailable"}
)

func outcome(r guest.Receipt) string {
	switch {
	case r.Pending:
		return "pending"
	case r.Replayed:
		return "replayed"
	}
	return "claimed"
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// register registers all collectors or none.
func register(reg prometheus.Registerer, all ...prometheus.Collector) error {
	for i, c := range all {
		if err := reg.Register(c); err != nil {
			for _, done := range all[:i] {
				reg.Unregister(done)
			}
			return fmt.Errorf("promguest: the metrics were not registered: %w", err)
		}
	}
	return nil
}
