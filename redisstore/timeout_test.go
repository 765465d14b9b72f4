package redisstore_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest/redisstore"
)

// Calls share timers, and yet each ends by its own deadline, hardly later.
func TestTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const length, many = 50 * time.Millisecond, 1000
		limit := redisstore.Timeouts(length, true)
		timers := map[<-chan struct{}]bool{}
		var wg sync.WaitGroup
		for range many {
			begun := time.Now()
			ctx, cancel := limit(t.Context())
			if end, ok := ctx.Deadline(); !ok || end.Sub(begun) != length {
				t.Fatalf("a deadline after %v", end.Sub(begun))
			}
			if ctx.Err() != nil {
				t.Fatal(ctx.Err())
			}
			timers[ctx.Done()] = true
			wg.Go(func() {
				defer cancel()
				<-ctx.Done()
				if took := time.Since(begun); took < length || took > length+redisstore.Late {
					t.Errorf("done after %v", took)
				}
				if ctx.Err() != context.DeadlineExceeded {
					t.Errorf("done with %v", ctx.Err())
				}
			})
			time.Sleep(rand.N(redisstore.Late / 2))
		}
		wg.Wait()
		if n := len(timers); n < many/8 || n > many/2 {
			t.Errorf("%d timers", n)
		}
	})
}

// A caller that goes away ends what the socket does not, and its own deadline ends everything.
func TestTimeoutOfTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, leave := context.WithCancel(t.Context())
		ctx, cancel := redisstore.Timeouts(time.Hour, false)(parent)
		defer cancel()
		leave()
		<-ctx.Done()
		if ctx.Err() != context.Canceled {
			t.Error(ctx.Err())
		}
		for _, sockets := range []bool{true, false} {
			const soon = time.Second
			begun := time.Now()
			parent, leave := context.WithTimeout(t.Context(), soon)
			defer leave()
			ctx, cancel := redisstore.Timeouts(time.Hour, sockets)(parent)
			defer cancel()
			if end, ok := ctx.Deadline(); !ok || end.Sub(begun) != soon {
				t.Errorf("a deadline after %v", end.Sub(begun))
			}
			<-ctx.Done()
			if took := time.Since(begun); took != soon || ctx.Err() != context.DeadlineExceeded {
				t.Errorf("after %v: %v", took, ctx.Err())
			}
		}
	})
}
