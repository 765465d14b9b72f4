package redisstore

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"
)

// A master is the server that has a key, and decides what is true of it. As a processor it sends commands there also where
// the app's client reads from replicas: a replica may not know yet what the visitor has just put into the cart, or that the
// guest is claimed and its cookie worth nothing.
type master struct {
	rdb redis.UniversalClient
	key string
}

// readsReplicas reports whether rdb may read from replicas. Of a wrapper we cannot know.
func readsReplicas(rdb redis.UniversalClient) bool {
	cluster, ok := rdb.(*redis.ClusterClient)
	return ok && cluster.Options().ReadOnly // which routing by latency or at random sets, too
}

// Process implements processor. Such a client has told the connections of all nodes that it takes answers of replicas, and a
// master may have become one that we have not heard of: then it must send us on.
func (m master) Process(ctx context.Context, cmd redis.Cmder) error {
	cluster, ok := m.rdb.(*redis.ClusterClient)
	told := ok && cluster.Options().ClusterSlots == nil // else it is Sentinel's, and there is no Cluster
	return m.do(ctx, cmd, func(node *redis.Client, asking bool) error {
		pipe := node.Pipeline()
		if told {
			pipe.Do(ctx, "readwrite")
		}
		if asking {
			pipe.Do(ctx, "asking")
		}
		pipe.Process(ctx, cmd)
		if told {
			pipe.Do(ctx, "readonly")
		}
		pipe.Exec(ctx) // its error is that of any of them
		return cmd.Err()
	})
}

// do lets send send cmd to the master. The client of one node does not follow redirections, so it does.
func (m master) do(ctx context.Context, cmd redis.Cmder, send func(node *redis.Client, asking bool) error) error {
	node, err := m.owner(ctx)
	if err != nil {
		cmd.SetErr(err)
		return err
	}
	err = send(node, false)
	for range attempts {
		addr, moved := redis.IsMovedError(err)
		ask := false
		if !moved {
			addr, ask = redis.IsAskError(err)
		}
		cluster, ok := m.rdb.(*redis.ClusterClient)
		if !ok || !moved && !ask {
			break
		}
		if moved {
			cluster.ReloadState(ctx)
		}
		next := nodeAt(ctx, cluster, addr)
		if next == nil { // a node that the client does not know yet, such as a new one that gets its first slot
			o := *node.Options()
			o.Addr = addr
			next = redis.NewClient(&o)
			defer next.Close()
		}
		err = send(next, ask)
	}
	return err
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
