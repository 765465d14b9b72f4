package storetest

import (
	"cmp"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/guestkit/guest"
)

// newSeed returns the seed of a random case. STORETEST_SEED in the environment sets it, to see a failure again.
func newSeed() uint64 {
	if seed, err := strconv.ParseUint(os.Getenv("STORETEST_SEED"), 10, 64); err == nil {
		return seed
	}
	return rand.Uint64()
}

// random compares a store with the model: any updates, one after the other.
var random = []testCase{
	{"random updates", stepsSays, func(t *tester) {
		seed := newSeed()
		r := rand.New(rand.NewPCG(seed, 0))
		records := []guest.Fields{{}, {}, {}} // what the store should hold
		for i := range 500 {
			n := r.IntN(len(records))
			key := t.key(strconv.Itoa(n))
			u := randomUpdate(r, records[n], n)
			res, err := t.store.Update(t.Context(), key, u)
			want, answer, wantErr := model(records[n], u, res.Now)
			same := res.Applied == (want != nil) && maps.Equal(res.Fields, answer)
			if wantErr != nil { // what is both invalid and over quota may answer either
				same = errors.Is(err, wantErr) || wantErr == guest.ErrInvalid && errors.Is(err, guest.ErrQuota)
			}
			if !same || wantErr == nil && err != nil {
				t.failf("update %d with STORETEST_SEED=%d: the answer is %+v, %v\nwant applied %t, %q, %v\nof %+v\nto %q",
					i, seed, res, err, want != nil, answer, wantErr, u, records[n])
			}
			if want != nil {
				records[n] = want
			}
			if have := t.get(key); !maps.Equal(have, records[n]) {
				t.failf("update %d with STORETEST_SEED=%d: the record holds %q, want %q\nafter %+v", i, seed, have, records[n], u)
			}
		}
	}},
}

// model says what an update makes of a record, nil for nothing, and what it answers; it shares no code with a store.
func model(record guest.Fields, u guest.Update, now time.Time) (after, answer guest.Fields, err error) {
	answer = guest.Fields{}
	for name, want := range u.If {
		if record[name] != want {
			for _, name := range slices.AppendSeq(slices.Clone(u.Return), maps.Keys(u.If)) {
				if value, ok := record[name]; ok {
					answer[name] = value
				}
			}
			return nil, answer, nil
		}
	}
	after = maps.Clone(record)
	if u.Drop {
		return guest.Fields{}, answer, nil
	}
	for name, value := range u.Default {
		if _, ok := after[name]; !ok {
			after[name] = value
		}
	}
	maps.Copy(after, u.Set)
	for name, n := range u.Add {
		was, err := strconv.ParseInt(cmp.Or(after[name], "0"), 10, 64)
		if err != nil || max(was+n, -was-n) > 1<<53 {
			return nil, nil, guest.ErrInvalid
		}
		if after[name] = strconv.FormatInt(was+n, 10); was+n == 0 {
			delete(after, name)
		}
	}
	for _, name := range u.Unset {
		delete(after, name)
	}
	for _, prefix := range u.UnsetPrefix {
		maps.DeleteFunc(after, func(name, _ string) bool { return strings.HasPrefix(name, prefix) })
	}
	if u.Stamp != "" {
		after[u.Stamp] = strconv.FormatInt(now.UnixMilli(), 10)
	}
	n, bytes := load(after)
	wasN, wasBytes := load(record)
	if n > u.Quota.Fields && n > wasN || bytes > u.Quota.Bytes && bytes > wasBytes {
		return nil, nil, guest.ErrQuota
	}
	if u.ReturnAll {
		return after, maps.Clone(after), nil
	}
	for _, name := range u.Return {
		if value, ok := after[name]; ok {
			answer[name] = value
		}
	}
	return after, answer, nil
}

// randomUpdate puts each name in one step at most, as the contract demands of callers. The quota of a record is
// always the same, so that it is never over it.
func randomUpdate(r *rand.Rand, record guest.Fields, n int) guest.Update {
	one := func(words ...string) string { return words[r.IntN(len(words))] }
	value := func() string {
		return one("1", "-1", "7", "x", "1.5", "9007199254740992", "-9007199254740991", "\x00\xff", strings.Repeat("y", 1+r.IntN(12)))
	}
	names := []string{"a", "b", "c", "cart/x", "cart/y", "cart/", "cart", ".m", ".n"}
	u := guest.Update{
		If: guest.Fields{}, Default: guest.Fields{}, Set: guest.Fields{}, Add: map[string]int64{},
		Drop:  r.IntN(15) == 0,
		Quota: guest.Quota{Fields: 3 + n, Bytes: 20 + 15*n},
		Once:  r.IntN(3) == 0, Reserve: r.IntN(4) == 0,
	}
	if r.IntN(4) == 0 {
		u.UnsetPrefix = append(u.UnsetPrefix, one("cart/", "cart/x", "car", "none"))
	}
	for _, name := range names {
		if len(u.UnsetPrefix) > 0 && strings.HasPrefix(name, u.UnsetPrefix[0]) {
			continue
		}
		switch r.IntN(12) {
		case 0:
			u.Default[name] = value()
		case 1, 2:
			u.Set[name] = value()
		case 3, 4:
			u.Add[name] = []int64{0, 1, -1, 6, -7, 1 << 53, -1 << 53}[r.IntN(7)]
		case 5:
			u.Unset = append(u.Unset, name)
		}
	}
	if r.IntN(3) == 0 {
		u.New = true
		u.Default[".created"] = strconv.FormatUint(r.Uint64(), 36)
	}
	if r.IntN(5) == 0 {
		u.Stamp = ".t"
	}
	if r.IntN(6) == 0 {
		u.TTL = time.Hour
	}
	if r.IntN(5) == 0 {
		u.ReturnAll = true
		return u
	}
	for _, name := range names {
		switch r.IntN(10) {
		case 0, 1:
			u.Return = append(u.Return, name)
		case 2:
			u.If[name] = record[name] // holds
		case 3:
			if r.IntN(3) == 0 {
				u.If[name] = value()
			}
		}
	}
	return u
}
