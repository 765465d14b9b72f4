// Package redistest runs real Redis servers for tests: each on free loopback ports, in a directory
// of its own, without persistence unless a test asks for it.
package redistest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// startTimeout is how long a server or a cluster may take to start. They need a fraction of it.
const startTimeout = 20 * time.Second

// ErrNotInstalled means that there is no redis-server in the PATH.
var ErrNotInstalled = errors.New(
	"redistest: redis-server is not installed (run apt-get install redis-server, or scripts/test, which does so)")

// Server is one redis-server process.
type Server struct {
	Addr string // host:port

	dir    string
	first  []string // arguments before all others
	args   []string
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process of cmd has ended
	log    *logBuffer

	mu      sync.Mutex
	clients []interface{ Close() error }
}

// Single starts a server for this test and ends it with the test. args are options of redis-server,
// for example "--maxmemory", "4mb"; they may switch persistence on.
func Single(t testing.TB, args ...string) *Server {
	t.Helper()
	s, err := Start(t.TempDir(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// Start starts a server that keeps its files in dir, which must exist. It is for TestMain; tests
// use [Single]. The caller closes the server.
func Start(dir string, args ...string) (*Server, error) { return start(dir, nil, args...) }

func start(dir string, first []string, args ...string) (*Server, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, ErrNotInstalled
	}
	var last error
	for range 20 { // another process may take a port between our check and the server's bind
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		s := &Server{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), dir: dir,
			first: first, args: args}
		if last = s.run(); last == nil {
			return s, nil
		}
		if !bytes.Contains(s.log.Bytes(), []byte("in use")) {
			break
		}
	}
	return nil, last
}

// freePort finds a port for a server and, 10000 above it, for its cluster bus. Both lie below the
// range from which the kernel takes the ports of outgoing connections.
func freePort() (int, error) {
	for range 200 {
		port := 10000 + rand.IntN(12000)
		if free(port) && free(port+10000) {
			return port, nil
		}
	}
	return 0, errors.New("redistest: no free port between 10000 and 32000")
}

func free(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// run starts the process and waits until it answers.
func (s *Server) run() error {
	_, port, _ := net.SplitHostPort(s.Addr)
	args := slices.Concat(s.first, []string{"--port", port, "--bind", "127.0.0.1", "--dir", s.dir,
		"--save", "", "--appendonly", "no"}, s.args)
	s.log = new(logBuffer)
	s.cmd = exec.Command("redis-server", args...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = dieWithParent()
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		cmd.Wait()
		close(exited)
	}(s.cmd, s.exited)

	rdb := redis.NewClient(
		&redis.Options{Addr: s.Addr, DialerRetries: 1, MaxRetries: -1, DisableIdentity: true,
			DialTimeout: time.Second, ReadTimeout: time.Second})
	defer rdb.Close()
	err := poll(func() error {
		select {
		case <-s.exited:
			return stop{fmt.Errorf("redistest: redis-server ended:\n%s", s.log.Bytes())}
		default:
		}
		// the client would log each refused connection
		c, err := net.DialTimeout("tcp", s.Addr, time.Second)
		if err != nil {
			return err
		}
		c.Close()
		info, err := rdb.Info(context.Background(), "server").Result()
		// Another server on this port would answer as well.
		if err == nil && !bytes.Contains([]byte(info),
			fmt.Appendf(nil, "process_id:%d\r", s.cmd.Process.Pid)) {
			err = errors.New("redistest: the port is in use by another server")
		}
		var refused redis.Error
		if errors.As(err, &refused) { // it answers: it is loading, or requires a password
			return nil
		}
		return err
	})
	if err != nil {
		s.Kill()
	}
	return err
}

// Client returns a client with ContextTimeoutEnabled; Close closes it.
func (s *Server) Client() *redis.Client {
	rdb := redis.NewClient(&redis.Options{Addr: s.Addr, ContextTimeoutEnabled: true})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients = append(s.clients, rdb)
	return rdb
}

// Close ends the server and closes its clients.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		c.Close()
	}
	s.clients = nil
	s.Kill()
}

// Kill ends the process at once, like a crash.
func (s *Server) Kill() {
	s.cmd.Process.Kill()
	<-s.exited
}

// Restart kills the server and starts it again on the same port. Its data are gone unless its
// options persist them.
func (s *Server) Restart() error {
	s.Kill()
	return s.run()
}

// Stop freezes the process: the kernel still accepts connections and bytes, but there is no reply.
func (s *Server) Stop() { s.cmd.Process.Signal(syscall.SIGSTOP) }

// Cont continues a frozen process.
func (s *Server) Cont() { s.cmd.Process.Signal(syscall.SIGCONT) }

// stop is an error that ends a poll early.
type stop struct{ error }

// poll calls f until it succeeds, at most for startTimeout.
func poll(f func() error) error {
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(startTimeout); ; <-tick.C {
		err := f()
		var s stop
		if err == nil || errors.As(err, &s) || time.Now().After(deadline) {
			return err
		}
	}
}

// logBuffer collects what a server prints.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.buf.Bytes())
}
