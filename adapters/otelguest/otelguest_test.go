package otelguest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/adapters/otelguest"
	"github.com/guestkit/guest/memstore"
)

var Cart = guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))

// A store that can be down.
type store struct {
	guest.Store
	down atomic.Bool
}

func (s *store) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	if s.down.Load() {
		return guest.Result{}, errors.New("connection refused by " + key)
	}
	return s.Store.Update(ctx, key, u)
}

// A site whose requests are traced, each in a span of its path.
type site struct {
	*testing.T
	url    string
	store  *store
	guests *guest.Manager
	spans  *tracetest.SpanRecorder
	reader *sdkmetric.ManualReader
}

func newSite(t *testing.T) *site {
	s := &site{T: t, store: &store{Store: memstore.New(memstore.Config{})},
		spans: tracetest.NewSpanRecorder(), reader: sdkmetric.NewManualReader()}
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(s.spans))
	hooks, err := otelguest.New(otelguest.Config{
		System:         "memory",
		TracerProvider: tracers,
		MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(s.reader)),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.guests, err = guest.New(guest.Config{
		Store:   s.store,
		Secrets: [][]byte{[]byte("a secret of the tests, 32 bytes+")},
		Data:    []guest.Kind{Cart},
		Cookie:  guest.Cookie{Insecure: true},
		Logger:  slog.New(slog.DiscardHandler),
		Hooks:   hooks,
	})
	if err != nil {
		t.Fatal(err)
	}
	pages := http.NewServeMux()
	pages.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello")
	})
	pages.HandleFunc("/cart", func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 1)
	})
	pages.HandleFunc("/login/{user}", func(w http.ResponseWriter, r *http.Request) {
		s.guests.Claim(w, r, r.PathValue("user"))
	})
	h := s.guests.Middleware(pages)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, span := tracers.Tracer("site").Start(r.Context(), r.URL.Path,
			trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		h.ServeHTTP(w, r.WithContext(ctx))
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// send returns when the request's span has ended.
func (s *site) send(client *http.Client, path string) {
	s.Helper()
	servers := func() (n int) {
		for _, span := range s.spans.Ended() {
			if span.SpanKind() == trace.SpanKindServer {
				n++
			}
		}
		return n
	}
	before := servers()
	res, err := client.Post(s.url+path, "", nil)
	if err != nil {
		s.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	for deadline := time.Now().Add(10 * time.Second); servers() == before; {
		if time.Now().After(deadline) {
			s.Fatal("the span of the request does not end")
		}
	}
}

func newClient() *http.Client {
	jar, _ := cookiejar.New(nil)
	return &http.Client{Jar: jar}
}

// metrics are all counts, by name and attributes.
func (s *site) metrics() map[string]int64 {
	s.Helper()
	var rm metricdata.ResourceMetrics
	if err := s.reader.Collect(s.Context(), &rm); err != nil {
		s.Fatal(err)
	}
	got := map[string]int64{}
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					got[m.Name+" "+p.Attributes.Encoded(attribute.DefaultEncoder())] = p.Value
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					got[m.Name+" "+m.Unit+" "+p.Attributes.Encoded(
						attribute.DefaultEncoder())] = int64(p.Count)
				}
			default:
				s.Errorf("%s is a %T", m.Name, data)
			}
		}
	}
	return got
}

