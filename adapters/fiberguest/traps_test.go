package fiberguest_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	"github.com/gofiber/fiber/v3/middleware/cache"
	"github.com/gofiber/fiber/v3/middleware/encryptcookie"
	"github.com/gofiber/fiber/v3/middleware/idempotency"
	"github.com/gofiber/fiber/v3/middleware/recover"
	"github.com/gofiber/fiber/v3/middleware/session"
	"github.com/gofiber/fiber/v3/middleware/timeout"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/adapters/fiberguest"
	"github.com/guestkit/guest/adaptertest"
	"github.com/guestkit/guest/memstore"
)

func manager(t *testing.T, change ...func(*guest.Config)) *guest.Manager {
	t.Helper()
	cfg := guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("a secret that only tests know, 32+")},
		Data:    []guest.Kind{Cart},
		Cookie:  guest.Cookie{Insecure: true}, // plain http
	}
	for _, f := range change {
		f(&cfg)
	}
	m, err := guest.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// start serves the app for the test.
func start(t *testing.T, app *fiber.App) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop := serve(app, ln)
	t.Cleanup(stop)
	return "http://" + ln.Addr().String()
}

type answer struct {
	status int
	body   string
	http.Header
}

// guests are the names of the guest cookies that the answer sets.
func (a answer) guests() (names []string) {
	for _, line := range a.Header["Set-Cookie"] {
		if c, err := http.ParseSetCookie(line); err == nil && strings.HasPrefix(c.Name, "guest") &&
			c.MaxAge > 0 {
			names = append(names, c.Name)
		}
	}
	return names
}

// tab is a browser's.
func tab(t *testing.T, url string) func(method, path string, header ...string) answer {
	jar, _ := cookiejar.New(nil)
	client := &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
	return func(method, path string, header ...string) answer {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), method, url+path, nil)
		for i := 0; i < len(header); i += 2 {
			req.Header.Add(header[i], header[i+1])
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return answer{res.StatusCode, string(body), res.Header}
	}
}

func whoami(c fiber.Ctx) error { return c.SendString(fiberguest.Visitor(c).GuestID()) }

// An ErrorHandler is the last to change the header, and must not give a cookie to a cache.
func TestAnErrorHandlerThatMakesErrorsPublic(t *testing.T) {
	m := manager(t)
	public := func(c fiber.Ctx, err error) error {
		c.Set("Cache-Control", "public, max-age=60")
		if c.Path() == "/fails" {
			return errors.New("the ErrorHandler fails too")
		}
		return c.Status(fiber.StatusConflict).SendString(err.Error())
	}
	app := fiber.New(fiber.Config{ErrorHandler: public})
	var seen error
	app.Use(func(c fiber.Ctx) error {
		seen = c.Next()
		c.Set("X-Seen", fmt.Sprint(c.Response().StatusCode()))
		return seen
	})
	app.Use(fiberguest.Middleware(m), recover.New())
	no := func(c fiber.Ctx) error { return errors.New("no") }
	app.All("/error", no)
	app.All("/fails", no)
	app.All("/panic", func(c fiber.Ctx) error { panic("no") })
	app.All("/add", func(c fiber.Ctx) error {
		Cart.Add(fiberguest.Context(c), "tea", 1)
		return errors.New("no")
	})
	sub := fiber.New(fiber.Config{ErrorHandler: func(c fiber.Ctx, err error) error {
		c.Set("CDN-Cache-Control", "max-age=60")
		return c.Status(fiber.StatusGone).SendString("of the mounted app")
	}})
	sub.Get("/error", no)
	app.Use("/sub", sub)
	url := start(t, app)

	for _, tt := range []struct {
		method, path, body, cacheControl string
		status, cookies                  int
	}{
		{"GET", "/error", "no", "public, max-age=60", 409, 0},
		{"GET", "/panic", "no", "public, max-age=60", 409, 0},
		{"GET", "/fails", "Internal Server Error", "public, max-age=60", 500, 0},
		{"GET", "/missing", "Not Found", "public, max-age=60", 409, 0},
		{"POST", "/add", "no", "private, no-store", 409, 1},
		{"GET", "/sub/error", "of the mounted app", "", 410, 0},
	} {
		a := tab(t, url)(tt.method, tt.path)
		if a.status != tt.status || a.body != tt.body ||
			a.Get("Cache-Control") != tt.cacheControl ||
			len(a.guests()) != tt.cookies || a.Get("Vary") != "Cookie" {
			t.Errorf("%s %s: %+v", tt.method, tt.path, a)
		}
		if seen != nil || a.Get("X-Seen") != fmt.Sprint(tt.status) {
			t.Errorf("%s %s: outside there is %v, %s", tt.method, tt.path, seen, a.Get("X-Seen"))
		}
	}
}

