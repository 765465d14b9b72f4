package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/guestkit/guest"
	"github.com/redis/go-redis/v9"
)

// Advance sets the clock of the store's operation IDs forward.
func (s *Store) Advance(d time.Duration) { s.ids.catchUp(ticks(time.Since(idEpoch) + d)) }

// Client is the store's.
func (s *Store) Client() redis.UniversalClient { return s.rdb }

// Closed reports whether the breaker of the client as a whole is closed.
func (s *Store) Closed() bool {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return !s.queue.breaker.open
}

// FromReplicas reports whether the client is known to read from replicas.
func (s *Store) FromReplicas() bool { return s.fromReplicas }

// UpdateOnly lets lua/update.lua make all updates.
func (s *Store) UpdateOnly() { s.updateOnly = true }

// Run makes an update under this operation ID by the script that the store takes for it, and prints
// the answer and whether that script is lua/write.lua.
func (s *Store) Run(key string, u guest.Update, id [8]byte) (answer string, byWrite bool) {
	c := s.changeCall(s.key(key), u)
	c.first.arg = id[:]
	r, _, err := s.run(context.Background(), s.rdb, c)
	return fmt.Sprintf("%+v %v", r, err), c.script == writeScript
}

// The scripts, and those of their commands that Check looks at.
var (
	Scripts           = map[string]string{"create": createText, "write": writeText, "update": updateText}
	CommandsOfScripts = commandsOfScripts
)

// ScriptOf returns the name of the script with this SHA.
func ScriptOf(sha any) string {
	return map[any]string{createScript.sha: "create", writeScript.sha: "write", updateScript.sha: "update"}[sha]
}

// Unwrap returns the command in one that the store sends.
func Unwrap(cmd redis.Cmder) redis.Cmder { return cmd.(once).Cmder }
