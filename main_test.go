package guest_test

import (
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/memstore"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// The tests run on memory, or with -store=redis or -store=cluster on real servers.
var storeFlag = flag.String("store", "memory", "what the tests keep records in: memory, redis or cluster")

var long = flag.Bool("long", false, "the long forms: ten times as many hostile requests")

var shared redis.UniversalClient

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "guest")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	switch *storeFlag {
	case "redis":
		server, err := redistest.Start(dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer server.Close()
		shared = server.Client()
	case "cluster":
		cluster, err := redistest.StartCluster(dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer cluster.Close()
		shared = cluster.Client()
	}
	return m.Run()
}

// newStore is empty, and its own test's alone.
func newStore() guest.Store {
	if shared == nil {
		return memstore.New(memstore.Config{})
	}
	return redisstore.New(shared, redisstore.Config{Prefix: "test-" + rand.Text()})
}
