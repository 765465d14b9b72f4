package redisstore

import (
	"context"
	"slices"

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
		if !s.uses(ctx, addr) {
			s.lines.Delete(addr)
			return errGone
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

func (s *Store) ping(ctx context.Context, node processor) error {
	return s.send(ctx, node, redis.NewStatusCmd(ctx, "ping"))
}

// uses reports whether the server at addr is still a master as far as the client knows. It makes
// the client of a Cluster look: a failover may have replaced the server, and as no calls are sent
// to it, none finds out.
func (s *Store) uses(ctx context.Context, addr string) bool {
	nodes, err := s.masters(ctx)
	return err != nil || slices.ContainsFunc(nodes, func(node *redis.Client) bool {
		return node.Options().Addr == addr
	})
}
