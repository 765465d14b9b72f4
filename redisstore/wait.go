package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// errTooFew comes with a reply, so it is one: the connection is fine, and asking again would not help.
const errTooFew = replyError("fewer replicas than WaitReplicas have confirmed the update in WaitTimeout")

// lateness is how much later than asked WAIT may give up: Redis looks at its clock ten times a second.
const lateness = 110 * time.Millisecond

// A confirmed processor sends each command about the key in a pipeline with WAIT: WAIT speaks of what its own
// connection has done, so it must follow on the same one, to the node that has the key. It covers what other connections
// wrote before this one did, and the script always writes, so whatever the answer rests on is confirmed: also that an update
// that came again was applied before, or that a condition does not hold.
type confirmed struct {
	rdb      redis.UniversalClient
	key      string
	replicas int
	timeout  time.Duration
}

// Process implements processor. A pipeline to one node does not follow redirections, so it does.
func (c confirmed) Process(ctx context.Context, cmd redis.Cmder) error {
	node, err := c.owner(ctx)
	if err != nil {
		cmd.SetErr(err)
		return err
	}
	err = c.send(ctx, node, cmd, false)
	for range attempts {
		addr, moved := redis.IsMovedError(err)
		ask := false
		if !moved {
			addr, ask = redis.IsAskError(err)
		}
		cluster, ok := c.rdb.(*redis.ClusterClient)
		if !ok || !moved && !ask {
			break
		}
		if moved {
			cluster.ReloadState(ctx)
		}
		if node = nodeAt(ctx, cluster, addr); node == nil {
			break // a node that the client does not know yet
		}
		err = c.send(ctx, node, cmd, ask)
	}
	return err
}

func (c confirmed) send(ctx context.Context, node *redis.Client, cmd redis.Cmder, asking bool) error {
	wait := c.timeout
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(end)-lateness) // Redis answers before we stop listening
	}
	pipe := node.Pipeline()
	if asking {
		pipe.Do(ctx, "asking")
	}
	pipe.Process(ctx, cmd)
	got := pipe.Do(ctx, "wait", c.replicas, max(1, wait.Milliseconds())) // 0 would be for ever
	pipe.Exec(ctx)                                                       // its error is that of any of them
	if err := cmd.Err(); err != nil {
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

// owner returns a client of the server that has the key, as far as the app's client knows.
func (c confirmed) owner(ctx context.Context) (*redis.Client, error) {
	switch rdb := c.rdb.(type) {
	case *redis.Client:
		return rdb, nil
	case *redis.ClusterClient:
		return rdb.MasterForKey(ctx, c.key)
	case *redis.Ring:
		return rdb.GetShardClientForKey(c.key)
	}
	return nil, final{errors.New("WaitReplicas needs a *redis.Client, *redis.ClusterClient or *redis.Ring")}
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
