package adaptertest

import (
	"cmp"
	"compress/gzip"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"

	"github.com/guestkit/guest"
)

// A scenario requests one path of the app with and without the middleware, or runs act.
type scenario struct {
	name   string
	path   string
	method string // "": GET
	header []string
	none   bool // no cookie is due for a new visitor
	http1  bool // HTTP/2 does not have it
	act    func(ctx context.Context, p *play, fault func(string, ...any))
}

var scenarios = []scenario{
	{name: "JSON", path: "/json"},
	{name: "redirect", path: "/redirect"},
	{name: "returned error", path: "/error"},
	{name: "panic, recovered outside", path: "/panic/outside"},
	{name: "panic, recovered inside", path: "/panic/inside"},
	{name: "not found", path: "/missing"},
	{name: "empty body", path: "/empty"},
	{name: "flush first", path: "/flush"},
	{name: "ResponseController", path: "/controller"},
	{name: "static file", path: "/static/hello.txt"},
	{name: "static 404", path: "/static/missing.txt"},
	{name: "HEAD", method: "HEAD", path: "/json", none: true},
	{name: "103 Early Hints", path: "/early"},
	{name: "103 Early Hints, public page", path: "/early/public", none: true},
	{name: "304", path: "/cached", header: []string{"If-None-Match", `"1"`}, none: true}, // caches drop its cookie
	{name: "304 after a write", path: "/cached/add", header: []string{"If-None-Match", `"1"`}},
	{name: "gzip", path: "/gzip/json", header: []string{"Accept-Encoding", "gzip"}},
	{name: "gzip, 404", path: "/gzip/missing", header: []string{"Accept-Encoding", "gzip"}},
	{name: "ReadFrom", path: "/readfrom"},
	{name: "interfaces", path: "/abilities"},
	{name: "public page", path: "/public", none: true},
	{name: "public page, WriteString", path: "/public/string", none: true},
	{name: "public page, flush first", path: "/public/flush", none: true},
	{name: "public page, empty", path: "/public/empty", none: true},
	{name: "SSE", act: serverSentEvents},
	{name: "WebSocket, gorilla", act: webSocketGorilla, http1: true},
	{name: "WebSocket, coder", act: webSocketCoder, http1: true},
	{name: "client gone", act: clientGone},
	{name: "Claim in a handler", act: claimAt("/claim")},
	{name: "Claim with a context", act: claimAt("/claim/context")},
	{name: "late write", act: lateWrite},
	{name: "late write after a flush", act: tooLate("/add/flushed")},
	{name: "late write after a hijack", act: tooLate("/add/hijacked"), http1: true},
	{name: "32 parallel requests", act: parallel},
}

// compare sends the request without the middleware, and with it as a new and as a known visitor.
func (p *play) compare(ctx context.Context, s scenario, fault func(string, ...any)) {
	method := cmp.Or(s.method, "GET")
	ask := func(b browser) (answer, []string) {
		var infos []string // the 1xx, with their headers
		got := func(code int, header textproto.MIMEHeader) error {
			header.Del("Vary") // which a known visitor's has, because that response is not wrapped
			infos = append(infos, fmt.Sprint(code, header))
			return nil
		}
		traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: got})
		a := b.do(traced, method, s.path, s.header...)
		if a.header.Get("Content-Encoding") == "gzip" {
			a.body = gunzip(a.body)
		}
		return a, infos
	}
	want, wantInfos := ask(p.without.browser())
	if want.err != nil {
		fault("without the middleware: %v", want.err)
		return
	}
	same := func(who string, a answer, infos []string) {
		switch {
		case a.err != nil:
			fault("%s: %v", who, a.err)
			return
		case a.status != want.status || a.body != want.body:
			fault("%s: %d %.80q, without the middleware %d %.80q", who, a.status, a.body,
				want.status, want.body)
		case !slices.Equal(infos, wantInfos):
			fault("%s: informational responses %q, without the middleware %q", who, infos,
				wantInfos)
		}
		ours := func(name string, _ []string) bool {
			return name == "Date" || name == "Vary" || name == "Set-Cookie" ||
				name == "Cache-Control"
		}
		got, without := a.header.Clone(), want.header.Clone()
		maps.DeleteFunc(got, ours)
		maps.DeleteFunc(without, ours)
		if !maps.EqualFunc(got, without, slices.Equal) {
			fault("%s: header %v, without the middleware %v", who, got, without)
		}
		if !mentions(a.header, "Vary", "Cookie") {
			fault("%s: Vary is %q", who, a.header["Vary"])
		}
		for _, name := range want.header["Vary"] {
			if !mentions(a.header, "Vary", name) {
				fault("%s: Vary is %q, without the middleware %q", who, a.header["Vary"],
					want.header["Vary"])
			}
		}
	}

	b := p.with.browser()
	a, infos := ask(b)
	same("a new visitor", a, infos)
	due := 1
	if s.none {
		due = 0
	}
	if n := len(p.sets(a.header)); n != due {
		fault("a new visitor: %d cookies, want %d: %q", n, due, a.header["Set-Cookie"])
	}
	if due == 1 && !mentions(a.header, "Cache-Control", "no-store") && !mentions(a.header, "Cache-Control", `no-cache="Set-Cookie"`) {
		fault("a new visitor: the cookie comes with Cache-Control %q", a.header["Cache-Control"])
	}
	if due == 0 && !slices.Equal(a.header["Cache-Control"], want.header["Cache-Control"]) {
		fault("a new visitor: Cache-Control %q, without the middleware %q",
			a.header["Cache-Control"], want.header["Cache-Control"])
	}
	if who := b.do(ctx, "GET", "/whoami"); due == 1 &&
		(who.body == "" || b.do(ctx, "GET", "/whoami").body != who.body) {
		fault("a new visitor is not recognised by the cookie: %+v", who)
	}

	a, infos = ask(p.with.known(ctx))
	same("a known visitor", a, infos)
	if n := len(p.sets(a.header)); n != 0 {
		fault("a known visitor: %d cookies: %q", n, a.header["Set-Cookie"])
	}
	if !slices.Equal(a.header["Cache-Control"], want.header["Cache-Control"]) {
		fault("a known visitor: Cache-Control %q, without the middleware %q",
			a.header["Cache-Control"], want.header["Cache-Control"])
	}
}

