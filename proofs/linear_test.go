package proofs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
)

// A guest's owner and content form a register that several clients use. Every history of a guest
// must be one that such a register could have had.

// content is the data of a guest, or of an account that has only this guest's data.
type content struct {
	items  [2]int64
	choice string
}

type register struct {
	content
	owner string // "": open
	// the owner has the content; the guest may have been frozen for it some time before
	merged bool
}

type input struct {
	op      string   // add, amount, choose, read, claim, merge or account
	add     [2]int64 // to each item; 0: the operation does not name that item
	choice  string
	account string
}

type output struct {
	unknown bool // applied once or not at all
	fresh   bool // the guest was claimed: a write went to its successor, a read saw it
	// If a reply was lost, Add reads the amounts again, and others may have added to them
	// meanwhile, or a claim moved them. So where replies are lost, that read is an operation of its
	// own.
	unread  bool
	refused bool // the guest is another account's
	content
}

var registerModel = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(state, in, out any) (bool, any) {
		return state.(register).step(in.(input), out.(output))
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v → %+v", in, out) },
}

func (r register) step(in input, out output) (legal bool, next register) {
	claimed := r.owner != ""
	switch in.op {
	case "add":
		if out.unknown && claimed || out.fresh {
			return out.unknown || claimed && out.items == in.add, r
		}
		for i, n := range in.add {
			r.items[i] += n
		}
		return out.unknown || !claimed && (out.unread || in.named(r.items) == out.items), r

	case "amount":
		return out.items == in.named(r.items) || claimed && out.content == content{}, r

	case "choose":
		if out.unknown && claimed || out.fresh {
			return out.unknown || claimed, r
		}
		r.choice = in.choice
		return !claimed, r

	case "read":
		if claimed || out.fresh {
			return claimed && out.fresh && out.content == content{}, r
		}
		return out.content == r.content, r

	case "claim":
		if out.refused {
			return claimed && r.owner != in.account, r
		}
		if out.unknown && claimed {
			return true, r
		}
		legal = !claimed || r.owner == in.account
		r.owner = in.account
		return legal, r

	case "merge":
		r.merged = true
		return r.owner == in.account, r

	case "account":
		switch {
		case r.owner != in.account:
			return out.content == content{}, r
		case out.content == r.content:
			r.merged = r.merged || r.content != content{}
			return true, r
		}
		return !r.merged && out.content == content{}, r
	}
	panic(in.op)
}

// named returns the amounts of the items that the operation names, and 0 for the others.
func (in input) named(items [2]int64) [2]int64 {
	for i, n := range in.add {
		if n == 0 {
			items[i] = 0
		}
	}
	return items
}

// A recorder records the history of one guest.
type recorder struct {
	r       *torture
	n       int
	key     string
	cookies string
	mu      sync.Mutex
	history []porcupine.Operation
}

