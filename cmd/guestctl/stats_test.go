package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
)

func exactly(n int) figure { return figure{Value: float64(n)} }

func TestStatsOfAFew(t *testing.T) {
	onEach(t, func(t *testing.T, d *deployment) {
		d.visit()
		d.visit("oolong")
		_, claimed := d.visit("oolong")
		d.post(claimed, "/login/ann")
		_, stuck := d.visit("cup")
		d.store.dieAt(beforeMerge)
		d.post(stuck, "/login/bob")
		d.store.dieAt(nil)
		d.visit("cup")

		got := decode[statsInfo](d, 0, "", "stats")
		var memory [2]float64
		for key := range d.snapshot() {
			n, err := d.rdb.MemoryUsage(t.Context(), d.onDuty["GUEST_PREFIX"]+":"+key).Result()
			if err != nil {
				t.Fatal(err)
			}
			switch key[0] {
			case 'g':
				memory[0] += float64(n)
			case 'a':
				memory[1] += float64(n)
			}
		}
		want := statsInfo{
			Keys: got.Keys, Masters: map[bool]int{true: 3,
				false: 1}[strings.Contains(d.onDuty["GUEST_REDIS"], "cluster")],
			Guests: guestStats{Count: 5, Sampled: 5, Open: exactly(3), Provisional: exactly(1),
				WithData: exactly(3),
				Frozen:   exactly(1), Tombstones: exactly(1), Memory: figure{Value: memory[0]}},
			// of bob only the markers
			Accounts: accountStats{Count: 2, Sampled: 2, Memory: figure{Value: memory[1]}},
		}
		if got != want {
			t.Errorf("%+v\nwant %+v", got, want)
		}
		table(t, d.want(0, "", "stats"), "guests 5", "open 3", "provisional 1 end within 1 h: …",
			"frozen 1 being claimed",
			"tombstones 1 claimed or forgotten", "with data 3", "memory "+size(memory[0]),
			"accounts 2", "memory "+size(memory[1]))
	})
}

