package redisstore_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// The script's short cut does what its long way does, to any record.
func TestShortCut(t *testing.T) {
	const most = 1 << 53
	var (
		rdb     = server.Client()
		cfg     = patient(t)
		s       = redisstore.New(rdb, cfg)
		seed    = rand.Uint64()
		r       = rand.New(rand.NewPCG(seed, 0))
		shorts  int
		amounts = []string{
			"1", "2", "9", "10", "99", "-1", "-9", "-10", "2147483646", "2147483647", "-2147483647", "-2147483648", "4294967296",
			"9007199254740991", "9007199254740992", "9007199254740993", "-9007199254740992", "99999999999999999999",
			"0", "-0", "+5", "007", " 5", "5 ", "5\n", "1.5", "1e3", "0x10", "nan", "inf", "none", "", "12\x00",
		}
		adds = []int64{1, 1, 1, 1, -1, 2, 8, 9, -9, -10, 100, 2147483646, 2147483647, 1 << 32, most - 1, most, -most}
	)
	id := func(ticks int) (id [8]byte) {
		binary.BigEndian.PutUint64(id[:], uint64(1<<32-20+ticks)<<16|uint64(r.IntN(2)))
		return id
	}
	for range 2000 {
		// The ring's times lie around the ID's, and around where their lower four bytes begin anew.
		record := map[string]any{"cart/other": "7", "theme": strings.Repeat("x", 40)}
		if r.IntN(10) > 0 {
			own := binary.BigEndian.AppendUint16(nil, uint16([]int{2, 3, 65534, 65535}[r.IntN(40)/13]))
			own = binary.BigEndian.AppendUint32(own, uint32(r.IntN(200)))
			at := 20
			for range r.IntN(8) {
				id := id(at)
				own = append(own, id[:]...)
				at -= r.IntN(3)
			}
			record["!"] = own
		}
		if r.IntN(10) == 0 {
			record[".s"] = "sealed"
		}
		if r.IntN(10) > 0 {
			record[".i"] = "incarnation"
		}
		if r.IntN(4) > 0 {
			record["cart/tea"] = amounts[r.IntN(len(amounts))]
			if r.IntN(2) > 0 {
				record["cart/tea"] = fmt.Sprint(r.IntN(12) + 1)
			}
		}
		u := guest.Update{Add: map[string]int64{"cart/tea": adds[r.IntN(len(adds))]}, Return: []string{"cart/tea"}, Once: true}
		if r.IntN(3) > 0 {
			u.If, u.Default = guest.Fields{".s": ""}, guest.Fields{".i": "another"}
		}
		if r.IntN(2) > 0 {
			u.TTL, u.KeepTTL = time.Hour, true
		}
		u.Quota = guest.Quota{Fields: []int{0, 0, 3, 4}[r.IntN(4)], Bytes: []int{0, 0, 100, 150}[r.IntN(4)]}
		live := r.IntN(2) > 0

		under := id(20 + r.IntN(6) - 3)
		var answers [2]string
		var after [2]map[string]string
		var lives [2]bool
		for i, key := range []string{"short", "long"} {
			name := cfg.Prefix + ":" + key
			rdb.Del(ctx, name)
			rdb.HSet(ctx, name, record)
			if live {
				rdb.Expire(ctx, name, time.Minute)
			}
			var short bool
			answers[i], short = s.Run(key, u, under, key == "long")
			if short && i == 0 {
				shorts++
			}
			after[i] = rdb.HGetAll(ctx, name).Val()
			lives[i] = rdb.TTL(ctx, name).Val() > 0
		}
		if answers[0] != answers[1] || !maps.Equal(after[0], after[1]) || lives[0] != lives[1] {
			t.Fatalf("seed %d: %+v under %x to\n%q:\nshort %s %q %v\n long %s %q %v", seed, u, under, record,
				answers[0], after[0], lives[0], answers[1], after[1], lives[1])
		}
	}
	if shorts < 1900 {
		t.Errorf("of 2000 only %d were sent for the short cut", shorts)
	}
}

// What an app does most takes the short cut: a guest's additions, and a member's.
func TestShortCutIsTaken(t *testing.T) {
	rdb := tuned(t, server.Addr, nil)
	var ways []byte
	rdb.AddHook(onCommand(func(cmd redis.Cmder, _ error) {
		if cmd.Name() == "evalsha" {
			ways = append(ways, redisstore.Way(argsSent(cmd, 4)[4]))
		}
	}))
	cart := guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))
	guests, err := guest.New(guest.Config{
		Store: redisstore.New(rdb, patient(t)), Secrets: [][]byte{make([]byte, 32)}, Data: []guest.Kind{cart},
		Cookie: guest.Cookie{Name: "guest", Insecure: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	add := func(ctx context.Context, item string) {
		t.Helper()
		if _, err := cart.Add(ctx, item, 1); err != nil {
			t.Fatal(err)
		}
	}
	site := httptest.NewServer(guests.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { add(r.Context(), r.URL.Query().Get("item")) })))
	defer site.Close()
	jar, _ := cookiejar.New(nil)
	visit := func(item string) {
		t.Helper()
		res, err := (&http.Client{Jar: jar}).Get(site.URL + "?item=" + item)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	reads := func() (n int) {
		_, stat, _ := strings.Cut(rdb.Info(ctx, "commandstats").Val(), "cmdstat_hmget:calls=")
		fmt.Sscanf(stat, "%d", &n)
		return n
	}
	for range 2 { // makes the record; confirms it and makes the ring
		visit("tea")
	}
	member := guests.As(ctx, "alice")
	add(member, "tea")

	for what, do := range map[string]func(){
		"a guest's addition":             func() { visit("tea") },
		"a guest's addition of another":  func() { visit("coffee") },
		"a member's addition":            func() { add(member, "tea") },
		"a member's addition of another": func() { add(member, "coffee") },
	} {
		ways = nil
		before := reads()
		do()
		if n := reads() - before; n != 1 || len(ways) != 1 || ways[0] < redisstore.WayShort {
			t.Errorf("%s was sent for the ways %d and read %d times, want once by the short cut", what, ways, n)
		}
	}
}
