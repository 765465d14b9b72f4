package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// readsFrom returns what sends reads of a record to its master.
func (s *Store) readsFrom(key string) processor {
	if s.fromReplicas {
		return master{s.rdb, key}
	}
	return s.rdb
}

// writesTo returns what sends updates of a record to its master, and waits for replicas if it
// should.
func (s *Store) writesTo(key string) processor {
	if s.waitReplicas > 0 {
		return confirmed{master{s.rdb, key}, s.waitReplicas, s.waitTimeout}
	}
	return s.readsFrom(key)
}

// A master is the server that has a key, and decides what is true of it. As a processor it sends
// commands there also where the app's client reads from replicas: a replica may not know yet what
// the visitor has just put into the cart, or that the guest is claimed and its cookie worth
// nothing.
type master struct {
	rdb redis.UniversalClient
	key string
}

// readsReplicas reports whether rdb may read from replicas. Of a wrapper we cannot know.
func readsReplicas(rdb redis.UniversalClient) bool {
	cluster, ok := rdb.(*redis.ClusterClient)
	return ok && cluster.Options().ReadOnly // which routing by latency or at random sets, too
}

// Process implements processor.
func (m master) Process(ctx context.Context, cmd redis.Cmder) error {
	return m.send(ctx, cmd, func(redis.Pipeliner) {})
}

// send sends cmd to the master, together with what after adds. The client of one node does not
// follow redirections, so it does.
func (m master) send(ctx context.Context, cmd redis.Cmder, after func(redis.Pipeliner)) error {
	node, err := m.owner(ctx)
	if err != nil {
		cmd.SetErr(err)
		return err
	}
	cluster, ok := m.rdb.(*redis.ClusterClient)
	asking := false
	// Connections of a client that reads from replicas take the answers of any; a master may have
	// become one meanwhile, and must send us on. Sentinel's have no such state.
	takes := readsReplicas(m.rdb) && cluster.Options().ClusterSlots == nil
	for n := 0; ; n++ {
		pipe := node.Pipeline()
		if takes {
			pipe.Do(ctx, "readwrite")
		}
		if asking {
			pipe.Do(ctx, "asking")
		}
		pipe.Process(ctx, cmd)
		after(pipe)
		if takes {
			pipe.Do(ctx, "readonly")
		}
		pipe.Exec(ctx) // its error is that of any of them
		addr, moved := redis.IsMovedError(cmd.Err())
		if !moved {
			addr, asking = redis.IsAskError(cmd.Err())
		}
		if !ok || !moved && !asking || n == attempts {
			return cmd.Err()
		}
		if moved {
			asking = false
			cluster.ReloadState(ctx)
		}
		next := nodeAt(ctx, cluster, addr)
		// The client may not know the node yet, such as a new one that gets its first slot.
		if next == nil {
			o := *node.Options()
			o.Addr = addr
			next = redis.NewClient(&o)
			defer next.Close()
		}
		node = next
	}
}

// owner returns a client of the master, as far as the app's client knows.
func (m master) owner(ctx context.Context) (*redis.Client, error) {
	switch rdb := m.rdb.(type) {
	case *redis.Client:
		return rdb, nil
	case *redis.ClusterClient:
		return rdb.MasterForKey(ctx, m.key)
	case *redis.Ring:
		return rdb.GetShardClientForKey(m.key)
	}
	return nil, permanent{errors.New("WaitReplicas needs " +
		"a *redis.Client, *redis.ClusterClient or *redis.Ring")}
}

// nodeAt returns the client's client of one node, or nil.
func nodeAt(ctx context.Context, cluster *redis.ClusterClient, addr string) *redis.Client {
	found := make(chan *redis.Client, 1)
	cluster.ForEachShard(ctx, func(_ context.Context, node *redis.Client) error {
		if node.Options().Addr == addr {
			select {
			case found <- node:
			default:
			}
		}
		return nil
	})
	select {
	case node := <-found:
		return node
	default:
		return nil
	}
}

// errTooFew comes with a reply, so it is one: the connection is fine, and asking again would not
// help.
const errTooFew = replyError("fewer replicas than WaitReplicas have confirmed the update " +
	"in WaitTimeout")

// lateness is how much later than asked WAIT may give up: Redis looks at its clock ten times a
// second.
const lateness = 110 * time.Millisecond

// A confirmed processor sends each command about the key in a pipeline with WAIT: WAIT speaks of
// what its own connection has done, so it must follow on the same one, to the node that has the
// key. It covers what other connections wrote before this one did, and the script always writes
// unless it refuses an update, so what the answer rests on is confirmed: also that an update that
// came again was applied before, or that a condition does not hold.
type confirmed struct {
	master
	replicas int
	timeout  time.Duration
}

// Process implements processor.
func (c confirmed) Process(ctx context.Context, cmd redis.Cmder) error {
	var got *redis.Cmd
	err := c.send(ctx, cmd, func(pipe redis.Pipeliner) {
		wait := c.timeout
		if end, ok := ctx.Deadline(); ok {
			wait = min(wait, time.Until(end)-lateness) // Redis answers before we stop listening
		}
		got = pipe.Do(ctx, "wait", c.replicas, max(1, wait.Milliseconds())) // 0 would be for ever
	})
	if err != nil {
		return err
	}
	switch n, err := got.Int(); {
	case err != nil && !isReply(err):
		return err
	case err != nil || n < c.replicas:
		return errTooFew
	}
	return nil
}
