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
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// write.lua does what update.lua does, to any record.
func TestScriptsAgree(t *testing.T) {
	const most = 1 << 53
	var (
		rdb     = server.Client()
		cfg     = patient(t)
		s       = redisstore.New(rdb, cfg)
		general = redisstore.New(rdb, cfg)
		seed    = rand.Uint64()
		r       = rand.New(rand.NewPCG(seed, 0))
		writes  int
		amounts = []string{
			"1", "2", "9", "10", "99", "-1", "-9", "-10",
			"2147483646", "2147483647", "-2147483647", "-2147483648", "4294967296",
			"9007199254740991", "9007199254740992", "9007199254740993", "-9007199254740992",
			"99999999999999999999", "0", "-0", "+5", "007", " 5", "5 ", "5\n", "1.5", "1e3", "0x10",
			"nan", "inf", "none", "12\x00",
		}
		adds = []int64{
			0, 1, 1, 1, 1, -1, 2, 8, 9, -9, -10, 100, 2147483646, 2147483647, 1 << 32,
			most - 1, most, most + 1, -most,
		}
	)
	general.UpdateOnly()
	id := func(ticks int) (id [8]byte) {
		binary.BigEndian.PutUint64(id[:], uint64(1<<32-20+ticks)<<16|uint64(r.IntN(2)))
		return id
	}
	for range 3000 {
		record := map[string]any{"other": strings.Repeat("x", 40)}
		if r.IntN(10) > 0 {
			fields := []uint16{2, 3, 65534, 65535}[r.IntN(40)/13]
			own := binary.BigEndian.AppendUint16(nil, fields)
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
			record[".s"] = "frozen"
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
		if r.IntN(8) == 0 {
			record = nil
		}
		u := guest.Update{Once: true}
		switch r.IntN(4) {
		case 0:
			u.Set = guest.Fields{"cart/tea": amounts[r.IntN(9)]}
		case 1:
			u.Unset = []string{"cart/tea"}
		default:
			u.Add = map[string]int64{"cart/tea": adds[r.IntN(len(adds))]}
			u.Return = []string{"cart/tea"}
		}
		switch r.IntN(4) {
		case 0, 1:
			u.If, u.Default = guest.Fields{".s": ""}, guest.Fields{".i": "another"}
		case 2:
			u.If = guest.Fields{[]string{"cart/tea", "other", ".i"}[r.IntN(3)]: ""}
		}
		if r.IntN(2) > 0 {
			u.TTL, u.KeepTTL = time.Hour, true
		}
		u.Quota.Fields = []int{0, 0, 3, 4}[r.IntN(4)]
		u.Quota.Bytes = []int{0, 0, 100, 150}[r.IntN(4)]
		live := r.IntN(2) > 0

		under := id(20 + r.IntN(6) - 3)
		var answers [2]string
		var after [2]map[string]string
		var lives [2]time.Duration
		for i, s := range []*redisstore.Store{s, general} {
			key := fmt.Sprint(i)
			name := cfg.Prefix + ":" + key
			rdb.Del(ctx, name)
			if record != nil {
				rdb.HSet(ctx, name, record)
			}
			if live {
				rdb.Expire(ctx, name, time.Minute)
			}
			var byWrite bool
			if answers[i], byWrite = s.Run(key, u, under); byWrite {
				if writes++; i == 1 {
					t.Fatal("update.lua is not taken for all updates")
				}
			}
			after[i] = rdb.HGetAll(ctx, name).Val()
			lives[i] = rdb.TTL(ctx, name).Val().Round(10 * time.Second)
		}
		if answers[0] != answers[1] || !maps.Equal(after[0], after[1]) || lives[0] != lives[1] {
			t.Fatalf("seed %d: %+v under %x to\n%q:\n"+
				"by write.lua  %s %q %v\nby update.lua %s %q %v", seed, u, under, record,
				answers[0], after[0], lives[0], answers[1], after[1], lives[1])
		}
	}
	if writes < 2500 {
		t.Errorf("of 3000 updates only %d were made by write.lua", writes)
	}
}

// create.lua makes a record as update.lua makes it, but for the operation's ID, in the same
// encoding and for the same time.
func TestCreate(t *testing.T) {
	cfg := patient(t)
	rdb := server.Client()
	many := guest.Fields{}
	for i := range 1500 { // more than one HSET takes
		many[fmt.Sprint("many/", i)] = "1"
	}
	for name, row := range map[string]struct {
		set guest.Fields
		add map[string]int64
		ttl time.Duration
	}{
		"no data":      {nil, nil, time.Hour},
		"for ever":     {guest.Fields{"theme": "dark"}, nil, 0},
		"small":        {guest.Fields{"theme": "dark"}, map[string]int64{"tea": 1, "cup": -3}, time.Hour},
		"long":         {guest.Fields{"a": strings.Repeat("x", 100), ".x": "y"}, nil, time.Hour},
		"many":         {many, nil, time.Hour},
		"a long name":  {guest.Fields{strings.Repeat("n", 70000): "\x00\xff"}, nil, time.Hour},
		"large amount": {nil, map[string]int64{"n": 1 << 53}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			u := guest.Update{
				If: guest.Fields{".s": ""}, Default: guest.Fields{".i": "incarnation"},
				Set: row.set, Add: row.add, TTL: row.ttl, New: true,
			}
			wire := &redistest.Faults{}
			s, general := redisstore.New(tuned(t, server.Addr, wire), cfg), redisstore.New(rdb, cfg)
			general.UpdateOnly()
			get(t, s, "none")
			before := wire.Counts()
			apply(t, s, name, u)
			names := wire.Counts().Names
			if n := names["EVALSHA"] - before.Names["EVALSHA"]; n != 1 {
				t.Errorf("%d scripts", n)
			}
			apply(t, general, name+" in general", u)
			key := cfg.Prefix + ":" + name
			for what, read := range map[string]func(key string) any{
				"fields":   func(key string) any { return rdb.HGetAll(ctx, key).Val() },
				"encoding": func(key string) any { return rdb.ObjectEncoding(ctx, key).Val() },
				"life":     func(key string) any { return rdb.TTL(ctx, key).Val().Round(time.Minute) },
			} {
				have, want := fmt.Sprint(read(key)), fmt.Sprint(read(key+" in general"))
				if have != want {
					t.Errorf("%s: %.200s, by update.lua %.200s", what, have, want)
				}
			}
		})
	}
}

