package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
)

// The floors: the least that any library needs.

var bare = Contender{
	Name:  "bare handler",
	Setup: "answers `ok`; recognises no visitor",
	Open: func(string) (App, error) {
		return pages{routes{None: ok, First: ok}, func() {}}, nil
	},
	Holds: func(w Work, r Record) bool { return w == None && r == Small },
}

func ok(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }

var limit = Contender{
	Name:  "limit",
	Setup: "written by hand on go-redis: 16 random bytes signed by securecookie; a read is one `HGET`, an addition one `EVALSHA` of `HINCRBY` and `EXPIRE`, a first visit one of `HSET` and `EXPIRE`",
	Open: func(addr string) (App, error) {
		rdb := newClient(addr)
		return newLimit(goRedis{rdb}, func() { rdb.Close() }), nil
	},
}

var limitRueidis = Contender{
	Name:  "limit on rueidis",
	Setup: "the same on rueidis, which sends parallel commands together; no client-side caching",
	Open: func(addr string) (App, error) {
		c, err := rueidis.NewClient(
			rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true})
		if err != nil {
			return nil, err
		}
		return newLimit(rueidisHash{c}, c.Close), nil
	},
	Holds: func(w Work, r Record) bool {
		return w == First || w == Many || w == Read || w == Add
	},
}

// newClient returns the go-redis client of all contenders that use go-redis.
func newClient(addr string) *redis.Client {
	return redis.NewClient(
		&redis.Options{Addr: addr, PoolSize: *poolSize, ContextTimeoutEnabled: true})
}

// limitStore has the commands of the limit: one for each work.
type limitStore interface {
	get(ctx context.Context, key, field string) (string, error)
	set(ctx context.Context, key string, pairs ...string) error // fields and their values
	add(ctx context.Context, key, field string) (int64, error)
}

const (
	setSource = `redis.call('HSET', KEYS[1], unpack(ARGV, 2)) redis.call('EXPIRE', KEYS[1], ARGV[1])`
	addSource = `local n = redis.call('HINCRBY', KEYS[1], ARGV[1], 1) redis.call('EXPIRE', KEYS[1], ARGV[2]) return n`
)

var lifeSeconds = strconv.Itoa(int(cookieLife / time.Second))

type goRedis struct{ rdb *redis.Client }

var goSet, goAdd = redis.NewScript(setSource), redis.NewScript(addSource)

func (g goRedis) get(ctx context.Context, key, field string) (string, error) {
	return g.rdb.HGet(ctx, key, field).Result()
}

func (g goRedis) set(ctx context.Context, key string, pairs ...string) error {
	args := make([]any, 1, 1+len(pairs))
	args[0] = lifeSeconds
	for _, s := range pairs {
		args = append(args, s)
	}
	if err := goSet.Run(ctx, g.rdb, []string{key}, args...).Err(); err != redis.Nil {
		return err
	}
	return nil
}

func (g goRedis) add(ctx context.Context, key, field string) (int64, error) {
	return goAdd.Run(ctx, g.rdb, []string{key}, field, lifeSeconds).Int64()
}

type rueidisHash struct{ c rueidis.Client }

var rueidisSet, rueidisAdd = rueidis.NewLuaScript(setSource), rueidis.NewLuaScript(addSource)

func (h rueidisHash) get(ctx context.Context, key, field string) (string, error) {
	return h.c.Do(ctx, h.c.B().Hget().Key(key).Field(field).Build()).ToString()
}

func (h rueidisHash) set(ctx context.Context, key string, pairs ...string) error {
	err := rueidisSet.Exec(ctx, h.c, []string{key},
		append([]string{lifeSeconds}, pairs...)).Error()
	if rueidis.IsRedisNil(err) {
		return nil
	}
	return err
}

func (h rueidisHash) add(ctx context.Context, key, field string) (int64, error) {
	return rueidisAdd.Exec(ctx, h.c, []string{key}, []string{field, lifeSeconds}).AsInt64()
}

func newLimit(store limitStore, close func()) App {
	const name = "__Host-id"
	codec := securecookie.New(secret, nil).MaxAge(int(cookieLife / time.Second)).SetSerializer(
		securecookie.NopEncoder{})
	visitor := func(r *http.Request) (id string, ok bool) {
		c, err := r.Cookie(name)
		if err != nil {
			return "", false
		}
		var b []byte
		if codec.Decode(name, c.Value, &b) != nil {
			return "", false
		}
		return base64.RawURLEncoding.EncodeToString(b), true
	}
	known := func(f func(w http.ResponseWriter, r *http.Request, id string) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			id, ok := visitor(r)
			if !ok {
				http.Error(w, "who?", http.StatusUnauthorized)
			} else if err := f(w, r, id); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
		}
	}
	newVisitor := func(w http.ResponseWriter) (id string) {
		b := make([]byte, 16)
		rand.Read(b)
		value, err := codec.Encode(name, b)
		if err != nil {
			panic(err)
		}
		http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: "/",
			MaxAge: int(cookieLife / time.Second),
			Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
		return base64.RawURLEncoding.EncodeToString(b)
	}
	return pages{routes{
		Visit: func(w http.ResponseWriter, r *http.Request) {
			newVisitor(w)
			ok(w, r)
		},
		First: func(w http.ResponseWriter, r *http.Request) {
			if err := store.set(r.Context(), "limit:"+newVisitor(w), "theme", theme); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
		},
		Many: func(w http.ResponseWriter, r *http.Request) {
			var pairs []string
			for item, n := range items {
				pairs = append(pairs, "cart/"+item, strconv.FormatInt(n, 10))
			}
			if err := store.set(r.Context(), "limit:"+newVisitor(w), pairs...); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
		},
		None: known(func(w http.ResponseWriter, r *http.Request, id string) error {
			ok(w, r)
			return nil
		}),
		ID: known(func(w http.ResponseWriter, r *http.Request, id string) error {
			io.WriteString(w, id)
			return nil
		}),
		Read: known(func(w http.ResponseWriter, r *http.Request, id string) error {
			value, err := store.get(r.Context(), "limit:"+id, "theme")
			if err == nil {
				io.WriteString(w, value)
			}
			return err
		}),
		Add: known(func(w http.ResponseWriter, r *http.Request, id string) error {
			n, err := store.add(r.Context(), "limit:"+id, "cart/tea")
			if err == nil {
				io.WriteString(w, strconv.FormatInt(n, 10))
			}
			return err
		}),
		Blob: known(func(w http.ResponseWriter, r *http.Request, id string) error {
			return store.set(r.Context(), "limit:"+id, "blob", blob)
		}),
	}, close}
}
