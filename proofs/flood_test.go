package proofs

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// A flood of requests without cookies, 20,000 or with -long a million, from a thousand networks
// that use many addresses each: Redis holds only the empty guests that Limit allows, for
// ProvisionalTTL, and with OnFirstWrite none.
func TestFlood(t *testing.T) {
	server := redistest.Single(t)
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true})
	defer rdb.Close()
	n := 20_000
	if *long {
		n = 1_000_000
	}
	const networks, burst = 1000, 3
	memory := func() (sum int64) {
		for keys := rdb.Scan(t.Context(), 0, "*", 1000).Iterator(); keys.Next(t.Context()); {
			used, err := rdb.MemoryUsage(t.Context(), keys.Val()).Result()
			if err != nil {
				t.Fatal(err)
			}
			sum += used
		}
		return sum
	}
	for _, tt := range []struct {
		name   string
		create guest.Create
		most   int64 // keys
	}{
		{"OnFirstWrite", guest.OnFirstWrite, 0},
		{"OnFirstVisit", guest.OnFirstVisit, networks * burst},
	} {
		t.Run(tt.name, func(t *testing.T) {
			served := 0
			m, err := guest.New(guest.Config{
				Store:   redisstore.New(rdb, redisstore.Config{MinTimeout: 20 * time.Second}),
				Secrets: [][]byte{make([]byte, 32)}, Create: tt.create, ProvisionalTTL: time.Hour,
				Admit: guest.All(guest.Browsers, guest.Limit(24*time.Hour, burst, nil)),
			})
			if err != nil {
				t.Fatal(err)
			}
			h := m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				served++
			}))
			r := httptest.NewRequest("GET", "/", nil)
			addr := netip.MustParseAddr("2001:db8::").As16()
			for i := range n {
				binary.BigEndian.PutUint16(addr[6:], uint16(i%networks))
				rand.Read(addr[8:])
				r.RemoteAddr = netip.AddrPortFrom(netip.AddrFrom16(addr), 1).String()
				h.ServeHTTP(&httptest.ResponseRecorder{}, r)
			}
			keys, err := rdb.DBSize(t.Context()).Result()
			if err != nil {
				t.Fatal(err)
			}
			// A sketch may refuse some that are within their limit.
			if keys > tt.most || keys < tt.most*97/100 {
				t.Errorf("%d records, at most %d", keys, tt.most)
			}
			if served != n {
				t.Errorf("%d of %d requests were served", served, n)
			}
			if used := memory(); used > 200*tt.most {
				t.Errorf("%d records take %d bytes", keys, used)
			}
			ctx := context.Background()
			for keys := rdb.Scan(ctx, 0, "*", 1000).Iterator(); keys.Next(ctx); {
				if ttl := rdb.PTTL(ctx, keys.Val()).Val(); ttl <= 0 || ttl > time.Hour {
					t.Fatalf("a record lives for %v", ttl)
				}
			}
		})
	}
}
