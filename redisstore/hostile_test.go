package redisstore_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// impostor answers every command but those of a connection's setup with the same bytes, and hangs
// up.
type impostor struct{ answer atomic.Value }

func (i *impostor) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		in := bufio.NewReader(server)
		for {
			name, err := readCommand(in)
			if err != nil {
				return
			}
			switch name {
			case "hello", "client":
				if _, err := io.WriteString(server, "-ERR unknown command\r\n"); err != nil {
					return
				}
			default:
				io.WriteString(server, i.answer.Load().(string))
				return
			}
		}
	}()
	return client, nil
}

func readCommand(in *bufio.Reader) (name string, err error) {
	number := func() int {
		line, e := in.ReadString('\n')
		if e != nil || len(line) < 3 {
			err = errors.Join(io.ErrUnexpectedEOF, e)
			return 0
		}
		n, e := strconv.Atoi(strings.TrimSpace(line[1:]))
		err = errors.Join(err, e)
		return n
	}
	for i := range number() {
		arg := make([]byte, number()+2)
		if err == nil {
			_, err = io.ReadFull(in, arg)
		}
		if err != nil {
			return "", err
		}
		if i == 0 {
			name = strings.ToLower(string(arg[:len(arg)-2]))
		}
	}
	return name, err
}

// Lengths of which go-redis would take gigabytes before it sees that they are lies. Still longer
// ones it cannot take.
var gigabytes = regexp.MustCompile(`(^|[^0-9])[0-9]{7,15}([^0-9]|$)`)

// Whatever answers in Redis's place: a call ends, with an error or with what that says.
func FuzzReplies(f *testing.F) {
	for _, seed := range []string{
		"", "\r\n", "+OK\r\n", "-ERR no\r\n", ":1\r\n", "$-1\r\n", "*-1\r\n", "$3\r\nabc\r\n", "*1\r\n$3\r\nabc\r\n", "*2\r\n:1\r\n$0\r\n\r\n",
		"*3\r\n:1\r\n$0\r\n\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n", "*3\r\n:0\r\n$13\r\n1700000000000\r\n*1\r\n$1\r\na\r\n", "*3\r\n:-1\r\n$1\r\nx\r\n*0\r\n",
		"*3\r\n:7\r\n$1\r\nx\r\n*0\r\n", "*2\r\n$1\r\n0\r\n*1\r\n$1\r\nx\r\n", "*2\r\n$1\r\n0\r\n*1\r\n$8\r\nother:{}\r\n",
		"%1\r\n$1\r\na\r\n$1\r\nb\r\n", "%1\r\n*0\r\n:1\r\n", "~1\r\n+a\r\n", "#t\r\n", ",1.5\r\n", "(1\r\n", "=5\r\ntxt:a\r\n", "_\r\n", "|1\r\n+a\r\n+b\r\n",
		">2\r\n+a\r\n+b\r\n", "*9223372036854775807\r\n", "%9223372036854775807\r\n", "$9223372036854775805\r\n", "$9223372036854775807\r\n", "*2\r\n:1\r\n",
		"-MOVED 1 127.0.0.1:1\r\n", "-ASK x\r\n", "-MOVED\r\n", "-NOSCRIPT no\r\n", "-LOADING\r\n", "-READONLY\r\n", "*2\r\n-ERR a\r\n-ERR b\r\n",
		"*3\r\n:1\r\n$0\r\n\r\n*3\r\n$1\r\na\r\n:5\r\n$1\r\nc\r\n", "*2\r\n+a\r\n%1\r\n+!\r\n+x\r\n",
	} {
		f.Add(seed)
	}
	var liar impostor
	var clients []*redis.Client
	for _, deadlines := range []bool{true, false} { // without, another goroutine waits for the reply
		rdb := redis.NewClient(&redis.Options{Addr: "impostor", Dialer: liar.dial, ContextTimeoutEnabled: deadlines, DisableIdentity: true})
		defer rdb.Close()
		clients = append(clients, rdb)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		if gigabytes.MatchString(answer) {
			t.Skip()
		}
		liar.answer.Store(answer)
		rdb := clients[len(answer)%2]
		s := redisstore.New(rdb, redisstore.Config{MinTimeout: 2 * time.Millisecond, MaxTimeout: 2 * time.Millisecond})
		check := func(fields guest.Fields, err error) {
			if err != nil && len(fields) > 0 {
				t.Errorf("%v, and %v", fields, err)
			}
			for name := range fields {
				if strings.HasPrefix(name, "!") {
					t.Errorf("the store's own field %q is shown", name)
				}
			}
		}
		check(s.Get(ctx, "g:1"))
		check(s.Get(ctx, "g:1", "a", "b"))
		res, err := s.Update(ctx, "g:1", guest.Update{Once: true, Set: guest.Fields{"a": "1"}, Return: []string{"a"}, Stamp: ".t"})
		check(res.Fields, err)
		if err != nil && res.Applied {
			t.Errorf("%+v, and %v", res, err)
		}
		n := 0
		for key, err := range s.Keys(ctx, "g:") {
			if n++; n > 100 {
				break
			}
			if err == nil && !strings.HasPrefix(key, "g:") {
				t.Errorf("the key %q", key)
			}
		}
	})
}