// What an app does most takes the short scripts: a guest's and a member's data calls, and a guest's
// first.
func TestScriptsTaken(t *testing.T) {
	rdb := tuned(t, server.Addr, nil)
	var taken []string
	rdb.AddHook(onCommand(func(cmd redis.Cmder, _ error) {
		if cmd.Name() == "evalsha" {
			taken = append(taken, redisstore.ScriptOf(cmd.Args()[1]))
		}
	}))
	cart := guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))
	theme := guest.NewValue("theme", guest.PreferGuest[string])
	guests, err := guest.New(guest.Config{
		Store: redisstore.New(rdb, patient(t)), Secrets: [][]byte{make([]byte, 32)},
		Data: []guest.Kind{cart, theme}, Cookie: guest.Cookie{Name: "guest", Insecure: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]func(context.Context) error{
		"add":    func(ctx context.Context) error { _, err := cart.Add(ctx, "tea", 1); return err },
		"amount": func(ctx context.Context) error { return cart.Set(ctx, "cup", 3) },
		"delete": func(ctx context.Context) error { return cart.Set(ctx, "tea", 0) },
		"set":    func(ctx context.Context) error { return theme.Set(ctx, "dark") },
		"forget": func(ctx context.Context) error { return theme.Delete(ctx) },
	}
	page := func(_ http.ResponseWriter, r *http.Request) {
		if err := calls[r.URL.Query().Get("do")](r.Context()); err != nil {
			t.Error(err)
		}
	}
	site := httptest.NewServer(guests.Middleware(http.HandlerFunc(page)))
	defer site.Close()
	jar, _ := cookiejar.New(nil)
	visit := func(do string) {
		t.Helper()
		res, err := (&http.Client{Jar: jar}).Get(site.URL + "?do=" + do)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	takes := func(what, script string, do func()) {
		t.Helper()
		taken = nil
		if do(); !slices.Equal(taken, []string{script}) {
			t.Errorf("%s takes the scripts %q, want %s", what, taken, script)
		}
	}
	takes("a guest's first visit", "create", func() { visit("add") })
	visit("add") // confirms the guest
	member := guests.As(ctx, "alice")
	for name, call := range calls {
		takes("a guest: "+name, "write", func() { visit(name) })
		takes("a member: "+name, "write", func() {
			if err := call(member); err != nil {
				t.Error(err)
			}
		})
	}
}

// Check asks for every command of the scripts.
func TestCheckKnowsTheCommands(t *testing.T) {
	calls := regexp.MustCompile(`call\('([A-Z]+)'`)
	asks := regexp.MustCompile(`\{'([A-Z]+)', key`)
	var known []string
	for _, command := range asks.FindAllStringSubmatch(redisstore.CommandsOfScripts, -1) {
		known = append(known, command[1])
	}
	for name, text := range redisstore.Scripts {
		for _, command := range calls.FindAllStringSubmatch(text, -1) {
			// Whether TIME is refused it asks otherwise.
			if command[1] != "TIME" && !slices.Contains(known, command[1]) {
				t.Errorf("%s in %s.lua", command[1], name)
			}
		}
	}
	if len(known) < 9 {
		t.Errorf("Check knows %v", known)
	}
}
