package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

const tooOften = "Too often just now"

// from is the shop as the client of this address sees it.
func from(addr string, shop http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = addr + ":4711"
		shop.ServeHTTP(w, r)
	})
}

// at is another browser, at this address.
func (c *client) at(addr string) *client {
	return &client{c.T, from(addr, c.shop.handler()), map[string]string{}, c.shop}
}

// stranger is a browser at an address of which there are many.
func (c *client) stranger(n int) *client { return c.at(fmt.Sprintf("10.0.%d.%d", n/250, n%250+1)) }

// hasUp sends a form until it is refused.
func (c *client) hasUp(times int, refused, path string, form ...string) {
	c.Helper()
	for n := range times {
		if w := c.do("POST", path, form...); w.Code == http.StatusTooManyRequests {
			c.Fatalf("%s was refused after %d of %d times", path, n, times)
		}
	}
	w := c.do("POST", path, form...)
	if w.Code != http.StatusTooManyRequests || !strings.Contains(w.Body.String(), tooOften) || w.Header().Get("Retry-After") != refused {
		c.Fatalf("%s, %d times: status %d, Retry-After %q, want 429 and %q:\n%s", path, times+1, w.Code, w.Header().Get("Retry-After"), refused, w.Body)
	}
}

func TestAClientHasItsLimit(t *testing.T) {
	email := 0
	next := func() string { email++; return fmt.Sprintf("visitor-%d@example.com", email) }
	for _, form := range []struct {
		limits formLimits
		send   func(c *client) (path string, form []string)
	}{
		{passwordLimits, func(c *client) (string, []string) { return "/login", []string{"email", next(), "password", "x"} }},
		{passwordLimits, func(c *client) (string, []string) { return "/signup", []string{"email", next(), "password", "x"} }},
		{linkLimits, func(c *client) (string, []string) { return "/link", []string{"email", next()} }},
		{codeLimits, func(c *client) (string, []string) {
			next()
			return "/code", []string{"phone", fmt.Sprintf("+4930%06d", email)}
		}},
		{typingLimits, func(c *client) (string, []string) {
			next()
			return "/code/open", []string{"phone", fmt.Sprintf("+4930%06d", email), "code", "000000"}
		}},
	} {
		path, _ := form.send(nil)
		t.Run(path, func(t *testing.T) {
			inOutage(t, func(c *client, _ *outage) {
				c = c.at("2001:db8:1:2::3")
				status := func(c *client) int {
					path, values := form.send(c)
					return c.do("POST", path, values...).Code
				}
				for range form.limits.client.burst {
					if got := status(c); got == http.StatusTooManyRequests {
						t.Fatal("refused too early")
					}
				}
				if got := status(c.at("2001:db8:1:2:ffff::4")); got != http.StatusTooManyRequests {
					t.Errorf("another address of the client's network: status %d, want 429", got)
				}
				if got := status(c.at("2001:db8:1:3::3")); got == http.StatusTooManyRequests {
					t.Error("another client is refused")
				}
				time.Sleep(form.limits.client.every)
				if got := status(c); got == http.StatusTooManyRequests {
					t.Error("refused after the time that was said")
				}
				if got := status(c); got != http.StatusTooManyRequests {
					t.Errorf("status %d, want 429 for the second one", got)
				}
			})
		})
	}
}

// The limit of what a form is about holds for all addresses together, and says when to come again.
func TestAnAccountHasItsLimit(t *testing.T) {
	inOutage(t, func(c *client, _ *outage) {
		n := 0
		stranger := func() *client { n++; return c.stranger(n) }
		for _, form := range []struct {
			limits formLimits
			path   string
			form   []string
		}{
			{passwordLimits, "/login", []string{"email", " ADA@example.com", "password", "x"}},
			{linkLimits, "/link", []string{"email", ada}},
			{codeLimits, "/code", []string{"phone", adasPhone}},
			{typingLimits, "/code/open", []string{"phone", "+49 30 1234567", "code", "x"}},
		} {
			for range form.limits.about.burst - 1 {
				stranger().do("POST", form.path, form.form...)
			}
			every := fmt.Sprint(int(form.limits.about.every / time.Second))
			stranger().hasUp(1, every, form.path, form.form...)
		}
	})
}

func TestAllTogetherHaveALimit(t *testing.T) {
	inOutage(t, func(c *client, _ *outage) {
		email := func(n int) string { return fmt.Sprintf("visitor-%d@example.com", n) }
		for n := range linkLimits.all.burst - 1 {
			c.stranger(n).do("POST", "/link", "email", email(n))
		}
		c.stranger(9999).hasUp(1, "1", "/link", "email", eve)
		time.Sleep(linkLimits.all.every)
		c.stranger(9998).hasUp(1, "1", "/link", "email", eve)
	})
}

