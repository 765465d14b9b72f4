package storetest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// A broken store uses the functions that are set, and does everything else correctly.
type broken struct {
	guest.Store
	get    func(ctx context.Context, key string, names []string) (guest.Fields, error)
	update func(ctx context.Context, key string, u guest.Update) (guest.Result, error)
	keys   func(ctx context.Context, prefix string) iter.Seq2[string, error]
}

func (b broken) Get(ctx context.Context, key string, names ...string) (guest.Fields, error) {
	if b.get == nil {
		return b.Store.Get(ctx, key, names...)
	}
	return b.get(ctx, key, names)
}

func (b broken) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	if b.update == nil {
		return b.Store.Update(ctx, key, u)
	}
	return b.update(ctx, key, u)
}

func (b broken) Keys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	if b.keys == nil {
		return b.Store.Keys(ctx, prefix)
	}
	return b.keys(ctx, prefix)
}

// altered is a store that changes each update before it applies it.
func altered(alter func(u *guest.Update)) func(guest.Store) broken {
	return func(s guest.Store) broken {
		return broken{Store: s, update: func(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
			alter(&u)
			return s.Update(ctx, key, u)
		}}
	}
}

// updating is a store with another Update method.
func updating(f func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error)) func(guest.Store) broken {
	return func(s guest.Store) broken {
		return broken{Store: s, update: func(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
			return f(s, ctx, key, u)
		}}
	}
}