// A header that a handler set before it panicked may still be sent.
func TestAPanicOfAPublicPage(t *testing.T) {
	m := manager(t)
	app := fiber.New()
	app.Use(recover.New(), fiberguest.Middleware(m))
	app.All("/", func(c fiber.Ctx) error {
		c.Set("Cache-Control", "public, max-age=60")
		if c.Query("item") != "" {
			add(c)
		}
		panic("no")
	})
	url := start(t, app)
	if a := tab(t, url)("GET", "/"); a.status != 500 || len(a.guests()) != 0 ||
		a.Get("Cache-Control") != "public, max-age=60" {
		t.Errorf("%+v", a)
	}
	if a := tab(t, url)("POST", "/?item=tea"); a.status != 500 || len(a.guests()) != 1 ||
		a.Get("Cache-Control") != "private, no-store" {
		t.Errorf("%+v", a)
	}
}

// fasthttp keys cookies by their names. The app's own are sent as separate lines beside ours.
func TestTheAppsOwnCookies(t *testing.T) {
	m := manager(t)
	app := fiber.New()
	app.Use(func(c fiber.Ctx) error {
		c.Cookie(&fiber.Cookie{Name: "outer", Value: "1"})
		return c.Next()
	}, fiberguest.Middleware(m))
	cookies := func(c fiber.Ctx) error {
		h := &c.Response().Header
		h.Add("Set-Cookie", "a=1; path=/")
		h.Add("Set-Cookie", "a=2; path=/shop")
		if user := c.Query("user"); user != "" {
			if _, err := m.ClaimContext(fiberguest.Context(c), user); err != nil {
				return err
			}
		}
		c.Cookie(&fiber.Cookie{Name: "guestbook", Value: "b"})
		h.Add("Vary", "Accept-Language")
		return nil
	}
	app.Get("/", cookies)
	url := start(t, app)
	get := tab(t, url)

	mine := []string{"outer=1; path=/; SameSite=Lax", "a=1; path=/", "a=2; path=/shop",
		"guestbook=b; path=/; SameSite=Lax"}
	// new, back for the first time, known
	for i, ours := range [][]string{{"guest."}, {"guest.", "guest="}, {}} {
		a := get("GET", "/")
		lines := a.Header["Set-Cookie"]
		if len(lines) < len(mine) || !slices.Equal(lines[:len(mine)], mine) {
			t.Fatalf("request %d: %q", i, lines)
		}
		if vary := a.Header["Vary"]; !slices.Equal(vary, []string{"Accept-Language", "Cookie"}) {
			t.Errorf("request %d: Vary %q", i, vary)
		}
		if rest := lines[len(mine):]; len(rest) > len(ours) ||
			(len(rest) == 0) != (len(ours) == 0) {
			t.Errorf("request %d: %q", i, rest)
		}
	}
	get("GET", "/")
	a := get("GET", "/?user=ann") // a sign-in by GET, such as a link of an e-mail
	lines := a.Header["Set-Cookie"]
	if len(lines) != len(mine)+1 || !slices.Equal(lines[:len(mine)], mine) ||
		!strings.HasPrefix(lines[len(mine)], "guest=;") {
		t.Errorf("a claim: %q", lines)
	}
}

