package main

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
)

const secret = "a secret of the tests, 32 bytes+"

// A device runs the app, a process for each command.
type device struct {
	*testing.T
	binary, dir, addr string
}

func (d *device) runs(want string, command ...string) {
	d.Helper()
	out, err := exec.Command(d.binary,
		append([]string{"-addr", d.addr, "-dir", d.dir}, command...)...).CombinedOutput()
	if got := strings.TrimSpace(string(out)); got != want || err != nil {
		d.Errorf("%v: %s, %v; want %s", command, got, err, want)
	}
}

func (d *device) token() string {
	token, _ := os.ReadFile(filepath.Join(d.dir, "token")) // none: ""
	return string(token)
}

// serveProcess starts a server, and returns its address.
func serveProcess(t *testing.T, binary, addr, secret string) (at string, stop func()) {
	t.Helper()
	server := exec.Command(binary, "-addr", addr, "-secret", secret, "serve")
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		server.Process.Kill()
		server.Wait()
	})
	t.Cleanup(stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	at, ok := strings.CutPrefix(strings.TrimSpace(line), "serving on ")
	if !ok {
		t.Fatalf("%q, %v", line, err)
	}
	return at, stop
}

func TestProcesses(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "native")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	addr, stop := serveProcess(t, binary, "127.0.0.1:0", secret)
	phone := &device{t, binary, t.TempDir(), addr}
	tablet := &device{t, binary, t.TempDir(), addr}

	phone.runs("1", "add", "tea")
	first := phone.token()
	phone.runs("2", "add", "tea") // after a restart
	phone.runs("2", "show", "tea")
	tablet.runs("0", "show", "tea")
	guests := phone.token()
	if first == "" || guests == "" {
		t.Error("no token")
	}

	phone.runs("hello ann", "login", "ann")
	if phone.token() != "" {
		t.Error("the token of a claimed guest is kept")
	}
	phone.runs("2", "show", "tea")
	phone.runs("3", "add", "tea")
	tablet.runs("hello ann", "login", "ann")
	tablet.runs("3", "show", "tea")

	phone.runs("", "logout")
	phone.runs("0", "show", "tea")
	phone.runs("1", "add", "tea")
	if phone.token() == "" {
		t.Error("no token for the next guest")
	}

	// The old token, from a backup, has no effect and is replaced.
	for _, old := range []string{first, guests} {
		if err := os.WriteFile(filepath.Join(phone.dir, "token"), []byte(old), 0o600); err != nil {
			t.Fatal(err)
		}
		phone.runs("0", "show", "tea")
		phone.runs("1", "add", "tea")
		if now := phone.token(); now == "" || now == old {
			t.Error("the token of a claimed guest is not replaced")
		}
		phone.runs("1", "show", "tea")
	}

	// A server that does not have the secret any more.
	stop()
	addr, _ = serveProcess(t, binary, addr, "another secret of the tests, 32 bytes")
	if addr != phone.addr {
		t.Fatalf("the server is at %s", addr)
	}
	rejected := phone.token()
	phone.runs("1", "add", "tea")
	if now := phone.token(); now == "" || now == rejected {
		t.Error("a token that does not verify is not replaced")
	}
	phone.runs("2", "add", "tea")
}

// direct lets a client call a handler without a network.
type direct struct{ http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w.Result(), nil
}

func newClient(t *testing.T, app http.Handler) *client {
	return &client{server: "http://shop.test", file: filepath.Join(t.TempDir(), "token"),
		http: http.Client{Transport: direct{app}}}
}

func (c *client) says(t *testing.T, method, path, want string) {
	t.Helper()
	if status, body, err := c.call(method, path); status != 200 || body != want || err != nil {
		t.Errorf("%s %s: %d %s, %v; want %s", method, path, status, body, err, want)
	}
}

func newApp(t *testing.T, change func(*guest.Config)) http.Handler {
	t.Helper()
	c := config(secret)
	c.Logger = slog.New(slog.DiscardHandler)
	if change != nil {
		change(&c)
	}
	guests, err := guest.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return app(guests)
}