// However many strangers try to get in to an account, its owner does, with a browser that has been
// in before; and with a new one by a link or a code, as each is good for long enough, no matter who
// asked.
func TestStrangersCannotLockAnOwnerOut(t *testing.T) {
	inOutage(t, func(c *client, _ *outage) {
		owner := c.at("198.51.100.1")
		owner.post("/signup", "email", ada, "password", password)
		owner.post("/logout")
		hammer := func() {
			for n := range linkLimits.all.burst {
				c.stranger(n).do("POST", "/link", "email", fmt.Sprintf("visitor-%d@example.com", n))
			}
			for n := range 30 {
				c.stranger(n).do("POST", "/login", "email", ada, "password", "x")
				c.stranger(n).do("POST", "/link", "email", ada)
				c.at("198.51.100.1").do("POST", "/login", "email", fmt.Sprintf("visitor-%d@example.com", n), "password", "x")
			}
		}
		for range 3 {
			hammer()
			c.at("198.51.100.1").hasUp(0, "60", "/login", "email", eve, "password", "x")
			c.shows(owner.post("/login", "email", ada, "password", password), ada)
			owner.post("/logout")
			c.shows(owner.post("/link", "email", ada), "Look into your mail")
			time.Sleep(time.Hour)
		}

		// A code, in the browser that has asked for it.
		fresh := c.at("198.51.100.2")
		fresh.post("/code", "phone", adasPhone)
		code := codeInSMS.FindString(c.shop.outbox.latest()[0].Text)
		for n := range 30 {
			c.stranger(n).do("POST", "/code/open", "phone", adasPhone, "code", "x")
		}
		c.shows(fresh.post("/code/open", "phone", adasPhone, "code", code), adasPhone)
	})
	if linkLimits.about.every > proofLife {
		t.Error("there are times without a good link in the mailbox and without leave to ask for one")
	}
}

// The rows that count the uses are bounded by the limits for all together, and deleted when a limit
// is unused again.
func TestLimitsUnderAFlood(t *testing.T) {
	inOutage(t, func(c *client, _ *outage) {
		rows := func() (n int) {
			if err := c.shop.limits.db.QueryRow(`SELECT count(*) FROM limits`).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		for n := range 400 {
			_, err := c.shop.limits.allow(c.Context(), use{"all", linkLimits.all}, use{fmt.Sprint("by ", n), linkLimits.client}, use{fmt.Sprint("for ", n), linkLimits.about})
			if err != nil {
				t.Fatal(err)
			}
		}
		if n, most := rows(), 1+2*linkLimits.all.burst; n != most {
			t.Errorf("%d rows of 400 clients, want %d", n, most)
		}
		time.Sleep(time.Hour)
		if _, err := c.shop.limits.allow(c.Context(), use{"all", linkLimits.all}); err != nil || rows() != 1 {
			t.Errorf("%d rows, want 1: %v", rows(), err)
		}
	})
}

func TestWhoseRequestItIs(t *testing.T) {
	for _, test := range []struct {
		configured, peer string
		header           []string
		want             string
	}{
		{"", "192.0.2.1:80", nil, "192.0.2.1"},
		{"", "192.0.2.1:80", []string{"203.0.113.7"}, "192.0.2.1"},
		{"", "[::ffff:192.0.2.1]:80", nil, "192.0.2.1"},
		{"", "[2001:db8:1:2:3::4]:80", nil, "2001:db8:1:2::/64"},
		{"X-Real-IP", "127.0.0.1:80", []string{"203.0.113.7"}, "203.0.113.7"},
		{"X-Real-IP", "127.0.0.1:80", []string{"evil, 198.51.100.1, 203.0.113.7"}, "203.0.113.7"},
		{"X-Real-IP", "127.0.0.1:80", []string{"198.51.100.1", "203.0.113.7"}, "203.0.113.7"},
		{"X-Real-IP", "127.0.0.1:80", nil, ""},
		{"X-Real-IP", "127.0.0.1:80", []string{"nobody"}, ""},
	} {
		r := newRequest("POST", "/login", nil)
		r.RemoteAddr = test.peer
		r.Header["X-Real-Ip"] = test.header
		if got := (&shop{clientHeader: test.configured}).client(r); got != test.want {
			t.Errorf("%s with X-Real-IP %q, %q configured: %q, want %q", test.peer, test.header, test.configured, got, test.want)
		}
	}
}

// docs/signin.md has a table of the limits.
func TestLimitsInTheDocs(t *testing.T) {
	docs, err := os.ReadFile("../../docs/signin.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]formLimits{
		"log in or sign up with a password": passwordLimits,
		"ask for a link":                    linkLimits,
		"ask for a code":                    codeLimits,
		"type a code":                       typingLimits,
		"go to Garden ID":                   oauthLimits,
	} {
		row := fmt.Sprintf("| %s | %s | %s | %s |\n", name, inDocs(l.client), inDocs(l.about), inDocs(l.all))
		if !bytes.Contains(docs, []byte(row)) {
			t.Errorf("docs/signin.md lacks\n%s", row)
		}
	}
}

func inDocs(l limit) string {
	rate := fmt.Sprintf("%d a second", time.Second/l.every)
	switch minutes := l.every / time.Minute; {
	case minutes > 1:
		rate = fmt.Sprintf("1 every %d minutes", minutes)
	case minutes == 1:
		rate = "1 a minute"
	case l.every > time.Second:
		rate = fmt.Sprintf("1 every %d seconds", l.every/time.Second)
	}
	return fmt.Sprintf("%d, then %s", l.burst, rate)
}
