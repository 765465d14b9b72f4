package redistest

import (
	"fmt"
	"testing"
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