// A subdomain may set cookies under any name except ours, and fasthttp parses the header and writes
// it anew. The result must not be the guest's cookie.
func TestOnlyExactCookieNamesAreOurs(t *testing.T) {
	m := manager(t, func(cfg *guest.Config) { cfg.Cookie = guest.Cookie{} })
	app := fiber.New()
	app.Use(fiberguest.Middleware(m))
	app.Get("/", func(c fiber.Ctx) error { return c.SendString(fiberguest.Visitor(c).GuestID()) })
	visit := func(cookies ...string) (id string, set []*http.Cookie) {
		t.Helper()
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Cookie"] = cookies
		res, err := app.Test(r)
		if err != nil { // fasthttp refuses control characters
			return err.Error(), nil
		}
		body, _ := io.ReadAll(res.Body)
		return string(body), res.Cookies()
	}
	attacker, set := visit()
	cookie, name := set[0].Name+"="+set[0].Value, set[0].Name
	for _, exact := range [][]string{{cookie}, {"a=1; " + cookie}, {"a=1;" + cookie + " ; b=2"}, {"a=1", cookie}, {`x; "y"; =z; ` + cookie}} {
		if id, _ := visit(exact...); id != attacker {
			t.Errorf("%q is not read as the guest's cookie", exact)
		}
	}
	for _, other := range []string{
		"=" + cookie, "= " + cookie, `="` + cookie + `"`, "==" + cookie, "=a=" + cookie, `"` + cookie + `"`, "a=" + cookie, "a," + cookie,
		"$" + cookie, "\u2000" + cookie, "\u0085" + cookie, "\u00a0" + cookie, "\xa0" + cookie,
		"\x85" + cookie, "\u3000" + cookie,
		"a=\t" + cookie, "\v" + cookie, "\f" + cookie, "a=b\x00" + cookie,
		name + "\u00a0=" + set[0].Value, strings.ToUpper(name) + "=" + set[0].Value,
	} {
		for _, header := range [][]string{{other}, {"a=1; " + other + "; b=2"}, {"a=1", other}} {
			if id, _ := visit(header...); id == attacker {
				t.Errorf("%q is read as the guest's cookie", header)
			}
		}
	}
}

