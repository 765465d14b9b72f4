package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

var (
	binary  string // the built command
	single  *redistest.Server
	cluster *redistest.ClusterServers
)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "guestctl")
	if err == nil {
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "guestctl")
		var out []byte
		if out, err = exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
	}
	if err == nil {
		if single, err = redistest.Start(dir); err == nil {
			defer single.Close()
		}
	}
	if err == nil {
		if cluster, err = redistest.StartCluster(dir); err == nil {
			defer cluster.Close()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

var (
	Theme  = guest.NewValue("theme", guest.PreferAccount[string])
	Cart   = guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))
	Wishes = guest.NewMap("wishes", guest.EachItem(guest.PreferAccount[string]))
	Email  = guest.NewValue("email", guest.PreferGuest[string]).Encrypted()
)

// The app's data, which no command prints unless asked to.
var private = []string{"oolong", "midnight-blue", "gift for bob", "ann@home.example"}

// deployment is an app, its Redis, and how its operator calls guestctl.
type deployment struct {
	t      *testing.T
	rdb    redis.UniversalClient
	store  *crashing
	guests *guest.Manager
	url    string
	secret []byte
	onDuty map[string]string // the operator's environment
}

// crashing is a store whose app stops before an update for which die returns true.
type crashing struct {
	guest.Store
	mu  sync.Mutex
	die func(key string, u guest.Update) bool
}

func (c *crashing) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	c.mu.Lock()
	die := c.die
	c.mu.Unlock()
	if die != nil && die(key, u) {
		return guest.Result{}, errors.New("the process died")
	}
	return c.Store.Update(ctx, key, u)
}

func (c *crashing) dieAt(die func(key string, u guest.Update) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.die = die
}

func beforeMerge(_ string, u guest.Update) bool { return u.Set[".c"] != "" }

// onEach runs a test on a single server and on a Cluster.
func onEach(t *testing.T, test func(t *testing.T, d *deployment)) {
	t.Run("single", func(t *testing.T) {
		test(t, deploy(t, single.Client(), "redis://"+single.Addr))
	})
	t.Run("cluster", func(t *testing.T) {
		test(t, deploy(t, cluster.Client(), "redis+cluster://"+cluster.Addrs()[0]))
	})
}

func deploy(t *testing.T, rdb redis.UniversalClient, url string) *deployment {
	return deployAs(t, "t-"+rand.Text()[:8], rdb, url)
}

func deployAs(t *testing.T, prefix string, rdb redis.UniversalClient, url string) *deployment {
	d := &deployment{t: t, rdb: rdb, secret: make([]byte, 32)}
	rand.Read(d.secret)
	d.store = &crashing{
		Store: redisstore.New(
			rdb, redisstore.Config{Prefix: prefix, MinTimeout: timeout, MaxTimeout: timeout})}
	d.onDuty = map[string]string{"GUEST_REDIS": url, "GUEST_PREFIX": prefix,
		"GUEST_SECRETS": base64.StdEncoding.EncodeToString(d.secret)}
	var err error
	d.guests, err = guest.New(guest.Config{
		Store: d.store, Secrets: [][]byte{d.secret}, Data: []guest.Kind{Theme, Cart, Wishes, Email},
		Cookie: guest.Cookie{Insecure: true}, Logger: slog.New(slog.DiscardHandler),
		ClaimTimeout: timeout,
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add/{sku}", func(w http.ResponseWriter, r *http.Request) {
		if _, err := Cart.Add(r.Context(), r.PathValue("sku"), 1); err != nil {
			http.Error(w, err.Error(), 500)
		}
	})
	mux.HandleFunc("POST /login/{user}", func(w http.ResponseWriter, r *http.Request) {
		receipt, _ := d.guests.Claim(w, r, r.PathValue("user"))
		json.NewEncoder(w).Encode(receipt)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, guest.FromContext(r.Context()).GuestID())
	})
	server := httptest.NewServer(d.guests.Middleware(mux))
	t.Cleanup(server.Close)
	d.url = server.URL
	return d
}

