package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/guestkit/guest/memstore"
)

func TestAccounts(t *testing.T) {
	low := passwordCost
	passwordCost = realCost
	defer func() { passwordCost = low }()
	db, err := openDatabase(t.TempDir() + "/shop?#.db") // a file, with a name that a URL would misread
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx := t.Context()
	a, err := newAccounts(ctx, db)
	if err != nil {
		t.Fatal(err)
	}
	user, err := a.signUp(ctx, " Ada@Example.com ", password)
	if err != nil || user.Email != ada || user.ID == "" {
		t.Fatalf("%+v, %v", user, err)
	}
	for _, test := range []struct {
		do              func(ctx context.Context, email, password string) (User, error)
		email, password string
		want            error
	}{
		{a.signUp, "ADA@example.com", password, errTaken},
		{a.signUp, "ada", password, errEmail},
		{a.signUp, "Ada <ada@example.com>", password, errEmail},
		{a.signUp, strings.Repeat("a", 250) + "@example.com", password, errEmail},
		{a.signUp, "eve@example.com", "1234567", errPassword},
		{a.signUp, "eve@example.com", strings.Repeat("1", 201), errPassword},
		{a.logIn, "ADA@example.com ", password, nil},
		{a.logIn, ada, password + " ", errLogin},
		{a.logIn, ada, "", errLogin},
		{a.logIn, "eve@example.com", password, errLogin},
		{a.logIn, "", "", errLogin},
	} {
		got, err := test.do(ctx, test.email, test.password)
		if err != test.want {
			t.Errorf("%q, %q: %v, want %v", test.email, test.password, err, test.want)
		}
		if err == nil && got != user {
			t.Errorf("%q is %+v, want %+v", test.email, got, user)
		}
	}
	var hash string
	if err := db.QueryRow(`SELECT password FROM users`).Scan(&hash); err != nil || !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("%q, %v", hash, err)
	}
}

// Sent at once, twice, or after another tab has ordered: one order, and the cart keeps what was not
// ordered.
func TestCheckoutOnce(t *testing.T) {
	s := openShop(t, memstore.New(memstore.Config{}), newSecret())
	c := &client{t, s.handler(), map[string]string{}, s.shop}
	c.get("/")
	c.post("/cart/fern/more")
	c.post("/signup", "email", ada, "password", password)

	var both sync.WaitGroup
	for range 8 {
		again := &client{t, s.handler(), map[string]string{sessionCookie: c.cookies[sessionCookie]}, s.shop}
		both.Go(func() { again.post("/checkout", "form", "1") })
	}
	both.Wait()
	s.account(t, ada, map[string]int64{}, nil, "")
	c.post("/checkout", "form", "2")
	page := c.get("/orders")
	c.shows(page, "Order 1", "1 × Boston fern")
	if strings.Contains(page, "Order 2") {
		t.Error("ordered twice")
	}
}

func TestAmountsStayInRange(t *testing.T) {
	s := openShop(t, memstore.New(memstore.Config{}), newSecret())
	c := &client{t, s.handler(), map[string]string{}, s.shop}
	c.get("/")
	c.post("/cart/fern/more")
	var all sync.WaitGroup
	for range 8 {
		again := &client{t, s.handler(), map[string]string{"guest": c.cookies["guest"]}, s.shop}
		all.Go(func() { again.post("/cart/fern/less") })
	}
	all.Wait()
	if page := c.get("/cart"); !strings.Contains(page, "Nothing here yet") {
		t.Error("the cart is not empty")
	}
	for range mostOfOne + 3 {
		c.post("/cart/fern/more")
	}
	c.shows(c.get("/cart"), `id="amount-fern">50<`)
}

func TestOtherSitesCannotPost(t *testing.T) {
	s := openShop(t, memstore.New(memstore.Config{}), newSecret())
	for path := range strings.FieldsSeq("/cart/fern/more /wishes/fern/add /theme /checkout /signup /login /logout") {
		r := newRequest("POST", path, nil)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		w := httptest.NewRecorder()
		s.handler().ServeHTTP(w, r)
		if w.Code != http.StatusForbidden || w.Header().Get("Set-Cookie") != "" {
			t.Errorf("%s: status %d", path, w.Code)
		}
	}
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	s := openShop(t, memstore.New(memstore.Config{}), newSecret())
	for _, test := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/nowhere", 404},
		{"POST", "/cart/triffid/more", 404},
		{"POST", "/cart/fern/eat", 404},
		{"POST", "/wishes/triffid/add", 404},
		{"POST", "/wishes/fern/eat", 404},
		{"POST", "/theme?theme=pink", 400},
		{"GET", "/static/nowhere.css", 404},
		{"GET", "/static/shop.css", 200},
	} {
		w := httptest.NewRecorder()
		s.handler().ServeHTTP(w, newRequest(test.method, test.path, nil))
		if w.Code != test.want {
			t.Errorf("%s %s: status %d, want %d", test.method, test.path, w.Code, test.want)
		}
	}
}

func TestStaticFilesAreTheSameForEverybody(t *testing.T) {
	s := openShop(t, memstore.New(memstore.Config{}), newSecret())
	w := httptest.NewRecorder()
	s.handler().ServeHTTP(w, newRequest("GET", "/static/shop.css", nil))
	if h := w.Header(); h.Get("Set-Cookie") != "" || h.Get("Vary") != "" || !strings.Contains(h.Get("Cache-Control"), "public") {
		t.Errorf("headers %v", h)
	}
}

// Where a form leads is never up to another site.
func TestRedirectsStayHere(t *testing.T) {
	s := openShop(t, memstore.New(memstore.Config{}), newSecret())
	for _, to := range []string{"https://example.com", "//example.com", `/\example.com`, "/logout", ""} {
		w := httptest.NewRecorder()
		s.handler().ServeHTTP(w, newRequest("POST", "/cart/fern/more?back="+to, nil))
		if got := w.Header().Get("Location"); got != "/#fern" {
			t.Errorf("%q leads to %q", to, got)
		}
	}
}