// Account gets the whole request, which stays valid.
func TestTheConvertedRequest(t *testing.T) {
	var kept []*http.Request
	m := manager(t, func(cfg *guest.Config) {
		cfg.Account = func(r *http.Request) string { kept = append(kept, r); return "" }
	})
	app := fiber.New(fiber.Config{TrustProxy: true,
		TrustProxyConfig: fiber.TrustProxyConfig{Loopback: true}})
	app.Use(fiberguest.Middleware(m))
	app.All("/*", func(c fiber.Ctx) error { return c.Send(c.Body()) })
	url := start(t, app)

	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buffered := bufio.NewReader(conn)
	send := func(raw string) string {
		t.Helper()
		io.WriteString(conn, raw)
		res, err := http.ReadResponse(buffered, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return string(body)
	}
	raw := "PATCH /a%2Fb/c?q=1&q=2 HTTP/1.1\r\nHost: shop.example\r\nCookie: a=1; b=\"2\"\r\ncookie: a=3\r\n" +
		"X-Many: 1\r\nx-many: 2\r\nX-Forwarded-Host: outside.example\r\nContent-Length: 4\r\nContent-Type: text/plain\r\n\r\nbody"
	if body := send(raw); body != "body" {
		t.Errorf("the handler's body is %q", body)
	}
	send(strings.NewReplacer("/a%2Fb/c?q=1&q=2", "/x%2Fx/x?x=9&x=9", "a=", "x=", "b=", "x=", "shop",
		"xxxx", "outside", "xxxxxxx",
		": 1", ": 9", ": 2", ": 9", "PATCH", "TRACE").Replace(raw)) // into the same buffers
	send("GET /%zz?q=1 HTTP/1.1\r\nHost: shop.example\r\n\r\n") // net/http would refuse it
	if u := kept[2].URL; u.Path != "/%zz" || u.RawQuery != "q=1" {
		t.Errorf("%+v", u)
	}
	r := kept[0]
	got := fmt.Sprint(r.Method, " ", r.URL, " ", r.URL.Path, " ", r.RequestURI, " ", r.Host, " ",
		r.Proto, " ", r.ProtoMajor, " ", r.ProtoMinor, " ", r.TLS)
	want := "PATCH /a%2Fb/c?q=1&q=2 /a/b/c /a%2Fb/c?q=1&q=2 outside.example HTTP/1.1 1 1 <nil>"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if many := r.Header["X-Many"]; !slices.Equal(many, []string{"1", "2"}) {
		t.Errorf("X-Many: %q", many)
	}
	var cookies []string
	for _, c := range r.Cookies() {
		cookies = append(cookies, c.Name+"="+c.Value)
	}
	if !slices.Equal(cookies, []string{"a=1", "b=2", "a=3"}) || r.Header.Get("Host") != "" {
		t.Errorf("%q, %v", cookies, r.Header)
	}
	if r.RemoteAddr != conn.LocalAddr().String() {
		t.Errorf("from %s, want %s", r.RemoteAddr, conn.LocalAddr())
	}
	if rest, err := io.ReadAll(r.Body); len(rest) != 0 || err != nil {
		t.Errorf("the copy has a body: %q, %v", rest, err)
	}
}

func TestAccountSeesLocals(t *testing.T) {
	type key struct{}
	m := manager(t, func(cfg *guest.Config) {
		cfg.Account = func(r *http.Request) string {
			user, _ := r.Context().Value(key{}).(string)
			return user
		}
	})
	app := fiber.New()
	app.Use(func(c fiber.Ctx) error {
		if user := c.Get("X-User"); user != "" {
			fiber.Locals(c, key{}, user) // a string in a buffer that fasthttp reuses
		}
		return c.Next()
	}, fiberguest.Middleware(m))
	var contexts []context.Context
	app.Post("/add", func(c fiber.Ctx) error {
		contexts = append(contexts, fiberguest.Context(c))
		return add(c)
	})
	app.Get("/", func(c fiber.Ctx) error {
		return c.SendString(
			fiberguest.Visitor(c).AccountID() + " " + fmt.Sprint(fiberguest.Visitor(c).IsGuest()))
	})
	do := tab(t, start(t, app))
	do("POST", "/add?item=tea")
	if a := do("GET", "/"); a.body != " true" {
		t.Errorf("a guest: %q", a.body)
	}
	if a := do("GET", "/", "X-User", "ann"); a.body != "ann false" {
		t.Errorf("a member: %q", a.body)
	}
	do("POST", "/add?item=milk", "X-User", "ann")
	for range 50 {
		do("GET", "/", "X-User", "bob")
	}
	for _, item := range []string{"tea", "milk"} {
		if n, err := Cart.Get(m.As(t.Context(), "ann"), item); n != 1 || err != nil {
			t.Errorf("ann has %d %s, %v", n, item, err)
		}
	}
	if id := guest.FromContext(contexts[1]).AccountID(); id != "ann" {
		t.Errorf("long after the request its visitor is %q", id)
	}
}

// Fiber's own middleware stores its results in the locals.
func TestAccountOfASession(t *testing.T) {
	m := manager(t, func(cfg *guest.Config) {
		cfg.Account = func(r *http.Request) string {
			user, _ := session.FromContext(r.Context()).Get("user").(string)
			return user
		}
	})
	app := fiber.New()
	app.Use(session.New(), fiberguest.Middleware(m))
	app.Post("/add", add)
	app.Post("/login", func(c fiber.Ctx) error {
		session.FromContext(c).Set("user", "ann")
		_, err := m.ClaimContext(fiberguest.Context(c), "ann")
		return err
	})
	app.Get("/", func(c fiber.Ctx) error { return c.SendString(fiberguest.Visitor(c).AccountID()) })
	do := tab(t, start(t, app))
	do("POST", "/add?item=tea")
	do("POST", "/login")
	if a := do("GET", "/"); a.body != "ann" {
		t.Errorf("signed in as %q", a.body)
	}
	if a := do("POST", "/add?item=tea"); a.body != "2" {
		t.Errorf("the account's cart holds %q", a.body)
	}
}

// The guest's cookie is Secure, and its request has the TLS connection.
func TestHTTPS(t *testing.T) {
	var state *tls.ConnectionState
	m := manager(t, func(cfg *guest.Config) {
		cfg.Cookie = guest.Cookie{}
		cfg.Account = func(r *http.Request) string { state = r.TLS; return "" }
	})
	app := fiber.New()
	app.Use(fiberguest.Middleware(m))
	app.Get("/", whoami)
	certs := httptest.NewUnstartedServer(nil) // for its certificate
	certs.StartTLS()
	defer certs.Close()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certs.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	defer serve(app, ln)()
	jar, _ := cookiejar.New(nil)
	client := certs.Client()
	client.Jar = jar
	defer client.CloseIdleConnections()
	var ids []string
	for range 3 {
		res, err := client.Get("https://" + ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		id, _ := io.ReadAll(res.Body)
		res.Body.Close()
		ids = append(ids, string(id))
	}
	if ids[0] == "" || ids[1] != ids[0] || ids[2] != ids[0] || state == nil ||
		!state.HandshakeComplete {
		t.Errorf("%q, %+v", ids, state)
	}
}

// An inner net/http handler has the visitor, too.
func TestNetHTTPInside(t *testing.T) {
	app := fiber.New()
	app.Use(fiberguest.Middleware(manager(t)))
	app.Post("/", adaptor.HTTPHandlerWithContext(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, _ := adaptor.LocalContextFromHTTPRequest(r)
			fmt.Fprint(w, guest.FromContext(ctx).IsNew())
		})))
	if a := tab(t, start(t, app))("POST", "/"); a.body != "true" || len(a.guests()) != 1 {
		t.Errorf("%+v", a)
	}
}

