package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"time"

	"github.com/guestkit/guest"
	"github.com/redis/go-redis/v9"
)

// Check asks Redis and its client for what would weaken the store's promises, and joins what it finds into one error;
// nil: nothing. It is for the start of a program and for health checks, and takes a few round trips. It finds:
//
//   - a client without ContextTimeoutEnabled: calls still end in time, but each takes a goroutine
//   - a Ring that looks elsewhere for the records of a server that does not answer; its HeartbeatFn is asked about one
//   - a Redis older than 6.2
//   - a maxmemory-policy other than noeviction: all others evict the records that say that a guest was claimed (volatile-ttl
//     even before those of newer guests), and a copy of that guest's cookie then lets another account claim it, or
//     accounts (allkeys-*, or any with Config.AccountTTL)
//   - fewer replicas than Config.WaitReplicas
//   - a user who may not run scripts, or not all commands in ours
func (s *Store) Check(ctx context.Context) error {
	var found []error
	if !s.deadlines {
		found = append(found, errors.New("redisstore: the client does not end commands at a deadline: set ContextTimeoutEnabled, and no negative timeouts"))
	}
	if looksElsewhere(ctx, s.rdb) {
		found = append(found, errors.New("redisstore: the Ring looks elsewhere for the records of a server that does not answer, finds none and begins new ones: set a HeartbeatFn that always returns true"))
	}
	nodes, err := s.masters(ctx)
	if err != nil {
		found = append(found, fmt.Errorf("redisstore: no list of nodes: %w", err))
	}
	for _, node := range nodes {
		found = append(found, s.checkNode(ctx, node)...)
	}
	key := "check:" + rand.Text()
	for _, u := range []guest.Update{ // between them they use all commands of the script
		{Once: true, Unset: []string{"a"}, UnsetPrefix: []string{"b/"}, Reserve: true},
		{Once: true, Set: guest.Fields{"a": "1"}, Stamp: ".t", TTL: time.Second, Return: []string{"a"}},
		{Once: true, Set: guest.Fields{"a": "1"}, Stamp: ".t", TTL: time.Second, ReturnAll: true},
		{Drop: true},
	} {
		if _, err := s.Update(ctx, key, u); err != nil {
			found = append(found, fmt.Errorf("redisstore: scripts do not run, or not all commands in them: %w", err))
			break
		}
	}
	return errors.Join(found...)
}

// looksElsewhere asks the Ring's own HeartbeatFn about a server that is none.
func looksElsewhere(ctx context.Context, rdb redis.UniversalClient) bool {
	ring, ok := rdb.(*redis.Ring)
	if !ok {
		return false
	}
	none := redis.NewClient(&redis.Options{MaxRetries: -1, DialerRetries: 1, Dialer: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("there is no server")
	}})
	defer none.Close()
	return !ring.Options().HeartbeatFn(ctx, none)
}

var (
	versionLine = regexp.MustCompile(`(?m)^redis_version:(\d+)\.(\d+)`)
	policyLine  = regexp.MustCompile(`(?m)^maxmemory_policy:([a-z-]+)`)
	replicaLine = regexp.MustCompile(`(?m)^slave\d+:.*state=online`)
)

func (s *Store) checkNode(ctx context.Context, node processor) (found []error) {
	info := redis.NewStringCmd(ctx, "info")
	if err := s.call(ctx, s.readTimeout, func(ctx context.Context) error { return s.send(ctx, node, info) }); err != nil {
		return []error{fmt.Errorf("redisstore: no INFO: %w", err)}
	}
	if v := versionLine.FindStringSubmatch(info.Val()); v != nil {
		major, _ := strconv.Atoi(v[1])
		minor, _ := strconv.Atoi(v[2])
		if major < 6 || major == 6 && minor < 2 {
			found = append(found, fmt.Errorf("redisstore: Redis %d.%d is too old: take 6.2 or newer", major, minor))
		}
	}
	if p := policyLine.FindStringSubmatch(info.Val()); p != nil && p[1] != "noeviction" {
		found = append(found, fmt.Errorf("redisstore: maxmemory-policy %s evicts the records of claimed guests, which then can be claimed a second time (set noeviction; other data that need eviction go into another Redis)", p[1]))
	}
	if n := len(replicaLine.FindAllString(info.Val(), -1)); n < s.waitReplicas {
		found = append(found, fmt.Errorf("redisstore: WaitReplicas is %d, but a master has %d replicas: each update will be uncertain", s.waitReplicas, n))
	}
	return found
}
