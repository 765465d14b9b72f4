package redisstore_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/guestkit/guest/storetest"
	"github.com/redis/go-redis/v9"
)

// rulesOnThePage returns the rules of the two ACL SETUSER in docs/redis.md: for any Redis, and what
// a Cluster needs besides.
func rulesOnThePage(t *testing.T) (any, cluster []string) {
	t.Helper()
	page, err := os.ReadFile("../docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^ACL SETUSER app (?:on >\S+ )?(.+)$`).FindAllSubmatch(page, -1)
	if len(lines) != 2 {
		t.Fatalf("the page has %d ACL SETUSER, want 2", len(lines))
	}
	return strings.Fields(string(lines[0][1])), strings.Fields(string(lines[1][1]))
}

// setUser makes a user of these rules, and no others.
func setUser(t *testing.T, admin *redis.Client, name string, rules []string) {
	t.Helper()
	args := []any{"ACL", "SETUSER", name, "reset", "on", ">password"}
	for _, rule := range rules {
		args = append(args, rule)
	}
	if err := admin.Do(ctx, args...).Err(); err != nil {
		t.Fatal(err)
	}
}

// A user with exactly what docs/redis.md lists can do all, and each of the commands is needed.
func TestACL(t *testing.T) {
	master := redistest.Single(t)
	redistest.Replica(t, master)
	admin := master.Client()
	rules, _ := rulesOnThePage(t)
	open := func(t *testing.T, user string, cfg redisstore.Config) *redisstore.Store {
		rdb := redis.NewClient(&redis.Options{
			Addr: master.Addr, Username: user, Password: "password", ContextTimeoutEnabled: true,
		})
		t.Cleanup(func() { rdb.Close() })
		return redisstore.New(rdb, cfg)
	}
	with := waiting(t, 1, patient(t).MinTimeout)
	with.Prefix = "guest"
	without := with
	without.WaitReplicas = 0
	keys := func(s *redisstore.Store) (err error) {
		for _, err = range s.Keys(ctx, "") {
		}
		return err
	}

	t.Run("as on the page", func(t *testing.T) {
		setUser(t, admin, "all", rules)
		storetest.Run(t, func(t *testing.T) guest.Store { return open(t, "all", without) })
		if err := open(t, "all", with).Check(ctx); err != nil {
			t.Errorf("Check: %v", err)
		}
		if _, err := open(t, "all", redisstore.Config{Prefix: "other"}).Get(ctx, "k"); err == nil {
			t.Error("another prefix can be read")
		}
	})
	for _, rule := range rules {
		if !strings.HasPrefix(rule, "+") {
			continue
		}
		t.Run("without "+rule, func(t *testing.T) {
			user := "no-" + rule
			isRule := func(r string) bool { return r == rule }
			setUser(t, admin, user, slices.DeleteFunc(slices.Clone(rules), isRule))
			command := strings.ToUpper(rule[1:])
			if command == "SCAN" { // only for Keys
				if err := open(t, user, with).Check(ctx); err != nil {
					t.Errorf("Check: %v", err)
				}
				if err := keys(open(t, user, without)); err == nil {
					t.Error("Keys needs no SCAN")
				}
				return
			}
			err := open(t, user, with).Check(ctx)
			if err == nil || !strings.Contains(strings.ToUpper(err.Error()), command) {
				t.Errorf("Check does not name it: %v", err)
			}
			if command == "WAIT" { // only for WaitReplicas
				if err := open(t, user, without).Check(ctx); err != nil {
					t.Errorf("Check: %v", err)
				}
			}
			switch command {
			case "INFO", "TIME", "WAIT": // calls do without
				s := open(t, user, without)
				apply(t, s, "g:1", guest.Update{Set: guest.Fields{"a": "1"}, Stamp: "at"})
				apply(t, s, "g:1", addOne)
			}
		})
	}
}

// In a Cluster the client needs a few commands of its own.
func TestACLInACluster(t *testing.T) {
	servers := redistest.Cluster(t)
	rules, more := rulesOnThePage(t)
	for _, node := range servers.Nodes {
		setUser(t, node.Client(), "app", append(rules, more...))
	}
	cfg := patient(t)
	cfg.Prefix = "guest"
	slot := redistest.Slot("guest:new")
	from, err := servers.Owner(ctx, slot)
	if err != nil {
		t.Fatal(err)
	}
	for _, readOnly := range []bool{false, true} {
		rdb := redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: servers.Addrs(), Username: "app", Password: "password",
			ContextTimeoutEnabled: true, ReadOnly: readOnly,
		})
		defer rdb.Close()
		s := redisstore.New(rdb, cfg)
		storetest.Run(t, func(t *testing.T) guest.Store { return s })
		if err := s.Check(ctx); err != nil {
			t.Errorf("Check: %v", err)
		}
		if err := servers.OpenSlot(ctx, slot, (from+1)%len(servers.Nodes)); err != nil {
			t.Fatal(err)
		}
		apply(t, s, "new", addOne) // at the other node: ASK
	}
}
