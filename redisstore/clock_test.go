package redisstore_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// answersTime is a hook that answers the command TIME itself.
type answersTime func() time.Time

func (answersTime) DialHook(next redis.DialHook) redis.DialHook { return next }
func (answersTime) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (f answersTime) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() != "time" {
			return next(ctx, cmd)
		}
		type settable interface{ SetVal(time.Time) }
		unwrapped := cmd
		for {
			if s, ok := unwrapped.(settable); ok {
				s.SetVal(f())
				return nil
			}
			unwrapped = redisstore.Unwrap(unwrapped)
		}
	}
}

// Where Redis refuses TIME in scripts, the store asks for it before them; where it refuses TIME at
// all, it takes the process's time, and Check says so. Guests are claimed in any case.
func TestTimeRefused(t *testing.T) {
	const ahead = 3 * time.Hour
	single := func(t *testing.T, wire *redistest.Faults) redis.UniversalClient {
		srv := redistest.Single(t)
		srv.Client().Do(ctx, "ACL", "SETUSER", "default", "-time")
		return tuned(t, srv.Addr, wire)
	}
	for _, row := range []struct {
		name  string
		dial  func(*testing.T, *redistest.Faults) redis.UniversalClient
		clock time.Duration // ahead of ours
		asks  int64         // for TIME
		check string
	}{
		{"in scripts", func(t *testing.T, wire *redistest.Faults) redis.UniversalClient {
			rdb := single(t, wire)
			rdb.AddHook(answersTime(func() time.Time { return time.Now().Add(ahead) }))
			return rdb
		}, ahead, 0, ""},
		{"at all", single, 0, 1, "clocks of all nodes within five minutes"},
		{"at all, in a Cluster", func(t *testing.T, wire *redistest.Faults) redis.UniversalClient {
			servers := redistest.Cluster(t)
			for _, node := range servers.Nodes {
				node.Client().Do(ctx, "ACL", "SETUSER", "default", "-time")
			}
			rdb := redis.NewClusterClient(&redis.ClusterOptions{
				Addrs: servers.Addrs(), Dialer: wire.Dial, ContextTimeoutEnabled: true,
			})
			t.Cleanup(func() { rdb.Close() })
			return rdb
		}, 0, 1, "clocks of all nodes within five minutes"},
	} {
		t.Run(row.name, func(t *testing.T) {
			wire := &redistest.Faults{}
			rdb := row.dial(t, wire)
			s := redisstore.New(rdb, patient(t))
			now := time.Now()
			res := apply(t, s, "k", guest.Update{Stamp: "at", Once: true, Return: []string{"at"}})
			off := res.Now.Sub(now.Add(row.clock))
			if off < -time.Second || off > time.Minute || res.Fields["at"] == "" {
				t.Errorf("stamped %v, at %v", res, now)
			}
			for _, late := range []bool{true, false} {
				end := now.Add(row.clock + time.Hour)
				if late {
					end = now.Add(row.clock - time.Second)
				}
				res, err := s.Update(ctx, "k", guest.Update{NotAfter: end, Set: guest.Fields{"a": "1"}})
				if err != nil || res.Applied == late {
					t.Errorf("an update that is late, %t: %+v, %v", late, res, err)
				}
			}

			cart := guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))
			m, err := guest.New(guest.Config{
				Store: s, Secrets: [][]byte{make([]byte, 32)}, Data: []guest.Kind{cart},
				Cookie: guest.Cookie{Insecure: true},
			})
			if err != nil {
				t.Fatal(err)
			}
			w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil)
			r = m.Identify(w, r)
			if _, err := cart.Add(r.Context(), "tea", 2); err != nil {
				t.Fatal(err)
			}
			if receipt, err := m.Claim(w, r, "ann"); err != nil || !receipt.Claimed {
				t.Fatalf("the claim answers %+v, %v", receipt, err)
			}
			if n, err := cart.Get(m.As(ctx, "ann"), "tea"); n != 2 || err != nil {
				t.Errorf("the account has %d, %v", n, err)
			}
			if n := wire.Counts().Names["TIME"]; n != row.asks {
				t.Errorf("Redis was asked %d times for TIME, want %d", n, row.asks)
			}
			for what, s := range map[string]*redisstore.Store{
				"a store at work": s, "a new store": redisstore.New(rdb, patient(t)),
			} {
				err := s.Check(ctx)
				if (err == nil) != (row.check == "") ||
					err != nil && !strings.Contains(err.Error(), row.check) {
					t.Errorf("Check of %s: %v, want %q", what, err, row.check)
				}
			}
		})
	}
}

// When TIME is allowed again, the next Check lets the store ask for it.
func TestTimeAllowedAgain(t *testing.T) {
	srv := redistest.Single(t)
	s := redisstore.New(tuned(t, srv.Addr, nil), patient(t))
	for _, row := range []struct{ rule, want string }{
		{"-time", "Redis refuses TIME"}, {"+time", ""}, {"-time", "Redis refuses TIME"},
	} {
		srv.Client().Do(ctx, "ACL", "SETUSER", "default", row.rule)
		apply(t, s, "k", guest.Update{Stamp: "at", Once: true})
		err := s.Check(ctx)
		if (err == nil) != (row.want == "") ||
			err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("Check after %s: %v, want %q", row.rule, err, row.want)
		}
	}
}

// A Redis that is busy and so does not answer TIME has not refused it for ever.
func TestTimeWhenBusy(t *testing.T) {
	const ahead = 3 * time.Hour
	srv := redistest.Single(t)
	srv.Client().Do(ctx, "ACL", "SETUSER", "default", "-time")
	rdb := tuned(t, srv.Addr, nil)
	busy := true
	rdb.AddHook(refusesTime(func() error {
		if !busy {
			return nil
		}
		busy = false
		return refusal("BUSY Redis is busy running a script.")
	}))
	rdb.AddHook(answersTime(func() time.Time { return time.Now().Add(ahead) }))
	s := redisstore.New(rdb, patient(t))
	res := apply(t, s, "k", guest.Update{Stamp: "at", Once: true})
	if off := time.Until(res.Now); busy || off < ahead-time.Minute {
		t.Errorf("stamped %v from now, want %v", off, ahead)
	}
}

// refusesTime is a hook that answers TIME with an error, if there is one.
type refusesTime func() error

func (refusesTime) DialHook(next redis.DialHook) redis.DialHook { return next }
func (refusesTime) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (f refusesTime) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "time" {
			if err := f(); err != nil {
				return err
			}
		}
		return next(ctx, cmd)
	}
}

// A refusal is an error reply of Redis.
type refusal string

func (e refusal) Error() string { return string(e) }
func (refusal) RedisError()     {}
