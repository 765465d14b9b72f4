package guest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// ticketSite has a page that issues a ticket, as for a magic link, and one that redeems it.
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
		receipt, err := s.guests.ClaimTicket(w, r, r.Header.Get("Ticket"), r.PathValue("audience"),
			r.PathValue("user"))
		writeClaim(w, receipt, err)
	})
	return s
}

func (b *browser) open(ticket, audience, user string) string {
	_, body := b.request("POST", "/open/"+audience+"/"+user, "Ticket", ticket)
	return body
}

func TestTicket(t *testing.T) {
	t.Parallel()
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
	if got := there.open(ticket, "ann@example.com", "ann"); !strings.Contains(got, `"claimed":true`) ||
		!strings.Contains(got, started) {
		t.Errorf("opened in another browser: %s", got)
	}
	if got := s.account("ann"); got["tea"] != 1 || got["cup"] != 0 {
		t.Errorf("ann has %v; the other browser's own guest is its own", got)
	}
	if got := there.open(ticket, "ann@example.com", "ann"); !strings.Contains(got, `"replayed":true`) {
		t.Errorf("opened twice: %s", got)
	}
	got := thief.open(ticket, "ann@example.com", "eve")
	if !strings.Contains(got, guest.ErrClaimed.Error()) {
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
	t.Parallel()
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
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, guest.Config{})
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

// For a ticket the request has to prove as much as for a claim. A page of another origin gets no
// ticket for the visitor's guest, cannot have it erased and learns nothing of it; nor does a
// request with two different cookies.
func TestTicketForgetAndPreviewRefuseWhatAClaimRefuses(t *testing.T) {
	t.Parallel()
	var refused []string
	s := newSite(t, func(c *guest.Config) {
		c.Hooks.Refused = func(_ context.Context, reason string) { refused = append(refused, reason) }
	})
	calls := map[string]func(w http.ResponseWriter, r *http.Request) error{
		"claim": func(w http.ResponseWriter, r *http.Request) error {
			_, err := s.guests.Claim(w, r, "eve")
			return err
		},
		"ticket": func(_ http.ResponseWriter, r *http.Request) error {
			_, err := s.guests.Ticket(r.Context(), "eve", time.Hour)
			return err
		},
		"forget": func(w http.ResponseWriter, r *http.Request) error { return s.guests.Forget(w, r) },
		"preview": func(_ http.ResponseWriter, r *http.Request) error {
			_, err := s.guests.Preview(r.Context(), "eve")
			return err
		},
	}
	mine, other := s.confirmedCookie("tea"), s.confirmedCookie("cup")
	for name, call := range calls {
		for _, tt := range []struct {
			site, cookies string
			want          error
			reason        string
		}{
			{"cross-site", mine, guest.ErrCrossOrigin, guest.RefusedCrossOrigin},
			{"same-site", mine, guest.ErrCrossOrigin, guest.RefusedCrossOrigin},
			{"same-origin", mine + "; " + other, guest.ErrAmbiguous, guest.RefusedAmbiguous},
		} {
			refused = nil
			r := httptest.NewRequest("POST", "/", nil)
			r.Header.Set("Sec-Fetch-Site", tt.site)
			r.Header.Set("Cookie", tt.cookies)
			s.guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if err := call(w, r); err != tt.want {
					t.Errorf("%s, %s, %d cookies: %v, want %v", name, tt.site, strings.Count(tt.cookies, "=")/2,
						err, tt.want)
				}
			})).ServeHTTP(httptest.NewRecorder(), r)
			if name != "preview" && !slices.Contains(refused, tt.reason) {
				t.Errorf("%s, %s: Hooks.Refused was called with %q", name, tt.site, refused)
			}
		}
	}
	if p := s.show(mine); p.Cart["tea"] != 1 || len(s.account("eve")) != 0 {
		t.Errorf("the guest has %v, eve %v", p.Cart, s.account("eve"))
	}
}

// A Manager does not know another Manager's visitor: of two apps in one process, neither signs
// tickets for the other's guests.
func TestAnotherManagersVisitor(t *testing.T) {
	t.Parallel()
	s, other := newSite(t, nil), newSite(t, nil)
	other.guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		_, err := s.guests.Ticket(ctx, "a", time.Hour)
		_, err2 := s.guests.Preview(ctx, "ann")
		_, err3 := s.guests.Export(ctx)
		for _, err := range []error{err, err2, err3} {
			if err != guest.ErrNoVisitor {
				t.Error(err)
			}
		}
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil))
}

