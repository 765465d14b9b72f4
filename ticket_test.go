package guest_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// ticketSite has a page that starts a magic link and one that opens it.
func ticketSite(t *testing.T) *site {
	s := newSite(t, nil)
	s.mux.HandleFunc("POST /ticket/{audience}", func(w http.ResponseWriter, r *http.Request) {
		ticket, err := s.guests.Ticket(r.Context(), r.PathValue("audience"), 15*time.Minute)
		if err != nil {
			http.Error(w, err.Error(), 500)
			return
		}
		w.Write([]byte(ticket))
	})
	s.mux.HandleFunc("POST /open/{audience}/{user}", func(w http.ResponseWriter, r *http.Request) {
		receipt, err := s.guests.ClaimTicket(w, r, r.Header.Get("Ticket"), r.PathValue("audience"), r.PathValue("user"))
		writeClaim(w, receipt, err)
	})
	return s
}

func (b *browser) open(ticket, audience, user string) string {
	_, body := b.request("POST", "/open/"+audience+"/"+user, "Ticket", ticket)
	return body
}

func TestTicket(t *testing.T) {
	s := ticketSite(t)
	here, there, thief := s.browser(), s.browser(), s.browser()
	here.add("tea")
	here.page()
	_, ticket := here.request("POST", "/ticket/ann@example.com")
	there.add("cup")
	there.page()
	started := here.page().Guest

	for name, got := range map[string]string{
		"another audience": thief.open(ticket, "eve@example.com", "eve"),
		"tampered":         thief.open(ticket[:20]+"A"+ticket[21:], "ann@example.com", "eve"),
		"truncated":        thief.open(ticket[:len(ticket)-4], "ann@example.com", "eve"),
		"padded":           thief.open(ticket+"=", "ann@example.com", "eve"),
		"none":             thief.open("", "ann@example.com", "eve"),
	} {
		if !strings.Contains(got, guest.ErrTicket.Error()) || len(s.account("eve")) > 0 {
			t.Errorf("%s: %s, eve has %v", name, got, s.account("eve"))
		}
	}
	if got := there.open(ticket, "ann@example.com", "ann"); !strings.Contains(got, `"claimed":true`) || !strings.Contains(got, started) {
		t.Errorf("opened in another browser: %s", got)
	}
	if got := s.account("ann"); got["tea"] != 1 || got["cup"] != 0 {
		t.Errorf("ann has %v; the other browser's own guest is its own", got)
	}
	if got := there.open(ticket, "ann@example.com", "ann"); !strings.Contains(got, `"replayed":true`) {
		t.Errorf("opened twice: %s", got)
	}
	if got := thief.open(ticket, "ann@example.com", "eve"); !strings.Contains(got, guest.ErrClaimed.Error()) {
		t.Errorf("opened by another account: %s", got)
	}
	if got := s.account("ann"); got["tea"] != 1 {
		t.Errorf("ann has %v", got)
	}

	p := here.page() // the browser that started the flow goes on with a fresh guest, and learns why
	if !p.Replaced || !p.New || p.Guest == started || len(p.Cart) != 0 {
		t.Errorf("%+v", p)
	}
	if p := here.page(); p.Replaced || p.New {
		t.Errorf("%+v", p)
	}
}

func TestATicketIsNoCookieAndACookieNoTicket(t *testing.T) {
	s := ticketSite(t)
	b := s.browser()
	b.page()
	b.page()
	_, ticket := b.request("POST", "/ticket/a")
	res, _ := b.request("GET", "/static")
	cookie := strings.TrimPrefix(res.Request.Header.Get("Cookie"), "guest=")
	if got := b.open(cookie, "a", "ann"); !strings.Contains(got, guest.ErrTicket.Error()) {
		t.Errorf("a cookie opens as a ticket: %s", got)
	}
	r := httptest.NewRequest("GET", "/page", nil)
	r.Header.Set("Cookie", "guest="+ticket)
	w := httptest.NewRecorder()
	s.guests.Middleware(s.mux).ServeHTTP(w, r)
	if !strings.Contains(w.Body.String(), `"New":true`) {
		t.Errorf("a ticket is taken for a cookie: %s", w.Body)
	}
}

func TestATicketExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := guest.New(guest.Config{Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}})
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		ctx := m.Identify(w, r).Context()
		ticket, err := m.Ticket(ctx, "a", 15*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(15*time.Minute + time.Second)
		if _, err := m.ClaimTicket(w, r, ticket, "a", "ann"); !errors.Is(err, guest.ErrTicket) {
			t.Errorf("%v", err)
		}
		for _, ttl := range []time.Duration{0, -1, 31 * 24 * time.Hour} {
			if _, err := m.Ticket(ctx, "a", ttl); !errors.Is(err, guest.ErrInvalid) {
				t.Errorf("ttl %v: %v", ttl, err)
			}
		}
		if _, err := m.Ticket(t.Context(), "a", time.Minute); !errors.Is(err, guest.ErrNoVisitor) {
			t.Errorf("%v", err)
		}
	})
}
