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

// MasterName is the name under which sentinels know the master.
const MasterName = "master"

// SentinelServers is a master with its replicas, and the sentinels that promote one of them when
// the master is gone.
type SentinelServers struct {
	Nodes     []*Server // the first of them is the master at first
	Sentinels []*Server

	mu      sync.Mutex
	clients []*redis.Client
}

// Sentinel starts one master, so many replicas and sentinels for this test, and ends them with the
// test. args are options of master and replicas. The sentinels consider a master down when it has
// not answered for 1.5 s. They ping once a second; with a shorter limit a master that was just
// promoted, and not pinged yet, would count as down.
func Sentinel(t testing.TB, replicas, sentinels int, args ...string) *SentinelServers {
	t.Helper()
	s := &SentinelServers{}
	t.Cleanup(s.Close)
	if err := s.start(t.TempDir(), replicas, sentinels, args); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *SentinelServers) start(dir string, replicas, sentinels int, args []string) error {
	args = append(promptly[:len(promptly):len(promptly)], args...)
	subdir := func(kind string, i int) (string, error) {
		sub := filepath.Join(dir, fmt.Sprint(kind, i))
		return sub, os.Mkdir(sub, 0o700)
	}
	for i := range 1 + replicas {
		sub, err := subdir("node", i)
		if err != nil {
			return err
		}
		var node *Server
		if i == 0 {
			node, err = Start(sub, args...)
		} else {
			node, err = startReplica(sub, s.Nodes[0], args...)
		}
		if err != nil {
			return err
		}
		s.Nodes = append(s.Nodes, node)
	}
	host, port, _ := net.SplitHostPort(s.Nodes[0].Addr)
	for i := range sentinels {
		sub, err := subdir("sentinel", i)
		if err != nil {
			return err
		}
		config := filepath.Join(sub, "sentinel.conf") // a sentinel keeps its state there
		err = os.WriteFile(config, fmt.Appendf(nil, "sentinel monitor %[1]s %[2]s %[3]s %[4]d\n"+
			"sentinel down-after-milliseconds %[1]s 1500\n"+
			"sentinel failover-timeout %[1]s 2000\n", MasterName, host, port, sentinels/2+1), 0o600)
		if err != nil {
			return err
		}
		sentinel, err := start(sub, []string{config, "--sentinel"})
		if err != nil {
			return err
		}
		s.Sentinels = append(s.Sentinels, sentinel)
	}
	return s.watched(context.Background(), replicas)
}

// watched waits until each sentinel knows all replicas, and all other sentinels.
func (s *SentinelServers) watched(ctx context.Context, replicas int) error {
	for _, sentinel := range s.Sentinels {
		rdb := sentinel.sentinelClient()
		defer rdb.Close()
		err := poll(func() error {
			state, err := rdb.Master(ctx, MasterName).Result()
			if err == nil && (state["num-slaves"] != fmt.Sprint(replicas) ||
				state["num-other-sentinels"] != fmt.Sprint(len(s.Sentinels)-1)) {
				err = fmt.Errorf("redistest: a sentinel does not know all: %v", state)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) sentinelClient() *redis.SentinelClient {
	return redis.NewSentinelClient(&redis.Options{Addr: s.Addr, ContextTimeoutEnabled: true})
}

// Master returns the node that the first sentinel believes to be the master.
func (s *SentinelServers) Master(ctx context.Context) (*Server, error) {
	rdb := s.Sentinels[0].sentinelClient()
	defer rdb.Close()
	addr, err := rdb.GetMasterAddrByName(ctx, MasterName).Result()
	if err != nil {
		return nil, err
	}
	for _, node := range s.Nodes {
		if node.Addr == net.JoinHostPort(addr[0], addr[1]) {
			return node, nil
		}
	}
	return nil, fmt.Errorf("redistest: the master is %v, which is none of ours", addr)
}

// AwaitFailover waits until a node other than old is the master, accepts writes, and has all other
// running nodes as replicas.
func (s *SentinelServers) AwaitFailover(ctx context.Context, old *Server) (*Server, error) {
	var master *Server
	err := poll(func() (err error) {
		if master, err = s.Master(ctx); err == nil && master == old {
			err = errors.New("redistest: no failover")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := master.awaitMaster(ctx); err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(master.Addr)
	for _, node := range s.Nodes {
		if node == master || node == old {
			continue
		}
		rdb := node.Client()
		err := poll(func() error {
			info, err := rdb.Info(ctx, "replication").Result()
			if err == nil && !(strings.Contains(info, "master_host:"+host) &&
				strings.Contains(info, "master_port:"+port)) {
				err = errors.New("redistest: a replica does not follow the new master:\n" + info)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if err := node.inSync(ctx); err != nil {
			return nil, err
		}
	}
	return master, nil
}

// Rejoin starts the old master again as a replica of the new one, and waits until the sentinels
// have finished the failover and could do another one.
func (s *SentinelServers) Rejoin(ctx context.Context, old, master *Server) error {
	_, port, _ := net.SplitHostPort(master.Addr)
	each := func(f func(*redis.SentinelClient) error) error {
		for _, sentinel := range s.Sentinels {
			rdb := sentinel.sentinelClient()
			defer rdb.Close()
			if err := poll(func() error { return f(rdb) }); err != nil {
				return err
			}
		}
		return nil
	}
	err := each(func(rdb *redis.SentinelClient) error {
		state, err := rdb.Master(ctx, MasterName).Result()
		if err == nil && (state["port"] != port || state["flags"] != "master") {
			err = fmt.Errorf("redistest: the failover goes on: %v", state)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := old.Restart(); err != nil {
		return err
	}
	if err := old.Follow(ctx, master); err != nil {
		return err
	}
	return each(func(rdb *redis.SentinelClient) error {
		replicas, err := rdb.Replicas(ctx, MasterName).Result()
		for _, replica := range replicas {
			if replica["flags"] != "slave" || replica["master-link-status"] != "ok" {
				return fmt.Errorf("redistest: a replica is not ready: %v", replica)
			}
		}
		return err
	})
}

// Addrs returns the addresses of the sentinels.
func (s *SentinelServers) Addrs() []string {
	var addrs []string
	for _, sentinel := range s.Sentinels {
		addrs = append(addrs, sentinel.Addr)
	}
	return addrs
}

// Client returns a client of the current master, with ContextTimeoutEnabled; Close closes it.
func (s *SentinelServers) Client() *redis.Client {
	rdb := redis.NewFailoverClient(
		&redis.FailoverOptions{MasterName: MasterName, SentinelAddrs: s.Addrs(),
			ContextTimeoutEnabled: true})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients = append(s.clients, rdb)
	return rdb
}

// Close ends all processes and closes the clients.
func (s *SentinelServers) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rdb := range s.clients {
		rdb.Close()
	}
	s.clients = nil
	for _, server := range append(s.Sentinels, s.Nodes...) {
		server.Close()
	}
}