// visit lets a new visitor put things into the cart, and returns the guest's ID and its browser.
func (d *deployment) visit(skus ...string) (id string, b *http.Client) {
	d.t.Helper()
	jar, _ := cookiejar.New(nil)
	b = &http.Client{Jar: jar}
	for _, sku := range skus {
		d.post(b, "/add/"+sku)
	}
	res, err := b.Get(d.url + "/")
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || len(body) != 22 {
		d.t.Fatalf("no guest: %q, %v", body, err)
	}
	return string(body), b
}

func (d *deployment) post(b *http.Client, path string) string {
	d.t.Helper()
	res, err := b.Post(d.url+path, "", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != 200 {
		d.t.Fatalf("POST %s: %s: %s", path, res.Status, body)
	}
	return string(body)
}

// cookies is the Cookie header that the browser sends.
func (d *deployment) cookies(b *http.Client) string {
	r, _ := http.NewRequest("GET", d.url, nil)
	var pairs []string
	for _, c := range b.Jar.Cookies(r.URL) {
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	return strings.Join(pairs, "; ")
}

func (d *deployment) account(id string) map[string]int64 {
	d.t.Helper()
	cart, err := Cart.All(d.guests.As(d.t.Context(), id))
	if err != nil {
		d.t.Fatal(err)
	}
	return cart
}

// An answer of the command.
type answer struct {
	out, err string
	code     int
}

// race is what scripts/test tells the race detector, the one thing that the command's environment
// has from ours.
var race = "GORACE=" + os.Getenv("GORACE")

// ctl runs the command. No secret is ever printed, nor data unless asked for.
func (d *deployment) ctl(input string, args ...string) answer {
	d.t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Env = []string{race}
	for k, v := range d.onDuty {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var out, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &stderr
	err := cmd.Run()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		d.t.Fatal(err)
	}
	a := answer{out.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	said := a.out + a.err
	if secret := d.onDuty["GUEST_SECRETS"]; secret != "" && strings.Contains(said, secret) {
		d.t.Errorf("guestctl %q prints the secret:\n%s", args, said)
	}
	if !slices.Contains(args, "--data") && !slices.Contains(args, "export") {
		for _, p := range private {
			if strings.Contains(said, p) {
				d.t.Errorf("guestctl %q prints data without being asked, %q:\n%s", args, p, said)
			}
		}
	}
	return a
}

// want runs the command and compares the exit code.
func (d *deployment) want(code int, input string, args ...string) answer {
	d.t.Helper()
	a := d.ctl(input, args...)
	if a.code != code {
		d.t.Errorf("guestctl %q: exit %d, want %d\n%s%s", args, a.code, code, a.out, a.err)
	}
	if code == 0 && a.err != "" && !slices.Contains(args, "keygen") &&
		!slices.Contains(args, "erase") {
		d.t.Errorf("guestctl %q says %q", args, a.err)
	}
	return a
}

// decode is want with --json.
func decode[T any](d *deployment, code int, input string, args ...string) (v T) {
	d.t.Helper()
	a := d.want(code, input, append(args, "--json")...)
	if err := json.Unmarshal([]byte(a.out), &v); err != nil {
		d.t.Errorf("guestctl %q --json: %v: %s%s", args, err, a.out, a.err)
	}
	return v
}

// table compares what the table says with lines, each a row's cells.
func table(t *testing.T, a answer, lines ...string) {
	t.Helper()
	var rows []string
	for line := range strings.Lines(a.out) {
		rows = append(rows, strings.Join(strings.Fields(line), " "))
	}
	for _, want := range lines {
		if !slices.ContainsFunc(rows, func(r string) bool {
			return r == want || strings.HasSuffix(want, "…") &&
				strings.HasPrefix(r, strings.TrimSuffix(want, "…"))
		}) {
			t.Errorf("no row %q in\n%s", want, a.out)
		}
	}
}

// snapshot is all that is stored, but for the time that is left of it.
func (d *deployment) snapshot() map[string]string {
	d.t.Helper()
	all := map[string]string{}
	for key, err := range d.store.Keys(d.t.Context(), "") {
		if err != nil {
			d.t.Fatal(err)
		}
		fields, err := d.rdb.HGetAll(d.t.Context(), d.onDuty["GUEST_PREFIX"]+":"+key).Result()
		if err != nil {
			d.t.Fatal(err)
		}
		all[key] = fmt.Sprint(fields)
	}
	return all
}