// Fiber reuses its contexts. Code that runs longer than the handler uses the request's.
func TestWhatOutlivesItsRequest(t *testing.T) {
	m := manager(t)
	app := fiber.New()
	app.Use(fiberguest.Middleware(m))
	goOn := make(chan struct{})
	var late sync.WaitGroup
	app.Post("/later", func(c fiber.Ctx) error {
		ctx := fiberguest.Context(c)
		late.Go(func() {
			<-goOn
			if _, err := Cart.Add(ctx, "late", 1); err != nil {
				t.Error(err)
			}
		})
		if _, err := Cart.Add(ctx, c.Query("item"), 1); err != nil {
			return err
		}
		return whoami(c)
	})
	app.Post("/stream", func(c fiber.Ctx) error {
		ctx := fiberguest.Context(c)
		return c.SendStreamWriter(func(w *bufio.Writer) {
			w.WriteString("begun ")
			w.Flush()
			n, err := Cart.Add(ctx, "tea", 1)
			fmt.Fprint(w, n, err)
		})
	})
	app.Post("/login", func(c fiber.Ctx) error {
		ctx := fiberguest.Context(c)
		if _, err := m.ClaimContext(ctx, c.Query("user")); err != nil {
			return err
		}
		late.Go(func() {
			<-goOn
			if _, err := Cart.Add(ctx, "late", 1); err != nil {
				t.Error(err)
			}
		})
		return nil
	})
	url := start(t, app)

	one := tab(t, url)
	one("POST", "/stream")
	if a := one("POST", "/stream"); a.body != "begun 2 <nil>" {
		t.Errorf("%q", a.body)
	}
	one("POST", "/login?user=ann")
	var ids []string
	for i := range 50 {
		ids = append(ids, tab(t, url)("POST", fmt.Sprintf("/later?item=%d", i)).body)
	}
	close(goOn)
	late.Wait()
	for i, id := range ids {
		cart, err := Cart.All(m.AsGuest(t.Context(), id))
		if err != nil || len(cart) != 2 || cart["late"] != 1 || cart[fmt.Sprint(i)] != 1 {
			t.Errorf("guest %s has %v, %v", id, cart, err)
		}
	}
	if cart, err := Cart.All(m.As(t.Context(), "ann")); err != nil || cart["tea"] != 2 ||
		cart["late"] != 1 {
		t.Errorf("ann has %v, %v", cart, err)
	}
}