// A phone that was not used for longer than the guest's life starts a new guest.
func TestAnExpiredTokenIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, newApp(t, nil))
		c.says(t, "POST", "/cart/tea", "1")
		c.says(t, "POST", "/cart/tea", "2")
		time.Sleep(20 * 24 * time.Hour)
		c.says(t, "POST", "/cart/tea", "3")
		time.Sleep(20 * 24 * time.Hour) // 30 days since the last use, not since the creation
		c.says(t, "POST", "/cart/tea", "4")
		old := c.load()
		time.Sleep(31 * 24 * time.Hour)
		c.says(t, "POST", "/cart/tea", "1")
		if now := c.load(); now == "" || now == old {
			t.Error("the token is not replaced")
		}
		c.says(t, "POST", "/cart/tea", "2")
	})
}

// An app sends its first calls all at once: the client sends one of them first, and all are one
// guest's.
func TestParallelFirstCalls(t *testing.T) {
	c := newClient(t, newApp(t, nil))
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if status, body, err := c.call("POST", "/cart/tea"); status != 200 || err != nil {
				t.Errorf("%d %s, %v", status, body, err)
			}
		})
	}
	wg.Wait()
	c.says(t, "GET", "/cart/tea", "16")
}

// If a client does not do that, each call creates a guest, the client keeps one of them, and the
// other one's data are out of its reach.
func TestParallelFirstCallsOfANaiveClient(t *testing.T) {
	app := newApp(t, nil)
	ask := func(method, token string) (string, string) {
		r := httptest.NewRequest(method, "/cart/tea", nil)
		r.Header.Set("Guest-Token", token)
		w := httptest.NewRecorder()
		app.ServeHTTP(w, r)
		return strings.TrimSpace(w.Body.String()), w.Header().Get("Guest-Token")
	}
	_, one := ask("POST", "")
	_, other := ask("POST", "")
	if one == "" || other == "" || one == other {
		t.Fatal("not two tokens")
	}
	for range 2 {
		for _, token := range []string{one, other} {
			if n, _ := ask("GET", token); n != "1" {
				t.Errorf("the cart holds %s; if two tokens are one guest's, say so in docs/frameworks.md", n)
			}
		}
	}
}

// While the server cannot finish a claim, the token stays with the app.
func TestAPendingClaimKeepsTheToken(t *testing.T) {
	var fails = true
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, newApp(t, func(config *guest.Config) {
			config.OnClaim = func(context.Context, guest.Receipt) error {
				if fails {
					return errors.New("the database is away")
				}
				return nil
			}
		}))
		c.says(t, "POST", "/cart/tea", "1")
		c.user = "ann"
		if err := c.claim(); err == nil || c.load() == "" {
			t.Errorf("%v, token %q", err, c.load())
		}
		fails = false
		if err := c.claim(); err != nil || c.load() != "" {
			t.Errorf("%v, token %q", err, c.load())
		}
		c.says(t, "GET", "/cart/tea", "1")
	})
}

// If a member's app still sends the token of a claimed guest, from a backup, the first response
// tells it to discard the token.
func TestATokenThatIsKeptAfterTheClaim(t *testing.T) {
	calls := 0
	c := newClient(t, newApp(t, func(config *guest.Config) {
		config.Hooks.StoreCall = func(context.Context, string, time.Duration, error) { calls++ }
	}))
	c.says(t, "POST", "/cart/tea", "1")
	token := c.load()
	c.user = "ann"
	if err := c.claim(); err != nil {
		t.Fatal(err)
	}
	if err := c.save(token); err != nil {
		t.Fatal(err)
	}
	c.says(t, "POST", "/cart/tea", "2")
	if c.load() != "" {
		t.Error("the old token is kept")
	}
	calls = 0
	c.says(t, "POST", "/cart/tea", "3")
	if calls != 1 {
		t.Errorf("%d round trips, want 1", calls)
	}
}
