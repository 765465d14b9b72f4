package redisstore

import (
	"context"

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

// lineOf returns the line of the server that has the key. In a Cluster or a Ring each master has
// its own line: one that is away holds up only the calls for its own records.
func (s *Store) lineOf(ctx context.Context, key string) (*line, error) {
	if !sharded(s.rdb) {
		return s.line, nil
	}
	var node *redis.Client
	err := s.line.call(ctx, func(ctx context.Context) error { // the client may have to ask a server
		return s.within(ctx, func() (err error) {
			node, err = master{s.rdb, key}.owner(ctx)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return s.lineAt(node), nil
}

// lineAt returns the line of a server of the client.
func (s *Store) lineAt(node processor) *line {
	server, ok := node.(*redis.Client)
	if !ok || !sharded(s.rdb) {
		return s.line
	}
	addr := server.Options().Addr
	if l, ok := s.lines.Load(addr); ok {
		return l.(*line)
	}
	probe := func(ctx context.Context) error {
		server, err := s.serverAt(ctx, addr)
		if err == errGone {
			s.lines.Delete(addr)
		}
		if err != nil {
			return err
		}
		return s.ping(ctx, server)
	}
	l, _ := s.lines.LoadOrStore(addr,
		newLine(connections(server), s.minTimeout, s.maxTimeout, probe))
	return l.(*line)
}

// clientLine returns the line of the client as a whole. In a Cluster or a Ring calls only learn
// there which server has their record, so it has no bound.
func (s *Store) clientLine() *line {
	places := 0 // no bound: how many connections a wrapper has is not known
	probe := func(ctx context.Context) error { return s.ping(ctx, s.rdb) }
	if c, ok := s.rdb.(*redis.Client); ok {
		places = connections(c)
	} else if sharded(s.rdb) {
		probe = func(ctx context.Context) error {
			return s.within(ctx, func() error {
				_, err := master{s.rdb, ""}.owner(ctx)
				return err
			})
		}
	}
	return newLine(places, s.minTimeout, s.maxTimeout, probe)
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
		if err = <-answers; err == nil || isReply(err) {
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
