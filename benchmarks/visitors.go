package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Answers are those that visitors got in one turn.
type Answers struct {
	Rate        float64       // successful answers a second
	P50, P99    time.Duration // how long these took
	All, Failed int           // answers in the whole turn
	Fault       string        // what one of the failed said
}

// visit is the process of the visitors. It prints the Answers.
func visit(addr, work, visitors, turn string) error {
	n, err := strconv.Atoi(visitors)
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(turn)
	if err != nil {
		return err
	}
	a, err := visitFor(addr, Work(work), n, d)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(a)
}

// visitFor lets known visitors send requests for a turn, each over a connection of its own and as
// soon as its last one was answered. Rate and times are without the first quarter of the turn, in
// which the app connects to Redis.
func visitFor(addr string, w Work, n int, turn time.Duration) (a Answers, err error) {
	visitors, errs := make([]*visitor, n), make([]error, n)
	var wg sync.WaitGroup
	for first := range tabs { // some at a time, as this is not yet the load
		wg.Go(func() {
			for i := first; i < n; i += tabs {
				visitors[i], errs[i] = newVisitor(addr, w)
			}
		})
	}
	wg.Wait()
	if err := cmp.Or(errs...); err != nil {
		return a, err
	}
	begin := time.Now().Add(turn / 4)
	end := begin.Add(turn - turn/4)
	for i, v := range visitors {
		wg.Go(func() { errs[i] = v.stay(w, begin, end) })
	}
	wg.Wait()
	var took []time.Duration
	for _, v := range visitors {
		v.conn.Close()
		took = append(took, v.took...)
		a.All += v.all
		a.Failed += v.failed
		if v.fault != "" {
			a.Fault = v.fault
		}
	}
	a.Rate = float64(len(took)) / end.Sub(begin).Seconds()
	if slices.Sort(took); len(took) > 0 {
		a.P50, a.P99 = took[len(took)/2], took[len(took)*99/100]
	}
	return a, cmp.Or(errs...)
}

// A visitor is a connection to an app in another process.
type visitor struct {
	addr    string
	conn    net.Conn
	in      *bufio.Reader
	request []byte // the next

	amount      int             // in the cart, at the last answer
	took        []time.Duration // for each successful answer that counts
	all, failed int
	fault       string
}

// newVisitor returns a visitor that is known and prepared for the work. While the app does not
// answer, it tries again, for ten seconds.
func newVisitor(addr string, w Work) (*visitor, error) {
	v := &visitor{addr: addr}
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		if err := v.connect(); err != nil {
			return nil, err
		}
		b, err := newKnown(v, Small)
		if err == nil {
			v.Prepare(w, "", b.header())
			return v, nil
		}
		v.conn.Close()
		if time.Since(begin) > 10*time.Second {
			return nil, err
		}
	}
}

func (v *visitor) connect() (err error) {
	v.conn, err = net.Dial("tcp", v.addr)
	v.in = bufio.NewReader(v.conn)
	return err
}

// stay sends requests until the end.
func (v *visitor) stay(w Work, begin, end time.Time) error {
	for sent := time.Now(); sent.Before(end); {
		status, _, body := v.Do()
		now := time.Now()
		v.all++
		switch {
		case !v.accepts(w, status, body):
			v.failed++
			v.fault = fmt.Sprintf("status %d: %s", status, body)
		case now.After(begin) && now.Before(end):
			v.took = append(v.took, now.Sub(sent))
		}
		if status == 0 {
			v.conn.Close()
			if err := v.connect(); err != nil {
				return err
			}
		}
		sent = now
	}
	return nil
}

// accepts reports whether the answer shows that the work was done: the visitor is the only one that
// adds to its cart.
func (v *visitor) accepts(w Work, status int, body []byte) bool {
	if status/100 != 2 || w != Add {
		return status/100 == 2
	}
	before := v.amount
	v.amount, _ = strconv.Atoi(string(body))
	return v.amount > before
}

// Prepare makes the request the visitor's next.
func (v *visitor) Prepare(w Work, query, cookies string) Call {
	v.request = fmt.Appendf(nil, "%s %s?%s HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n",
		w.method(), w, query)
	if cookies != "" {
		v.request = fmt.Appendf(v.request, "Cookie: %s\r\n", cookies)
	}
	v.request = append(v.request, "\r\n"...)
	return v
}

// Do sends the request. The status is 0 if no answer comes within ten seconds.
func (v *visitor) Do() (status int, setCookies []string, body []byte) {
	v.conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err := v.conn.Write(v.request)
	if err == nil {
		status, setCookies, body, err = readAnswer(v.in)
	}
	if err != nil {
		return 0, nil, []byte(err.Error())
	}
	return status, setCookies, body
}

// readAnswer reads only what the contenders' answers have, so that visitors take little time from
// the app: a short body with its Content-Length.
func readAnswer(r *bufio.Reader) (status int, setCookies []string, body []byte, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, nil, nil, err
	}
	if len(line) > len("HTTP/1.1 200") {
		status, _ = strconv.Atoi(string(line[len("HTTP/1.1 "):len("HTTP/1.1 200")]))
	}
	length := -1
	for {
		if line, err = r.ReadSlice('\n'); err != nil {
			return 0, nil, nil, err
		}
		name, value, found := bytes.Cut(bytes.TrimSpace(line), []byte(": "))
		switch {
		case !found:
			if length < 0 {
				return 0, nil, nil, errors.New("an answer without Content-Length")
			}
			body, err = r.Peek(length)
			r.Discard(len(body))
			return status, setCookies, body, err
		case bytes.EqualFold(name, []byte("Content-Length")):
			length, _ = strconv.Atoi(string(value))
		case bytes.EqualFold(name, []byte("Set-Cookie")):
			setCookies = append(setCookies, string(value))
		}
	}
}
