package redistest

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Loss says what the network loses of a command.
type Loss int

const (
	Nothing Loss = iota
	Request      // the command never reaches the server, and the connection breaks
	Reply        // the server executes the command; its reply is lost, and the connection breaks
)

// Command is a command on the wire.
type Command struct {
	N    int64  // its number among the commands of all connections, from 1
	Name string // in upper case, for example "HMGET"
}

// Setup reports whether the command is one that a client sends to set up a connection.
func (c Command) Setup() bool {
	switch c.Name {
	case "HELLO", "AUTH", "SELECT", "READONLY", "CLIENT", "CLUSTER", "COMMAND", "PING":
		return true
	}
	return false
}

// Faults is a network that counts commands and, on demand, loses some. Its Dial is a Dialer for
// redis.Options and redis.ClusterOptions. It is for commands that are sent one at a time, not for
// pipelines. The zero value loses nothing.
type Faults struct {
	// Lose decides for each command. It is called by several goroutines, but never by two at once.
	// nil: Nothing.
	Lose func(Command) Loss

	mu       sync.Mutex
	commands int64
	names    map[string]int64
	trips    atomic.Int64
	out, in  atomic.Int64
	conns    atomic.Int64
	epoch    atomic.Int64 // grows when connections are forgotten
}

// Random returns a function for Lose that loses requests with probability p and replies with
// probability p. The result depends only on the seed and the order of commands. Commands that set
// up a connection are not lost.
func Random(seed uint64, p float64) func(Command) Loss {
	rnd := rand.New(rand.NewPCG(seed, seed))
	return func(c Command) Loss {
		if c.Setup() {
			return Nothing
		}
		switch x := rnd.Float64(); {
		case x < p:
			return Request
		case x < 2*p:
			return Reply
		}
		return Nothing
	}
}

// Counts are the commands and bytes that have passed so far.
type Counts struct {
	Commands   int64            // complete or not, lost ones included
	Names      map[string]int64 // the same, by name
	RoundTrips int64            // times that a client wrote and then waited for a reply
	Out, In    int64            // bytes to and from the server
	Conns      int64            // connections made
}

// Counts returns what has passed so far.
func (f *Faults) Counts() Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := Counts{Commands: f.commands, Names: make(map[string]int64), RoundTrips: f.trips.Load(),
		Out: f.out.Load(), In: f.in.Load(), Conns: f.conns.Load()}
	for name, n := range f.names {
		c.Names[name] = n
	}
	return c
}

// Dial connects through the faulty network.
func (f *Faults) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	f.conns.Add(1)
	return &conn{Conn: c, faults: f, epoch: f.epoch.Load()}, nil
}

// Forget makes the network forget the connections made so far, as a firewall does that starts
// again: what is sent on them is lost, and no error says so.
func (f *Faults) Forget() { f.epoch.Add(1) }

func (f *Faults) decide(name string) Loss {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.commands++
	if f.names == nil {
		f.names = make(map[string]int64)
	}
	f.names[name]++
	if f.Lose == nil {
		return Nothing
	}
	return f.Lose(Command{f.commands, name})
}

// conn is one connection of Faults. A client writes in one goroutine at a time, and reads in one.
type conn struct {
	net.Conn
	faults  *Faults
	epoch   int64 // of its making
	parser  parser
	waiting atomic.Bool  // written since the last read
	loss    atomic.Int32 // what the command in flight loses
}

func (c *conn) Write(p []byte) (int, error) {
	c.parser.feed(p, func(name string) {
		if loss := c.faults.decide(name); loss != Nothing {
			c.loss.Store(int32(loss))
		}
	})
	if !c.waiting.Swap(true) {
		c.faults.trips.Add(1)
	}
	if c.epoch != c.faults.epoch.Load() {
		return len(p), nil
	}
	if Loss(c.loss.Load()) == Request {
		c.Conn.Close()
		return len(p), nil // as a kernel does, which accepts the bytes before it notices the loss
	}
	n, err := c.Conn.Write(p)
	c.faults.out.Add(int64(n))
	return n, err
}

func (c *conn) Read(p []byte) (int, error) {
	if Loss(c.loss.Load()) == Request {
		return 0, io.EOF
	}
	n, err := c.Conn.Read(p)
	c.waiting.Store(false)
	c.faults.in.Add(int64(n))
	if n > 0 && Loss(c.loss.Load()) == Reply {
		c.Conn.Close()
		return 0, io.EOF
	}
	return n, err
}

// parser finds the names of commands in a stream of them: "*<args>\r\n" and for each argument
// "$<bytes>\r\n<argument>\r\n".
type parser struct {
	skip int    // bytes of the current argument still to come, with its line end
	name bool   // the current or next argument is a command's name
	buf  []byte // of a line or a name
}

func (p *parser) feed(b []byte, command func(name string)) {
	for len(b) > 0 {
		if p.skip > 0 {
			n := min(p.skip, len(b))
			if p.name {
				p.buf = append(p.buf, b[:n]...)
			}
			p.skip -= n
			b = b[n:]
			if p.skip == 0 {
				if p.name {
					command(strings.ToUpper(strings.TrimSuffix(string(p.buf), "\r\n")))
				}
				p.name, p.buf = false, p.buf[:0]
			}
			continue
		}
		line, rest, found := bytes.Cut(b, []byte("\n"))
		p.buf = append(p.buf, line...)
		if b = rest; !found {
			return
		}
		n, _ := strconv.Atoi(strings.TrimSpace(string(p.buf[1:])))
		if p.buf[0] == '*' {
			p.name = true
		} else {
			p.skip = n + 2
		}
		p.buf = p.buf[:0]
	}
}
