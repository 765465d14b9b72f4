package redisstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	ms    = time.Millisecond
	least = 250 * ms
	most  = 2 * time.Second
)

func TestEstimator(t *testing.T) {
	repeat := func(n int, d time.Duration) (all []time.Duration) {
		for range n {
			all = append(all, d)
		}
		return all
	}
	for _, row := range []struct {
		name    string
		samples []time.Duration
		want    time.Duration // rounded to milliseconds
	}{
		{"before the first answer", nil, most},
		{"near by", repeat(50, ms/5), 250 * ms},
		{"20 ms away", repeat(50, 20*ms), 270 * ms},
		{"50 ms away: a new connection takes seven times as long", repeat(50, 50*ms), 350 * ms},
		{"far away", repeat(50, 200*ms), 1400 * ms},
		{"too far away", repeat(50, 300*ms), most},
		{"the first answer is slow", repeat(1, 100*ms), 700 * ms},
		{"one answer of many is slow", append(repeat(50, ms/5), 160*ms), 270 * ms},
		{"then it is forgotten", append(append(repeat(50, ms/5), 160*ms), repeat(60, ms/5)...),
			250 * ms},
	} {
		t.Run(row.name, func(t *testing.T) {
			e := estimator{least: least, most: most}
			for _, d := range row.samples {
				e.sample(d)
			}
			if got := e.timeout().Round(ms); got != row.want {
				t.Errorf("%v, want %v", got, row.want)
			}
		})
	}
}

func TestEstimator_Huge(t *testing.T) {
	const huge = time.Duration(math.MaxInt64)
	e := estimator{least: huge, most: huge}
	e.sample(ms)
	if got := e.timeout(); got != huge {
		t.Errorf("with a least time of %v: %v", huge, got)
	}
}

// Answers that vary, as they do on a busy server or a distant one, are waited for.
func TestEstimator_Jitter(t *testing.T) {
	for _, row := range []struct{ from, to time.Duration }{
		{0, 10 * ms}, {0, 100 * ms}, {0, 250 * ms}, {5 * ms, 155 * ms}, {50 * ms, 350 * ms},
		{300 * ms, 600 * ms}, {300 * ms, 900 * ms},
	} {
		t.Run(fmt.Sprint(row.from, " to ", row.to), func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			e := estimator{least: least, most: most}
			late := 0
			for range 100_000 {
				d := row.from + time.Duration(random.Int64N(int64(row.to-row.from)))
				if d > e.timeout() {
					late++
					continue
				}
				e.sample(d)
			}
			if late > 0 {
				t.Errorf("of 100,000 calls %d were given up", late)
			}
		})
	}
}

// The same silence is noticed from any state that is healthy.
func TestEstimator_NoticesSilence(t *testing.T) {
	for _, answer := range []time.Duration{ms / 10, ms, 5 * ms, 50 * ms} {
		e := estimator{least: least, most: most}
		for range 1000 {
			e.sample(answer)
		}
		if got := e.timeout(); got < least || got > 350*ms {
			t.Errorf("with answers after %v: %v", answer, got)
		}
	}
}

func TestBreaker(t *testing.T) {
	var b breaker
	at := func(d time.Duration) time.Time { return time.Unix(1e9, 0).Add(d) }
	const timeout = 300 * ms
	for _, step := range []struct {
		at     time.Duration
		answer bool
		open   bool // afterwards
	}{
		{0, true, false},
		{224 * ms, false, false}, // others were answered meanwhile
		{225 * ms, false, true},
		{226 * ms, false, true},
		{227 * ms, true, false},
		{228 * ms, false, false},
		{10 * time.Second, false, true},
	} {
		if step.answer {
			b.answer(at(step.at))
		} else {
			b.noAnswer(at(step.at), timeout, false)
		}
		if b.open != step.open {
			t.Errorf("after %v: open %t, want %t", step.at, b.open, step.open)
		}
	}
	var fresh breaker
	if fresh.noAnswer(at(0), timeout, false); !fresh.open {
		t.Error("a server that never answered keeps the breaker closed")
	}
}

// A server answers each call after a while, unless it is silent.
type server struct {
	delay  func() time.Duration
	silent atomic.Bool

	under, mostUnder, pings atomic.Int64
}