func (h *recorder) record(client int, in input, do func() (output, error)) {
	call := h.r.clock.Add(1)
	out, err := do()
	end := h.r.clock.Add(1)
	switch {
	case errors.Is(err, guest.ErrUncertain), err != nil && in.op == "claim":
		out = output{unknown: true}
		end = math.MaxInt64
	case err != nil: // nothing was written or read
		if !errors.Is(err, guest.ErrUnavailable) {
			h.r.violation("%+v: %v", in, err)
		}
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if in.op == "add" && h.r.net.replies && !out.fresh && !out.unknown {
		h.add(client, input{op: "amount", add: in.add}, out, call, end)
		out = output{unread: true}
	}
	// two steps, and another client may read between them
	if in.op == "claim" && !out.refused && !out.unknown {
		h.add(client, input{op: "merge", account: in.account}, out, call, end)
	}
	h.add(client, in, out, call, end)
}

func (h *recorder) add(client int, in input, out output, call, end int64) {
	h.history = append(h.history, porcupine.Operation{ClientId: client, Input: in, Output: out,
		Call: call, Return: end})
}

func itemName(i int) string { return fmt.Sprint("item", i) }

func contentOf(ctx context.Context) (c content, err error) {
	ctx, err = guest.Prefetch(ctx, basket, choice) // one read, so all is of one moment
	if err != nil {
		return c, err
	}
	for i := range c.items {
		n, e := basket.Get(ctx, itemName(i))
		c.items[i], err = n, errors.Join(err, e)
	}
	chosen, e := choice.Get(ctx)
	c.choice = chosen
	return c, errors.Join(err, e)
}

// request does something with the guest's first cookie.
func (h *recorder) request(p *process, method string,
	do func(ctx context.Context, out *output) error) (out output, err error) {
	p.serve(method, h.cookies, "", func(_ http.ResponseWriter, req *http.Request) {
		err = do(req.Context(), &out)
		v := guest.FromContext(req.Context())
		out.fresh = "g:"+v.GuestID() != h.key
		if out.fresh != v.Replaced() {
			h.r.violation("guest %d: Replaced is %v, and the guest is %s instead of %s", h.n,
				v.Replaced(), v.GuestID(), h.key)
		}
	})
	return out, err
}

func (h *recorder) read(client int, p *process) {
	h.record(client, input{op: "read"}, func() (output, error) {
		return h.request(p, "GET", func(ctx context.Context, out *output) (err error) {
			out.content, err = contentOf(ctx)
			return err
		})
	})
}

func (h *recorder) readAccount(client int, p *process, account string) {
	h.record(client, input{op: "account", account: account}, func() (out output, err error) {
		out.content, err = contentOf(p.guests.As(context.Background(), account))
		return out, err
	})
}

func (h *recorder) tab(client int, rnd *rand.Rand) {
	for i := range 8 {
		p := h.r.pick(rnd)
		switch in := (input{}); rnd.IntN(5) {
		case 0, 1:
			item := rnd.IntN(2)
			in.op, in.add[item] = "add", 1
			h.record(client, in, func() (output, error) {
				return h.request(p, "POST", func(ctx context.Context, out *output) (err error) {
					out.items[item], err = basket.Add(ctx, itemName(item), 1)
					return err
				})
			})
		case 4:
			in.op, in.add = "add", [2]int64{1, 2}
			h.record(client, in, func() (output, error) {
				return h.request(p, "POST", func(ctx context.Context, out *output) error {
					sums, err := basket.AddAll(ctx, map[string]int64{itemName(0): 1, itemName(1): 2})
					out.items = [2]int64{sums[itemName(0)], sums[itemName(1)]}
					return err
				})
			})
		case 2:
			in.op, in.choice = "choose", fmt.Sprintf("%d.%d", client, i)
			h.record(client, in, func() (output, error) {
				return h.request(p, "POST", func(ctx context.Context, _ *output) error {
					return choice.Set(ctx, in.choice)
				})
			})
		case 3:
			h.read(client, p)
		}
	}
}

func (h *recorder) claim(client int, rnd *rand.Rand, account string) {
	for range rnd.IntN(6) { // so that the claims do not all start at once
		h.readAccount(client, h.r.pick(rnd), account)
	}
	p := h.r.pick(rnd)
	if rnd.IntN(3) == 0 {
		p = h.r.dying(rnd)
	}
	h.record(client, input{op: "claim", account: account}, func() (out output, err error) {
		p.serve("POST", h.cookies, "", func(w http.ResponseWriter, req *http.Request) {
			_, err = p.guests.Claim(w, req, account)
		})
		if errors.Is(err, guest.ErrClaimed) {
			return output{refused: true}, nil
		}
		return out, err
	})
	h.readAccount(client, h.r.pick(rnd), account)
}

func (h *recorder) String() string {
	var s strings.Builder
	ops := slices.Clone(h.history)
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	for _, o := range ops {
		end := fmt.Sprint(o.Return)
		if o.Return == math.MaxInt64 {
			end = "?"
		}
		fmt.Fprintf(&s, "   client %d %d-%s %s\n", o.ClientId, o.Call, end,
			registerModel.DescribeOperation(o.Input, o.Output))
	}
	return s.String()
}

// histories runs this many guests, and returns what was recorded.
func (r *torture) histories(ctx context.Context, guests int) []*recorder {
	recorders := make([]*recorder, guests)
	next := make(chan int)
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			for n := range next {
				rnd := rand.New(rand.NewPCG(r.seed, uint64(n)))
				h := &recorder{r: r, n: n}
				recorders[n] = h
				jar := &jar{cookies: map[string]string{}}
				for range 2 { // the second request brings the cookie back
					jar.take(r.pick(rnd).serve("GET", jar.header(), "",
						func(_ http.ResponseWriter, req *http.Request) {
							h.key = "g:" + guest.FromContext(req.Context()).GuestID()
						}))
				}
				h.cookies = jar.header()
				var wg sync.WaitGroup
				for client, account := range []string{"", "", "A", "A", "B"} {
					rnd := rand.New(rand.NewPCG(r.seed+1+uint64(client), uint64(n)))
					wg.Go(func() {
						if account == "" {
							h.tab(client, rnd)
						} else {
							h.claim(client, rnd, fmt.Sprint(account, n))
						}
					})
				}
				wg.Wait()
			}
		})
	}
	for n := range guests {
		next <- n
	}
	close(next)
	all.Wait()
	r.net.calmDown()
	r.recover(ctx)
	p := r.process(r.backend.clean)
	for _, h := range recorders { // what is left in the end
		h.read(0, p)
		h.readAccount(0, p, fmt.Sprint("A", h.n))
		h.readAccount(0, p, fmt.Sprint("B", h.n))
	}
	return recorders
}

