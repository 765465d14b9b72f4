// Package otelguest traces and measures what a guest.Manager does, with OpenTelemetry:
//
//	hooks, err := otelguest.New(otelguest.Config{System: "redis"})
//	guests, err := guest.New(guest.Config{ …, Hooks: hooks })
//
// Each store call is a client span under the request's span, and is recorded in the histogram
// db.client.operation.duration, as the semantic conventions for databases define. Events are
// counted in guest.created, guest.returned, guest.first_writes, guest.refused
// (guest.refused.reason), guest.claims (guest.claim.outcome: claimed, replayed, pending, refused)
// and guest.claims.stuck; refusals and claims are events of the request's span, too. No attribute
// has an ID, an account, a value or the text of an error.
package otelguest

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/guestkit/guest"
)

// Config says where spans and metrics go.
type Config struct {
	System         string               // db.system.name of the store: "redis", "memory". Required
	TracerProvider trace.TracerProvider // nil: the global one
	MeterProvider  metric.MeterProvider // nil: the global one
}

const scope = "github.com/guestkit/guest/adapters/otelguest"

// New returns the hooks for guest.Config.Hooks; [guest.Hooks.And] adds others. A call outside a
// trace, such as those of Manager.Run, has no span. The error says what is wrong with the Config,
// or is the MeterProvider's.
func New(cfg Config) (guest.Hooks, error) {
	if cfg.System == "" {
		return guest.Hooks{}, errors.New(`otelguest: Config.System is missing (name the store as db.system.name does, such as "redis" or "memory")`)
	}
	if cfg.TracerProvider == nil {
		cfg.TracerProvider = otel.GetTracerProvider()
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = otel.GetMeterProvider()
	}
	meter := instruments{
		meter: cfg.MeterProvider.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL))}
	created := meter.counter("guest.created", "{guest}",
		"New guests: the token was sent, or data were stored.")
	returned := meter.counter("guest.returned", "{guest}",
		"Guests whose cookie came back for the first time.")
	firstWrites := meter.counter("guest.first_writes", "{guest}",
		"Guests that stored their first data.")
	refused := meter.counter("guest.refused", "{refusal}",
		"Tokens and claims that were turned away.")
	claims := meter.counter("guest.claims", "{claim}", "Claims, by outcome.")
	stuck := meter.counter("guest.claims.stuck", "{failure}",
		"Times that Recover failed to finish a claim over 24 hours old.")
	duration := meter.duration()
	if meter.err != nil {
		return guest.Hooks{}, meter.err
	}

	event := func(ctx context.Context, c metric.Int64Counter, name string, a attribute.KeyValue) {
		c.Add(ctx, 1, metric.WithAttributes(a))
		trace.SpanFromContext(ctx).AddEvent(name, trace.WithAttributes(a))
	}
	claim := func(ctx context.Context, outcome string) {
		event(ctx, claims, "guest.claim", attribute.String("guest.claim.outcome", outcome))
	}
	calls := storeCalls{cfg.TracerProvider.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL)),
		duration, cfg.System}
	return guest.Hooks{
		Created:    func(ctx context.Context) { created.Add(ctx, 1) },
		Returned:   func(ctx context.Context) { returned.Add(ctx, 1) },
		FirstWrite: func(ctx context.Context) { firstWrites.Add(ctx, 1) },
		Refused: func(ctx context.Context, reason string) {
			event(ctx, refused, "guest.refused", attribute.String("guest.refused.reason", reason))
			if reason != guest.RefusedToken && reason != guest.RefusedCookies {
				claim(ctx, "refused")
			}
		},
		Claimed: func(ctx context.Context, r guest.Receipt) {
			switch {
			case r.Pending:
				claim(ctx, "pending")
			case r.Replayed:
				claim(ctx, "replayed")
			default:
				claim(ctx, "claimed")
			}
		},
		Stuck:     func(ctx context.Context, _ guest.Receipt, _ error) { stuck.Add(ctx, 1) },
		StoreCall: calls.call,
	}, nil
}

type storeCalls struct {
	tracer   trace.Tracer
	duration metric.Float64Histogram
	system   string
}

// call records a store call that has just ended. Its span is created afterwards.
func (s storeCalls) call(ctx context.Context, op string, d time.Duration, err error) {
	end := time.Now()
	attrs := []attribute.KeyValue{
		semconv.DBSystemNameKey.String(s.system),
		semconv.DBOperationName(op),
	}
	class := guest.StoreErrorClass(err)
	if class != "" {
		attrs = append(attrs, semconv.ErrorTypeKey.String(class))
	}
	s.duration.Record(ctx, d.Seconds(), metric.WithAttributes(attrs...))
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return
	}
	_, span := s.tracer.Start(ctx, "guest "+op, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithTimestamp(end.Add(-d)), trace.WithAttributes(attrs...))
	if class != "" {
		span.SetStatus(codes.Error, class)
	}
	span.End(trace.WithTimestamp(end))
}

// instruments creates the instruments and keeps the errors.
type instruments struct {
	meter metric.Meter
	err   error
}

func (i *instruments) counter(name, unit, description string) metric.Int64Counter {
	c, err := i.meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
	i.err = errors.Join(i.err, err)
	return c
}

func (i *instruments) duration() metric.Float64Histogram {
	h, err := i.meter.Float64Histogram("db.client.operation.duration", metric.WithUnit("s"),
		metric.WithDescription("Duration of database client operations."),
		metric.WithExplicitBucketBoundaries(.001, .005, .01, .05, .1, .5, 1, 5, 10))
	i.err = errors.Join(i.err, err)
	return h
}
