package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest/internal/redistest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if flag.NArg() > 0 { // a process that load has started
		main()
		return
	}
	os.Exit(m.Run())
}

// Each addition that the visitors count is in Redis, and no other.
func TestLoad(t *testing.T) {
	server := redistest.Single(t)
	a, err := load(limit, server.Addr, 5, Add, 40, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if a.All == 0 || a.Failed != 0 || a.Rate <= 0 || a.P50 <= 0 || a.P99 < a.P50 {
		t.Errorf("%+v", a)
	}
	rdb := server.Client()
	visitors, additions := 0, 0
	keys := rdb.Scan(t.Context(), 0, "limit:*", 100).Iterator()
	for keys.Next(t.Context()) {
		n, err := rdb.HGet(t.Context(), keys.Val(), "cart/tea").Int()
		if err != nil {
			t.Error(err)
		}
		visitors, additions = visitors+1, additions+n
	}
	if visitors != 40 || additions != a.All {
		t.Errorf("%d visitors made %d additions, and counted %d", visitors, additions, a.All)
	}
}

// Visitors count every answer, and as failed: an error's status, an amount that did not grow, a
// connection that is closed.
func TestVisitorsCountFailures(t *testing.T) {
	var answered, failed atomic.Int64
	server := httptest.NewServer(routes{
		First: ok,
		None:  ok,
		Add: func(w http.ResponseWriter, r *http.Request) {
			n := answered.Add(1)
			if n%2 == 0 {
				failed.Add(1)
			}
			switch n % 6 {
			case 0:
				http.Error(w, "no", http.StatusServiceUnavailable)
			case 2:
				fmt.Fprint(w, 0)
			case 4:
				panic(http.ErrAbortHandler)
			default:
				fmt.Fprint(w, n)
			}
		},
	})
	defer server.Close()
	a, err := visitFor(strings.TrimPrefix(server.URL, "http://"), Add, 20, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if a.All == 0 || int64(a.All) != answered.Load() || int64(a.Failed) != failed.Load() {
		t.Errorf("%d answers, of which %d failed; counted %+v", answered.Load(), failed.Load(), a)
	}
}

// All that is sent at once arrives at once and in order, later by the latency.
func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const latency = 50 * time.Millisecond
		redis, in := net.Pipe()
		out, client := net.Pipe()
		var count atomic.Int64
		go pipe(out, in, &count, latency)
		start := time.Now()
		for i := range 100 {
			fmt.Fprintf(redis, "%2d", i)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("sending took %v", took)
		}
		buf := make([]byte, 2)
		for i := range 100 {
			client.Read(buf)
			if took := time.Since(start); string(buf) != fmt.Sprintf("%2d", i) || took != latency {
				t.Fatalf("chunk %d: %q after %v", i, buf, took)
			}
		}
		redis.Close()
		if n, err := client.Read(buf); n != 0 || err == nil || count.Load() != 200 {
			t.Errorf("at the end %d bytes, %v; counted %d", n, err, count.Load())
		}
	})
}
