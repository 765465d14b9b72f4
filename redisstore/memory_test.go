package redisstore_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/redisstore"
)

// What a guest costs in Redis.
func TestMemory(t *testing.T) {
	rdb := server.Client()
	cfg := patient(t)
	cfg.Prefix = "guest"
	s := redisstore.New(rdb, cfg)
	const record = "g:abcdefghijklmnopqrstuv" // 22 characters: 128 bits
	const key = "guest:" + record
	defer s.Update(ctx, record, guest.Update{Drop: true})
	measure := func(what string, most int64) {
		t.Helper()
		n := rdb.MemoryUsage(ctx, key).Val()
		t.Logf("%s: %d bytes, %s", what, n, rdb.ObjectEncoding(ctx, key).Val())
		if n > most {
			t.Errorf("%s takes %d bytes, want at most %d", what, n, most)
		}
	}
	apply(t, s, record, guest.Update{Default: guest.Fields{".i": strings.Repeat("i", 16)}, TTL: time.Hour})
	measure("an empty guest", 200)
	for range 20 {
		apply(t, s, record, guest.Update{Add: map[string]int64{"cart/sku-1": 1}, Once: true, TTL: time.Hour})
	}
	measure("after 20 additions", 300)
	if e := rdb.ObjectEncoding(ctx, key).Val(); e != "listpack" && e != "ziplist" { // before Redis 7
		t.Errorf("after 20 additions the encoding is %s", e)
	}
	apply(t, s, record, guest.Update{Drop: true})

	apply(t, s, record, guest.Update{Default: guest.Fields{".i": strings.Repeat("i", 16)}, TTL: time.Hour})
	apply(t, s, record, guest.Update{Set: guest.Fields{"theme": strings.Repeat("x", 100)}, TTL: time.Hour, Once: true})
	measure("a guest with 100 B", 450)
	for range 7 {
		apply(t, s, record, guest.Update{Set: guest.Fields{"theme": strings.Repeat("x", 100)}, TTL: time.Hour, Once: true})
	}
	measure("a guest with 100 B, written 8 times", 550)
}

// An account that guests were claimed into keeps Redis's compact encoding, markers and all.
func TestMemoryOfAnAccount(t *testing.T) {
	rdb := server.Client()
	cfg := patient(t)
	store := redisstore.New(rdb, cfg)
	cart := guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))
	theme := guest.NewValue("theme", guest.PreferGuest[string])
	m, err := guest.New(guest.Config{
		Store: store, Secrets: [][]byte{make([]byte, 32)}, Data: []guest.Kind{cart, theme},
		ClaimTimeout: time.Minute, StoreBudget: 20 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	items := 0
	add := func(ctx context.Context, n int) {
		t.Helper()
		for range n {
			items++
			if _, err := cart.Add(ctx, fmt.Sprint("sku-", items), 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	add(m.As(ctx, "ann"), 14)
	for claims := range 3 {
		w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil)
		r = m.Identify(w, r)
		add(r.Context(), 2)
		if err := theme.Set(r.Context(), "dark"); err != nil {
			t.Fatal(err)
		}
		receipt, err := m.Claim(w, r, "ann")
		if err != nil || !receipt.Claimed || len(receipt.Kinds) != 2 {
			t.Fatalf("%+v, %v", receipt, err)
		}
		info, err := m.Inspect().Account(ctx, "ann")
		if err != nil || len(info.Claims) != claims+1 {
			t.Fatalf("%+v, %v", info.Claims, err)
		}
		key := cfg.Prefix + ":" + info.Key
		encoding := rdb.ObjectEncoding(ctx, key).Val()
		t.Logf("an account after %d claims: %d fields, %d bytes, %s", claims+1,
			rdb.HLen(ctx, key).Val(), rdb.MemoryUsage(ctx, key).Val(), encoding)
		if encoding != "listpack" && encoding != "ziplist" { // before Redis 7
			t.Errorf("after %d claims the encoding is %s", claims+1, encoding)
		}
	}
	if all, err := cart.All(m.As(ctx, "ann")); len(all) != 20 || err != nil {
		t.Errorf("%d items, %v", len(all), err)
	}
}
