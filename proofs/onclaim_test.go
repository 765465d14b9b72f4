package proofs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/guestsql"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"
	_ "modernc.org/sqlite"
)

// A database of the app: a table of drafts that guests write, and one that counts how often each
// was moved.
type database struct {
	driver, source string
	insert         guestsql.Insert
	mark           func(n int) string
}

func (d database) open(t testing.TB) *sql.DB {
	db, err := sql.Open(d.driver, d.source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func sqlite(t testing.TB) database {
	file := filepath.Join(t.TempDir(), "app.db")
	return database{"sqlite",
		"file:" + file + "?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_txlock=immediate",
		guestsql.SQLite, func(int) string {
			return "?"
		}}
}

// postgres starts a server of Debian's package.
func postgres(t testing.TB) database {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		t.Fatal("PostgreSQL is not installed: apt-get install postgresql, or run scripts/test, which does")
	}
	bin := filepath.Dir(found[len(found)-1])
	dir, err := os.MkdirTemp("", "postgres")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var as *syscall.SysProcAttr
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
		as = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	command := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(filepath.Join(bin, name), args...)
		c.Dir, c.SysProcAttr = dir, as
		return c
	}
	data := filepath.Join(dir, "data")
	if out, err := command("initdb", "-D", data, "-U", "app", "--auth=trust",
		"--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	server := command("postgres", "-D", data, "-k", dir, "-c", "listen_addresses=", "-c",
		"fsync=off")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Signal(syscall.SIGINT)
		server.Wait()
	})
	d := database{"pgx", "host=" + dir + " user=app dbname=postgres", guestsql.PostgreSQL,
		func(n int) string {
			return "$" + strconv.Itoa(n)
		}}
	db := d.open(t)
	for deadline := time.Now().Add(30 * time.Second); db.Ping() != nil; {
		if time.Now().After(deadline) {
			t.Fatal("PostgreSQL does not start")
		}
	}
	return d
}

// move is the app's part: it moves the guest's drafts and counts the moves.
func (d database) move(ctx context.Context, tx *sql.Tx, r guest.Receipt) error {
	if _, err := tx.ExecContext(
		ctx, "UPDATE drafts SET account = "+d.mark(1)+" WHERE guest = "+d.mark(2)+" AND account IS NULL", r.AccountID, r.GuestID); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "UPDATE moves SET n = n + 1 WHERE guest = "+d.mark(1), r.GuestID)
	return err
}

var cart = guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))

