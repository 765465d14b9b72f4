package redistest

import (
	"fmt"
	"testing"
	"time"
)

func TestMoveSlot(t *testing.T) {
	c := Cluster(t)
	rdb := c.Client()
	ctx := t.Context()
	const tag = "tag"
	slot := Slot(tag)
	if want, err := rdb.ClusterKeySlot(ctx, tag).Result(); err != nil || slot != int(want) {
		t.Fatalf("the slot is %d, not %d (%v)", want, slot, err)
	}
	for i := range 20 {
		if err := rdb.Set(ctx, fmt.Sprintf("{%s}%d", tag, i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for to := range c.Nodes {
		if err := c.MoveSlot(ctx, slot, to); err != nil {
			t.Fatal(err)
		}
		if n, err := c.nodes[to].ClusterCountKeysInSlot(ctx, slot).Result(); n != 20 || err != nil {
			t.Errorf("node %d has %d of 20 keys (%v)", to, n, err)
		}
		if v, err := rdb.Get(ctx, "{"+tag+"}7").Result(); v != "7" || err != nil {
			t.Errorf("a client reads %q, %v", v, err)
		}
	}
}

func TestClusterFailover(t *testing.T) {
	start := time.Now()
	c := Cluster(t, "--cluster-node-timeout", "500")
	if err := c.AddReplicas(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("up in %v", time.Since(start).Round(time.Millisecond))
	dead, err := c.Owner(ctx, Slot("k"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(master *Server) {
		t.Helper()
		pipe := master.Client().Pipeline()
		pipe.Set(ctx, "k", "v", 0)
		replicas := pipe.Do(ctx, "WAIT", 1, 1000)
		pipe.Exec(ctx)
		if n, err := replicas.Int(); n != 1 || err != nil {
			t.Fatalf("%d replicas, %v", n, err)
		}
	}
	write(c.Nodes[dead])
	start = time.Now()
	c.Nodes[dead].Kill()
	if err := c.AwaitFailover(ctx, dead); err != nil {
		t.Fatal(err)
	}
	t.Logf("failover in %v", time.Since(start).Round(time.Millisecond))
	if v, err := c.Client().Get(ctx, "k").Result(); v != "v" {
		t.Errorf("a client reads %q, %v", v, err)
	}
	if err := c.Rejoin(ctx, dead); err != nil {
		t.Fatal(err)
	}
	write(c.Replicas[dead])
}