// A timeout's answer is a copy of the response as it was, while the handler still writes to that.
func TestTimeoutInside(t *testing.T) {
	m := manager(t)
	app := fiber.New()
	begun, answered, written := make(chan struct{}), make(chan struct{}), make(chan error)
	slow := func(c fiber.Ctx) error {
		ctx := fiberguest.Context(c)
		c.Set("Cache-Control", "public, max-age=60")
		close(begun)
		<-answered
		c.Set("Cache-Control", "public, max-age=61")
		_, err := Cart.Add(ctx, "tea", 1)
		written <- err
		return nil
	}
	app.Get("/", fiberguest.Middleware(m), timeout.New(slow, timeout.Config{
		Timeout:   time.Millisecond,
		OnTimeout: func(fiber.Ctx) error { <-begun; return fiber.ErrRequestTimeout },
	}))
	a := tab(t, start(t, app))("GET", "/")
	if a.status != 408 || len(a.guests()) != 0 || a.Get("Cache-Control") != "public, max-age=60" ||
		a.Get("Vary") != "Cookie" {
		t.Errorf("%+v", a)
	}
	close(answered)
	if err := <-written; !errors.Is(err, guest.ErrNotAdmitted) {
		t.Errorf("a write when the answer is gone: %v, want ErrNotAdmitted", err)
	}
}

// We do not touch the response of an outer timeout, as the server may be reading it.
func TestTimeoutOutside(t *testing.T) {
	m := manager(t)
	begun, timedOut, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	// after the copy, before it is sent
	app := fiber.New(fiber.Config{ErrorHandler: func(c fiber.Ctx, err error) error {
		close(timedOut)
		<-done
		return nil
	}})
	all := func(c fiber.Ctx) error {
		defer close(done)
		return c.Next()
	}
	app.Use(timeout.New(all, timeout.Config{
		Timeout:   time.Millisecond,
		OnTimeout: func(fiber.Ctx) error { <-begun; return fiber.ErrRequestTimeout },
	}), fiberguest.Middleware(m))
	app.Get("/", func(c fiber.Ctx) error {
		close(begun)
		<-timedOut
		return nil
	})
	a := tab(t, start(t, app))("GET", "/")
	if a.status != 408 || len(a.guests()) != 0 || a.Get("Vary") != "" {
		t.Errorf("%+v", a)
	}
}

// Fiber's own middleware that keeps responses or changes cookies.
func TestAmongOtherMiddleware(t *testing.T) {
	key := encryptcookie.GenerateKey(32)
	use := map[string]struct{ before, after fiber.Handler }{
		"cache inside":           {after: cache.New(cache.Config{StoreResponseHeaders: true})},
		"cache outside":          {before: cache.New(cache.Config{StoreResponseHeaders: true})},
		"idempotency inside":     {after: idempotency.New()},
		"encryptcookie inside":   {after: encryptcookie.New(encryptcookie.Config{Key: key})},
		"encryptcookie outside":  {before: encryptcookie.New(encryptcookie.Config{Key: key})},
		"another of the Manager": {},
	}
	for name, u := range use {
		t.Run(name, func(t *testing.T) {
			m := manager(t)
			app := fiber.New()
			if u.before != nil {
				app.Use(u.before)
			}
			app.Use(fiberguest.Middleware(m))
			if u.after == nil {
				u.after = fiberguest.Middleware(m)
			}
			app.Use(u.after)
			app.All("/", func(c fiber.Ctx) error { return c.SendString("hello") })
			app.Post("/who/:of", whoami)
			url := start(t, app)
			idem := []string{"X-Idempotency-Key", "12345678-1234-1234-1234-123456789012"}

			given := map[string]bool{}
			for range 4 {
				do := tab(t, url)
				do("GET", "/")
				do("POST", "/", idem...)
				of := "/who/" + rand.Text()
				id := do("POST", of).body
				if again := do("POST", of).body; id == "" || again != id || given[id] {
					t.Errorf("a visitor is %q, then %q; others %v", id, again, given)
				}
				given[id] = true
			}
		})
	}
}

