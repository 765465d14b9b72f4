package redisstore

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Where the time of an update comes from, in the order in which the store tries them. Some services
// refuse TIME in scripts, and some administrators refuse it at all. The store remembers it until
// the next Check.
const (
	timeInScripts   int32 = iota
	timeByCommand         // TIME before the script, one more round trip
	timeOfProcesses       // the clocks of the app's nodes, which must agree
)

// now returns the time for a script that cannot ask for it.
func (s *Store) now(ctx context.Context, key string) (milliseconds string, err error) {
	now := time.Now()
	if s.timeSource.Load() != timeOfProcesses { // Check may have reset it meanwhile
		var to processor = s.rdb
		if sharded(s.rdb) {
			to = master{s.rdb, key} // the clock of the server that has the key
		}
		cmd := redis.NewTimeCmd(ctx, "time")
		switch err := s.send(ctx, to, cmd); {
		case err == nil:
			now = cmd.Val()
		case !isReply(err) || isRefusal(err):
			return "", err
		default:
			s.timeSource.Store(timeOfProcesses)
		}
	}
	return strconv.FormatInt(now.UnixMilli(), 10), nil
}
