package redisstore_test

import (
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