func TestHeadersAsTheAppSpellsThem(t *testing.T) {
	m := manager(t, func(cfg *guest.Config) { cfg.Header = "X-Guest" })
	app := fiber.New(fiber.Config{DisableHeaderNormalizing: true})
	app.Use(fiberguest.Middleware(m))
	app.Get("/public", func(c fiber.Ctx) error { c.Set("cache-control", "public"); return nil })
	app.Post("/add", func(c fiber.Ctx) error {
		c.Set("cdn-cache-control", "max-age=1")
		return add(c)
	})
	app.Get("/who", whoami)
	do := tab(t, start(t, app))
	if a := do("GET", "/public"); len(a.guests()) != 0 || a.Get("X-Guest") != "" ||
		!slices.Equal(a.Header["Cache-Control"], []string{"public"}) {
		t.Errorf("%+v", a)
	}
	a := do("POST", "/add?item=tea", "x-guest", "")
	if len(a.guests()) != 1 ||
		!slices.Equal(a.Header["Cache-Control"], []string{"private, no-store"}) ||
		a.Get("CDN-Cache-Control") != "" {
		t.Errorf("%+v", a)
	}
	id := do("GET", "/who").body
	native := tab(t, start(t, app))
	if b := native("GET", "/who", "x-guest", a.Get("X-Guest")); b.body != id || id == "" {
		t.Errorf("by the header %q, by the cookie %q", b.body, id)
	}
}

func TestForgetAndTicket(t *testing.T) {
	m := manager(t)
	app := fiber.New()
	app.Use(fiberguest.Middleware(m))
	app.Post("/add", add)
	app.Post("/ticket", func(c fiber.Ctx) error {
		ticket, err := m.Ticket(fiberguest.Context(c), "ann@example.org", time.Hour)
		if err != nil {
			return err
		}
		return c.SendString(ticket)
	})
	app.Get("/open", func(c fiber.Ctx) error {
		receipt, err := m.ClaimTicketContext(fiberguest.Context(c), c.Query("ticket"),
			"ann@example.org", "ann")
		if err != nil {
			return err
		}
		return c.SendString(fmt.Sprint(receipt.Claimed))
	})
	app.Post("/forget", func(c fiber.Ctx) error { return m.ForgetContext(fiberguest.Context(c)) })
	url := start(t, app)

	phone := tab(t, url)
	phone("POST", "/add?item=tea")
	ticket := phone("POST", "/ticket").body
	if a := tab(t, url)("GET", "/open?ticket="+ticket); a.body != "true" {
		t.Errorf("%+v", a)
	}
	if n, err := Cart.Get(m.As(t.Context(), "ann"), "tea"); n != 1 || err != nil {
		t.Errorf("ann has %d, %v", n, err)
	}

	do := tab(t, url)
	do("POST", "/add?item=tea")
	do("POST", "/add?item=tea")
	a := do("POST", "/forget")
	if lines := a.Header["Set-Cookie"]; len(lines) != 1 || !strings.HasPrefix(lines[0], "guest=;") {
		t.Errorf("%q", lines)
	}
	if a := do("POST", "/add?item=tea"); a.body != "1" {
		t.Errorf("after Forget the cart holds %q", a.body)
	}
}

// A new guest's record is stored when the handler is done, for the guest to be recognised; after a
// panic it is not.
func TestTheRecordOfANewGuest(t *testing.T) {
	store := memstore.New(memstore.Config{})
	m := manager(t, func(cfg *guest.Config) { cfg.Store = store })
	app := fiber.New()
	app.Use(recover.New(), fiberguest.Middleware(m))
	app.Get("/", func(c fiber.Ctx) error { return nil })
	app.Get("/error", func(c fiber.Ctx) error { return errors.New("no") })
	app.Get("/panic", func(c fiber.Ctx) error { panic("no") })
	url := start(t, app)
	for i, path := range []string{"/", "/error", "/panic"} {
		tab(t, url)("GET", path)
		records := 0
		for _, err := range store.Keys(t.Context(), "g:") {
			if err != nil {
				t.Fatal(err)
			}
			records++
		}
		if want := min(i+1, 2); records != want {
			t.Errorf("after %s there are %d records, want %d", path, records, want)
		}
	}
}