func TestManager_ClaimTicket(t *testing.T) {
	t.Parallel()

	// A ticket's guest lives as long as the ticket, even if its browser never comes back. If it is
	// gone all the same, the claim says so.
	t.Run("its guest lives as long as the ticket", func(t *testing.T) {
		t.Parallel()
		for _, create := range []guest.Create{guest.OnFirstVisit, guest.OnFirstWrite} {
			for name, tt := range map[string]struct {
				add, down bool
				forget    bool
				want      error
			}{
				"with a cart":               {add: true},
				"without data":              {},
				"the store was down":        {add: true, down: true, want: guest.ErrGone},
				"it was forgotten meantime": {add: true, forget: true, want: guest.ErrGone},
			} {
				t.Run(fmt.Sprint(create, " ", name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						store := &spy{Store: memstore.New(memstore.Config{})}
						m := newManager(t, guest.Config{Store: store, Create: create})
						var ticket, id string
						at(m, "", func(w http.ResponseWriter, r *http.Request) {
							if tt.add {
								if _, err := Cart.Add(r.Context(), "tea", 2); err != nil {
									t.Fatal(err)
								}
							}
							id = guest.FromContext(r.Context()).GuestID()
							if tt.down {
								store.down(errors.New("no answer"))
							}
							var err error
							if ticket, err = m.Ticket(r.Context(), "ann@example.com", 12*time.Hour); err != nil {
								t.Fatal("issuing a ticket fails: ", err)
							}
							store.down(nil)
						})
						if tt.forget {
							if err := m.EraseGuest(t.Context(), id); err != nil {
								t.Fatal(err)
							}
						}
						time.Sleep(12*time.Hour - time.Minute)
						at(m, "", func(w http.ResponseWriter, r *http.Request) {
							receipt, err := m.ClaimTicket(w, r, ticket, "ann@example.com", "ann")
							if !errors.Is(err, tt.want) || receipt.Claimed != (tt.want == nil) || tt.want == nil &&
								tt.add != (len(receipt.Kinds) > 0) {
								t.Errorf("%+v, %v; want the error %v", receipt, err, tt.want)
							}
							if v := guest.FromContext(r.Context()); v.AccountID() != "ann" {
								t.Errorf("signed in as %q", v.AccountID())
							}
						})
					})
				})
			}
		}
	})

	// A magic link is opened on another device. The guest that was created on that device for the
	// request does not count.
	t.Run("in another browser leaves no guest there", func(t *testing.T) {
		t.Parallel()
		var created, claimed, moved int
		s := newSite(t, func(c *guest.Config) {
			c.Hooks.Created = func(context.Context) { created++ }
			c.Hooks.Claimed = func(context.Context, guest.Receipt) { claimed++ }
			c.OnClaim = func(context.Context, guest.Receipt) error { moved++; return nil }
		})
		s.mux.HandleFunc("/ticket", func(w http.ResponseWriter, r *http.Request) {
			ticket, err := s.guests.Ticket(r.Context(), "ann@example.org", time.Hour)
			if err != nil {
				t.Error(err)
			}
			io.WriteString(w, ticket)
		})
		s.mux.HandleFunc("/link", func(w http.ResponseWriter, r *http.Request) {
			ticket := r.FormValue("ticket")
			if _, err := s.guests.ClaimTicket(w, r, ticket, "ann@example.org", "ann"); err != nil {
				t.Error(err)
			}
		})
		desk, phone := s.browser(), s.browser()
		desk.add("tea")
		_, ticket := desk.request("GET", "/ticket")
		if res, _ := phone.request("GET", "/link?ticket="+ticket); len(given(res)) > 0 {
			t.Errorf("the member is given %v", given(res))
		}
		phone.user = "ann"
		phone.page()
		if created != 1 || claimed != 1 || moved != 1 {
			t.Errorf("%d guests, %d claims, OnClaim %d times; want 1 of each", created, claimed, moved)
		}
	})

	// A ticket whose guest has no record is answered by ErrGone. The guest itself goes on, as its
	// cookie is alive.
	t.Run("of a guest that is gone does not end its cookie", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, func(c *guest.Config) { c.Create = guest.OnFirstWrite })
		var ticket string
		s.mux.HandleFunc("/ticket", func(w http.ResponseWriter, r *http.Request) {
			ticket, _ = s.guests.Ticket(r.Context(), "ann@example.com", time.Hour)
		})
		s.mux.HandleFunc("/link", func(w http.ResponseWriter, r *http.Request) {
			_, err := s.guests.ClaimTicket(w, r, ticket, "ann@example.com", "ann")
			fmt.Fprint(w, err)
		})
		s.store.down(errors.New("a moment's outage"))
		b := s.browser()
		b.request("GET", "/ticket")
		s.store.down(nil)
		if _, body := s.browser().request("GET", "/link"); body != guest.ErrGone.Error() {
			t.Fatal(body)
		}
		other := newSite(t, func(c *guest.Config) { c.Store = s.store })
		w := other.request("POST", "/add/tea", jarHeader(b))
		cookies := jarHeader(b)
		if m := mainOf(w); m != "" {
			cookies = m
		}
		if p := s.show(cookies); p.Cart["tea"] != 1 {
			t.Errorf("the cart is %v", p.Cart)
		}
		r := httptest.NewRequest("GET", "/static", nil)
		r.Header.Set("Cookie", cookies)
		r.Header.Set("User", "ann")
		rec := httptest.NewRecorder()
		s.guests.Middleware(s.mux).ServeHTTP(rec, r)
		if ann := s.account("ann"); ann["tea"] != 1 {
			t.Errorf("signed in, ann has %v; the response says %q", ann, rec.Header()["Set-Cookie"])
		}
	})
}
