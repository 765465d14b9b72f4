package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
)

const slots = 16384

// ClusterServers is a Redis Cluster of masters, three unless asked otherwise, without replicas
// until AddReplicas.
type ClusterServers struct {
	Nodes    []*Server // the masters at first
	Replicas []*Server // of each of Nodes, in their order

	dir   string
	args  []string
	nodes []*redis.Client // one for each of Nodes

	mu      sync.Mutex
	clients []*redis.ClusterClient
}

// Cluster starts a cluster for this test and ends it with the test. args are options of each node.
func Cluster(t testing.TB, args ...string) *ClusterServers {
	t.Helper()
	c, err := StartCluster(t.TempDir(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// StartCluster starts a cluster that keeps its files below dir. It is for TestMain; tests use
// [Cluster]. The caller closes the cluster.
func StartCluster(dir string, args ...string) (*ClusterServers, error) {
	return StartShards(dir, 3, args...)
}

// StartShards is StartCluster with that many masters.
func StartShards(dir string, shards int, args ...string) (*ClusterServers, error) {
	c := &ClusterServers{dir: dir,
		args: append([]string{"--cluster-enabled", "yes", "--cluster-node-timeout", "2000"},
			args...)}
	if err := c.start(shards); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// startNode starts a node that belongs to no cluster yet.
func (c *ClusterServers) startNode(name string, args ...string) (*Server, error) {
	sub := filepath.Join(c.dir, name)
	if err := os.Mkdir(sub, 0o700); err != nil {
		return nil, err
	}
	return Start(sub, append(c.args[:len(c.args):len(c.args)], args...)...)
}

// addNode starts the last of Nodes.
func (c *ClusterServers) addNode() error {
	s, err := c.startNode(fmt.Sprint("node", len(c.Nodes)))
	if err != nil {
		return err
	}
	c.Nodes, c.nodes = append(c.Nodes, s), append(c.nodes, s.Client())
	return nil
}

func (c *ClusterServers) start(shards int) error {
	ctx := context.Background()
	for range shards {
		if err := c.addNode(); err != nil {
			return err
		}
	}
	for i, n := range c.nodes {
		// Different epochs from the start save the nodes the time to agree on them.
		if err := n.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(); err != nil {
			return err
		}
		if err := n.ClusterAddSlotsRange(ctx, i*slots/shards,
			(i+1)*slots/shards-1).Err(); err != nil {
			return err
		}
	}
	for _, n := range c.nodes { // every node meets every other, so that none has to wait for gossip
		if err := c.meet(ctx, n); err != nil {
			return err
		}
	}
	return poll(func() error {
		for _, n := range c.nodes {
			info, err := n.ClusterInfo(ctx).Result()
			if err != nil {
				return err
			}
			if !strings.Contains(info, "cluster_state:ok") ||
				!strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r", shards)) {
				return errors.New("redistest: the cluster did not come up:\n" + info)
			}
			//lint:ignore SA1019 CLUSTER SHARDS is Redis 7's
			ranges, err := n.ClusterSlots(ctx).Result()
			if err != nil {
				return err
			}
			if len(ranges) != shards {
				return fmt.Errorf("redistest: a node knows %d of %d slot ranges", len(ranges),
					shards)
			}
		}
		return nil
	})
}

// meet introduces a node to all of Nodes.
func (c *ClusterServers) meet(ctx context.Context, node *redis.Client) error {
	for _, s := range c.Nodes {
		host, port, _ := net.SplitHostPort(s.Addr)
		if err := node.ClusterMeet(ctx, host, port).Err(); err != nil {
			return err
		}
	}
	return nil
}

// AddReplicas gives each master a replica, and waits until all of them have their data.
func (c *ClusterServers) AddReplicas(ctx context.Context) error {
	for i, master := range c.nodes {
		if err := master.ConfigSet(ctx, promptly[0][2:], promptly[1]).Err(); err != nil {
			return err
		}
		s, err := c.startNode(fmt.Sprint("replica", i), "--cluster-replica-validity-factor", "0")
		if err != nil {
			return err
		}
		c.Replicas = append(c.Replicas, s)
		id, err := master.Do(ctx, "CLUSTER", "MYID").Text()
		if err != nil {
			return err
		}
		rdb := s.Client()
		if err := c.meet(ctx, rdb); err != nil {
			return err
		}
		// once it knows its master
		if err := poll(func() error { return rdb.ClusterReplicate(ctx, id).Err() }); err != nil {
			return err
		}
	}
	for _, s := range c.Replicas {
		if err := s.inSync(ctx); err != nil {
			return err
		}
	}
	// Each master must know all replicas: it votes for no replica that it does not know.
	for _, n := range c.nodes {
		err := poll(func() error {
			table, err := n.ClusterNodes(ctx).Result()
			if err == nil && strings.Count(table, "slave") < len(c.Replicas) {
				err = errors.New("redistest: a master does not know all replicas:\n" + table)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// AddMaster gives the cluster a master without slots, the last of Nodes, and waits until all others
// know it.
func (c *ClusterServers) AddMaster(ctx context.Context) error {
	if err := c.addNode(); err != nil {
		return err
	}
	if err := c.meet(ctx, c.nodes[len(c.nodes)-1]); err != nil {
		return err
	}
	return poll(func() error {
		for _, n := range c.nodes {
			table, err := n.ClusterNodes(ctx).Result()
			if err != nil {
				return err
			}
			if strings.Contains(table, "handshake") ||
				strings.Count(table, "master") < len(c.nodes) {
				return errors.New("redistest: a node does not know all masters:\n" + table)
			}
			if info, err := n.ClusterInfo(ctx).Result(); err != nil ||
				!strings.Contains(info, "cluster_state:ok") {
				return fmt.Errorf("redistest: a node does not serve: %v\n%s", err, info)
			}
		}
		return nil
	})
}

// AwaitFailover waits until the replica of Nodes[dead] serves its slots, and all others know.
func (c *ClusterServers) AwaitFailover(ctx context.Context, dead int) error {
	if err := c.Replicas[dead].awaitMaster(ctx); err != nil {
		return err
	}
	for i, s := range slices.Concat(c.Nodes, c.Replicas) {
		if i == dead {
			continue
		}
		rdb := s.Client()
		err := poll(func() error {
			info, err := rdb.ClusterInfo(ctx).Result()
			if err == nil && !strings.Contains(info, "cluster_state:ok") {
				err = errors.New("redistest: the cluster does not recover:\n" + info)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Rejoin starts Nodes[dead] again, whose replica has taken its place, and waits until it is a
// replica of that one.
func (c *ClusterServers) Rejoin(ctx context.Context, dead int) error {
	if err := c.Nodes[dead].Restart(); err != nil {
		return err
	}
	rdb := c.Nodes[dead].Client()
	err := poll(func() error {
		info, err := rdb.Info(ctx, "replication").Result()
		if err == nil && !strings.Contains(info, "role:slave") {
			err = errors.New("redistest: the old master did not become a replica:\n" + info)
		}
		return err
	})
	if err != nil {
		return err
	}
	return c.Nodes[dead].inSync(ctx)
}

// Owner returns which of Nodes has the slot.
func (c *ClusterServers) Owner(ctx context.Context, slot int) (int, error) {
	from, _, err := c.owner(ctx, slot)
	return from, err
}

// owner also returns the IDs of all Nodes.
func (c *ClusterServers) owner(ctx context.Context, slot int) (from int, ids []string, err error) {
	ids = make([]string, len(c.nodes))
	from = -1
	for i, n := range c.nodes {
		table, err := n.ClusterNodes(ctx).Result()
		if err != nil {
			return 0, nil, err
		}
		for line := range strings.Lines(table) {
			if f := strings.Fields(line); strings.Contains(f[2], "myself") {
				ids[i] = f[0]
				if slices.ContainsFunc(f[8:], func(r string) bool { return inRange(slot, r) }) {
					from = i
				}
			}
		}
	}
	if from < 0 {
		return 0, nil, fmt.Errorf("redistest: no node has slot %d", slot)
	}
	return from, ids, nil
}

// Addrs returns the addresses of all nodes.
func (c *ClusterServers) Addrs() []string {
	var addrs []string
	for _, s := range slices.Concat(c.Nodes, c.Replicas) {
		addrs = append(addrs, s.Addr)
	}
	return addrs
}

// Slot returns the slot of a key without braces.
func Slot(key string) int {
	crc := uint16(0) // CRC16-XMODEM, as in the Cluster specification
	for _, b := range []byte(key) {
		crc ^= uint16(b) << 8
		for range 8 {
			top := crc & 0x8000
			if crc <<= 1; top != 0 {
				crc ^= 0x1021
			}
		}
	}
	return int(crc) % slots
}

// MoveSlot moves a slot to the node Nodes[to] while clients keep working, in the steps of redis-cli
// --cluster reshard. Two calls must not run at once.
func (c *ClusterServers) MoveSlot(ctx context.Context, slot, to int) error {
	from, ids, err := c.owner(ctx, slot)
	if err != nil {
		return err
	}
	if from == to {
		return nil
	}
	if err := c.openSlot(ctx, slot, from, to, ids); err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(c.Nodes[to].Addr)
	for {
		keys, err := c.nodes[from].ClusterGetKeysInSlot(ctx, slot, 1).Result()
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			break
		}
		if err := c.nodes[from].Migrate(ctx, host, port, keys[0], 0,
			startTimeout).Err(); err != nil {
			return err
		}
	}
	// First the new owner, so that a node has the slot at any time.
	order := []int{to, from}
	for i := range c.nodes {
		if i != to && i != from {
			order = append(order, i)
		}
	}
	for _, i := range order {
		if err := c.nodes[i].Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE",
			ids[to]).Err(); err != nil {
			return err
		}
	}
	return poll(func() error { return c.agree(ctx) })
}

// OpenSlot begins to move a slot to the node Nodes[to] and stops there, like an interrupted
// resharding: existing keys stay, new ones go to the other node. MoveSlot completes it.
func (c *ClusterServers) OpenSlot(ctx context.Context, slot, to int) error {
	from, ids, err := c.owner(ctx, slot)
	if err != nil || from == to {
		return err
	}
	return c.openSlot(ctx, slot, from, to, ids)
}

func (c *ClusterServers) openSlot(ctx context.Context, slot, from, to int, ids []string) error {
	if err := c.nodes[to].Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING",
		ids[from]).Err(); err != nil {
		return err
	}
	return c.nodes[from].Do(ctx, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to]).Err()
}

// inRange reports whether the slot is in a range such as "7" or "7-9"; "[7->-…" is none.
func inRange(slot int, r string) bool {
	low, high, isRange := strings.Cut(r, "-")
	if !isRange {
		high = low
	}
	first, err := strconv.Atoi(low)
	last, err2 := strconv.Atoi(high)
	return err == nil && err2 == nil && first <= slot && slot <= last
}

// agree returns an error unless all nodes report the same slots and epochs of each other. If a slot
// is moved again before that, it may end up without an owner, because two nodes can choose the same
// epoch.
func (c *ClusterServers) agree(ctx context.Context) error {
	var first string
	for i, n := range c.nodes {
		table, err := n.ClusterNodes(ctx).Result()
		if err != nil {
			return err
		}
		var lines []string
		epochs := map[string]bool{}
		for line := range strings.Lines(table) {
			f := strings.Fields(line)
			// Only the two nodes concerned show that a slot is open.
			f = slices.DeleteFunc(f, func(s string) bool { return s[0] == '[' })
			lines = append(lines, strings.Join(append(f[:1:1], f[6:]...), " "))
			epochs[f[6]] = true
		}
		slices.Sort(lines)
		// Each node reports by itself whether it is connected; on the rest they must agree.
		table = strings.NewReplacer(" disconnected", "", " connected", "").Replace(
			strings.Join(lines, "\n"))
		if i == 0 {
			first = table
		}
		if table != first || len(epochs) < len(c.nodes) {
			return fmt.Errorf("redistest: the nodes do not agree:\n%s\n%s", first, table)
		}
	}
	return nil
}

// Client returns a client with ContextTimeoutEnabled; Close closes it.
func (c *ClusterServers) Client() *redis.ClusterClient {
	rdb := redis.NewClusterClient(
		&redis.ClusterOptions{Addrs: c.Addrs(), ContextTimeoutEnabled: true})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clients = append(c.clients, rdb)
	return rdb
}

// Close ends all nodes and closes the cluster's clients.
func (c *ClusterServers) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rdb := range c.clients {
		rdb.Close()
	}
	c.clients = nil
	for _, s := range slices.Concat(c.Nodes, c.Replicas) {
		s.Close()
	}
}
