package main

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/guestkit/guest/internal/redistest"
)

// A wire is a connection to a Redis on which everything is counted, for any client. Replies arrive
// later by its latency, as from a Redis that is far away.
type wire struct {
	redistest.Faults
	listener net.Listener
	conns    sync.Map
	out, in  atomic.Int64 // bytes, counted before they are passed on
}

func newWire(redisAddr string, latency time.Duration) (*wire, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &wire{listener: l}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := w.Dial(context.Background(), "tcp", redisAddr)
			if err != nil {
				client.Close()
				continue
			}
			w.conns.Store(client, server)
			go pipe(server, client, &w.out, 0)
			go pipe(client, server, &w.in, latency)
		}
	}()
	return w, nil
}

// pipe passes on each chunk by itself, later by the latency. The next one is read meanwhile, so
// that latency does not limit how much passes.
func pipe(to, from net.Conn, count *atomic.Int64, latency time.Duration) {
	type chunk struct {
		due  time.Time
		data []byte
	}
	chunks := make(chan chunk, 1000)
	go func() {
		defer close(chunks)
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			count.Add(int64(n))
			chunks <- chunk{time.Now().Add(latency), bytes.Clone(buf[:n])}
		}
	}()
	defer to.Close()
	defer from.Close()
	for c := range chunks {
		time.Sleep(time.Until(c.due))
		if _, err := to.Write(c.data); err != nil {
			from.Close() // which ends the loop
		}
	}
}

func (w *wire) addr() string { return w.listener.Addr().String() }

func (w *wire) Close() {
	w.listener.Close()
	w.conns.Range(func(client, server any) bool {
		client.(net.Conn).Close()
		server.(net.Conn).Close()
		return true
	})
}

// A traffic is what one request sends to Redis and gets back.
type traffic struct{ trips, commands, out, in float64 }

// traffic counts what do sends, per call of n.
func (w *wire) traffic(n int, do func(i int) error) (traffic, error) {
	before, out, in := w.Counts(), w.out.Load(), w.in.Load()
	for i := range n {
		if err := do(i); err != nil {
			return traffic{}, err
		}
	}
	after := w.Counts()
	per := func(a, b int64) float64 { return float64(b-a) / float64(n) }
	return traffic{per(before.RoundTrips, after.RoundTrips), per(before.Commands, after.Commands),
		per(out, w.out.Load()), per(in, w.in.Load())}, nil
}
