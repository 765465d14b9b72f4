package redisstore_test

import (
	"context"
	"log"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

func ExampleNew() {
	ctx := context.Background()
	rdb := redis.NewClient(&redis.Options{Addr: "localhost:6379", ContextTimeoutEnabled: true})
	store := redisstore.New(rdb, redisstore.Config{})
	if err := store.Check(ctx); err != nil {
		log.Print(err) // what is unsafe in this Redis or client, and how to mend it
	}
	_ = guest.Config{Store: store}
}

func ExampleNew_short() {
	_ = guest.Config{
		Store: redisstore.New(redis.NewClient(&redis.Options{Addr: "localhost:6379", ContextTimeoutEnabled: true}), redisstore.Config{}),
	}
}

// Sentinel and Cluster need nothing else.
func ExampleNew_cluster() {
	rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"redis-1:6379", "redis-2:6379"}, ContextTimeoutEnabled: true})
	_ = guest.Config{Store: redisstore.New(rdb, redisstore.Config{Prefix: "shop"})}
}

// An update counts when a replica has it: a failover then loses less.
func ExampleConfig_waitReplicas() {
	var rdb redis.UniversalClient
	store := redisstore.New(rdb, redisstore.Config{WaitReplicas: 1})
	_ = guest.Config{Store: store}
}

// Commands of many requests at one time are sent together.
func ExampleNew_autoPipeline() {
	open := func() error {
		rdb := redis.NewClient(&redis.Options{Addr: "localhost:6379", ContextTimeoutEnabled: true})
		auto, err := rdb.AutoPipeline()
		if err != nil {
			return err
		}
		store := redisstore.New(auto, redisstore.Config{})
		_ = guest.Config{Store: store}
		return nil
	}
	if err := open(); err != nil {
		log.Fatal(err)
	}
}
