package guest_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// A silent store answers as memstore does while it may; else a call ends by its context or by the store's own deadline.
type silent struct {
	*memstore.Store
	own   time.Duration
	quiet bool
}

func (s *silent) wait(ctx context.Context) error {
	if !s.quiet {
		return ctx.Err()
	}
	timer := time.NewTimer(s.own)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return errors.New("no answer")
	}
}

func (s *silent) Get(ctx context.Context, key string, names ...string) (guest.Fields, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.Store.Get(ctx, key, names...)
}

func (s *silent) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	if err := s.wait(ctx); err != nil {
		return guest.Result{}, err
	}
	return s.Store.Update(ctx, key, u)
}

// However many calls a page makes, it waits a quarter of a second for a store that does not answer.
func TestStoreBudget(t *testing.T) {
	for _, tt := range []struct {
		name     string
		own      time.Duration // deadline of the store
		patience time.Duration
		account  bool // the request is signed in: it begins with a claim
		late     bool // the cookie has not come back yet: the request begins with a write
		want     time.Duration
	}{
		{"a known guest", 150 * time.Millisecond, 0, false, false, 240 * time.Millisecond},
		{"a guest that returns for the first time", 150 * time.Millisecond, 0, false, true, 240 * time.Millisecond},
		{"a claim", 150 * time.Millisecond, 0, true, false, 240 * time.Millisecond},
		{"a store that takes longer", time.Second, 0, false, false, time.Second},
		{"more patience", 150 * time.Millisecond, 400 * time.Millisecond, false, false, 400 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &silent{Store: memstore.New(memstore.Config{}), own: tt.own}
				m, err := guest.New(guest.Config{
					Store: store, Secrets: [][]byte{secret}, Data: []guest.Kind{Cart}, StoreBudget: tt.patience,
					Account: func(r *http.Request) string { return r.Header.Get("Account") },
				})
				if err != nil {
					t.Fatal(err)
				}
				b := &bubble{jar: map[string]*http.Cookie{}}
				handle := func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), "tea", 1) }
				b.h = m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handle(w, r) }))
				b.get("/")
				if !tt.late {
					b.get("/")
				}
				store.quiet = true
				handle = func(w http.ResponseWriter, r *http.Request) {
					for range 4 {
						if _, err := Cart.Get(r.Context(), "tea"); !errors.Is(err, guest.ErrUnavailable) {
							t.Error("a read:", err)
						}
						if _, err := Cart.Add(r.Context(), "tea", 1); !errors.Is(err, guest.ErrUnavailable) {
							t.Error("an addition:", err)
						}
					}
				}
				start := time.Now()
				if tt.account {
					r := httptest.NewRequest("GET", "/", nil)
					for _, c := range b.jar {
						r.AddCookie(c)
					}
					r.Header.Set("Account", "ann")
					b.h.ServeHTTP(httptest.NewRecorder(), r)
				} else {
					b.get("/")
				}
				if waited := time.Since(start); waited != tt.want {
					t.Errorf("the page waited for %v, want %v", waited, tt.want)
				}
			})
		})
	}
}

// A slow store that answers uses up no patience, and a stream gets its patience back after a second.
func TestStoreBudgetReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &silent{Store: memstore.New(memstore.Config{}), own: time.Second}
		slow := &slowly{Store: store, takes: 100 * time.Millisecond}
		m, _ := guest.New(guest.Config{Store: slow, Secrets: [][]byte{secret}, Data: []guest.Kind{Cart}})
		b := &bubble{jar: map[string]*http.Cookie{}}
		b.h = m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			add := func(want bool, took time.Duration) {
				t.Helper()
				start := time.Now()
				if _, err := Cart.Add(r.Context(), "tea", 1); (err == nil) != want {
					t.Errorf("an addition: %v", err)
				}
				if waited := time.Since(start); waited != took {
					t.Errorf("it took %v, want %v", waited, took)
				}
			}
			for range 10 {
				add(true, 100*time.Millisecond)
			}
			store.quiet = true
			add(false, time.Second)
			store.quiet = false
			for range 3 {
				time.Sleep(300 * time.Millisecond)
				add(false, 0)
			}
			time.Sleep(100 * time.Millisecond)
			add(true, 100*time.Millisecond)
			add(true, 100*time.Millisecond)
		}))
		b.get("/")
	})
}

// slowly takes its time, and answers.
type slowly struct {
	guest.Store
	takes time.Duration
}

func (s *slowly) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	res, err := s.Store.Update(ctx, key, u)
	if err == nil {
		time.Sleep(s.takes)
	}
	return res, err
}