// An answer that our script does not give is an error, and not one of its refusals.
func TestRepliesOfAnotherScript(t *testing.T) {
	for _, answer := range []string{"*1\r\n:7\r\n", "*2\r\n:-9\r\n$1\r\nx\r\n", "*2\r\n:1\r\n$1\r\n5\r\n", "*1\r\n:-2\r\n", "*2\r\n:-2\r\n:1\r\n", "*0\r\n", "+OK\r\n"} {
		var liar impostor
		liar.answer.Store(answer)
		rdb := redis.NewClient(&redis.Options{Addr: "impostor", Dialer: liar.dial, ContextTimeoutEnabled: true, DisableIdentity: true})
		res, err := redisstore.New(rdb, patient(t)).Update(ctx, "g:1", guest.Update{Set: guest.Fields{"a": "1"}})
		if err == nil || !errors.Is(err, guest.ErrUncertain) || res.Applied {
			t.Errorf("%q: %+v, %v", answer, res, err)
		}
		rdb.Close()
	}
}

// flipping damages what a real server says, now and then.
type flipping struct {
	net.Conn
	rnd *rand.Rand
}

func (c *flipping) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	for range c.rnd.IntN(3) {
		if n > 0 {
			p[c.rnd.IntN(n)] = byte(c.rnd.IntN(256))
		}
	}
	if c.rnd.IntN(10) == 0 {
		n /= 2
	}
	return n, err
}

// Between a real server and the store, bytes are damaged. What can be noticed is an error, and the
// next call finds a sound connection again.
func TestDamagedReplies(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	var sound atomic.Bool // probes dial in the background
	rdb := redis.NewClient(&redis.Options{
		Addr: server.Addr, ContextTimeoutEnabled: true, PoolSize: 1, DisableIdentity: true, MaxRetries: -1,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil || sound.Load() {
				return conn, err
			}
			return &flipping{conn, rnd}, nil
		},
	})
	defer rdb.Close()
	failed := 0
	prefix := patient(t).Prefix
	for range 50 {
		// A store of its own: the breaker of one would open. Some of the damage is a longer length,
		// to be waited for.
		s := redisstore.New(rdb, redisstore.Config{Prefix: prefix, MinTimeout: 10 * time.Millisecond, MaxTimeout: 10 * time.Millisecond})
		if _, err := s.Update(ctx, "g:1", guest.Update{Once: true, Add: map[string]int64{"n": 1}, Return: []string{"n"}}); err != nil {
			failed++
		}
		if _, err := s.Get(ctx, "g:1"); err != nil {
			failed++
		}
	}
	if failed == 0 || failed == 100 {
		t.Errorf("%d of 100 calls failed", failed)
	}
	sound.Store(true)
	s := redisstore.New(rdb, patient(t))
	eventually(t, "a sound connection", func() bool {
		_, err := s.Update(ctx, "g:2", guest.Update{Set: guest.Fields{"a": "1"}})
		return err == nil && get(t, s, "g:2")["a"] == "1"
	})
}