// Copies of records that the library made, under IDs that are the same each time.
func TestStatsOfMany(t *testing.T) {
	// so it is the same sample each time
	d := deployAs(t, "many", cluster.Client(), "redis+cluster://"+cluster.Addrs()[0])
	full, _ := d.visit("oolong", "cup")
	bare, _ := d.visit()
	tomb, b := d.visit("cup")
	d.post(b, "/login/ann")
	frozen, b := d.visit("cup")
	d.store.dieAt(beforeMerge)
	d.post(b, "/login/bob")
	d.store.dieAt(nil)
	key := func(id string) string { return d.onDuty["GUEST_PREFIX"] + ":g:" + id }
	kinds := []struct {
		dump   string
		life   time.Duration
		copies int
	}{{life: 700 * time.Hour, copies: 12_000}, {life: 30 * time.Minute, copies: 5_000},
		{life: 700 * time.Hour, copies: 2_900}, {life: 700 * time.Hour, copies: 100}}
	for i, id := range []string{full, bare, tomb, frozen} {
		var err error
		if kinds[i].dump, err = d.rdb.Dump(t.Context(), key(id)).Result(); err != nil {
			t.Fatal(err)
		}
		if err := d.rdb.Del(t.Context(), key(id)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	var n int
	for _, k := range kinds {
		for range k.copies / 100 {
			if _, err := d.rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
				for range 100 {
					id := sha256.Sum256(fmt.Append(nil, n))
					p.Restore(t.Context(), key(base64.RawURLEncoding.EncodeToString(id[:16])),
						k.life, k.dump)
					n++
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
	}

	// Of all.
	for _, node := range cluster.Nodes {
		if err := node.Client().ConfigResetStat(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	all := decode[statsInfo](d, 0, "", "stats", "--sample", "0", "--rate", "1000000")
	for i, node := range cluster.Nodes {
		info := node.Client().Info(t.Context(), "commandstats").Val()
		for _, m := range regexp.MustCompile(`(?m)^cmdstat_([a-z|]+):`).FindAllStringSubmatch(info, -1) {
			switch m[1] {
			// stats asks no more, and nothing is written
			case "scan", "dbsize", "hget", "hkeys", "pttl", "memory|usage":
			case "ping", "hello", "client|setinfo", "client|maint_notifications", "cluster|slots",
				"cluster|shards", "command", "readonly", "info", "config|resetstat", "asking",
				"select":
			default:
				t.Errorf("node %d was sent %s", i, m[1])
			}
		}
		if !strings.Contains(info, "cmdstat_scan:") {
			t.Errorf("node %d was not gone through", i)
		}
	}
	g := all.Guests
	if g.Count != 20_000 || g.Sampled != 20_000 || g.Open != exactly(17_000) ||
		g.Provisional != exactly(5_000) ||
		g.WithData != exactly(12_100) || g.Frozen != exactly(100) ||
		g.Tombstones != exactly(2_900) || g.Memory.PlusMinus != 0 {
		t.Errorf("%+v", g)
	}

	// Of a sample.
	some := decode[statsInfo](d, 0, "", "stats", "--sample", "2000", "--rate", "1000000").Guests
	if some.Count != 20_000 || some.Sampled != 2_000 {
		t.Errorf("%+v", some)
	}
	for _, f := range []struct {
		name      string
		got, want figure
	}{{"open", some.Open, g.Open}, {"provisional", some.Provisional, g.Provisional},
		{"with data", some.WithData, g.WithData},
		{"frozen", some.Frozen, g.Frozen}, {"tombstones", some.Tombstones, g.Tombstones},
		{"memory", some.Memory, g.Memory}} {
		t.Logf("%s: %.0f ± %.0f, it is %.0f", f.name, f.got.Value, f.got.PlusMinus, f.want.Value)
		if math.Abs(f.got.Value-f.want.Value) > f.got.PlusMinus {
			t.Errorf("%s: %+v, but it is %v", f.name, f.got, f.want.Value)
		}
		if f.got.PlusMinus <= 0 || f.got.PlusMinus > 0.04*max(20_000, f.want.Value) {
			t.Errorf("%s: a bound of %v says nothing", f.name, f.got.PlusMinus)
		}
	}
	a := d.want(0, "", "stats", "--sample", "2000", "--rate", "1000000")
	table(t, a, "guests 20,000",
		"with data "+count(some.WithData.Value)+" ± "+count(some.WithData.PlusMinus),
		"± is the bound of the extrapolation: 99 of 100 such samples are within it.")
	if !regexp.MustCompile(`Went through [0-9,]+ keys of 3 masters, looked into 2,000 guests and 2 accounts`).MatchString(a.out) {
		t.Error(a.out)
	}
	for _, node := range cluster.Nodes {
		if err := node.Client().FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// The stated bounds hold as often as stated, for rare things and for common ones.
func TestBoundsHold(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	const total, n, runs = 5_000, 400, 1_000
	for _, rare := range []int{0, 5, 50, 500, 2_500, 4_990, 5_000} {
		order := make([]bool, total)
		weights := make([]float64, total)
		var truth float64
		for i := range order {
			order[i] = i < rare
			weights[i] = 200
			if order[i] {
				weights[i] = 400 + float64(rnd.IntN(200))
			}
			truth += weights[i]
		}
		within, heavy := 0, 0
		for range runs {
			hits := 0
			var values []float64
			for _, i := range rnd.Perm(total)[:n] {
				if order[i] {
					hits++
				}
				values = append(values, weights[i])
			}
			if f := share(hits, n, total); math.Abs(f.Value-float64(rare)) <= f.PlusMinus {
				within++
			}
			if f := sum(values, total); math.Abs(f.Value-truth) <= f.PlusMinus {
				heavy++
			}
		}
		t.Logf("%d of %d: the count is within its bound in %d of %d, the memory in %d", rare, total,
			within, runs, heavy)
		if within < runs*985/1000 {
			t.Errorf("%d of %d: the count is within its bound in %d of %d", rare, total, within,
				runs)
		}
		if heavy < runs*985/1000 {
			t.Errorf("%d of %d: the memory is within its bound in %d of %d", rare, total, heavy,
				runs)
		}
	}
}

// A sample is the same in any order and with repetitions, and each key is as likely in it.
func TestSample(t *testing.T) {
	keys := make([]string, 3_000)
	for i := range keys {
		keys[i] = fmt.Sprint("key ", i)
	}
	one, two := newSample(300), newSample(300)
	for _, k := range keys {
		one.add(k)
	}
	for _, i := range rand.Perm(len(keys)) {
		two.add(keys[i])
	}
	for k := range one.inIt {
		if !two.inIt[k] {
			t.Errorf("%s is in one sample only", k)
		}
		two.add(k)
	}
	if len(one.inIt) != 300 || one.total != 3_000 || two.total != 3_000 || len(two.heap) != 300 {
		t.Errorf("%d of %d, %d of %d", len(one.inIt), one.total, len(two.heap), two.total)
	}
	firstHalf := 0
	for _, k := range keys[:1_500] {
		if one.inIt[k] {
			firstHalf++
		}
	}
	if firstHalf < 110 || firstHalf > 190 {
		t.Errorf("%d of 300 from the first half", firstHalf)
	}
	none := newSample(0)
	none.add("key")
	if none.total != 1 || len(none.heap) != 0 {
		t.Errorf("%+v", none)
	}
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pace{rate: 1_000, start: time.Now()}
		start := time.Now()
		for range 21 {
			if err := p.wait(t.Context(), 500); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("10,000 keys at 1,000 a second, and the next 500 not yet: %v", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if p.wait(ctx, 500) == nil {
			t.Error("went on after an interrupt")
		}
	})
}

func TestProgress(t *testing.T) {
	var b bytes.Buffer
	p := &progress{w: &b, what: "keys", percent: -1}
	for i := range int64(1_000) {
		p.show(i, 999)
	}
	if n := strings.Count(b.String(), "\r"); n != 101 ||
		!strings.Contains(b.String(),
			"\rkeys ["+strings.Repeat("=", 20)+strings.Repeat(" ", 20)+"]  50 %") {
		t.Errorf("drawn %d times: %q", n, b.String())
	}
	p.end()
	if !strings.HasSuffix(b.String(), "\r\x1b[K") {
		t.Errorf("%q", b.String())
	}
}

func TestFormats(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0 s", 59 * time.Second: "59 s",
		90 * time.Second: "1 m 30 s", 2 * time.Hour: "2 h",
		25*time.Hour + time.Minute: "1 d 1 h", 24*time.Hour + time.Minute: "1 d",
		720 * time.Hour: "30 d"} {
		if got := span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	for n, want := range map[float64]string{0: "0", 999: "999", 1_000: "1,000",
		1_234_567: "1,234,567"} {
		if got := count(n); got != want {
			t.Errorf("%v: %q, want %q", n, got, want)
		}
	}
	for n, want := range map[float64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB",
		1 << 30: "1.0 GiB"} {
		if got := size(n); got != want {
			t.Errorf("%v: %q, want %q", n, got, want)
		}
	}
	if got := plain("a\x1b[2Jb"); got != `"a\x1b[2Jb"` {
		t.Error(got)
	}
}
