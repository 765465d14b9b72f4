package redisstore_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// firstWrite is the first write of a guest; the incarnation is one that no other has.
func firstWrite() guest.Update {
	return guest.Update{
		If:      guest.Fields{".s": ""},
		Default: guest.Fields{".i": fmt.Sprint("incarnation", prefixes.Add(1))},
		Add:     map[string]int64{"n": 1},
		TTL:     time.Hour, Once: true, New: true, Return: []string{"n"},
	}
}

// Whatever is lost, a creation is applied once, and that is known, however many others write
// meanwhile.
func TestCreationLost(t *testing.T) {
	for _, loss := range []redistest.Loss{redistest.Request, redistest.Reply} {
		for _, between := range []int{0, 1, 20} { // more than the ring holds
			t.Run(fmt.Sprint(loss, between), func(t *testing.T) {
				cfg := patient(t)
				others := redisstore.New(server.Client(), cfg)
				others.Advance(time.Hour) // their IDs make ours too old for the ring
				wire := &redistest.Faults{}
				s := redisstore.New(tuned(t, server.Addr, wire), cfg)
				sent := 0
				wire.Lose = func(c redistest.Command) redistest.Loss {
					if c.Name != "EVALSHA" {
						return redistest.Nothing
					}
					sent++
					if sent == 1 {
						return loss
					}
					if sent == 2 {
						for range between {
							apply(t, others, "k", firstWrite())
						}
					}
					return redistest.Nothing
				}
				res, err := s.Update(ctx, "k", firstWrite())
				if err != nil || !res.Applied {
					t.Errorf("the update answers %+v, %v", res, err)
				}
				want := strconv.Itoa(1 + between)
				if n := get(t, s, "k", "n")["n"]; n != want || res.Fields["n"] != want {
					t.Errorf("n = %s, and %s was returned, want %s", n, res.Fields["n"], want)
				}
			})
		}
	}
	t.Run("all", func(t *testing.T) {
		wire := &redistest.Faults{}
		s := redisstore.New(tuned(t, server.Addr, wire), patient(t))
		get(t, s, "k")
		for i, loss := range []redistest.Loss{redistest.Request, redistest.Reply} {
			wire.Lose = func(redistest.Command) redistest.Loss { return loss }
			_, err := s.Update(ctx, "k", firstWrite())
			wire.Lose = nil
			n := get(t, s, "k", "n")["n"]
			if !errors.Is(err, guest.ErrUncertain) || n != []string{"", "1"}[i] {
				t.Errorf("all of %v lost: %v, n = %q", loss, err, n)
			}
		}
	})
}

// What a network kept of a creation and delivers again later changes nothing.
func TestCreationDelivered(t *testing.T) {
	rdb := tuned(t, server.Addr, nil)
	var kept [][]any
	rdb.AddHook(onCommand(func(cmd redis.Cmder, _ error) {
		if cmd.Name() == "evalsha" {
			kept = append(kept, argsSent(cmd, 4))
		}
	}))
	s := redisstore.New(rdb, patient(t))
	for i := range 20 {
		apply(t, s, "k", firstWrite())
		for _, args := range kept {
			if err := server.Client().Do(ctx, args...).Err(); err != nil {
				t.Fatalf("a late copy: %v", err)
			}
		}
		if n := get(t, s, "k", "n")["n"]; n != strconv.Itoa(i+1) {
			t.Fatalf("n = %s after %d additions", n, i+1)
		}
	}
	if len(kept) < 20 {
		t.Errorf("%d commands kept", len(kept))
	}
}

// When Redis is full, or a replica now, or the key is another program's, a creation says so as any
// update does.
func TestCreationRefused(t *testing.T) {
	for _, row := range []struct {
		name   string
		refuse func(*redis.Client)
		want   string
	}{
		{"out of memory", func(rdb *redis.Client) { rdb.ConfigSet(ctx, "maxmemory", "1") }, "OOM"},
		{"a replica", func(rdb *redis.Client) { rdb.Do(ctx, "REPLICAOF", "127.0.0.1", "1") }, "READONLY"},
		{"too few replicas", func(rdb *redis.Client) { rdb.ConfigSet(ctx, "min-replicas-to-write", "1") }, "NOREPLICAS"},
		{"another type", func(rdb *redis.Client) { rdb.Set(ctx, "guest:g:secret", "x", 0) }, "WRONGTYPE"},
	} {
		t.Run(row.name, func(t *testing.T) {
			srv := redistest.Single(t)
			cfg := patient(t)
			cfg.Prefix = "guest"
			s := redisstore.New(tuned(t, srv.Addr, nil), cfg)
			row.refuse(srv.Client())
			_, err := s.Update(ctx, "g:secret", firstWrite())
			if err == nil || errors.Is(err, guest.ErrUncertain) ||
				!strings.Contains(err.Error(), row.want) ||
				strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want %s", err, row.want)
			}
		})
	}
}

// With WaitReplicas the script does it all: one command and one WAIT, with all the time there is.
func TestCreationWaits(t *testing.T) {
	wire := &redistest.Faults{}
	s := redisstore.New(tuned(t, server.Addr, wire), waiting(t, 1, 20*time.Millisecond))
	if _, err := s.Update(ctx, "k", firstWrite()); !errors.Is(err, guest.ErrUncertain) {
		t.Errorf("without a replica: %v", err)
	}
	if n := get(t, s, "k", "n")["n"]; n != "1" {
		t.Errorf("n = %q", n)
	}
}
