package outages

import (
	"bytes"
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// A Redis stops while OnClaim runs, and restarts without the tail of its append-only file, which is
// cut after each of the claim's writes. If the receipt is Claimed and not Pending, that is true:
// the guest is a tombstone, and its data are not in an open guest that no account will claim. They
// are lost only if the merge alone is forgotten, or the visitor's own write (docs/claim.md).
func TestARolledBackRedisDuringOnClaim(t *testing.T) {
	dir := t.TempDir()
	server, err := redistest.Start(dir, "--appendonly", "yes", "--appendfsync", "always",
		"--save", "")
	must(t, err)
	t.Cleanup(server.Close)
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true})
	t.Cleanup(func() { rdb.Close() })
	before, kept, units := int64(0), 0, 0
	hooks := 0
	m, err := guest.New(guest.Config{
		Store:   redisstore.New(rdb, redisstore.Config{Prefix: "p"}),
		Secrets: [][]byte{make([]byte, 32)}, Data: []guest.Kind{cart},
		ClaimTimeout: 30 * time.Second, StoreBudget: 20 * time.Second,
		OnClaim: func(context.Context, guest.Receipt) error {
			if hooks++; hooks > 1 {
				return nil
			}
			server.Kill()
			file := appendOnlyFile(t, dir)
			ends := writesAfter(t, file, before)
			units = len(ends)
			if kept > units {
				return server.Restart()
			}
			must(t, os.Truncate(file, append([]int64{before}, ends...)[kept]))
			return server.Restart()
		},
	})
	must(t, err)
	for kept = 0; kept == 0 || kept <= units; kept++ {
		t.Run(fmt.Sprint(kept, " writes are left"), func(t *testing.T) {
			ctx := context.Background()
			hooks = 0
			account := fmt.Sprint("ann", kept)
			w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil)
			r = m.Identify(w, r)
			_, err := cart.Add(r.Context(), "tea", 2)
			must(t, err)
			again := httptest.NewRequest("POST", "/", nil)
			again.AddCookie(w.Result().Cookies()[0])
			info, err := os.Stat(appendOnlyFile(t, dir))
			must(t, err)
			before = info.Size()

			receipt, err := m.Claim(w, r, account)
			check := func(receipt guest.Receipt, err error) {
				g, e := m.Inspect().Guest(ctx, receipt.GuestID)
				must(t, e)
				if err == nil && !receipt.Pending &&
					(!receipt.Claimed || g.State != guest.StateClaimed || len(g.Kinds) > 0) {
					t.Errorf("the receipt says claimed: %+v; the guest is %s and holds %+v",
						receipt, g.State, g.Kinds)
				}
			}
			check(receipt, err)
			eventually(t, "the claim's end", func() bool {
				receipt, err := m.Claim(httptest.NewRecorder(), again, account)
				check(receipt, err)
				return err == nil
			})
			n, err := cart.Get(m.As(ctx, account), "tea")
			must(t, err)
			mergeAlone := kept == units-1
			if want := int64(2); n != want && !mergeAlone || n > want {
				t.Errorf("the account has %d cups, want %d; the receipt was %+v, %v", n, want,
					receipt, err)
			}
			t.Logf("of %d writes %d were left: %d cups; pending at first: %v; OnClaim was called %d times", units, kept, n, receipt.Pending, hooks)
		})
	}
	if units < 4 {
		t.Errorf("the claim made %d writes", units)
	}
}

func appendOnlyFile(t *testing.T, dir string) string {
	t.Helper()
	// since Redis 7, and before it
	for _, pattern := range []string{"appendonlydir/*.incr.aof", "*.aof"} {
		if found, _ := filepath.Glob(filepath.Join(dir, pattern)); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	t.Fatal("no append-only file")
	return ""
}

// writesAfter returns the ends of the writes in the file after an offset. A script counts as one
// write.
func writesAfter(t *testing.T, file string, from int64) (ends []int64) {
	t.Helper()
	log, err := os.ReadFile(file)
	must(t, err)
	open := false
	for at := int(from); at < len(log); {
		word := func() string { // a line
			end := bytes.Index(log[at:], []byte("\r\n"))
			if end < 0 {
				t.Fatal("the append-only file ends in the middle of a command")
			}
			line := string(log[at : at+end])
			at += end + 2
			return line
		}
		if log[at] == '#' { // an annotation
			at += bytes.IndexByte(log[at:], '\n') + 1
			continue
		}
		words, err := strconv.Atoi(strings.TrimPrefix(word(), "*"))
		must(t, err)
		var name string
		for i := range words {
			size, err := strconv.Atoi(strings.TrimPrefix(word(), "$"))
			must(t, err)
			if i == 0 {
				name = strings.ToUpper(string(log[at : at+size]))
			}
			at += size + 2
		}
		switch name {
		case "MULTI":
			open = true
		case "EXEC":
			open = false
		case "SELECT":
			continue
		}
		if !open {
			ends = append(ends, int64(at))
		}
	}
	return ends
}
