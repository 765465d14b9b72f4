package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
)

// ClusterServers is a Redis Cluster of three masters without replicas.
type ClusterServers struct {
	Nodes []*Server

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

// StartCluster starts a cluster that keeps its files below dir. It is for TestMain; tests use [Cluster].
// Whoever starts a cluster closes it.
func StartCluster(dir string, args ...string) (*ClusterServers, error) {
	c := &ClusterServers{}
	if err := c.start(dir, args); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *ClusterServers) start(dir string, args []string) error {
	const slots = 16384
	ctx := context.Background()
	args = append([]string{"--cluster-enabled", "yes", "--cluster-node-timeout", "2000"}, args...)
	var nodes []*redis.Client
	for i := range 3 {
		sub := filepath.Join(dir, fmt.Sprint("node", i))
		if err := os.Mkdir(sub, 0o700); err != nil {
			return err
		}
		s, err := Start(sub, args...)
		if err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, s)
		nodes = append(nodes, s.Client())
	}
	for i, n := range nodes {
		// Different epochs from the start save the nodes the time to agree on them.
		if err := n.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(); err != nil {
			return err
		}
		if err := n.ClusterAddSlotsRange(ctx, i*slots/3, (i+1)*slots/3-1).Err(); err != nil {
			return err
		}
	}
	for _, n := range nodes { // everybody meets everybody: nobody waits for gossip
		for _, s := range c.Nodes {
			host, port, _ := net.SplitHostPort(s.Addr)
			if err := n.ClusterMeet(ctx, host, port).Err(); err != nil {
				return err
			}
		}
	}
	return poll(func() error {
		for _, n := range nodes {
			info, err := n.ClusterInfo(ctx).Result()
			if err != nil {
				return err
			}
			if !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:3") {
				return errors.New("redistest: the cluster did not come up:\n" + info)
			}
			all, err := n.ClusterShards(ctx).Result()
			if err != nil {
				return err
			}
			known := 0
			for _, shard := range all {
				known += len(shard.Slots)
			}
			if known != 3 {
				return fmt.Errorf("redistest: a node knows %d of 3 slot ranges", known)
			}
		}
		return nil
	})
}

// Addrs returns the addresses of all nodes.
func (c *ClusterServers) Addrs() []string {
	var addrs []string
	for _, s := range c.Nodes {
		addrs = append(addrs, s.Addr)
	}
	return addrs
}

// Client returns a client with ContextTimeoutEnabled; Close closes it.
func (c *ClusterServers) Client() *redis.ClusterClient {
	rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs(), ContextTimeoutEnabled: true})
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
	for _, s := range c.Nodes {
		s.Close()
	}
}