var brokenStores = []struct {
	name   string
	breaks string
	open   func(guest.Store) broken
}{
	{"absent is an error", duty1, func(s guest.Store) broken {
		return broken{Store: s, get: func(ctx context.Context, key string, names []string) (guest.Fields, error) {
			have, err := s.Get(ctx, key, names...)
			if err == nil && len(have) == 0 {
				err = errors.New("not found")
			}
			return have, err
		}}
	}},
	{"drops only what it sees", duty1, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		if u.Drop {
			have, err := s.Get(ctx, key)
			if err != nil {
				return guest.Result{}, err
			}
			for name := range have {
				if name[0] != '.' {
					u.Unset = append(u.Unset, name)
				}
			}
			u = guest.Update{If: u.If, NotAfter: u.NotAfter, Unset: u.Unset}
		}
		return s.Update(ctx, key, u)
	})},
	{"takes New for a condition", newSays, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		if u.New {
			unmade := guest.Fields{}
			maps.Copy(unmade, u.If)
			for name := range u.Default {
				unmade[name] = ""
			}
			u.If = unmade
		}
		return s.Update(ctx, key, u)
	})},
	{"replaces what is there by what is new", newSays, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		if u.New {
			if _, err := s.Update(ctx, key, guest.Update{Drop: true}); err != nil {
				return guest.Result{}, err
			}
		}
		return s.Update(ctx, key, u)
	})},
	{"never expires", duty1, altered(func(u *guest.Update) { u.TTL = 0 })},
	{"gets all", getSays, func(s guest.Store) broken {
		return broken{Store: s, get: func(ctx context.Context, key string, names []string) (guest.Fields, error) {
			return s.Get(ctx, key)
		}}
	}},

	{"adds by reading and writing", duty2, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		if len(u.Add) != 2 || u.Drop {
			return s.Update(ctx, key, u)
		}
		set := guest.Fields{}
		for name, n := range u.Add {
			have, err := s.Get(ctx, key, name)
			if err != nil {
				return guest.Result{}, err
			}
			was, _ := strconv.ParseInt(have[name], 10, 64)
			set[name] = strconv.FormatInt(was+n, 10)
			time.Sleep(time.Millisecond) // in the bubble: until the other goroutines have read, too
		}
		u.Set, u.Add = set, nil
		return s.Update(ctx, key, u)
	})},
	{"writes in two steps", duty2, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		if len(u.Set) == 2 && len(u.Add) == 1 {
			for name, value := range u.Set {
				if _, err := s.Update(ctx, key, guest.Update{Set: guest.Fields{name: value}}); err != nil {
					return guest.Result{}, err
				}
				time.Sleep(time.Millisecond) // in the bubble: until all readers have read
			}
		}
		return s.Update(ctx, key, u)
	})},
	{"checks conditions before it locks", duty2, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		res, err := s.Update(ctx, key, guest.Update{If: u.If, NotAfter: u.NotAfter, Return: u.Return, ReturnAll: u.ReturnAll})
		if err != nil || !res.Applied {
			return res, err
		}
		time.Sleep(time.Millisecond)
		u.If = nil
		return s.Update(ctx, key, u)
	})},

	{"sets one field at most", stepsSays, altered(func(u *guest.Update) {
		for name := range u.Set {
			u.Set = guest.Fields{name: u.Set[name]}
			break
		}
	})},
	{"wants no conditions", ifSays, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		if len(u.If) > 0 {
			return guest.Result{}, nil
		}
		return s.Update(ctx, key, u)
	})},
	{"ignores If", duty3, altered(func(u *guest.Update) { u.If = nil })},
	{"ignores that a field must be absent", duty3, altered(func(u *guest.Update) {
		u.If = maps.Clone(u.If)
		maps.DeleteFunc(u.If, func(_, value string) bool { return value == "" })
	})},
	{"ignores NotAfter", duty3, altered(func(u *guest.Update) { u.NotAfter = time.Time{} })},
	{"checks NotAfter a second late", duty3, altered(func(u *guest.Update) {
		if !u.NotAfter.IsZero() {
			u.NotAfter = u.NotAfter.Add(time.Second)
		}
	})},
	{"checks NotAfter an hour early", afterSays, altered(func(u *guest.Update) {
		if !u.NotAfter.IsZero() {
			u.NotAfter = u.NotAfter.Add(-time.Hour)
		}
	})},
	{"returns no fields when unmet", duty3, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		res, err := s.Update(ctx, key, u)
		if !res.Applied {
			res.Fields = nil
		}
		return res, err
	})},
	{"touches when unmet", duty3, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		res, err := s.Update(ctx, key, u)
		if err == nil && !res.Applied {
			s.Update(ctx, key, guest.Update{TTL: u.TTL})
		}
		return res, err
	})},

	{"applies twice", duty4, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		if res, err := s.Update(ctx, key, u); err != nil || !res.Applied || !u.Once {
			return res, err
		}
		return s.Update(ctx, key, u)
	})},
	{"applies one of two equal updates", duty4, func(s guest.Store) broken {
		var last sync.Map
		return broken{Store: s, update: func(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
			if was, ok := last.Swap(key, fmt.Sprint(u)); ok && u.Once && was == fmt.Sprint(u) {
				res, err := s.Update(ctx, key, guest.Update{Return: u.Return, ReturnAll: u.ReturnAll})
				return res, err
			}
			return s.Update(ctx, key, u)
		}}
	}},
	{"fails after the write", duty4, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		res, err := s.Update(ctx, key, u)
		if end, ok := ctx.Deadline(); ok && time.Until(end) < time.Second {
			return guest.Result{}, errors.Join(err, context.DeadlineExceeded)
		}
		return res, err
	})},

	{"ignores the quota", duty5, altered(func(u *guest.Update) { u.Quota = guest.Quota{} })},
	{"ignores the quota of bytes", duty5, altered(func(u *guest.Update) { u.Quota.Bytes = 0 })},
	{"allows one more than the quota", duty5, altered(func(u *guest.Update) {
		if u.Quota.Fields > 0 {
			u.Quota.Fields++
		}
	})},
	{"allows one less than the quota", duty5, altered(func(u *guest.Update) {
		if u.Quota.Bytes > 1 {
			u.Quota.Bytes--
		}
	})},
	{"counts dots", duty5, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		have, _ := s.Get(ctx, key)
		for name := range have {
			if name[0] == '.' && u.Quota.Fields > 0 {
				u.Quota.Fields = max(u.Quota.Fields-1, 1)
				u.Quota.Bytes = max(u.Quota.Bytes-len(name)-len(have[name]), 1)
			}
		}
		return s.Update(ctx, key, u)
	})},
	{"refuses smaller records too", duty5, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		have, _ := s.Get(ctx, key)
		if n, _ := load(have); u.Quota.Fields > 0 && n > u.Quota.Fields {
			return guest.Result{}, guest.ErrQuota
		}
		return s.Update(ctx, key, u)
	})},
	{"another error for the quota", duty5, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		res, err := s.Update(ctx, key, u)
		if errors.Is(err, guest.ErrQuota) {
			err = errors.New("too much")
		}
		return res, err
	})},
	{"writes some before the quota", duty5, partly(guest.ErrQuota)},
	{"touches over quota", duty5, touching(guest.ErrQuota)},

	{"writes some before it finds an invalid number", duty6, partly(guest.ErrInvalid)},
	{"touches invalid input", duty6, touching(guest.ErrInvalid)},
	{"treats text as 0", duty6, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		res, err := s.Update(ctx, key, u)
		if errors.Is(err, guest.ErrInvalid) {
			for name := range u.Add {
				s.Update(ctx, key, guest.Update{Unset: []string{name}})
			}
			return s.Update(ctx, key, u)
		}
		return res, err
	})},
	{"stops at the largest number", duty6, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		res, err := s.Update(ctx, key, u)
		if errors.Is(err, guest.ErrInvalid) {
			return guest.Result{Applied: true}, nil
		}
		return res, err
	})},
	{"drops what is negative", addSays, altered(func(u *guest.Update) {
		u.Add = maps.Clone(u.Add)
		maps.DeleteFunc(u.Add, func(_ string, n int64) bool { return n < 0 })
	})},
	{"keeps a sum of 0", addSays, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		res, err := s.Update(ctx, key, u)
		for name := range u.Add {
			if err == nil && res.Applied && !u.Drop {
				s.Update(ctx, key, guest.Update{Default: guest.Fields{name: "0"}})
			}
		}
		return res, err
	})},

	{"lengthens a kept ttl", duty7, altered(func(u *guest.Update) { u.KeepTTL = false })},
	{"keeps no ttl", duty7, altered(func(u *guest.Update) {
		if u.KeepTTL {
			u.TTL = 0
		}
	})},
	{"half the ttl", duty7, altered(func(u *guest.Update) { u.TTL /= 2 })},
	{"ttl replaces the expiry", duty7, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		if u.TTL > 0 {
			if res, err := s.Update(ctx, key, guest.Update{If: u.If, NotAfter: u.NotAfter}); err == nil && res.Applied {
				if have, err := s.Get(ctx, key); err == nil {
					s.Update(ctx, key, guest.Update{Drop: true})
					s.Update(ctx, key, guest.Update{Set: have, TTL: u.TTL})
				}
			}
		}
		return s.Update(ctx, key, u)
	})},
	{"no ttl is a day", duty7, func(s guest.Store) broken {
		clock := time.Now
		long := 40 * time.Millisecond // stands for the day
		return broken{Store: s, update: func(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
			if have, err := s.Get(ctx, key); err == nil && len(have) == 0 && u.TTL == 0 && clock().Year() < 2100 {
				u.TTL = long
			}
			return s.Update(ctx, key, u)
		}}
	}},
	{"every write lengthens", ttlSays, altered(func(u *guest.Update) {
		if u.TTL == 0 {
			u.TTL = time.Hour
		}
	})},
	{"ttl in a second step", duty7, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		ttl := u.TTL
		if have, _ := s.Get(ctx, key); len(have) > 0 {
			u.TTL = 0
		}
		if ttl > 0 && u.TTL == 0 && len(u.Add) > 0 {
			time.Sleep(ttl)
		}
		res, err := s.Update(ctx, key, u)
		if err == nil && res.Applied && u.TTL == 0 && ttl > 0 {
			s.Update(ctx, key, guest.Update{TTL: ttl})
		}
		return res, err
	})},

	{"ignores the context", duty8, func(s guest.Store) broken {
		return broken{
			Store: s,
			get: func(_ context.Context, key string, names []string) (guest.Fields, error) {
				return s.Get(context.Background(), key, names...)
			},
			update: func(_ context.Context, key string, u guest.Update) (guest.Result, error) {
				return s.Update(context.Background(), key, u)
			},
		}
	}},
	{"looks at the context afterwards", duty8, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		res, err := s.Update(context.WithoutCancel(ctx), key, u)
		if ctx.Err() != nil {
			return guest.Result{}, ctx.Err()
		}
		return res, err
	})},
	{"hides the context's error", duty8, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		if ctx.Err() != nil {
			return guest.Result{}, guest.ErrUnavailable
		}
		return s.Update(ctx, key, u)
	})},
	{"lists keys after a cancellation", duty8, func(s guest.Store) broken {
		return broken{Store: s, keys: func(ctx context.Context, prefix string) iter.Seq2[string, error] {
			return s.Keys(context.WithoutCancel(ctx), prefix)
		}}
	}},

	{"returns its own map", duty9, func(s guest.Store) broken {
		var cache sync.Map
		return broken{
			Store: s,
			get: func(ctx context.Context, key string, names []string) (guest.Fields, error) {
				if have, ok := cache.Load(key); ok && len(names) == 0 && ctx.Err() == nil {
					return have.(guest.Fields), nil
				}
				have, err := s.Get(ctx, key, names...)
				if err == nil && len(names) == 0 {
					cache.Store(key, have)
				}
				return have, err
			},
			update: func(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
				if len(u.Default)+len(u.Set)+len(u.Add)+len(u.Unset)+len(u.UnsetPrefix) > 0 || u.Drop || u.Stamp != "" || u.TTL > 0 {
					defer cache.Delete(key)
				}
				return s.Update(ctx, key, u)
			},
		}
	}},
	{"keeps the caller's map", duty9, func(s guest.Store) broken {
		kept := map[string]guest.Fields{}
		return broken{
			Store: s,
			get: func(ctx context.Context, key string, names []string) (guest.Fields, error) {
				if set, ok := kept[key]; ok {
					s.Update(ctx, key, guest.Update{Set: set})
				}
				return s.Get(ctx, key, names...)
			},
			update: func(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
				if len(u.Default) > 0 && len(u.Set) > 0 && len(u.Unset) > 0 && u.Quota == (guest.Quota{}) {
					kept[key] = u.Set
				}
				return s.Update(ctx, key, u)
			},
		}
	}},
	{"changes the caller's map", duty9, altered(func(u *guest.Update) {
		if u.If != nil && len(u.Unset) > 0 {
			delete(u.Add, "n")
		}
	})},

	{"full for claims", duty10, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		if u.Reserve && !u.Drop {
			return guest.Result{}, memstore.ErrFull
		}
		return s.Update(ctx, key, u)
	})},

	{"shows its own fields", duty11, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		if u.Once && !u.Drop {
			u.Set = maps.Clone(u.Set)
			if u.Set == nil {
				u.Set = guest.Fields{}
			}
			u.Set["!once"] = "1"
			u.Quota = guest.Quota{}
		}
		return s.Update(ctx, key, u)
	})},
	{"ends values at NUL", duty11, altered(func(u *guest.Update) {
		u.Set = maps.Clone(u.Set)
		for name, value := range u.Set {
			if i := strings.IndexByte(value, 0); i > 0 {
				u.Set[name] = value[:i]
			}
		}
	})},
	{"wants UTF-8", duty11, altered(func(u *guest.Update) {
		u.Set = maps.Clone(u.Set)
		for name, value := range u.Set {
			u.Set[name] = strings.ToValidUTF8(value, "?")
		}
	})},
	{"a thousand fields", duty11, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		if len(u.Set) > 1000 {
			return guest.Result{}, errors.New("too many results to unpack")
		}
		return s.Update(ctx, key, u)
	})},
	{"a thousand sums", duty11, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		if len(u.Add) > 1000 {
			u.Return = u.Return[:1000]
		}
		return s.Update(ctx, key, u)
	})},

	{"default overwrites", defaultSays, altered(func(u *guest.Update) {
		u.Set = maps.Clone(u.Set)
		for name, value := range u.Default {
			if u.Set == nil {
				u.Set = guest.Fields{}
			}
			u.Set[name] = value
		}
	})},
	{"takes a slash at the end of a name in Unset for a prefix", unsetSays, altered(func(u *guest.Update) {
		for _, name := range u.Unset {
			if strings.HasSuffix(name, "/") {
				u.UnsetPrefix = append(u.UnsetPrefix, name)
			}
		}
	})},
	{"removes by prefix where a sum is 0", addSays, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		res, err := s.Update(ctx, key, u)
		have, _ := s.Get(ctx, key)
		for name := range u.Add {
			if strings.HasSuffix(name, "/") && have[name] == "" && err == nil && res.Applied {
				s.Update(ctx, key, guest.Update{UnsetPrefix: []string{name}})
			}
		}
		return res, err
	})},
	{"takes a prefix for a name", prefixSays, altered(func(u *guest.Update) {
		u.Unset, u.UnsetPrefix = slices.Concat(u.Unset, u.UnsetPrefix), nil
	})},
	{"takes a prefix without its slash", prefixSays, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		res, err := s.Update(ctx, key, u)
		for _, prefix := range u.UnsetPrefix {
			if short, ok := strings.CutSuffix(prefix, "/"); ok && err == nil && res.Applied {
				s.Update(ctx, key, guest.Update{Unset: []string{short}})
			}
		}
		return res, err
	})},
	{"adds a slash to a prefix", prefixSays, altered(func(u *guest.Update) {
		u.UnsetPrefix = slices.Clone(u.UnsetPrefix)
		for i, prefix := range u.UnsetPrefix {
			u.UnsetPrefix[i] = strings.TrimSuffix(prefix, "/") + "/"
		}
	})},
	{"stamps seconds", stampSays, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		res, err := s.Update(ctx, key, u)
		if err == nil && res.Applied && u.Stamp != "" && !u.Drop {
			seconds := strconv.FormatInt(res.Now.Unix(), 10)
			s.Update(ctx, key, guest.Update{Set: guest.Fields{u.Stamp: seconds}})
		}
		return res, err
	})},
	{"no clock without a stamp", nowSays, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		res, err := s.Update(ctx, key, u)
		if u.Stamp == "" {
			res.Now = time.Time{}
		}
		return res, err
	})},
	{"returns what was", returnSays, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		before, _ := s.Get(ctx, key)
		res, err := s.Update(ctx, key, u)
		for name := range res.Fields {
			if res.Applied {
				res.Fields[name] = before[name]
			}
		}
		return res, err
	})},
	{"drop is followed by the rest", dropSays, updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		res, err := s.Update(ctx, key, u)
		if u.Drop && err == nil && res.Applied {
			u.If, u.NotAfter, u.Drop = nil, time.Time{}, false
			return s.Update(ctx, key, u)
		}
		return res, err
	})},
	{"drops without conditions", duty3, altered(func(u *guest.Update) {
		if u.Drop {
			u.If, u.NotAfter = nil, time.Time{}
		}
	})},
	{"the prefix is a pattern", keysSays, func(s guest.Store) broken {
		return broken{Store: s, keys: func(ctx context.Context, prefix string) iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				for key, err := range s.Keys(ctx, "") {
					ok, _ := path.Match(prefix+"*", key)
					if (ok || err != nil) && !yield(key, err) {
						return
					}
				}
			}
		}}
	}},
	{"lists one key less", keysSays, func(s guest.Store) broken {
		return broken{Store: s, keys: func(ctx context.Context, prefix string) iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				first := true
				for key, err := range s.Keys(ctx, prefix) {
					if skip := first && err == nil; !skip && !yield(key, err) {
						return
					}
					first = false
				}
			}
		}}
	}},
}

