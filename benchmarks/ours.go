package main

import (
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

const (
	Claim    Work = "/claim"    // claims the guest into the account of the query; ours only
	Prefetch Work = "/prefetch" // reads four kinds; ours only
)

var guestRedis = Contender{
	Name:  "guest on Redis",
	Setup: "`redisstore.New` on go-redis, the defaults of `guest.Config`; theme and blob are a `Value`, the cart is `Counters`",
	Open: func(addr string) (App, error) {
		rdb := newClient(addr)
		return newGuest(redisstore.New(rdb, redisstore.Config{}), guest.OnFirstVisit, func() {
			rdb.Close()
		})
	},
}

var guestAuto = Contender{
	Name:  "guest on Redis, autopipelined",
	Setup: "the same on go-redis's `AutoPipeline`, which sends parallel commands together; experimental there",
	Open: func(addr string) (App, error) {
		rdb := newClient(addr)
		auto, err := rdb.AutoPipeline()
		if err != nil {
			return nil, err
		}
		return newGuest(redisstore.New(auto, redisstore.Config{}), guest.OnFirstVisit, func() {
			auto.Close()
			rdb.Close()
		})
	},
	Holds: func(w Work, r Record) bool {
		return w == First || w == Many || w == Read || w == Add
	},
}

var guestMemory = Contender{
	Name:  "guest in memory",
	Setup: "the same on `memstore.New`",
	Open: func(string) (App, error) {
		return newGuest(memstore.New(memstore.Config{}), guest.OnFirstVisit, func() {})
	},
}

// guestLongBudget and guestLazy are not in the tables. They are for filling a Redis and for tests,
// which take longer than a page would wait if the machine is busy.
var guestLongBudget = Contender{
	Name: "guest on Redis, long store budget",
	Open: func(addr string) (App, error) {
		rdb := newClient(addr)
		return newGuest(slowStore(rdb), guest.OnFirstVisit, func() { rdb.Close() })
	},
}

var guestLazy = Contender{
	Name: "guest on Redis, OnFirstWrite",
	Open: func(addr string) (App, error) {
		rdb := newClient(addr)
		return newGuest(slowStore(rdb), guest.OnFirstWrite, func() { rdb.Close() })
	},
}

func slowStore(rdb redis.UniversalClient) guest.Store {
	return redisstore.New(rdb, redisstore.Config{MinTimeout: time.Minute})
}

func newGuest(store guest.Store, create guest.Create, close func()) (App, error) {
	var (
		Theme = guest.NewValue("theme", guest.PreferAccount[string])
		Large = guest.NewValue("blob", guest.PreferAccount[string])
		Cart  = guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))
		more  = []*guest.Value[string]{Theme}
	)
	kinds := []guest.Kind{Theme, Large, Cart}
	for _, name := range []string{"currency", "language", "size"} {
		v := guest.NewValue(name, guest.PreferAccount[string])
		more, kinds = append(more, v), append(kinds, v)
	}
	guests, err := guest.New(guest.Config{
		Store:   store,
		Secrets: [][]byte{secret},
		Data:    kinds,
		// the app's own sign-in
		Account: func(r *http.Request) string { return r.Header.Get("Account") },
		Create:  create,
	})
	if err != nil {
		return nil, err
	}
	answer := func(f func(w http.ResponseWriter, r *http.Request) (string, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			text, err := f(w, r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			io.WriteString(w, text)
		}
	}
	return pages{guests.Middleware(routes{
		Visit: ok,
		None:  ok,
		First: answer(func(w http.ResponseWriter, r *http.Request) (string, error) {
			return "", Theme.Set(r.Context(), theme)
		}),
		Blob: answer(func(w http.ResponseWriter, r *http.Request) (string, error) {
			return "", Large.Set(r.Context(), blob)
		}),
		Many: answer(func(w http.ResponseWriter, r *http.Request) (string, error) {
			_, err := Cart.AddAll(r.Context(), items)
			return "", err
		}),
		ID: answer(func(w http.ResponseWriter, r *http.Request) (string, error) {
			return guest.FromContext(r.Context()).GuestID(), nil
		}),
		Read: answer(func(w http.ResponseWriter, r *http.Request) (string, error) {
			return Theme.Get(r.Context())
		}),
		Add: answer(func(w http.ResponseWriter, r *http.Request) (string, error) {
			n, err := Cart.Add(r.Context(), "tea", 1)
			return strconv.FormatInt(n, 10), err
		}),
		Claim: answer(func(w http.ResponseWriter, r *http.Request) (string, error) {
			receipt, err := guests.Claim(w, r, r.URL.RawQuery)
			return strconv.FormatBool(receipt.Claimed && !receipt.Pending), err
		}),
		Prefetch: answer(func(w http.ResponseWriter, r *http.Request) (string, error) {
			ctx, err := guest.Prefetch(r.Context(), more[0], more[1], more[2], more[3])
			if err != nil {
				return "", err
			}
			all := ""
			for _, v := range more {
				one, err := v.Get(ctx)
				if err != nil {
					return "", err
				}
				all += one
			}
			return all, nil
		}),
	}), close}, nil
}
