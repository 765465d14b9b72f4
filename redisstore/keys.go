package redisstore

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// scanCount is how many keys Redis looks at in one step of Keys: few enough not to hold up other
// commands.
const scanCount = 512

// Keys implements [guest.Store]. It looks at all keys of all masters, one after the other.
func (s *Store) Keys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		nodes, err := s.servers(ctx)
		if err != nil {
			yield("", fmt.Errorf("redisstore: keys: %w", err))
			return
		}
		pattern := escapeGlob.Replace(s.prefix+prefix) + "*"
		for _, node := range nodes {
			for cursor, first := uint64(0), true; first || cursor != 0; first = false {
				scan := redis.NewScanCmd(ctx, nil,
					"scan", cursor, "match", pattern, "count", scanCount)
				if err := s.ask(ctx, node, scan); err != nil {
					yield("", fmt.Errorf("redisstore: keys: %w", err))
					return
				}
				var page []string
				page, cursor = scan.Val()
				for _, key := range page {
					key, ours := strings.CutPrefix(key, s.prefix)
					if ours && strings.HasPrefix(key, prefix) && !yield(key, nil) {
						return
					}
				}
			}
		}
	}
}

var escapeGlob = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`, `\`, `\\`)

// servers returns a client of each server that has records of its own.
func (s *Store) servers(ctx context.Context) ([]processor, error) {
	if !sharded(s.rdb) {
		return []processor{s.rdb}, nil
	}
	var servers []processor
	err := s.line.call(ctx, func(ctx context.Context) error {
		nodes, err := s.masters(ctx)
		servers = make([]processor, len(nodes))
		for i, node := range nodes {
			servers[i] = node
		}
		return err
	})
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