// mentions reports whether a list header has this element.
func mentions(h http.Header, name, element string) bool {
	for _, line := range h[name] {
		for part := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(textproto.TrimString(part), element) {
				return true
			}
		}
	}
	return false
}

func gunzip(body string) string {
	r, err := gzip.NewReader(strings.NewReader(body))
	if err != nil {
		return "not gzip: " + err.Error()
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		return "not gzip: " + err.Error()
	}
	return string(plain)
}

func serverSentEvents(ctx context.Context, p *play, fault func(string, ...any)) {
	id := rand.Text()
	req, _ := http.NewRequestWithContext(ctx, "GET", p.with.url+"/sse?id="+id, nil)
	res, err := p.with.browser().Do(req)
	if err != nil {
		fault("%v", err)
		return
	}
	defer res.Body.Close()
	first := make([]byte, len("data: first\n\n"))
	if _, err := io.ReadFull(res.Body, first); err != nil {
		fault("the first event does not come before the second: %v", err)
		return
	}
	Tell(id, nil)
	rest, err := io.ReadAll(res.Body)
	if all := string(first) + string(rest); err != nil || all != "data: first\n\ndata: second\n\n" {
		fault("%q, %v", all, err)
	}
	if n := len(p.sets(res.Header)); n != 1 {
		fault("%d cookies, want 1: %q", n, res.Header["Set-Cookie"])
	}
}

// A WebSocket's handshake creates no guest, because clients of WebSockets drop cookies. The
// visitor's own cookie counts.
func webSocketGorilla(ctx context.Context, p *play, fault func(string, ...any)) {
	for _, b := range []browser{p.with.browser(), p.with.known(ctx)} {
		d := gorilla.Dialer{Jar: b.Jar}
		if tr, ok := b.transport.(*http.Transport); ok {
			d.TLSClientConfig = tr.TLSClientConfig
		}
		conn, res, err := d.DialContext(ctx, "ws"+strings.TrimPrefix(b.url, "http")+"/gorilla", nil)
		if err != nil {
			fault("handshake: %v", err)
			continue
		}
		if n := len(p.sets(res.Header)); n != 0 {
			fault("%d cookies, want 0: %q", n, res.Header["Set-Cookie"])
		}
		if err := conn.WriteMessage(gorilla.TextMessage, []byte("hello")); err != nil {
			fault("%v", err)
		}
		if _, msg, err := conn.ReadMessage(); err != nil || string(msg) != "hello" {
			fault("echo %q, %v", msg, err)
		}
		conn.Close()
	}
}

func webSocketCoder(ctx context.Context, p *play, fault func(string, ...any)) {
	for _, b := range []browser{p.with.browser(), p.with.known(ctx)} {
		conn, res, err := coder.Dial(ctx, b.url+"/coder", &coder.DialOptions{HTTPClient: b.Client})
		if err != nil {
			fault("handshake: %v", err)
			continue
		}
		if n := len(p.sets(res.Header)); n != 0 {
			fault("%d cookies, want 0: %q", n, res.Header["Set-Cookie"])
		}
		if err := conn.Write(ctx, coder.MessageText, []byte("hello")); err != nil {
			fault("%v", err)
		}
		if _, msg, err := conn.Read(ctx); err != nil || string(msg) != "hello" {
			fault("echo %q, %v", msg, err)
		}
		conn.CloseNow()
	}
}

