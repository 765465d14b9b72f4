package proofs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// documentedNginx is the configuration of docs/caching.md.
func documentedNginx(t *testing.T) string {
	doc, err := os.ReadFile("../docs/caching.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(doc), "```nginx\n")
	conf, _, closed := strings.Cut(rest, "```\n")
	if !found || !closed {
		t.Fatal("docs/caching.md has no nginx configuration")
	}
	return conf
}

// startNginx runs the documented configuration in front of the origin, with these changes, and
// returns its address.
func startNginx(t *testing.T, origin string, changes ...string) string {
	path, err := exec.LookPath("nginx")
	if err != nil {
		path = "/usr/sbin/nginx" // which is not in every PATH
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal("nginx is not installed: apt-get install nginx-light, or run scripts/test, which does")
	}
	for range 20 { // another process may take the port before nginx does
		base, log, err := tryNginx(t, path, origin, changes)
		if err == nil {
			return base
		}
		if !bytes.Contains(log, []byte("in use")) {
			t.Fatalf("%v\n%s", err, log)
		}
	}
	t.Fatal("no free port for nginx")
	return ""
}

func tryNginx(t *testing.T, path, origin string,
	changes []string) (base string, log []byte, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	conf := documentedNginx(t)
	for _, change := range append([][2]string{
		{"/var/cache/nginx/shop", dir + "/cache"},
		{"server 127.0.0.1:8080;", "server " + strings.TrimPrefix(origin, "http://") + ";"},
		{"listen 80;", "listen " + addr + ";"},
	}, pairs(changes)...) {
		if !strings.Contains(conf, change[0]) {
			t.Fatalf("docs/caching.md: the nginx configuration has no %q", change[0])
		}
		conf = strings.ReplaceAll(conf, change[0], change[1])
	}
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // only root can read the test's directories
	}
	logFile := filepath.Join(dir, "error.log")
	conf = fmt.Sprintf(`%s
daemon off;
worker_processes 2;
pid %[2]s/pid;
error_log %[3]s;
events { worker_connections 1024; }
http {
access_log off;
client_body_temp_path %[2]s/body;
proxy_temp_path %[2]s/proxy;
fastcgi_temp_path %[2]s/fastcgi;
uwsgi_temp_path %[2]s/uwsgi;
scgi_temp_path %[2]s/scgi;
%[4]s}
`, user, dir, logFile, conf)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return "", nil, err
	}
	nginx := exec.Command(path, "-p", dir, "-c", file, "-e", logFile)
	nginx.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := nginx.Start(); err != nil {
		return "", nil, err
	}
	exited := make(chan struct{})
	go func() {
		nginx.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		nginx.Process.Signal(syscall.SIGTERM) // the master process ends its workers
		select {
		case <-exited:
		case <-time.After(10 * time.Second):
			syscall.Kill(-nginx.Process.Pid, syscall.SIGKILL)
			t.Error("nginx did not end when told to")
		}
	})
	for {
		select {
		case <-exited:
			log, _ = os.ReadFile(logFile)
			return "", log, fmt.Errorf("nginx ended: %v", nginx.ProcessState)
		default:
		}
		if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			c.Close()
			return "http://" + addr, nil, nil
		}
	}
}

func pairs(list []string) (pairs [][2]string) {
	for i := 0; i < len(list); i += 2 {
		pairs = append(pairs, [2]string{list[i], list[i+1]})
	}
	return pairs
}

// A thousand visitors through the documented nginx, and through one that caches all that is not
// forbidden.
func TestBehindNginx(t *testing.T) {
	for _, tt := range []struct {
		name    string
		changes []string
	}{
		{"as documented", nil},
		{"proxy_cache_valid any",
			[]string{"proxy_cache shop;", "proxy_cache shop; proxy_cache_valid any 1m;"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newCacheShop(t)
			s.servedFromCache(t, s.visitThrough(t, startNginx(t, s.URL, tt.changes...)))
		})
	}
}

// firstRequests sends n parallel first requests of one browser, each of which adds an item. It
// returns the browser with the cookies that they brought, which it sends back in this order.
func firstRequests(t *testing.T, base string, n int) *http.Client {
	var all sync.WaitGroup
	var mu sync.Mutex
	var cookies []*http.Cookie
	start := make(chan struct{})
	transport := &http.Transport{MaxIdleConnsPerHost: n}
	t.Cleanup(transport.CloseIdleConnections)
	for i := range n {
		all.Go(func() {
			<-start
			res, err := (&http.Client{Transport: transport}).PostForm(base+"/add",
				url.Values{"item": {fmt.Sprint("item", i)}})
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
			if len(res.Cookies()) != 1 {
				t.Errorf("%s, %d cookies, want 1", res.Status, len(res.Cookies()))
			}
			mu.Lock()
			defer mu.Unlock()
			cookies = append(cookies, res.Cookies()...)
		})
	}
	close(start)
	all.Wait()
	jar, _ := cookiejar.New(nil) // the error is always nil
	home, _ := url.Parse(base)
	jar.SetCookies(home, cookies)
	return &http.Client{Jar: jar, Transport: transport}
}

// nginx with its default settings accepts a response header of 4 KiB. A browser sends dozens of
// first requests at once over HTTP/2, and the responses that merge their guests must pass.
func TestParallelFirstRequestsBehindNginx(t *testing.T) {
	const n = 60
	base := startNginx(t, newCacheShop(t).URL)
	client := firstRequests(t, base, n)
	home, _ := url.Parse(base)
	var page cachedPage
	requests := 0
	for left := n; left > 1 || len(page.Cart) < n; left = len(client.Jar.Cookies(home)) {
		if requests++; requests > n {
			t.Fatalf("after %d requests: %d cookies, %d items in the cart, want 1 and %d", n, left,
				len(page.Cart), n)
		}
		res, err := client.Get(base + "/cart")
		if err != nil {
			t.Fatal(err)
		}
		err = json.NewDecoder(res.Body).Decode(&page)
		res.Body.Close()
		if res.StatusCode != http.StatusOK || err != nil {
			t.Fatalf("request %d: %s, %v", requests, res.Status, err)
		}
	}
	for item, amount := range page.Cart {
		if amount != 1 {
			t.Errorf("%s: %d, want 1", item, amount)
		}
	}
	t.Logf("%d requests until one cookie was left", requests)
}

// If the app's own headers are too large for nginx's buffers, docs/caching.md has the settings.
func TestNginxsBuffers(t *testing.T) {
	doc, err := os.ReadFile("../docs/caching.md")
	if err != nil {
		t.Fatal(err)
	}
	shop := newCacheShop(t)
	for _, tt := range []struct {
		name, setting string
		get           func(base string) (*http.Response, error)
		status        int // with the default settings
	}{
		{"an app with a large header of its own", "proxy_buffer_size 8k;",
			func(base string) (*http.Response, error) {
				return http.Get(base + "/large")
			}, http.StatusBadGateway},
		{"more first requests than a header has room for", "large_client_header_buffers 4 32k;",
			func(base string) (*http.Response, error) {
				return firstRequests(t, base, 70).Get(base + "/cart")
			}, http.StatusBadRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(string(doc), tt.setting) {
				t.Errorf("docs/caching.md does not say %q", tt.setting)
			}
			for setting, status := range map[string]int{"": tt.status, tt.setting: http.StatusOK} {
				res, err := tt.get(startNginx(t, shop.URL, "location / {", setting+"location / {"))
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if res.StatusCode != status {
					t.Errorf("with %q: %s, want %d", setting, res.Status, status)
				}
			}
		})
	}
}
