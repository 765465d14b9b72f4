package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/guestkit/guest"
	"github.com/redis/go-redis/v9"
)

// Check asks Redis and its client for what would weaken the store's promises, and joins what it
// finds into one error; nil: nothing. It is for the start of a program and for health checks, and
// takes a few round trips. It finds:
//
//   - a client without ContextTimeoutEnabled: calls still end in time, but each takes a goroutine
//   - a Ring that looks elsewhere for the records of a server that does not answer; its
//     HeartbeatFn is asked about one
//   - a Redis older than 6.2
//   - a maxmemory-policy other than noeviction: all others evict the records that say that a guest
//     was claimed (volatile-ttl even before those of newer guests), and a copy of that guest's
//     cookie then lets another account claim it, or accounts (allkeys-*, or any with
//     Config.AccountTTL)
//   - fewer replicas than Config.WaitReplicas
//   - a user who may not run scripts, or not all commands in them; docs/redis.md lists what the
//     store needs
//   - a Redis that refuses TIME, in scripts and as a command: the clocks of the app's nodes then
//     say when a guest was claimed
func (s *Store) Check(ctx context.Context) error {
	var found findings
	if !s.deadlines {
		found.add("the client does not end commands at a deadline " +
			"(set ContextTimeoutEnabled, and no negative timeouts)")
	}
	if looksElsewhere(ctx, s.rdb) {
		found.add("the Ring looks elsewhere for the records of a server that does not answer, " +
			"finds none and begins new ones (set a HeartbeatFn that always returns true)")
	}
	nodes, err := s.servers(ctx)
	if err != nil {
		found.add("no list of nodes: %w", err)
	}
	for _, node := range nodes {
		s.checkNode(ctx, node, &found)
	}
	s.timeSource.Store(timeInScripts) // it may be allowed by now
	s.checkScripts(ctx, &found)
	if s.timeSource.Load() == timeOfProcesses {
		found.add("Redis refuses TIME, so the time of a claim is that of the app's node " +
			"(allow +time, or keep the clocks of all nodes within five minutes of each other)")
	}
	return errors.Join(found...)
}

// commandsOfScripts runs each command of the scripts once. It returns those that are refused, each
// with the reason.
const commandsOfScripts = `
local unpack = unpack or table.unpack
local key, refused = KEYS[1], {}
for _, command in ipairs({
  {'HSET', key, 'a', '1'}, {'HMGET', key, 'a'}, {'HGETALL', key}, {'HKEYS', key}, {'EXISTS', key},
  {'PTTL', key}, {'PEXPIRE', key, '1000'}, {'HDEL', key, 'a'}, {'DEL', key},
}) do
  local result = redis.pcall(unpack(command))
  if type(result) == 'table' and result.err then
    refused[#refused + 1] = command[1] .. ': ' .. result.err
  end
end
return refused`

func (s *Store) checkScripts(ctx context.Context, found *findings) {
	const allow = "(docs/redis.md lists the commands that the store needs)"
	record := "check:" + rand.Text()
	key := s.key(record)
	eval := redis.NewStringSliceCmd(ctx, "eval", commandsOfScripts, "1", key)
	if err := s.read(ctx, key, eval); err != nil {
		found.add("scripts do not run %s: %w", allow, err)
		return
	}
	if refused := eval.Val(); len(refused) > 0 {
		found.add("commands are refused in scripts %s: %s", allow, strings.Join(refused, "; "))
		return
	}

	for _, u := range []guest.Update{ // each script, as it is used; the last asks for the time
		{Default: guest.Fields{".i": "1"}, TTL: time.Second, Once: true, New: true},
		{Set: guest.Fields{"a": "1"}, TTL: time.Second, KeepTTL: true, Once: true},
		{Drop: true, Stamp: ".t"},
	} {
		if _, err := s.Update(ctx, record, u); err != nil {
			found.add("an update fails %s: %w", allow, err)
			return
		}
	}
	for _, names := range [][]string{{"a"}, nil} {
		if _, err := s.Get(ctx, record, names...); err != nil {
			found.add("a read fails %s: %w", allow, err)
			return
		}
	}
}

// findings are what Check has found.
type findings []error

func (f *findings) add(format string, args ...any) {
	*f = append(*f, fmt.Errorf("redisstore: "+format, args...))
}

// looksElsewhere asks the Ring's own HeartbeatFn about a server that is none.
func looksElsewhere(ctx context.Context, rdb redis.UniversalClient) bool {
	ring, ok := rdb.(*redis.Ring)
	if !ok {
		return false
	}
	dial := func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("there is no server")
	}
	none := redis.NewClient(&redis.Options{MaxRetries: -1, DialerRetries: 1, Dialer: dial})
	defer none.Close()
	return !ring.Options().HeartbeatFn(ctx, none)
}

var (
	versionLine = regexp.MustCompile(`(?m)^redis_version:(\d+)\.(\d+)`)
	policyLine  = regexp.MustCompile(`(?m)^maxmemory_policy:([a-z-]+)`)
	replicaLine = regexp.MustCompile(`(?m)^slave\d+:.*state=online`)
)

func (s *Store) checkNode(ctx context.Context, node processor, found *findings) {
	info := redis.NewStringCmd(ctx, "info")
	if err := s.ask(ctx, node, info); err != nil {
		found.add("no INFO: %w", err)
		return
	}
	if v := versionLine.FindStringSubmatch(info.Val()); v != nil {
		major, _ := strconv.Atoi(v[1])
		minor, _ := strconv.Atoi(v[2])
		if major < 6 || major == 6 && minor < 2 {
			found.add("Redis %d.%d is too old (take 6.2 or newer)", major, minor)
		}
	}
	if p := policyLine.FindStringSubmatch(info.Val()); p != nil && p[1] != "noeviction" {
		found.add("maxmemory-policy %s evicts the records of claimed guests, "+
			"which then can be claimed a second time "+
			"(set noeviction; other data that need eviction go into another Redis)", p[1])
	}
	if s.waitReplicas > 0 {
		wait := redis.NewIntCmd(ctx, "wait", 0, 1)
		if err := s.ask(ctx, node, wait); err != nil {
			found.add("no WAIT, which WaitReplicas needs: %w", err)
		}
	}
	if n := len(replicaLine.FindAllString(info.Val(), -1)); n < s.waitReplicas {
		found.add("each update will be uncertain: WaitReplicas is %d, but a master has %d replicas",
			s.waitReplicas, n)
	}
}
