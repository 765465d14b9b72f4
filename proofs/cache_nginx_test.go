package proofs

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// startNginx runs the documented configuration in front of the origin, with these changes, and returns its address.
func startNginx(t *testing.T, origin string, changes ...string) string {
	path, err := exec.LookPath("nginx")
	if err != nil {
		path = "/usr/sbin/nginx" // which is not in everybody's PATH
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

func tryNginx(t *testing.T, path, origin string, changes []string) (base string, log []byte, err error) {
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
		user = "user root;" // the test's directories are root's alone
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
		nginx.Process.Signal(syscall.SIGTERM) // the master ends its workers
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

// A thousand visitors through the documented nginx, and through one that caches whatever is not forbidden.
func TestBehindNginx(t *testing.T) {
	for _, tt := range []struct {
		name    string
		changes []string
	}{
		{"as documented", nil},
		{"proxy_cache_valid any", []string{"proxy_cache shop;", "proxy_cache shop; proxy_cache_valid any 1m;"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newCacheShop(t)
			s.servedFromCache(t, s.visitThrough(t, startNginx(t, s.URL, tt.changes...)))
		})
	}
}