func manager(t testing.TB, store guest.Store,
	hook func(context.Context, guest.Receipt) error) *guest.Manager {
	m, err := guest.New(guest.Config{
		Store: store, Secrets: [][]byte{[]byte("a secret of the proofs, 32 bytes")},
		Data:    []guest.Kind{cart},
		OnClaim: hook, ClaimTimeout: 500 * time.Millisecond, Cookie: guest.Cookie{Insecure: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// newGuest fills a cart and a draft, and returns the guest's cookie and ID.
func (d database) newGuest(t testing.TB, m *guest.Manager, db *sql.DB) (cookie, id string) {
	r := httptest.NewRequest("POST", "/", nil)
	w := httptest.NewRecorder()
	r = m.Identify(w, r)
	if _, err := cart.Add(r.Context(), "tea", 1); err != nil {
		t.Fatal(err)
	}
	id = guest.FromContext(r.Context()).GuestID()
	for _, insert := range []string{"INSERT INTO drafts (guest, account) VALUES (" + d.mark(1) +
		", NULL)", "INSERT INTO moves (guest, n) VALUES (" + d.mark(1) + ", 0)"} {
		if _, err := db.Exec(insert, id); err != nil {
			t.Fatal(err)
		}
	}
	c := w.Result().Cookies()[0]
	return c.Name + "=" + c.Value, id
}

func claimAs(m *guest.Manager, cookie, account string) (guest.Receipt, error) {
	r := httptest.NewRequest("POST", "/login", nil)
	r.Header.Set("Cookie", cookie)
	return m.Claim(httptest.NewRecorder(), r, account)
}

func (d database) moves(t testing.TB, db *sql.DB, id, account string) int {
	t.Helper()
	var n int
	var owner string
	if err := db.QueryRow("SELECT n FROM moves WHERE guest = "+d.mark(1), id).Scan(&n); err != nil {
		t.Fatal(err)
	}
	if err := db.QueryRow("SELECT COALESCE(account, '') FROM drafts WHERE guest = "+d.mark(1),
		id).Scan(&owner); err != nil {
		t.Fatal(err)
	}
	if n > 0 && owner != account {
		t.Errorf("the draft is %q's, not %q's", owner, account)
	}
	return n
}

func databases(t *testing.T, f func(t *testing.T, d database)) {
	for name, open := range map[string]func(testing.TB) database{"SQLite": sqlite,
		"PostgreSQL": postgres} {
		t.Run(name, func(t *testing.T) {
			d := open(t)
			db := d.open(t)
			for _, schema := range []string{guestsql.Schema,
				"CREATE TABLE drafts (guest VARCHAR(64), account VARCHAR(64))",
				"CREATE TABLE moves (guest VARCHAR(64), n INT)"} {
				if _, err := db.Exec(schema); err != nil {
					t.Fatal(err)
				}
			}
			f(t, d)
		})
	}
}

// Whatever OnClaim does, the app's rows are moved exactly once and no login fails.
func TestOnClaimMovesRowsOnce(t *testing.T) {
	server := redistest.Single(t)
	databases(t, func(t *testing.T, d database) {
		db := d.open(t)
		type move = func(context.Context, *sql.Tx, guest.Receipt) error
		for name, broken := range map[string]func(n int, move move) move{
			"works": func(int, move) move { return d.move },
			"fails before": func(n int, m move) move {
				return func(ctx context.Context, tx *sql.Tx, r guest.Receipt) error {
					if n <= 2 {
						return errors.New("no")
					}
					return m(ctx, tx, r)
				}
			},
			"fails after": func(n int, m move) move {
				return func(ctx context.Context, tx *sql.Tx, r guest.Receipt) error {
					if err := m(ctx, tx, r); err != nil || n <= 2 {
						return errors.Join(err, errors.New("no"))
					}
					return nil
				}
			},
			"panics": func(n int, m move) move {
				return func(ctx context.Context, tx *sql.Tx, r guest.Receipt) error {
					err := m(ctx, tx, r)
					if n <= 2 {
						panic("a bug")
					}
					return err
				}
			},
			"hangs": func(n int, m move) move {
				return func(ctx context.Context, tx *sql.Tx, r guest.Receipt) error {
					err := m(ctx, tx, r)
					if n <= 2 {
						<-ctx.Done()
						return ctx.Err()
					}
					return err
				}
			},
		} {
			t.Run(name, func(t *testing.T) {
				var mu sync.Mutex
				calls := 0
				hook := guestsql.OnClaim(db, d.insert,
					func(ctx context.Context, tx *sql.Tx, r guest.Receipt) error {
						mu.Lock()
						calls++
						n := calls
						mu.Unlock()
						return broken(n, d.move)(ctx, tx, r)
					})
				m := manager(t, redisstore.New(server.Client(),
					redisstore.Config{Prefix: "t" + strings.ReplaceAll(name, " ", "") + d.driver}),
					hook)
				cookie, id := d.newGuest(t, m, db)
				for try := range 3 {
					receipt, err := claimAs(m, cookie, "ann")
					if !receipt.Claimed || (err != nil) != receipt.Pending {
						t.Errorf("try %d: %+v, %v", try, receipt, err)
					}
				}
				if receipt, err := claimAs(m, cookie, "ann"); err != nil || !receipt.Replayed {
					t.Errorf("%+v, %v", receipt, err)
				}
				if n := d.moves(t, db, id, "ann"); n != 1 {
					t.Errorf("the rows were moved %d times", n)
				}
			})
		}
	})
}

// A Redis that evicts records may forget that a guest was claimed, and another account claims it
// with a copy of its cookie. The first account keeps its rows. The receipt's ID does not help, as
// it is another claim.
func TestRowsStayWithTheFirstAccountThatClaimedThem(t *testing.T) {
	server := redistest.Single(t, "--maxmemory-policy", "volatile-ttl")
	rdb := server.Client()
	databases(t, func(t *testing.T, d database) {
		db := d.open(t)
		m := manager(t, redisstore.New(rdb, redisstore.Config{Prefix: "evicts" + d.driver}),
			guestsql.OnClaim(db, d.insert, d.move))
		cookie, id := d.newGuest(t, m, db)
		if receipt, err := claimAs(m, cookie, "ann"); err != nil || !receipt.Claimed {
			t.Fatalf("%+v, %v", receipt, err)
		}
		full := func(limit string) {
			t.Helper()
			if err := rdb.ConfigSet(t.Context(), "maxmemory", limit).Err(); err != nil {
				t.Fatal(err)
			}
		}
		full("1")
		// it still evicts
		for try := 0; !redis.HasErrorPrefix(rdb.Set(t.Context(), "other", "1", 0).Err(),
			"OOM"); try++ {
			if try == 1000 {
				t.Fatal("Redis is not full")
			}
		}
		full("0")
		if receipt, err := claimAs(m, cookie, "bob"); err != nil || !receipt.Claimed {
			t.Fatalf("bob's claim shows nothing, as Redis has not forgotten ann's: %+v, %v",
				receipt, err)
		}
		if n := d.moves(t, db, id, "ann"); n != 2 {
			t.Errorf("OnClaim was told of %d claims, want 2", n)
		}
	})
}

// The process is killed at a step of the claim; another one recovers.
func TestOnClaimAndKilledProcesses(t *testing.T) {
	if os.Getenv("PROOFS_KILL") != "" {
		victim(t)
		return
	}
	server := redistest.Single(t)
	databases(t, func(t *testing.T, d database) {
		db := d.open(t)
		for _, at := range []string{"before", "inside", "after", "1", "2", "3", "4", "5", "6",
			"7"} {
			t.Run(at, func(t *testing.T) {
				prefix := "kill" + at + d.driver
				m := manager(t, redisstore.New(server.Client(), redisstore.Config{Prefix: prefix}),
					guestsql.OnClaim(db, d.insert, d.move))
				cookie, id := d.newGuest(t, m, db)
				child := exec.Command(os.Args[0], "-test.run=^TestOnClaimAndKilledProcesses$")
				child.Env = append(os.Environ(), "PROOFS_KILL="+at, "PROOFS_REDIS="+server.Addr,
					"PROOFS_PREFIX="+prefix,
					"PROOFS_DRIVER="+d.driver, "PROOFS_SOURCE="+d.source, "PROOFS_COOKIE="+cookie)
				out, err := child.CombinedOutput()
				var exit *exec.ExitError
				if !errors.As(err, &exit) ||
					exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("the child was not killed: %v: %s", err, out)
				}
				if _, err := m.Recover(t.Context()); err != nil {
					t.Error(err)
				}
				// if the guest was not frozen, there was nothing to recover
				receipt, err := claimAs(m, cookie, "ann")
				if err != nil || !receipt.Claimed {
					t.Errorf("%+v, %v", receipt, err)
				}
				n, err := cart.Get(m.As(t.Context(), "ann"), "tea")
				if moved := d.moves(t, db, id, "ann"); moved != 1 || n != 1 || err != nil {
					t.Errorf("rows moved %d times, %d cups in the cart, %v", moved, n, err)
				}
			})
		}
	})
}

// victim claims and kills its own process.
func victim(t *testing.T) {
	at := os.Getenv("PROOFS_KILL")
	kill := func() {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	d := database{os.Getenv("PROOFS_DRIVER"), os.Getenv("PROOFS_SOURCE"), guestsql.PostgreSQL,
		func(n int) string {
			return "$" + strconv.Itoa(n)
		}}
	if d.driver == "sqlite" {
		d.insert, d.mark = guestsql.SQLite, func(int) string { return "?" }
	}
	move := guestsql.OnClaim(d.open(t), d.insert,
		func(ctx context.Context, tx *sql.Tx, r guest.Receipt) error {
			err := d.move(ctx, tx, r)
			if at == "inside" {
				kill()
			}
			return err
		})
	hook := func(ctx context.Context, r guest.Receipt) error {
		if at == "before" {
			kill()
		}
		err := move(ctx, r)
		if at == "after" {
			kill()
		}
		return err
	}
	step, _ := strconv.Atoi(at)
	store := &killer{Store: redisstore.New(
		redis.NewClient(&redis.Options{Addr: os.Getenv("PROOFS_REDIS"),
			ContextTimeoutEnabled: true}), redisstore.Config{Prefix: os.Getenv("PROOFS_PREFIX")}),
		left: step, kill: kill}
	receipt, err := claimAs(manager(t, store, hook), os.Getenv("PROOFS_COOKIE"), "ann")
	fmt.Println("survived:", receipt, err)
}

// killer ends the process after a number of calls, when the last one has been applied.
type killer struct {
	guest.Store
	left int
	kill func()
}

func (k *killer) Get(ctx context.Context, key string, names ...string) (guest.Fields, error) {
	fields, err := k.Store.Get(ctx, key, names...)
	k.count()
	return fields, err
}

func (k *killer) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	res, err := k.Store.Update(ctx, key, u)
	k.count()
	return res, err
}

func (k *killer) count() {
	if k.left--; k.left == 0 {
		k.kill()
	}
}