// partly applies the Set of an update that then fails.
func partly(with error) func(guest.Store) broken {
	return updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		res, err := s.Update(ctx, key, u)
		if errors.Is(err, with) && u.TTL == 0 {
			s.Update(ctx, key, guest.Update{Set: u.Set})
		}
		return res, err
	})
}

// touching sets the TTL of an update that then fails.
func touching(with error) func(guest.Store) broken {
	return updating(func(s guest.Store, ctx context.Context, key string, u guest.Update) (guest.Result, error) {
		res, err := s.Update(ctx, key, u)
		if errors.Is(err, with) {
			s.Update(ctx, key, guest.Update{TTL: u.TTL})
		}
		return res, err
	})
}

// A recorder keeps the message with which a case fails.
type recorder struct {
	testing.TB
	failures []string
}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}
func (r *recorder) FailNow() { runtime.Goexit() }

// failures runs a case on a store and returns its failures.
func failures(t *testing.T, c testCase, store guest.Store) []string {
	r := &recorder{TB: t}
	var wg sync.WaitGroup
	wg.Go(func() { c.test(r, store) })
	wg.Wait()
	return r.failures
}

func TestSound(t *testing.T) {
	for _, c := range cases() {
		synctest.Test(t, func(t *testing.T) {
			for _, failure := range failures(t, c, memstore.New(memstore.Config{})) {
				t.Errorf("%s: %s", c.name, failure)
			}
		})
	}
}

// For each broken store, a case fails and quotes the sentence that the store breaks.
func TestBroken(t *testing.T) {
	for _, b := range brokenStores {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			var caught []string
			for _, c := range cases() {
				if c.says != b.breaks {
					continue
				}
				synctest.Test(t, func(t *testing.T) {
					for _, failure := range failures(t, c, b.open(memstore.New(memstore.Config{}))) {
						if !strings.HasSuffix(failure, b.breaks) {
							t.Errorf("%s fails without its sentence: %s", c.name, failure)
						}
						caught = append(caught, c.name)
					}
				})
			}
			if len(caught) == 0 {
				t.Errorf("no case failed that quotes %q", b.breaks)
			}
			t.Logf("caught by %q", caught)
		})
	}
}

// Each sentence that a case quotes is broken by one of the stores.
func TestBrokenAll(t *testing.T) {
	broken := map[string]bool{}
	for _, b := range brokenStores {
		broken[b.breaks] = true
	}
	for _, c := range cases() {
		if !broken[c.says] {
			t.Errorf("no broken store shows that %q catches anything", c.name)
		}
	}
}
