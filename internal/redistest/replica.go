package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
)

// promptly makes a master send its data to a new replica at once, not after 5 s in the hope of more
// replicas.
var promptly = []string{"--repl-diskless-sync-delay", "0"}

// Replica starts a replica of master for this test, and waits until it has all of its data. args
// are options of the replica.
func Replica(t testing.TB, master *Server, args ...string) *Server {
	t.Helper()
	// The master may have been started without it.
	if err := master.Client().ConfigSet(context.Background(), promptly[0][2:],
		promptly[1]).Err(); err != nil {
		t.Fatal(err)
	}
	s, err := startReplica(t.TempDir(), master, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// startReplica starts a replica of master, and waits until it has all of its data.
func startReplica(dir string, master *Server, args ...string) (*Server, error) {
	host, port, _ := net.SplitHostPort(master.Addr)
	s, err := Start(dir, append([]string{"--replicaof", host, port}, args...)...)
	if err != nil {
		return nil, err
	}
	if err := s.inSync(context.Background()); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Follow makes the server a replica of master, and waits until it has all of its data. It loses its
// own data.
func (s *Server) Follow(ctx context.Context, master *Server) error {
	host, port, _ := net.SplitHostPort(master.Addr)
	rdb := s.Client()
	if err := rdb.ReplicaOf(ctx, host, port).Err(); err != nil {
		return err
	}
	return s.inSync(ctx)
}

// inSync waits until a replica's link to its master is up.
func (s *Server) inSync(ctx context.Context) error {
	rdb := s.Client()
	return poll(func() error {
		info, err := rdb.Info(ctx, "replication").Result()
		if err == nil && !strings.Contains(info, "master_link_status:up") {
			err = fmt.Errorf("redistest: the replica is not in sync:\n%s", info)
		}
		return err
	})
}

// awaitMaster waits until the server accepts writes.
func (s *Server) awaitMaster(ctx context.Context) error {
	rdb := s.Client()
	return poll(func() error {
		info, err := rdb.Info(ctx, "replication").Result()
		if err == nil && !strings.Contains(info, "role:master") {
			err = errors.New("redistest: the replica was not promoted:\n" + info)
		}
		return err
	})
}
