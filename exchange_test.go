package guest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"
	"time"
	"unsafe"

	"github.com/guestkit/guest"
)

// deferred serves as some frameworks do: the response is written after the handler has returned.
func deferred(m *guest.Manager, h func(x guest.Exchange, header http.Header)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := m.Begin(w.Header(), r)
		h(x, w.Header())
		x.End()
		x.Commit(http.StatusOK)
		w.WriteHeader(http.StatusOK)
	})
}

func TestExchange(t *testing.T) {
	s := newSite(t, nil)
	serve := func(r *http.Request, h func(x guest.Exchange, header http.Header)) http.Header {
		w := httptest.NewRecorder()
		deferred(s.guests, h).ServeHTTP(w, r)
		return w.Result().Header
	}
	get := func() *http.Request { return httptest.NewRequest("GET", "/", nil) }

	t.Run("the header is settled when it is sent", func(t *testing.T) {
		h := serve(get(), func(x guest.Exchange, header http.Header) {
			if !x.Watched() || header.Get("Set-Cookie") == "" {
				t.Error("the header of a new guest is not there before the handler")
			}
			clear(header)
		})
		if len(h["Set-Cookie"]) != 1 || h.Get("Cache-Control") != "private, no-store" || h.Get("Vary") != "Cookie" {
			t.Errorf("header %v", h)
		}
	})
	t.Run("also if it becomes public after End", func(t *testing.T) {
		w, r := httptest.NewRecorder(), get()
		x := s.guests.Begin(w.Header(), r)
		x.End()
		w.Header().Set("Cache-Control", "public, max-age=60")
		x.Commit(http.StatusOK)
		if h := w.Header(); h.Get("Set-Cookie") != "" || h.Get("Cache-Control") != "public, max-age=60" {
			t.Errorf("header %v", h)
		}
	})
	t.Run("a handler that sends nothing itself", func(t *testing.T) {
		w := httptest.NewRecorder()
		s.guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=60")
		})).ServeHTTP(w, get())
		if h := w.Result().Header; h.Get("Set-Cookie") != "" || h.Get("Cache-Control") != "public, max-age=60" {
			t.Errorf("header %v", h)
		}
	})
	t.Run("only the first Commit counts", func(t *testing.T) {
		h := serve(get(), func(x guest.Exchange, header http.Header) {
			x.Commit(http.StatusOK)
			header.Del("Set-Cookie")
			x.Commit(http.StatusOK)
		})
		if h.Get("Set-Cookie") != "" {
			t.Errorf("header %v", h)
		}
	})
	t.Run("twice around one request", func(t *testing.T) {
		h := serve(get(), func(x guest.Exchange, header http.Header) {
			inner := s.guests.Begin(header, x.Request)
			if inner.Request != x.Request || inner.Watched() {
				t.Error("the inner one is at work too")
			}
			inner.Commit(http.StatusOK)
			inner.End()
			sent := 0
			inner.Inform(func() { sent++ })
			if sent != 1 {
				t.Error("the inner one sends no 1xx")
			}
		})
		if len(h["Set-Cookie"]) != 1 {
			t.Errorf("header %v", h)
		}
	})
	t.Run("while a 1xx is sent the header is the app's", func(t *testing.T) {
		guests, err := guest.New(guest.Config{Store: newStore(), Secrets: [][]byte{secret}, Header: "Guest-Token"})
		if err != nil {
			t.Fatal(err)
		}
		r := get()
		r.Header.Set("Guest-Token", "")
		header := http.Header{"Cache-Control": {"no-cache"}, "Vary": {"Accept"}, "Set-Cookie": {"theirs=1"}}
		said := header.Clone()
		x := guests.Begin(header, r)
		header.Add("Cache-Control", "max-age=5")
		said.Add("Cache-Control", "max-age=5")
		before := header.Clone()
		if reflect.DeepEqual(before, said) {
			t.Error("nothing of ours is in the header")
		}
		x.Inform(func() {
			if !reflect.DeepEqual(header, said) {
				t.Errorf("header %v, want %v", header, said)
			}
		})
		if !reflect.DeepEqual(header, before) {
			t.Errorf("header %v, it was %v", header, before)
		}
		x.Commit(http.StatusNotModified)
		if !reflect.DeepEqual(header, http.Header{
			"Cache-Control": {"no-cache", "max-age=5"}, "Vary": {"Accept", "Cookie", "Guest-Token"}, "Set-Cookie": {"theirs=1"},
		}) {
			t.Errorf("after a 304: %v", header)
		}
	})
	t.Run("the writer commits", func(t *testing.T) {
		for name, send := range map[string]func(w http.ResponseWriter){
			"status": func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) },
			"body":   func(w http.ResponseWriter) { io.WriteString(w, "page") },
			"flush":  func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
		} {
			rec := httptest.NewRecorder()
			x := s.guests.Begin(rec.Header(), get())
			w := x.Writer(rec)
			x.End() // and the response is written after it
			clear(w.Header())
			send(w)
			if h := rec.Result().Header; len(h["Set-Cookie"]) != 1 || h.Get("Vary") != "Cookie" {
				t.Errorf("%s: header %v", name, h)
			}
		}
	})
	t.Run("Vary of a known visitor", func(t *testing.T) {
		b := s.browser()
		b.page()
		b.page()
		r := get()
		r.Header.Set("Cookie", cookieHeader(b))
		h := serve(r, func(x guest.Exchange, header http.Header) {
			if w := httptest.NewRecorder(); x.Watched() || x.Writer(w) != http.ResponseWriter(w) {
				t.Error("a known visitor's page is watched")
			}
			header.Del("Vary")
			header.Add("Set-Cookie", "guest=somebody else's; Path=/") // from a cache of pages
		})
		if h.Get("Vary") != "Cookie" || h.Get("Set-Cookie") != "" || h.Get("Cache-Control") != "" {
			t.Errorf("header %v", h)
		}
	})
}