func (s *server) call(ctx context.Context) error {
	for n := s.under.Add(1); ; {
		most := s.mostUnder.Load()
		if n <= most || s.mostUnder.CompareAndSwap(most, n) {
			break
		}
	}
	defer s.under.Add(-1)
	return s.after(ctx, s.delay())
}

func (s *server) ping(ctx context.Context) error {
	s.pings.Add(1)
	return s.after(ctx, ms)
}

func (s *server) after(ctx context.Context, d time.Duration) error {
	answer := time.NewTimer(d)
	defer answer.Stop()
	select {
	case <-answer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.silent.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func always(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

var background = context.Background()

// A crowd that is far larger than the number of connections waits in the queue, and all are
// answered.
func TestQueue_Moves(t *testing.T) {
	for _, answer := range []time.Duration{5 * ms, 50 * ms, 300 * ms} {
		t.Run(answer.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &server{delay: always(answer)}
				const turns = 10
				q := newQueue(turns, least, most, srv.ping)
				crowd := int(turns * most / answer) // the last has waited for nearly 2 s
				var wg sync.WaitGroup
				for range crowd {
					wg.Go(func() {
						if err := q.call(background, srv.call); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				if n := srv.mostUnder.Load(); n != turns {
					t.Errorf("%d calls were under way at once, want %d", n, turns)
				}
			})
		})
	}
}

func TestQueue_TooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{delay: always(1500 * ms)}
		q := newQueue(1, least, most, srv.ping)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if err := q.call(background, srv.call); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		start := time.Now()
		err := q.call(background, srv.call)
		if took := time.Since(start); took != most || !errors.Is(err, context.DeadlineExceeded) ||
			!strings.Contains(err.Error(), "PoolSize") {
			t.Errorf("after %v: %v", took, err)
		}
		wg.Wait()
		if srv.pings.Load() > 0 {
			t.Error("the breaker opened")
		}
	})
}

// Many come after few, so that most calls have to connect first.
func TestQueue_Connects(t *testing.T) {
	for _, answer := range []time.Duration{ms, 50 * ms, 100 * ms, 250 * ms} {
		t.Run(answer.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &server{delay: always(answer)}
				q := newQueue(20, least, most, srv.ping)
				for range 100 {
					q.call(background, srv.call)
				}
				// TCP, two of TLS, HELLO, CLIENT SETINFO, the command; and the work in between.
				srv.delay = always(6*answer + answer/2)
				var wg sync.WaitGroup
				for range 20 {
					wg.Go(func() {
						if err := q.call(background, srv.call); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
			})
		})
	}
}

// A caller in the queue goes away.
func TestQueue_CallerDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{delay: always(time.Second)}
		q := newQueue(1, least, most, srv.ping)
		var wg sync.WaitGroup
		wg.Go(func() { q.call(background, srv.call) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(background, 30*ms)
		defer cancel()
		start := time.Now()
		if err := q.call(ctx, srv.call); !errors.Is(err, context.DeadlineExceeded) ||
			time.Since(start) != 30*ms {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		wg.Wait()
		if srv.mostUnder.Load() != 1 {
			t.Error("its call was made")
		}

		// And one whose call is under way: that says nothing about the server.
		time.Sleep(10 * time.Second)
		hurried, cancel := context.WithTimeout(background, 30*ms)
		defer cancel()
		if err := q.call(hurried, srv.call); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if err := q.call(background, srv.call); err != nil {
			t.Errorf("the next call: %v", err)
		}
	})
}

