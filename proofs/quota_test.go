package proofs

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/memstore"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"
)

// A record never holds more than its quota, and a write over it is refused as a whole: in a
// thousand random sequences of writes on each store, or 10,000 with -long.
func TestQuotas(t *testing.T) {
	server := redistest.Single(t)
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true})
	t.Cleanup(func() { rdb.Close() })
	checks := flag.Lookup("rapid.checks")
	before := checks.Value.String()
	t.Cleanup(func() { checks.Value.Set(before) })
	checks.Value.Set("1000")
	if *long {
		checks.Value.Set("10000")
	}
	for name, open := range map[string]func() guest.Store{
		"memory": func() guest.Store { return memstore.New(memstore.Config{}) },
		"redis": func() guest.Store {
			return redisstore.New(
				rdb, redisstore.Config{Prefix: rand.Text(), ReadTimeout: 20 * time.Second,
					WriteTimeout: 20 * time.Second})
		},
	} {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) { quotaHolds(t, open()) }))
	}
}

func quotaHolds(t *rapid.T, store guest.Store) {
	quota := guest.Quota{Fields: rapid.IntRange(1, 6).Draw(t, "fields"),
		Bytes: rapid.IntRange(10, 120).Draw(t, "bytes")}
	theme := guest.NewValue("theme", guest.PreferAccount[string])
	notes := guest.NewMap("notes", guest.EachItem(guest.PreferAccount[string]))
	cart := guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))
	m, err := guest.New(guest.Config{Store: store, Secrets: [][]byte{make([]byte, 32)},
		Data: []guest.Kind{theme, notes, cart}, Quota: quota})
	if err != nil {
		t.Fatal(err)
	}
	ctx := m.As(context.Background(), "ann")
	load := func(fields guest.Fields) (n, bytes int) {
		for name, value := range fields {
			n, bytes = n+1, bytes+len(name)+len(value)
		}
		return n, bytes
	}
	text := rapid.StringMatching(`[a-z{}]{0,60}`)
	item := rapid.SampledFrom(
		[]string{"a", "b", "c/d", "ee", "a long name of an item, with 40 letters."})
	quoted := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	held := guest.Fields{}
	for range rapid.IntRange(1, 30).Draw(t, "steps") {
		next := maps.Clone(held)
		name, value, n := item.Draw(t, "item"), text.Draw(t, "value"),
			rapid.Int64Range(-20, 20).Draw(t, "n")*rapid.SampledFrom([]int64{1, 1e9}).Draw(t, "×")
		var err error
		switch op := rapid.SampledFrom([]string{"value", "item", "add", "set", "delete", "clear",
			"no value", "update", "items", "additions"}).Draw(t, "op"); op {
		case "value":
			next["theme"] = quoted(value)
			err = theme.Set(ctx, value)
		case "no value":
			delete(next, "theme")
			err = theme.Delete(ctx)
		case "update":
			var old string
			json.Unmarshal([]byte(held["theme"]), &old)
			next["theme"] = quoted(old + value)
			err = theme.Update(ctx, func(s string) (string, error) { return s + value, nil })
		case "item":
			next["notes/"+name] = quoted(value)
			err = notes.Set(ctx, name, value)
		case "add", "set":
			field := "cart/" + name
			sum := n
			if op == "add" {
				had, _ := strconv.ParseInt(held[field], 10, 64)
				sum += had
			}
			if next[field] = fmt.Sprint(sum); sum == 0 {
				delete(next, field)
			}
			if op == "add" {
				_, err = cart.Add(ctx, name, n)
			} else {
				err = cart.Set(ctx, name, n)
			}
		case "items":
			items := rapid.MapOfN(item, text, 0, 4).Draw(t, "items")
			for name, value := range items {
				next["notes/"+name] = quoted(value)
			}
			err = notes.SetAll(ctx, items)
		case "additions":
			amounts := rapid.MapOfN(item, rapid.Int64Range(-20, 20), 0, 4).Draw(t, "amounts")
			sums := map[string]int64{}
			for name, n := range amounts {
				had, _ := strconv.ParseInt(held["cart/"+name], 10, 64)
				sums[name] = had + n
				if next["cart/"+name] = fmt.Sprint(had + n); had+n == 0 {
					delete(next, "cart/"+name)
				}
			}
			var got map[string]int64
			got, err = cart.AddAll(ctx, amounts)
			if err == nil && !maps.Equal(got, sums) {
				t.Fatalf("AddAll(%v) = %v, want %v", amounts, got, sums)
			}
			if errors.Is(err, guest.ErrQuota) && len(amounts) > 2*quota.Fields {
				continue // more items than any record has
			}
		case "delete":
			delete(next, "notes/"+name)
			err = notes.Delete(ctx, name)
		case "clear":
			maps.DeleteFunc(next, func(field, _ string) bool {
				return strings.HasPrefix(field, "notes/")
			})
			err = notes.Clear(ctx)
		}
		hadFields, hadBytes := load(held)
		fields, bytes := load(next)
		over := fields > quota.Fields && fields > hadFields ||
			bytes > quota.Bytes && bytes > hadBytes
		if over != errors.Is(err, guest.ErrQuota) || !over && err != nil {
			t.Fatalf("%v in place of %v, quota %+v: %v", next, held, quota, err)
		}
		if !over {
			held = next
		}
		got, err := store.Get(context.Background(), accountKey("ann"))
		if err != nil {
			t.Fatal(err)
		}
		if got = dataOf(got); !maps.Equal(got, held) {
			t.Fatalf("the record is %v, want %v", got, held)
		}
		if fields, bytes := load(got); fields > quota.Fields || bytes > quota.Bytes {
			t.Fatalf("%d fields of %d bytes, quota %+v", fields, bytes, quota)
		}
	}
}