func TestSpansAndMetrics(t *testing.T) {
	s := newSite(t)
	ann, bob := newClient(), newClient()
	s.send(ann, "/")     // update
	s.send(bob, "/")     // update
	s.send(ann, "/cart") // update: returned; update
	s.store.down.Store(true)
	s.send(ann, "/cart") // update fails
	s.store.down.Store(false)
	// read, add outbox entry, freeze, read account, merge, leave tombstone, remove entry
	s.send(ann, "/login/ann")
	forger := newClient()
	req, _ := http.NewRequest("GET", s.url, nil)
	forger.Jar.SetCookies(req.URL, []*http.Cookie{{Name: "guest", Value: "forged"}})
	s.send(forger, "/")           // update
	s.guests.Recover(t.Context()) // 16 gets, outside a request

	want := map[string]int64{
		"guest.created ":      3,
		"guest.returned ":     1,
		"guest.first_writes ": 1,
		"guest.refused guest.refused.reason=invalid_token":                                                     1,
		"guest.claims guest.claim.outcome=claimed":                                                             1,
		"db.client.operation.duration s db.operation.name=get,db.system.name=memory":                           17,
		"db.client.operation.duration s db.operation.name=update,db.system.name=memory":                        11,
		"db.client.operation.duration s db.operation.name=update,db.system.name=memory,error.type=unavailable": 1,
	}
	if got := s.metrics(); !maps.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}

	calls := map[string]int{}
	requests := map[trace.SpanID]sdktrace.ReadOnlySpan{}
	for _, span := range s.spans.Ended() {
		if span.SpanKind() == trace.SpanKindServer {
			requests[span.SpanContext().SpanID()] = span
		}
	}
	for _, span := range s.spans.Ended() {
		if span.SpanKind() != trace.SpanKindClient {
			continue
		}
		request := requests[span.Parent().SpanID()]
		if request == nil || request.SpanContext().TraceID() != span.SpanContext().TraceID() {
			t.Errorf("%s is below no request", span.Name())
			continue
		}
		if span.StartTime().Before(request.StartTime()) ||
			span.EndTime().After(request.EndTime()) || span.EndTime().Before(span.StartTime()) {
			t.Errorf("%s is not within its request", span.Name())
		}
		calls[request.Name()+": "+span.Name()+" "+span.Status().Code.String()]++
	}
	wantCalls := map[string]int{
		"/: guest update Unset":          3,
		"/cart: guest update Unset":      2,
		"/cart: guest update Error":      1,
		"/login/ann: guest get Unset":    1,
		"/login/ann: guest update Unset": 6,
	}
	if !maps.Equal(calls, wantCalls) {
		t.Errorf("%v\nwant %v", calls, wantCalls)
	}

	events := map[string]int{}
	ids := []string{"ann", "g:", "connection refused"}
	for _, span := range s.spans.Ended() {
		for _, e := range span.Events() {
			events[fmt.Sprint(span.Name(), " ", e.Name, " ", e.Attributes[0].Value.AsString())]++
		}
		if span.SpanKind() == trace.SpanKindServer {
			continue
		}
		for _, id := range ids {
			if text := fmt.Sprint(span.Name(), span.Attributes(),
				span.Status()); strings.Contains(text, id) {
				t.Errorf("a span says %q: %s", id, text)
			}
		}
		if span.Status().Code == codes.Error && span.Status().Description != "unavailable" {
			t.Errorf("status %v", span.Status())
		}
	}
	if want := map[string]int{"/ guest.refused invalid_token": 1,
		"/login/ann guest.claim claimed": 1}; !maps.Equal(events, want) {
		t.Errorf("%v, want %v", events, want)
	}
}

// Each outcome and refusal, as the hooks are called.
func TestOutcomes(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	hooks, err := otelguest.New(
		otelguest.Config{System: "redis",
			MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []guest.Receipt{{}, {Replayed: true}, {Pending: true}} {
		hooks.Claimed(t.Context(), r)
	}
	hooks.Refused(t.Context(), guest.RefusedClaimed)
	hooks.Refused(t.Context(), guest.RefusedCookies)
	hooks.Stuck(t.Context(), guest.Receipt{GuestID: "g", AccountID: "a"}, errors.New("why"))
	got := (&site{T: t, reader: reader}).metrics()
	want := map[string]int64{
		"guest.claims guest.claim.outcome=claimed":             1,
		"guest.claims guest.claim.outcome=replayed":            1,
		"guest.claims guest.claim.outcome=pending":             1,
		"guest.claims guest.claim.outcome=refused":             1,
		"guest.refused guest.refused.reason=claimed_by_other":  1,
		"guest.refused guest.refused.reason=different_cookies": 1,
		"guest.claims.stuck ":                                  1,
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
}

func TestSystemIsRequired(t *testing.T) {
	if _, err := otelguest.New(otelguest.Config{}); err == nil ||
		!strings.Contains(err.Error(), "Config.System") {
		t.Error(err)
	}
}