// All callers wait for less time than the queue would. When the server falls silent, the breaker
// opens nevertheless.
func TestQueue_HurriedCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{delay: always(ms)}
		q := newQueue(20, least, most, srv.ping)
		hurried := func(d time.Duration) error {
			ctx, cancel := context.WithTimeout(background, d)
			defer cancel()
			return q.call(ctx, srv.call)
		}
		hurried(100 * ms)
		srv.silent.Store(true)
		time.Sleep(time.Minute)
		for range 2 { // they have waited for 200 ms
			if err := hurried(100 * ms); errors.Is(err, ErrCircuitOpen) {
				t.Fatal("the breaker opened")
			}
		}
		start := time.Now()
		var wg sync.WaitGroup
		for range 50 {
			time.Sleep(ms)
			wg.Go(func() {
				for time.Since(start) < time.Second && !errors.Is(hurried(100*ms), ErrCircuitOpen) {
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took > 350*ms {
			t.Errorf("the breaker opened after %v", took)
		}
		srv.silent.Store(false)
		time.Sleep(2 * most)
		if err := hurried(100 * ms); err != nil {
			t.Error(err)
		}
	})
}

// Callers that go away now and then, before the server could answer, say nothing about it, however
// long nothing was asked in between.
func TestQueue_CallersGoNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{delay: always(20 * ms)}
		q := newQueue(20, least, most, srv.ping)
		if err := q.call(background, srv.call); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			time.Sleep(time.Minute)
			ctx, cancel := context.WithTimeout(background, 5*ms)
			if err := q.call(ctx, srv.call); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			cancel()
		}
		if err := q.call(background, srv.call); err != nil {
			t.Errorf("the next visitor: %v", err)
		}
	})
}

// A crowd is in the queue when the server falls silent. All leave within a moment; later calls fail
// at once; the probe notices the end of it, and nothing was sent meanwhile but its own questions.
func TestQueue_Silence(t *testing.T) {
	for _, answer := range []time.Duration{ms, 5 * ms, 50 * ms} {
		t.Run(answer.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &server{delay: always(answer)}
				q := newQueue(20, least, most, srv.ping)
				var silence atomic.Int64
				var wg sync.WaitGroup
				stop := make(chan struct{})
				for range 200 {
					wg.Go(func() {
						for {
							select {
							case <-stop:
								return
							default:
							}
							began := time.Now()
							err := q.call(background, srv.call)
							if err == nil {
								continue
							}
							since := time.Unix(0, silence.Load())
							if began.Before(since) {
								began = since
							}
							if took := time.Since(began); took > 350*ms {
								t.Errorf("waited for %v", took)
							}
							return // its visitor has got the page without a cart
						}
					})
				}
				time.Sleep(1500*ms + answer/3)
				silence.Store(time.Now().UnixNano())
				srv.silent.Store(true)
				time.Sleep(351 * ms)
				close(stop)
				wg.Wait()
				if srv.under.Load() != 0 {
					t.Error("calls are still under way")
				}
				srv.mostUnder.Store(0)
				for range 1000 {
					start := time.Now()
					if err := q.call(background, srv.call); err != ErrCircuitOpen || time.Since(start) > 0 {
						t.Fatalf("after %v: %v", time.Since(start), err)
					}
				}
				time.Sleep(4700 * ms)
				if n := srv.mostUnder.Load(); n != 0 {
					t.Errorf("%d calls were sent", n)
				}
				if n := srv.pings.Load(); n < 1 || n > 4 {
					t.Errorf("%d probes in 5 s", n)
				}
				srv.silent.Store(false)
				// The probe that waits now is lost with the silence; the next is answered.
				time.Sleep(most + probePause + answer)
				synctest.Wait()
				if err := q.call(background, srv.call); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Minute)
				if n := srv.pings.Load(); n > 6 {
					t.Errorf("%d probes, the last after the end of the silence", n)
				}
			})
		})
	}
}

// Some of many calls are slow: they fail, and the breaker stays closed.
func TestQueue_SlowTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		srv := &server{delay: func() time.Duration {
			if n.Add(1)%50 == 0 {
				return time.Hour
			}
			return 5 * ms
		}}
		q := newQueue(20, least, most, srv.ping)
		var calls, failed atomic.Int64
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				for calls.Add(1) <= 10_000 {
					switch err := q.call(background, srv.call); {
					case errors.Is(err, ErrCircuitOpen):
						t.Error("the breaker opened")
					case err != nil:
						failed.Add(1)
					}
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Second) // as the last calls were slow ones, it may be open now
		if f := failed.Load(); f != 200 {
			t.Errorf("%d of 10,000 calls failed, want 200", f)
		}
	})
}

