package redisstore

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// sharded reports whether the client knows several servers, each with records of its own.
func sharded(rdb redis.UniversalClient) bool {
	switch rdb.(type) {
	case *redis.ClusterClient, *redis.Ring:
		return true
	}
	return false
}

// call makes a call about a record, in the queue of the server that has it.
func (s *Store) call(ctx context.Context, key string, try func(context.Context) error) error {
	q, err := s.queueOf(ctx, key)
	if err != nil {
		return err
	}
	return q.call(ctx, try)
}

// read sends a command that changes nothing, about a record, and waits for its answer.
func (s *Store) read(ctx context.Context, key string, cmd redis.Cmder) error {
	return s.call(ctx, key, func(ctx context.Context) error {
		return s.send(ctx, s.readsFrom(key), cmd)
	})
}

// ask sends a command to a server, and waits for its answer.
func (s *Store) ask(ctx context.Context, node processor, cmd redis.Cmder) error {
	return s.queueAt(node).call(ctx, func(ctx context.Context) error {
		return s.send(ctx, node, cmd)
	})
}

// queueOf returns the queue of the server that has the key. In a Cluster or a Ring each master has
// its own queue: one that is away holds up only the calls for its own records.
func (s *Store) queueOf(ctx context.Context, key string) (*queue, error) {
	if !sharded(s.rdb) {
		return s.queue, nil
	}
	var node *redis.Client
	// The client may have to ask a server first.
	err := s.queue.call(ctx, func(ctx context.Context) error {
		return s.within(ctx, func() (err error) {
			node, err = master{s.rdb, key}.owner(ctx)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return s.queueAt(node), nil
}

// queueAt returns the queue of a server of the client.
func (s *Store) queueAt(node processor) *queue {
	server, ok := node.(*redis.Client)
	if !ok || !sharded(s.rdb) {
		return s.queue
	}
	addr := server.Options().Addr
	if q, ok := s.queues.Load(addr); ok {
		return q.(*queue)
	}
	var made *queue
	probe := func(ctx context.Context) error {
		server, err := s.serverAt(ctx, addr)
		if err == errGone {
			s.queues.CompareAndDelete(addr, made)
		}
		if err != nil {
			return err
		}
		return s.ping(ctx, server)
	}
	made = newQueue(connections(server), s.minTimeout, s.maxTimeout, probe)
	q, _ := s.queues.LoadOrStore(addr, made)
	return q.(*queue)
}

// clientQueue returns the queue of the client as a whole. In a Cluster or a Ring calls only learn
// there which server has their record, so it has no bound.
func (s *Store) clientQueue() *queue {
	turns := 0 // no bound: how many connections a wrapper has is not known
	probe := func(ctx context.Context) error { return s.ping(ctx, s.rdb) }
	if c, ok := s.rdb.(*redis.Client); ok {
		turns = connections(c)
	} else if sharded(s.rdb) {
		probe = func(ctx context.Context) error {
			return s.within(ctx, func() error {
				_, err := master{s.rdb, ""}.owner(ctx)
				return err
			})
		}
	}
	return newQueue(turns, s.minTimeout, s.maxTimeout, probe)
}

// connections returns how many connections for commands the client has at most.
func connections(c *redis.Client) int {
	o := c.Options()
	if o.MaxActiveConns > 0 {
		return min(o.PoolSize, o.MaxActiveConns)
	}
	return o.PoolSize
}

// A pinger is a client with one pool of connections.
type pinger interface {
	processor
	PoolStats() *redis.PoolStats
}

// ping asks on a new connection, and at the same time on each idle one: the network may have
// forgotten those, and in turn each of them would be waited for.
func (s *Store) ping(ctx context.Context, node pinger) (err error) {
	pings := int(node.PoolStats().IdleConns) + 1
	answers := make(chan error, pings)
	for range pings {
		go func() { answers <- s.send(ctx, node, redis.NewStatusCmd(ctx, "ping")) }()
	}
	for range pings {
		if err = <-answers; isAnswer(err) {
			break
		}
	}
	return err
}

// serverAt returns the client's client of the master at addr, which is another one if the server
// was away meanwhile; or errGone. It makes the client of a Cluster look: a failover may have
// replaced the server, and calls that are not sent do not find out.
func (s *Store) serverAt(ctx context.Context, addr string) (*redis.Client, error) {
	nodes, err := s.masters(ctx)
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		if node.Options().Addr == addr {
			return node, nil
		}
	}
	return nil, errGone
}

// servers returns a client of each server that has records of its own.
func (s *Store) servers(ctx context.Context) ([]processor, error) {
	if !sharded(s.rdb) {
		return []processor{s.rdb}, nil
	}
	// The client may have to ask for the list. No queue knows how long that takes.
	ctx, cancel := context.WithTimeout(ctx, s.maxTimeout)
	defer cancel()
	nodes, err := s.masters(ctx)
	servers := make([]processor, len(nodes))
	for i, node := range nodes {
		servers[i] = node
	}
	return servers, err
}

// masters returns the clients of all masters of a Cluster or servers of a Ring, sorted by address.
func (s *Store) masters(ctx context.Context) ([]*redis.Client, error) {
	var mu sync.Mutex
	var nodes []*redis.Client
	err := s.within(ctx, func() error {
		collect := func(_ context.Context, node *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			nodes = append(nodes, node)
			return nil
		}
		if ring, ok := s.rdb.(*redis.Ring); ok {
			return ring.ForEachShard(ctx, collect)
		}
		return s.rdb.(*redis.ClusterClient).ForEachMaster(ctx, collect)
	})
	if err != nil {
		return nil, err // the client may still be at work
	}
	slices.SortFunc(nodes, func(a, b *redis.Client) int {
		return strings.Compare(a.Options().Addr, b.Options().Addr)
	})
	return nodes, nil
}
