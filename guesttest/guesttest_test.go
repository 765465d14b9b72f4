package guesttest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/guesttest"
)

var Cart = guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))

// show is an app's handler.
func show(w http.ResponseWriter, r *http.Request) {
	n, err := Cart.Get(r.Context(), "tea")
	fmt.Fprintf(w, "%q has %d, %v", guest.FromContext(r.Context()).AccountID(), n, err)
}

func twoTeas(ctx context.Context) error { return Cart.Set(ctx, "tea", 2) }

func Example() {
	t := &testing.T{} // your test's
	guests := guesttest.New(t, Cart)
	r := httptest.NewRequest("GET", "/cart", nil)

	w := httptest.NewRecorder()
	show(w, guesttest.Guest(t, guests, r, func(ctx context.Context) error {
		return Cart.Set(ctx, "tea", 2)
	}))
	fmt.Println(w.Body)

	w = httptest.NewRecorder()
	show(w, guesttest.Member(t, guests, r, "ann", func(ctx context.Context) error {
		return Cart.Set(ctx, "tea", 3)
	}))
	fmt.Println(w.Body)
	// Output:
	// "" has 2, <nil>
	// "ann" has 3, <nil>
}

func TestBehindTheMiddlewareItIsTheSameVisitor(t *testing.T) {
	m := guesttest.New(t, Cart)
	for want, r := range map[string]*http.Request{
		`"" has 2, <nil>`:    guesttest.Guest(t, m, httptest.NewRequest("GET", "/", nil), twoTeas),
		`"ann" has 2, <nil>`: guesttest.Member(t, m, httptest.NewRequest("GET", "/", nil), "ann", twoTeas),
	} {
		for _, h := range []http.Handler{http.HandlerFunc(show),
			m.Middleware(http.HandlerFunc(show))} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Body.String() != want {
				t.Errorf("%s, want %s", w.Body, want)
			}
			if c := w.Result().Cookies(); len(c) != 0 {
				t.Errorf("cookies %v", c)
			}
		}
	}
}

// A login handler under test claims the guest, also from the cookie alone.
func TestClaim(t *testing.T) {
	m := guesttest.New(t, Cart)
	r := guesttest.Guest(t, m, httptest.NewRequest("POST", "/login", nil), twoTeas)
	bare := httptest.NewRequest("POST", "/login", nil)
	bare.Header.Set("Cookie", r.Header.Get("Cookie"))
	for i, r := range []*http.Request{r, bare} {
		receipt, err := m.Claim(httptest.NewRecorder(), r, "ann")
		if err != nil || !receipt.Claimed || receipt.Replayed != (i == 1) {
			t.Errorf("%+v, %v", receipt, err)
		}
	}
	if n, err := Cart.Get(m.As(t.Context(), "ann"), "tea"); n != 2 || err != nil {
		t.Error(n, err)
	}
}

func TestTheRequestIsLeftAlone(t *testing.T) {
	m := guesttest.New(t, Cart)
	r := httptest.NewRequest("GET", "/", nil)
	r.AddCookie(&http.Cookie{Name: "session", Value: "1"})
	got := guesttest.Guest(t, m, r)
	if len(r.Cookies()) != 1 || guest.FromContext(r.Context()) != nil {
		t.Error("the request given was changed")
	}
	if _, err := got.Cookie("session"); err != nil || len(got.Cookies()) != 2 {
		t.Errorf("cookies %v", got.Cookies())
	}
}

// fatal is a test that records how it ended.
type fatal struct {
	testing.TB
	why string
}

func (f *fatal) Helper()                           {}
func (f *fatal) Fatal(args ...any)                 { f.why = fmt.Sprint(args...); panic(f) }
func (f *fatal) Fatalf(format string, args ...any) { f.Fatal(fmt.Sprintf(format, args...)) }

func TestFaultsAreSaid(t *testing.T) {
	config := func(change func(*guest.Config)) *guest.Manager {
		cfg := guest.Config{Store: store{}, Secrets: [][]byte{make([]byte, 32)},
			Data: []guest.Kind{Cart}}
		change(&cfg)
		m, err := guest.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := guesttest.New(t, Cart)
	get := func() *http.Request { return httptest.NewRequest("GET", "/", nil) }
	for want, f := range map[string]func(t testing.TB){
		"guesttest: a plain GET request gets no guest (see Config.Admit and Config.Account)": func(t testing.TB) {
			guesttest.Guest(t, config(
				func(c *guest.Config) { c.Admit = func(*http.Request) bool { return false } }),
				get())
		},
		"guesttest: setup: no": func(t testing.TB) {
			guesttest.Member(t, m, get(), "ann", func(context.Context) error {
				return errors.New("no")
			})
		},
		`guest: Config.Data: kind "cart" is declared twice (give one of them another name)`: func(t testing.TB) {
			guesttest.New(t, Cart, Cart)
		},
	} {
		ended := &fatal{}
		func() {
			defer func() {
				if v := recover(); v != nil && v != any(ended) {
					panic(v)
				}
			}()
			f(ended)
		}()
		if ended.why != want {
			t.Errorf("%q, want %q", ended.why, want)
		}
	}
}

// store is never asked.
type store struct{ guest.Store }