// c.RestartRouting runs the middleware again inside itself.
func TestRestartRouting(t *testing.T) {
	m := manager(t)
	app := fiber.New()
	app.Use(fiberguest.Middleware(m))
	app.Get("/old", func(c fiber.Ctx) error { c.Path("/new"); return c.RestartRouting() })
	app.Get("/new", whoami)
	a := tab(t, start(t, app))("GET", "/old")
	if a.body == "" || len(a.guests()) != 1 || len(a.Header["Vary"]) != 1 {
		t.Errorf("%+v", a)
	}
}

func TestWithoutTheMiddleware(t *testing.T) {
	app := fiber.New()
	app.Get("/", func(c fiber.Ctx) error {
		_, err := Cart.Get(fiberguest.Context(c), "tea")
		return c.SendString(fmt.Sprintf("%q %v", fiberguest.Visitor(c).GuestID(),
			errors.Is(err, guest.ErrNoVisitor)))
	})
	if a := tab(t, start(t, app))("GET", "/"); a.body != `"" true` {
		t.Error(a.body)
	}
}

// fiber.Ctx is a context, too, but has no visitor, as Fiber reuses it for another request.
func TestTheFiberContextHasNoVisitor(t *testing.T) {
	app := fiber.New()
	app.Use(fiberguest.Middleware(manager(t)))
	app.Get("/", func(c fiber.Ctx) error {
		_, err := Cart.Get(c, "tea")
		return c.SendString(fmt.Sprint(errors.Is(err, guest.ErrNoVisitor)))
	})
	if a := tab(t, start(t, app))("GET", "/"); a.body != "true" {
		t.Error(a.body)
	}
}

// The package doc is right about Fiber's adaptor.HTTPMiddleware.
func TestTheWrongWay(t *testing.T) {
	faults := map[string][]string{}
	for _, r := range adaptertest.Play(t.Context(), adaptertest.Mount{
		Serve: func(m *guest.Manager, ln net.Listener) func() {
			app := fiber.New(fiber.Config{ReadBufferSize: 16 << 10})
			app.Use(tellAnswered, recover.New())
			if m != nil {
				app.Use(adaptor.HTTPMiddleware(m.Middleware))
			}
			routes(app, m)
			return serve(app, ln)
		},
	}) {
		faults[r.Scenario] = r.Faults
	}
	for _, scenario := range []string{"public page", "late write", "Claim with a context"} {
		if len(faults[scenario]) == 0 {
			t.Errorf("%s: no fault", scenario)
		}
	}
}

func Example() {
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("from your configuration, 32 bytes")},
		Data:    []guest.Kind{Cart},
	})
	if err != nil {
		panic(err)
	}
	app := fiber.New(fiber.Config{ReadBufferSize: 16 << 10})
	app.Use(recover.New(), fiberguest.Middleware(guests))
	app.Post("/cart/:sku", func(c fiber.Ctx) error {
		n, err := Cart.Add(fiberguest.Context(c), c.Params("sku"), 1)
		if err != nil {
			return err
		}
		return c.JSON(fiber.Map{"amount": n, "guest": fiberguest.Visitor(c).IsGuest()})
	})
	app.Post("/login", func(c fiber.Ctx) error {
		user := struct{ ID string }{"ann"}                                  // your app has checked the password
		receipt, err := guests.ClaimContext(fiberguest.Context(c), user.ID) // never a reason to fail the login
		if err != nil {
			fmt.Println(err)
		}
		return c.JSON(receipt.Claimed)
	})

	res, err := app.Test(httptest.NewRequest("POST", "/cart/tea", nil))
	if err != nil {
		panic(err)
	}
	defer res.Body.Close()
	io.Copy(log{}, res.Body)
	fmt.Println(res.Header["Cache-Control"], len(res.Cookies()))
	// Output:
	// {"amount":1,"guest":true}
	// [private, no-store] 1
}

type log struct{}

func (log) Write(b []byte) (int, error) { fmt.Println(string(b)); return len(b), nil }