// A server is suddenly further away than any call is waited for. The probe finds out.
func TestQueue_FurtherAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var delay atomic.Int64
		delay.Store(int64(ms))
		srv := &server{delay: func() time.Duration { return time.Duration(delay.Load()) }}
		q := newQueue(20, least, most, srv.ping)
		for range 100 {
			q.call(background, srv.call)
		}
		delay.Store(int64(400 * ms))
		q.ping = srv.call // as far away as all else
		if err := q.call(background, srv.call); err == nil {
			t.Fatal("the first call did not fail")
		}
		time.Sleep(time.Second)
		for range 100 {
			if err := q.call(background, srv.call); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A probe that waited until the server came back does not say that answers take that long: the next
// silence is noticed as soon as this one.
func TestQueue_ProbeThatWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{delay: always(ms)}
		back := make(chan struct{})
		q := newQueue(20, least, most, func(ctx context.Context) error {
			<-back
			return srv.ping(ctx)
		})
		for range 100 {
			q.call(background, srv.call)
		}
		srv.silent.Store(true)
		for _, want := range []time.Duration{251 * ms, 251 * ms} {
			start := time.Now()
			q.call(background, srv.call)
			if took := time.Since(start); took > want {
				t.Errorf("the silence was noticed after %v", took)
			}
			time.Sleep(1500 * ms)
			srv.silent.Store(false)
			back <- struct{}{}
			back <- struct{}{}
			synctest.Wait()
			time.Sleep(2 * ms)
			if err := q.call(background, srv.call); err != nil {
				t.Fatal(err)
			}
			srv.silent.Store(true)
		}
	})
}

// What ends a call without an answer, and what that says about the server.
func TestQueue_Outcomes(t *testing.T) {
	for _, row := range []struct {
		name  string
		err   error
		opens bool
	}{
		{"an answer", nil, false},
		{"an error reply", replyError("OOM"), false},
		{"a refusal, three times", replyError("LOADING"), false},
		{"a broken connection, three times", io.EOF, true},
		{"no free connection", redis.ErrPoolTimeout, true},
		{"a client that was closed", redis.ErrClosed, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(1, least, most, func(context.Context) error { return io.EOF })
				if err := q.call(background, func(context.Context) error { return row.err }); err != row.err {
					t.Errorf("got %v", err)
				}
				time.Sleep(50 * ms)
				next := q.call(background, func(context.Context) error { return nil })
				if opened := next == ErrCircuitOpen; opened != row.opens {
					t.Errorf("opened: %t, want %t", opened, row.opens)
				}
				if row.opens { // so that the probe ends
					q.answer(time.Now())
					time.Sleep(2 * probePause)
					q.mu.Lock()
					defer q.mu.Unlock()
				}
			})
		})
	}
}

// Redis may answer that it needs an update in another form, on a record with many writers several
// times. Each time is an answer, and the next has a deadline of its own; but not for ever.
func TestQueue_AnotherForm(t *testing.T) {
	for _, row := range []struct {
		forms int
		want  error
		took  time.Duration
	}{
		{10, nil, 11 * 50 * ms},
		{1000, errRetryNow, most + 50*ms},
	} {
		t.Run(fmt.Sprint(row.forms), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &server{delay: always(50 * ms)}
				q := newQueue(1, least, most, srv.ping)
				for range 50 {
					q.call(background, srv.call)
				}
				start, forms := time.Now(), 0
				err := q.call(background, func(ctx context.Context) error {
					if err := srv.call(ctx); err != nil || forms == row.forms {
						return err
					}
					forms++
					return errRetryNow
				})
				if took := time.Since(start); err != row.want || took != row.took {
					t.Errorf("after %v: %v, want %v after %v", took, err, row.want, row.took)
				}
			})
		})
	}
}

// The probe ends with what it asks for, and calls then say what the client says.
func TestQueue_ProbeEnds(t *testing.T) {
	for _, end := range []error{nil, replyError("NOPERM"), redis.ErrClosed, errGone} {
		t.Run(fmt.Sprint(end), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
				var ended atomic.Bool
				q := newQueue(1, least, most, func(context.Context) error {
					if ended.Load() {
						return end
					}
					return io.EOF
				})
				q.call(background, func(context.Context) error { return io.EOF })
				time.Sleep(time.Second)
				ended.Store(true)
				time.Sleep(time.Second)
				if err := q.call(background, func(context.Context) error { return nil }); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
