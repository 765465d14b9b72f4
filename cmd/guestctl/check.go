package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"text/tabwriter"

	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

type check struct{}

func (check) Help() string {
	return `Runs redisstore's own Check, which writes and removes a record of its own, and checks persistence.
An unsafe finding breaks a promise of the library; a note is for you to judge.`
}

const (
	ok     = "ok"
	note   = "note"   // the operator has to judge it
	unsafe = "unsafe" // breaks a promise of the library
)

// A finding is the result of one check.
type finding struct {
	Node    string `json:"node"`
	Check   string `json:"check"`
	Found   string `json:"found"`
	Verdict string `json:"verdict"` // ok, note or unsafe
	Remedy  string `json:"remedy,omitempty"`
}

func (check) Run(s *session) error {
	rdb, store, err := s.open()
	if err != nil {
		return err
	}
	masters, err := mastersOf(s.ctx, rdb)
	if err != nil {
		return err
	}
	var found []finding
	for _, m := range masters {
		node, err := inspectNode(s.ctx, m)
		if err != nil {
			return err
		}
		found = append(found, node...)
	}
	scripts := finding{Node: "all", Check: "scripts and permissions", Found: "run", Verdict: ok}
	for _, err := range flatten(store.(*redisstore.Store).Check(s.ctx)) {
		if text := strings.TrimPrefix(err.Error(), "redisstore: "); !strings.HasPrefix(text,
			"Redis ") && !strings.HasPrefix(text, "maxmemory-policy") {
			scripts.Verdict, scripts.Found, scripts.Remedy = unsafe, text,
				"allow this user EVAL, EVALSHA, INFO, TIME and the hash commands on its prefix"
		}
	}
	found = append(found, scripts,
		finding{Node: "app", Check: "client options", Found: "not checked", Verdict: note,
			Remedy: "let the app call Store.Check when it starts"})
	err = s.print(found, func(t *tabwriter.Writer) {
		row(t, "NODE", "CHECK", "FOUND", "")
		for _, f := range found {
			verdict := f.Verdict
			if f.Remedy != "" {
				verdict += ": " + f.Remedy
			}
			row(t, f.Node, f.Check, f.Found, verdict)
		}
	})
	for _, f := range found {
		if err == nil && f.Verdict == unsafe {
			err = negative{}
		}
	}
	return err
}

func flatten(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

var infoLine = regexp.MustCompile(`(?m)^([a-z_]+):([^\r\n]*)`)

func inspectNode(ctx context.Context, node *redis.Client) (found []finding, err error) {
	text, err := node.Info(ctx).Result()
	if err != nil {
		return nil, err
	}
	info := map[string]string{}
	for _, m := range infoLine.FindAllStringSubmatch(text, -1) {
		info[m[1]] = m[2]
	}
	addr := node.Options().Addr
	if addr == "FailoverClient" {
		addr = "master"
	}
	add := func(check, what string, good bool, verdict, remedy string) {
		if good {
			verdict, remedy = ok, ""
		}
		found = append(found, finding{addr, check, what, verdict, remedy})
	}

	var major, minor int
	fmt.Sscanf(info["redis_version"], "%d.%d", &major, &minor)
	add("version", info["redis_version"], major > 6 || major == 6 && minor >= 2, unsafe,
		"use Redis 6.2 or newer")

	policy := info["maxmemory_policy"]
	add("eviction", policy, policy == "noeviction", unsafe,
		"it evicts the records of claimed guests, which then can be claimed a second time (set maxmemory-policy noeviction)")

	limit := "none"
	if info["maxmemory"] != "0" {
		limit = info["maxmemory_human"]
	}
	add("memory limit", limit, limit != "none", note,
		"without maxmemory the machine runs out of memory first, and kills Redis (set it)")

	switch {
	case info["aof_enabled"] == "1" && info["aof_last_write_status"] != "ok":
		add("persistence", "appendonly, but the last write failed", false, unsafe,
			"make room on its disk")
	case info["aof_enabled"] == "1":
		add("persistence", "appendonly", true, ok, "")
	default:
		add("persistence", snapshots(ctx, node), false, unsafe,
			"a restart loses all writes since the last snapshot (set appendonly yes)")
	}

	replicas := info["connected_slaves"]
	add("replicas", replicas, replicas != "0", note,
		"if this server is lost, so are its guests (add a replica, and set min-replicas-to-write 1)")
	return found, nil
}

func snapshots(ctx context.Context, node *redis.Client) string {
	save, err := node.ConfigGet(ctx, "save").Result()
	switch {
	case err != nil:
		return "no appendonly"
	case save["save"] == "":
		return "none"
	}
	return "snapshots only"
}
