package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// A connection says how to reach the app's Redis, and what guestctl must know of the app's Config.
type connection struct {
	Redis          string `env:"GUEST_REDIS" default:"redis://localhost:6379" help:"Where Redis is: redis:// or rediss:// (TLS), redis+cluster:// or rediss+cluster://. A password is better kept in GUEST_REDIS_PASSWORD, a user in GUEST_REDIS_USERNAME."`
	Cluster        bool   `env:"GUEST_REDIS_CLUSTER" help:"The URL is that of a Cluster's node."`
	SentinelMaster string `env:"GUEST_REDIS_SENTINEL_MASTER" placeholder:"NAME" help:"The URL is that of a Sentinel, with the Sentinel's password if it has one; this is the master's name."`
	Prefix         string `env:"GUEST_PREFIX" default:"guest" help:"redisstore.Config.Prefix of the app."`
	App            string `env:"GUEST_APP" help:"Config.App of the app, if it has one."`
	SecretsFile    string `env:"GUEST_SECRETS_FILE" type:"path" placeholder:"FILE" help:"The app's secrets in base64, one on each line, the one that signs first. Or put them in GUEST_SECRETS."`
}

// A command may wait longer than a page.
const timeout = 5 * time.Second

func init() { redis.SetLogger(silent{}) } // errors are returned

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// open connects, and checks that Redis answers.
func (s *session) open() (redis.UniversalClient, guest.Store, error) {
	rdb, err := s.client()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	if err := rdb.Ping(ctx).Err(); err != nil {
		return nil, nil, fmt.Errorf("the store cannot be reached: %w", err)
	}
	return rdb, redisstore.New(
		rdb, redisstore.Config{Prefix: s.Prefix, MinTimeout: timeout, MaxTimeout: timeout}), nil
}

// client takes the username and password of the environment if the URL has none.
func (c *connection) client() (redis.UniversalClient, error) {
	scheme, rest, _ := strings.Cut(c.Redis, "://")
	scheme, isCluster := strings.CutSuffix(scheme, "+cluster")
	url := scheme + "://" + rest
	user, password := os.Getenv("GUEST_REDIS_USERNAME"), os.Getenv("GUEST_REDIS_PASSWORD")
	switch {
	case c.SentinelMaster != "":
		o, err := redis.ParseFailoverURL(url)
		if err != nil {
			return nil, errURL
		}
		o.MasterName, o.ContextTimeoutEnabled = c.SentinelMaster, true
		o.Username, o.Password = or(o.Username, user), or(o.Password, password)
		return redis.NewFailoverClient(o), nil
	case c.Cluster || isCluster:
		o, err := redis.ParseClusterURL(url)
		if err != nil {
			return nil, errURL
		}
		o.ContextTimeoutEnabled = true
		o.Username, o.Password = or(o.Username, user), or(o.Password, password)
		return redis.NewClusterClient(o), nil
	default:
		o, err := redis.ParseURL(url)
		if err != nil {
			return nil, errURL
		}
		o.ContextTimeoutEnabled, o.DialerRetries = true, 1
		o.Username, o.Password = or(o.Username, user), or(o.Password, password)
		return redis.NewClient(o), nil
	}
}

// errURL repeats no part of the URL, as any part may be the password.
var errURL = usage{errors.New(
	"--redis is not a URL that go-redis accepts (write redis://host:port/db, with special characters of the password percent-encoded, or put the password into GUEST_REDIS_PASSWORD)")}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// secrets are the app's, if the operator gave them.
func (c *connection) secrets() (secrets [][]byte, err error) {
	text, where := os.Getenv("GUEST_SECRETS"), "GUEST_SECRETS"
	if c.SecretsFile != "" {
		b, err := os.ReadFile(c.SecretsFile)
		if err != nil {
			return nil, usage{err}
		}
		text, where = string(b), c.SecretsFile
	}
	for i, word := range strings.FieldsFunc(
		text, func(r rune) bool { return strings.ContainsRune(" \t\r\n,", r) }) {
		secret, err := base64.StdEncoding.DecodeString(word)
		if err != nil {
			return nil, usagef("secret %d of %s is not base64", i+1, where)
		}
		if len(secret) < 32 {
			return nil, usagef("secret %d of %s has %d bytes; at least 32 are needed", i+1, where,
				len(secret))
		}
		secrets = append(secrets, secret)
	}
	return secrets, nil
}

// manager returns a Manager with the app's secrets, or with a random one that decrypts nothing. It
// has no quota, so that a claim drops no data here.
func (s *session) manager(change func(*guest.Config)) (*guest.Manager, error) {
	secrets, err := s.secrets()
	if err != nil {
		return nil, err
	}
	if len(secrets) == 0 {
		secrets = [][]byte{make([]byte, 32)}
		rand.Read(secrets[0])
	}
	cfg := guest.Config{
		Store:        memstore.New(memstore.Config{}),
		Secrets:      secrets,
		App:          s.App,
		ClaimTimeout: timeout,
		Quota:        guest.Quota{Fields: 1 << 30, Bytes: 1 << 30},
		Logger:       slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	m, err := guest.New(cfg)
	if err != nil {
		return nil, usage{err}
	}
	return m, nil
}