// Code that has only a context claims, claims by ticket and forgets as code that has the request does.
func TestWithOnlyAContext(t *testing.T) {
	s := newSite(t, func(c *guest.Config) { c.AutoClaim = func(*http.Request) bool { return false } })
	var late func(context.Context)
	s.mux.HandleFunc("/login-late", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "the header is sent")
		http.NewResponseController(w).Flush()
		late(r.Context())
	})
	s.mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		receipt, err := s.guests.ClaimContext(r.Context(), r.FormValue("user"))
		writeClaim(w, receipt, err)
	})
	s.mux.HandleFunc("/ticket", func(w http.ResponseWriter, r *http.Request) {
		ticket, _ := s.guests.Ticket(r.Context(), "a@example.org", time.Hour)
		io.WriteString(w, ticket)
	})
	s.mux.HandleFunc("/redeem", func(w http.ResponseWriter, r *http.Request) {
		receipt, err := s.guests.ClaimTicketContext(r.Context(), r.FormValue("ticket"), "a@example.org", r.FormValue("user"))
		writeClaim(w, receipt, err)
	})
	s.mux.HandleFunc("/forget", func(w http.ResponseWriter, r *http.Request) {
		if err := s.guests.ForgetContext(r.Context()); err != nil {
			t.Error(err)
		}
	})

	for _, method := range []string{"GET", "POST"} { // the response of the first is not watched
		t.Run("claim by "+method, func(t *testing.T) {
			b := s.browser()
			b.add("tea")
			b.page()
			res, _ := b.request(method, "/login?user="+method)
			if got := s.account(method); got["tea"] != 1 {
				t.Errorf("the account holds %v", got)
			}
			if c := b.cookies(); len(c) != 0 {
				t.Errorf("cookies %v after %v", c, res.Header)
			}
		})
	}
	t.Run("a guest of this very request", func(t *testing.T) {
		b := s.browser()
		b.request("POST", "/login?user=newcomer")
		if c := b.cookies(); len(c) != 0 {
			t.Errorf("cookies %v", c)
		}
	})
	t.Run("another site's page", func(t *testing.T) {
		b := s.browser()
		b.add("tea")
		_, body := b.request("POST", "/login?user=mallory", "Sec-Fetch-Site", "cross-site")
		if got := s.account("mallory"); len(got) != 0 {
			t.Errorf("the account holds %v: %s", got, body)
		}
	})
	t.Run("after the header", func(t *testing.T) {
		b := s.browser()
		b.add("tea")
		b.page()
		late = func(ctx context.Context) {
			if r, err := s.guests.ClaimContext(ctx, "late"); err != nil || !r.Claimed {
				t.Errorf("%+v, %v", r, err)
			}
		}
		b.request("POST", "/login-late")
		if got := s.account("late"); got["tea"] != 1 {
			t.Errorf("the account holds %v", got)
		}
		if p := b.page(); len(p.Cart) != 0 || !p.Replaced {
			t.Errorf("the old cookie shows %+v", p)
		}
	})
	t.Run("ticket", func(t *testing.T) {
		b := s.browser()
		b.add("tea")
		_, ticket := b.request("GET", "/ticket")
		b.request("GET", "/redeem?user=ticket&ticket="+ticket)
		if got := s.account("ticket"); got["tea"] != 1 {
			t.Errorf("the account holds %v", got)
		}
		if c := b.cookies(); len(c) != 0 {
			t.Errorf("cookies %v", c)
		}
	})
	t.Run("forget", func(t *testing.T) {
		b := s.browser()
		b.add("tea")
		id := b.page().Guest
		b.request("GET", "/forget")
		if c := b.cookies(); len(c) != 0 {
			t.Errorf("cookies %v", c)
		}
		if cart, err := Cart.All(s.guests.AsGuest(t.Context(), id)); !errors.Is(err, guest.ErrGone) || len(cart) != 0 {
			t.Errorf("cart %v, %v", cart, err)
		}
	})
	t.Run("nobody's context", func(t *testing.T) {
		_, err1 := s.guests.ClaimContext(t.Context(), "a")
		_, err2 := s.guests.ClaimTicketContext(t.Context(), "ticket", "to", "a")
		for _, err := range []error{err1, err2, s.guests.ForgetContext(t.Context())} {
			if !errors.Is(err, guest.ErrNoVisitor) {
				t.Error(err)
			}
		}
	})
}

// A claim keeps no string of its caller: those of fasthttp change when the request is over, and the context may not be.
func TestAClaimKeepsNoStringOfItsCaller(t *testing.T) {
	s := newSite(t, nil)
	buffer := []byte("ann")
	var ctx context.Context
	s.mux.HandleFunc("/login-borrowed", func(w http.ResponseWriter, r *http.Request) {
		ctx = context.WithoutCancel(r.Context())
		if _, err := s.guests.ClaimContext(ctx, unsafe.String(&buffer[0], len(buffer))); err != nil {
			t.Error(err)
		}
	})
	b := s.browser()
	b.add("tea")
	b.request("POST", "/login-borrowed")
	copy(buffer, "bob")
	if _, err := Cart.Add(ctx, "tea", 1); err != nil {
		t.Error(err)
	}
	if got := s.account("ann"); got["tea"] != 2 {
		t.Errorf("ann has %v, bob %v", got, s.account("bob"))
	}
}