// The handler's last write succeeds even if the client has hung up.
func clientGone(ctx context.Context, p *play, fault func(string, ...any)) {
	b, id := p.with.known(ctx), rand.Text()
	leaving, leave := context.WithCancel(ctx)
	defer leave()
	req, _ := http.NewRequestWithContext(leaving, "GET", b.url+"/gone?id="+id, nil)
	res, err := b.Do(req)
	if err != nil {
		fault("%v", err)
		return
	}
	io.ReadFull(res.Body, make([]byte, len("begun")))
	leave()
	res.Body.Close()
	if err := Wait(ctx, id); err != nil {
		fault("the handler's write: %v", err)
	}
	if a := b.do(ctx, "GET", "/cart"); a.body != "1" {
		fault("the cart holds %q, want 1", a.body)
	}
}

func claimAt(path string) func(ctx context.Context, p *play, fault func(string, ...any)) {
	return func(ctx context.Context, p *play, fault func(string, ...any)) {
		user := rand.Text()
		b := p.with.known(ctx)
		b.do(ctx, "POST", "/add?item=tea")
		a := b.do(ctx, "POST", path+"?user="+user)
		if a.status != 200 || a.body != "true" {
			fault("%d %q, %v", a.status, a.body, a.err)
		}
		if n := len(p.cookies(b)); n != 0 {
			fault("%d cookies are left after the claim", n)
		}
		cart, err := Cart.All(p.guests.As(ctx, user))
		if err != nil || cart["tea"] != 1 {
			fault("the account holds %v, %v", cart, err)
		}
	}
}

// cookies are the visitor's cookies in the browser.
func (p *play) cookies(b browser) (mine []*http.Cookie) {
	u, _ := url.Parse(b.url)
	for _, c := range b.Jar.Cookies(u) {
		if strings.HasPrefix(c.Name, p.mount.Cookie) {
			mine = append(mine, c)
		}
	}
	return mine
}

// A tab that was open across a claim writes with the old cookie: the response carries the
// successor's cookie, and the successor has the write. The framework's writer must let the header
// change while the handler runs.
func lateWrite(ctx context.Context, p *play, fault func(string, ...any)) {
	b := p.claimedElsewhere(ctx, fault)
	id := b.id
	a := b.do(ctx, "POST", "/add?item=late")
	if a.status != 200 || a.body != "1" {
		fault("%d %q, %v", a.status, a.body, a.err)
	}
	if n := len(p.sets(a.header)); n != 1 {
		fault("%d cookies, want 1: %q", n, a.header["Set-Cookie"])
	}
	if a := b.do(ctx, "GET", "/cart"); a.body != "1" {
		fault("the successor's cart holds %q, want 1", a.body)
	}
	if now := b.do(ctx, "GET", "/whoami").body; now == id || now == "" {
		fault("the guest is %q, it was %q", now, id)
	}
}

// A late write when no cookie can be sent any more must fail, and not go to a guest that no browser
// has.
func tooLate(path string) func(ctx context.Context, p *play, fault func(string, ...any)) {
	return func(ctx context.Context, p *play, fault func(string, ...any)) {
		b := p.claimedElsewhere(ctx, fault)
		if a := b.do(ctx, "POST", path); a.body != "ErrClaimed" {
			fault("%d %q, %v; want ErrClaimed", a.status, a.body, a.err)
		}
	}
}

type claimedBrowser struct {
	browser
	id string // of its guest
}

// claimedElsewhere returns the browser of a known guest that another process has claimed, which
// this process does not know.
func (p *play) claimedElsewhere(ctx context.Context, fault func(string, ...any)) claimedBrowser {
	b := p.with.known(ctx)
	b.do(ctx, "POST", "/add?item=tea")
	id := b.do(ctx, "GET", "/whoami").body
	other, err := guest.New(p.config)
	if err != nil {
		fault("%v", err)
		return claimedBrowser{b, id}
	}
	r, _ := http.NewRequestWithContext(ctx, "POST", b.url, nil)
	for _, c := range p.cookies(b) {
		r.AddCookie(c)
	}
	if receipt, err := other.Claim(discard{}, r, rand.Text()); err != nil || !receipt.Claimed {
		fault("%+v, %v", receipt, err)
	}
	return claimedBrowser{b, id}
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

// A page sends its first requests all at once, and each adds to the cart.
func parallel(ctx context.Context, p *play, fault func(string, ...any)) {
	b := p.with.browser()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range 32 {
		wg.Go(func() {
			a := b.do(ctx, "POST", fmt.Sprintf("/add?item=%d", i))
			if a.status != 200 || a.body != "1" {
				mu.Lock()
				defer mu.Unlock()
				fault("%d %q, %v", a.status, a.body, a.err)
			}
		})
	}
	wg.Wait()
	a := b.do(ctx, "GET", "/cart")
	for range 32 { // a response clears a few cookies
		if len(p.cookies(b)) > 1 {
			a = b.do(ctx, "GET", "/cart")
		}
	}
	if a.body != "32" {
		fault("the cart holds %q, want 32", a.body)
	}
	if n := len(p.cookies(b)); n != 1 {
		fault("%d cookies are left, want 1", n)
	}
}