// With any data of guests and any rules, a claim leaves the account's data within twice the quota,
// or no larger than before, and the receipt counts what became of each item.
func TestQuotasInClaims(t *testing.T) {
	checks := flag.Lookup("rapid.checks")
	before := checks.Value.String()
	t.Cleanup(func() { checks.Value.Set(before) })
	checks.Value.Set("500")
	if *long {
		checks.Value.Set("20000")
	}
	rapid.Check(t, quotaHoldsInClaims)
}

func quotaHoldsInClaims(t *rapid.T) {
	rule := rapid.SampledFrom([]guest.Merge[string]{
		guest.PreferAccount[string], guest.PreferGuest[string],
		func(account, guest string) string { return account + guest },
		func(account, guest string) string { return guest[:len(guest)/2] },
	}).Draw(t, "rule")
	whole := rapid.SampledFrom([]guest.Merge[map[string]string]{
		guest.EachItem(rule), guest.PreferGuest[map[string]string],
		// adds items that neither side had
		func(account, guest map[string]string) map[string]string {
			all := map[string]string{}
			for _, side := range []map[string]string{account, guest} {
				for item, text := range side {
					all[item+"2"] = text + text
				}
			}
			return all
		},
	}).Draw(t, "rule of maps")
	theme, notes := guest.NewValue("theme", rule), guest.NewMap("notes", whole)
	cart := guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))
	private := guest.NewMap("private", guest.EachItem(rule)).Encrypted()
	store := memstore.New(memstore.Config{})
	manager := func(quota guest.Quota) *guest.Manager {
		m, err := guest.New(guest.Config{Store: store, Secrets: [][]byte{make([]byte, 32)},
			Data: []guest.Kind{theme, notes, cart, private}, Quota: quota})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	quota := guest.Quota{Fields: rapid.IntRange(1, 6).Draw(t, "fields"),
		Bytes: rapid.IntRange(20, 400).Draw(t, "bytes")}
	// an earlier, larger quota
	m, larger := manager(quota), manager(guest.Quota{Fields: 20, Bytes: 3000})
	load := func(key string) (q guest.Quota) {
		fields, err := store.Get(context.Background(), key)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range dataOf(fields) {
			q.Fields, q.Bytes = q.Fields+1, q.Bytes+len(name)+len(value)
		}
		return q
	}
	text, item := rapid.StringMatching(`[a-z]{0,60}`), rapid.SampledFrom([]string{"a", "b", "c/d", "ee"})
	fill := func(ctx context.Context) {
		for range rapid.IntRange(0, 8).Draw(t, "writes") { // writes over the quota are refused
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				theme.Set(ctx, text.Draw(t, "text"))
			case 1:
				notes.Set(ctx, item.Draw(t, "item"), text.Draw(t, "text"))
			case 2:
				cart.Add(ctx, item.Draw(t, "item"), rapid.Int64Range(1, 1e12).Draw(t, "n"))
			case 3:
				private.Set(ctx, item.Draw(t, "item"), text.Draw(t, "text"))
			}
		}
	}
	if rapid.Bool().Draw(t, "full") {
		fill(larger.As(context.Background(), "ann"))
	}
	for range rapid.IntRange(1, 5).Draw(t, "claims") {
		by := m
		if rapid.IntRange(0, 4).Draw(t, "by") == 0 {
			by = larger
		}
		w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil)
		r = by.Identify(w, r)
		fill(r.Context())
		before := load(accountKey("ann"))
		receipt, err := m.Claim(w, r, "ann")
		if err != nil {
			t.Fatal(err)
		}
		after := load(accountKey("ann"))
		if after.Fields > max(2*quota.Fields, before.Fields) ||
			after.Bytes > max(2*quota.Bytes, before.Bytes) {
			t.Fatalf("quota %+v: %+v became %+v by %+v", quota, before, after, receipt.Kinds)
		}
		for _, k := range receipt.Kinds {
			if k.DroppedItems > k.GuestItems+k.AccountItems ||
				k.DroppedItems == 0 && k.ResultItems < max(k.GuestItems, k.AccountItems) {
				t.Fatalf("%+v", k)
			}
		}
	}
}
