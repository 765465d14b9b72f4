package redistest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

var ctx = context.Background()

func TestSingle(t *testing.T) {
	s := Single(t, "--appendonly", "yes", "--appendfsync", "always")
	rdb := s.Client()
	if err := rdb.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Client().Get(ctx, "k").Result(); v != "v" {
		t.Errorf("after a restart with a file: %q, %v", v, err)
	}

	rdb = s.Client()
	s.Stop()
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := rdb.Get(short, "k").Err(); err == nil {
		t.Error("a stopped server answered")
	}
	s.Cont()
	if v := rdb.Get(ctx, "k").Val(); v != "v" {
		t.Errorf("after Cont: %q", v)
	}

	s.Kill()
	short, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if rdb.Get(short, "k").Err() == nil {
		t.Error("a killed server answered")
	}
}

func TestStartFails(t *testing.T) {
	if _, err := Start(t.TempDir(), "--no-such-option", "1"); err == nil ||
		!strings.Contains(err.Error(), "no-such-option") {
		t.Errorf("got %v, want the server's own words", err)
	}
}

func TestCluster(t *testing.T) {
	start := time.Now()
	c := Cluster(t)
	t.Logf("up in %v", time.Since(start).Round(time.Millisecond))
	rdb := c.Client()
	for i := range 100 {
		if err := rdb.Set(ctx, strings.Repeat("x", i+1), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFaults(t *testing.T) {
	s := Single(t)
	faults := &Faults{}
	rdb := redis.NewClient(&redis.Options{Addr: s.Addr, Dialer: faults.Dial, MaxRetries: -1,
		PoolSize: 1})
	defer rdb.Close()
	rdb.Ping(ctx)

	before := faults.Counts()
	big := strings.Repeat("x", 100_000) // many writes
	if err := rdb.Set(ctx, "k", big, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if v := rdb.Get(ctx, "k").Val(); v != big {
		t.Fatal("the value changed on its way")
	}
	after := faults.Counts()
	if n := after.Commands - before.Commands; n != 2 || after.Names["SET"] != 1 ||
		after.Names["GET"] != 1 {
		t.Errorf("%d commands, want SET and GET: %v", n, after.Names)
	}
	if n := after.RoundTrips - before.RoundTrips; n != 2 {
		t.Errorf("%d round trips, want 2", n)
	}
	// *3 $3 SET $1 k $100000 … and *2 $3 get $1 k, each line with its end.
	if n := after.Out - before.Out; n != int64(4+4+5+4+3+9+100_002)+int64(4+4+5+4+3) {
		t.Errorf("%d bytes out", n)
	}
	if n := after.In - before.In; n != int64(5)+int64(9+100_002) {
		t.Errorf("%d bytes in", n)
	}

	incr := func(lose Loss) error {
		faults.Lose = func(c Command) Loss {
			if c.Name == "INCR" {
				return lose
			}
			return Nothing
		}
		return rdb.Incr(ctx, "n").Err()
	}
	for _, row := range []struct {
		lose Loss
		fail bool
		want string // n afterwards
	}{
		{Nothing, false, "1"},
		{Request, true, "1"},
		{Reply, true, "2"},
		{Nothing, false, "3"},
	} {
		if err := incr(row.lose); (err != nil) != row.fail {
			t.Errorf("loss %d: error %v", row.lose, err)
		}
		if n := s.Client().Get(ctx, "n").Val(); n != row.want {
			t.Errorf("loss %d: n = %s, want %s", row.lose, n, row.want)
		}
	}
}

func TestRandom(t *testing.T) {
	lose, again := Random(7, 0.1), Random(7, 0.1)
	var n [3]int
	for i := range 10_000 {
		c := Command{int64(i), "INCR"}
		loss := lose(c)
		if loss != again(c) {
			t.Fatal("one seed, two outcomes")
		}
		n[loss]++
		if lose(Command{0, "HELLO"}) != Nothing {
			t.Fatal("the setup of a connection was lost")
		}
	}
	for _, loss := range []Loss{Request, Reply} {
		if n[loss] < 900 || n[loss] > 1100 {
			t.Errorf("lost %v of 10000, want about a tenth each", n)
		}
	}
}
