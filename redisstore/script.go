package redisstore

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"slices"

	"github.com/guestkit/guest"
	"github.com/redis/go-redis/v9"
)

// A script is one of those in lua/, each of which says at its head what it takes and returns.
type script struct {
	text string
	sha  any // a string, in an interface once and for all
}

var (
	//go:embed lua/create.lua
	createText string
	//go:embed lua/write.lua
	writeText string
	//go:embed lua/update.lua
	updateText string

	createScript = newScript(createText)
	writeScript  = newScript(writeText)
	updateScript = newScript(updateText)
)

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text))
	return &script{text, hex.EncodeToString(sum[:])}
}

// A scriptCall is a script with its arguments, to be sent perhaps several times.
type scriptCall struct {
	script *script
	first  sendMarker // ARGV[1]
	args   []any      // of EVALSHA
}

func newScriptCall(script *script, key string, argv []string) *scriptCall {
	c := &scriptCall{script: script}
	c.args = make([]any, 0, 5+len(argv))
	c.args = appendPointers(append(c.args, "evalsha", script.sha, "1", key, &c.first), argv)
	return c
}

// inFull returns the arguments of EVAL.
func (c *scriptCall) inFull() []any {
	return slices.Concat([]any{"eval", c.script.text}, c.args[2:])
}

// createCall returns the call of lua/create.lua that makes this update, or nil.
func (s *Store) createCall(key string, u guest.Update) *scriptCall {
	if s.updateOnly {
		return nil
	}
	argv := createArgs(u)
	if argv == nil {
		return nil
	}
	c := newScriptCall(createScript, key, argv[1:])
	c.first.arg = []byte(argv[0])
	return c
}

// changeCall returns the call of lua/write.lua, if that makes this update, else of lua/update.lua.
func (s *Store) changeCall(key string, u guest.Update) *scriptCall {
	var c *scriptCall
	if argv := writeArgs(u); argv != nil && !s.updateOnly {
		c = newScriptCall(writeScript, key, argv)
	} else {
		c = newScriptCall(updateScript, key, updateArgs(u, s.waitReplicas > 0))
	}
	if u.Once && !u.Drop { // a record that is dropped takes its IDs along
		c.first.ids = &s.ids
	}
	return c
}

// run runs the script once, with further arguments; sent says, of an error, that the script may
// have run nevertheless. A server that does not know the script has done nothing, and gets its
// text.
func (s *Store) run(
	ctx context.Context, to processor, c *scriptCall, further ...string,
) (r reply, sent bool, err error) {
	c.first.reset()
	cmd := redis.NewCmd(ctx, appendPointers(slices.Clip(c.args), further)...)
	err = s.send(ctx, to, cmd)
	if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
		c.first.reset()
		cmd = redis.NewCmd(ctx, appendPointers(c.inFull(), further)...)
		err = s.send(ctx, to, cmd)
	}
	if err == nil {
		r, err = parseReply(cmd.Val())
	}
	if err != nil {
		return reply{}, c.first.revoke() && !isReply(err), err
	}
	return r, true, nil
}