// illegal returns the histories that no register could have had.
func illegal(t *testing.T, recorders []*recorder) (bad []*recorder) {
	for _, h := range recorders {
		switch porcupine.CheckOperationsTimeout(registerModel, h.history, 20*time.Second) {
		case porcupine.Illegal:
			bad = append(bad, h)
		case porcupine.Unknown:
			t.Errorf("guest %d: no answer in time about\n%v", h.n, h)
		}
	}
	return bad
}

func TestLinearizable(t *testing.T) {
	server := redistest.Single(t)
	t.Run("requests are lost", func(t *testing.T) { linearizable(t, server, false) })
	t.Run("replies are lost", func(t *testing.T) { linearizable(t, server, true) })
}

func linearizable(t *testing.T, server *redistest.Server, replies bool) {
	guests := 80
	if *long {
		guests = 2000
	}
	seed := seedOf()
	start := time.Now()
	r := newTorture(t, seed, loss, singleBackend(server), nil)
	r.net.replies = replies
	recorders := r.histories(t.Context(), guests)
	for _, broken := range r.broken {
		t.Errorf("seed %d: %s", seed, broken)
	}
	if bad := illegal(t, recorders); len(bad) > 0 {
		t.Errorf("seed %d: %d histories are not linearizable. The first one:\n%v%v", seed, len(bad),
			bad[0], r.dump(bad[0]))
	}
	ops, unknown := 0, 0
	for _, h := range recorders {
		for _, o := range h.history {
			ops++
			if o.Output.(output).unknown {
				unknown++
			}
		}
	}
	t.Logf("seed %d: %d guests, %d operations, %d of them indeterminate; %v; %v", seed, guests, ops,
		unknown, r.net, time.Since(start).Round(time.Millisecond))
}

// The check finds a register that miscounts once.
func TestLinearizableFindsAWrongAmount(t *testing.T) {
	r := newTorture(t, seedOf(), 0, memoryBackend, nil)
	r.net.replies = false // so additions return the amounts
	tried := 0
	for _, h := range r.histories(t.Context(), 20) {
		for i, o := range h.history {
			out := o.Output.(output)
			for item, n := range o.Input.(input).add {
				if n == 0 {
					continue
				}
				tried++
				wrong := out
				wrong.items[item]++
				h.history[i].Output = wrong
				if porcupine.CheckOperations(registerModel, h.history) {
					t.Errorf("operation %d is wrong:\n%v", i, h)
				}
				h.history[i] = o
			}
		}
	}
	t.Logf("%d wrong amounts found out", tried)
}

// dump shows the records of a guest.
func (r *torture) dump(h *recorder) string {
	var s strings.Builder
	for _, key := range []string{h.key, accountKey(fmt.Sprint("A", h.n)),
		accountKey(fmt.Sprint("B", h.n))} {
		fields, err := r.backend.clean.Get(context.Background(), key)
		fmt.Fprintf(&s, "   %s: %q %v\n", key, fields, err)
	}
	return s.String()
}

// With these faults, the library must have histories that are not linearizable.
func TestLinearizableHasTeeth(t *testing.T) {
	server := redistest.Single(t)
	for name, mutate := range mutants {
		// here no other client writes to the account
		if strings.HasPrefix(name, "merges do not check") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			first := seedOf()
			for try := range uint64(10) {
				r := newTorture(t, first+try, loss, singleBackend(server), mutate)
				if bad := illegal(t, r.histories(t.Context(), 30)); len(bad) > 0 {
					t.Logf("caught: %d histories", len(bad))
					return
				}
			}
			t.Error("not caught")
		})
	}
}
