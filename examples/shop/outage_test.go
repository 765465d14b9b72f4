package main

import (
	"context"
	"errors"
	"html"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// An outage is a store that can be down.
type outage struct {
	guest.Store
	down atomic.Bool
}

var errDown = errors.New("the store is down")

func (o *outage) Get(ctx context.Context, key string, names ...string) (guest.Fields, error) {
	if o.down.Load() {
		return nil, errDown
	}
	return o.Store.Get(ctx, key, names...)
}

func (o *outage) Update(ctx context.Context, key string, u guest.Update) (guest.Result, error) {
	if o.down.Load() {
		return guest.Result{}, errDown
	}
	return o.Store.Update(ctx, key, u)
}

func (o *outage) Keys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return o.Store.Keys(ctx, prefix)
}

// A client is a browser without pictures: it keeps cookies and follows redirects.
type client struct {
	*testing.T
	handler http.Handler
	cookies map[string]string
	shop    *shop
}

// newRequest is one to the shop in development.
func newRequest(method, target string, body io.Reader) *http.Request {
	r := httptest.NewRequest(method, target, body)
	r.Host = "localhost"
	return r
}

func (c *client) get(path string) string { c.Helper(); return c.send("GET", path) }

// post sends a form: names and values in turn.
func (c *client) post(path string, form ...string) string {
	c.Helper()
	return c.send("POST", path, form...)
}

func values(form []string) url.Values {
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	return values
}

// do sends one request and follows nothing.
func (c *client) do(method, path string, form ...string) *httptest.ResponseRecorder {
	r := newRequest(method, path, strings.NewReader(values(form).Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for name, value := range c.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, r)
	return w
}

func (c *client) send(method, path string, form ...string) string {
	c.Helper()
	w := c.do(method, path, form...)
	for _, cookie := range w.Result().Cookies() {
		if cookie.MaxAge < 0 {
			delete(c.cookies, cookie.Name)
		} else {
			c.cookies[cookie.Name] = cookie.Value
		}
	}
	if w.Code == http.StatusSeeOther {
		to, _, _ := strings.Cut(w.Header().Get("Location"), "#")
		return c.get(to)
	}
	if w.Code != http.StatusOK {
		c.Fatalf("%s %s: status %d", method, path, w.Code)
	}
	return w.Body.String()
}

func (c *client) shows(page string, texts ...string) {
	c.Helper()
	for _, text := range texts {
		if !strings.Contains(html.UnescapeString(page), text) {
			c.Fatalf("the page lacks %q:\n%s", text, page)
		}
	}
}

// inOutage runs a test of a shop whose store can be down, on a clock that costs no time.
func inOutage(t *testing.T, test func(*client, *outage)) {
	synctest.Test(t, func(t *testing.T) {
		store := &outage{Store: memstore.New(memstore.Config{})}
		db, err := openDatabase("")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		s, err := newShop(t.Context(), db, store, [][]byte{newSecret()}, true)
		if err != nil {
			t.Fatal(err)
		}
		test(&client{t, s.handler(), map[string]string{}, s}, store)
	})
}

const (
	downNotice = "cannot be reached right now"
	sorry      = "That could not be saved."
)

func TestPagesWithoutTheStore(t *testing.T) {
	inOutage(t, func(c *client, store *outage) {
		c.get("/")
		c.shows(c.post("/cart/fern/more", "back", "/cart"), `id="amount-fern">1<`)

		store.down.Store(true)
		for _, path := range []string{"/", "/cart", "/wishes", "/login", "/signup"} {
			c.shows(c.get(path), downNotice)
		}
		c.shows(c.post("/cart/fern/more", "back", "/cart"), sorry, downNotice)
		c.shows(c.post("/cart/fern/remove", "back", "/cart"), sorry)
		c.shows(c.post("/wishes/fern/add", "back", "/wishes"), sorry)
		c.shows(c.post("/theme", "theme", "dark", "back", "/login"), sorry)

		store.down.Store(false)
		if page := c.get("/cart"); strings.Contains(page, downNotice) || strings.Contains(page, sorry) {
			t.Fatal("the notices stay")
		}
		c.shows(c.get("/cart"), `id="amount-fern">1<`)
	})
}

// A login with the store down is a login; the cart comes after it.
func TestLoginWithoutTheStore(t *testing.T) {
	inOutage(t, func(c *client, store *outage) {
		c.get("/")
		c.post("/cart/fern/more")
		store.down.Store(true)
		c.shows(c.post("/signup", "email", ada, "password", password), ada, "Welcome to Windowsill!", "Your cart is on its way")
		if c.cookies["guest"] == "" {
			t.Fatal("the guest is not kept for another try")
		}
		c.shows(c.get("/orders"), "Nothing ordered yet")
		c.shows(c.post("/checkout", "form", "1"), sorry)

		store.down.Store(false)
		time.Sleep(time.Minute) // of the bubble: failed claims are not tried again at once
		c.shows(c.get("/cart"), ada, `id="amount-fern">1<`)
		if len(c.cookies) != 2 || c.cookies[sessionCookie] == "" || c.cookies[knownCookie] == "" {
			t.Fatalf("cookies %v, want that of the session and that of the browser", slices.Collect(maps.Keys(c.cookies)))
		}
	})
}
