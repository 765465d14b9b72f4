package redistest

import (
	"testing"
	"time"
)

func TestSentinel(t *testing.T) {
	start := time.Now()
	s := Sentinel(t, 2, 1)
	t.Logf("up in %v", time.Since(start).Round(time.Millisecond))
	rdb := s.Client()
	if err := rdb.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	first, err := s.Master(ctx)
	if err != nil || first != s.Nodes[0] {
		t.Fatalf("the master is %v, %v", first, err)
	}
	if n, err := first.Client().Wait(ctx, 2, time.Second).Result(); n != 2 || err != nil {
		t.Fatalf("%d replicas, %v", n, err)
	}
	start = time.Now()
	first.Kill()
	second, err := s.AwaitFailover(ctx, first)
	if err != nil || second == first {
		t.Fatalf("the master is %v, %v", second, err)
	}
	t.Logf("failover in %v", time.Since(start).Round(time.Millisecond))
	if v := second.Client().Get(ctx, "k").Val(); v != "v" {
		t.Errorf("the new master has %q", v)
	}
	if err := s.Rejoin(ctx, first, second); err != nil {
		t.Fatal(err)
	}
	if v := first.Client().Get(ctx, "k").Val(); v != "v" {
		t.Errorf("the old master, a replica now, has %q", v)
	}
}
