package redisstore

import (
	"context"
	"fmt"
	"iter"
	"strings"

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
