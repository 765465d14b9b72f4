package guest_test

import (
	"context"
	"encoding/json"
	"errors"
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

// Where two features meet, as a careful reader found.

// given are the cookies that a response sets, and does not clear.
func given(res *http.Response) (cookies []*http.Cookie) {
	for _, c := range res.Cookies() {
		if c.MaxAge > 0 {
			cookies = append(cookies, c)
		}
	}
	return cookies
}

func pair(c *http.Cookie) string { return c.Name + "=" + c.Value }

// Two different cookies of the main name are ambiguous also if the first one's spare cookie comes before them.
func TestTwoMainCookiesBehindASpare(t *testing.T) {
	var refused []string
	s := newSite(t, func(c *guest.Config) {
		c.Hooks.Refused = func(_ context.Context, reason string) { refused = append(refused, reason) }
	})
	guestOf := func(sku string) (spare, main string) {
		b := s.browser()
		res, _ := b.request("POST", "/add/"+sku)
		spare = pair(given(res)[0])
		res, _ = b.request("GET", "/page")
		return spare, pair(given(res)[0])
	}
	_, attacker := guestOf("bait")
	spare, victim := guestOf("tea")
	for _, cookies := range []string{victim + "; " + attacker, spare + "; " + victim + "; " + attacker} {
		refused = nil
		s.browser().request("GET", "/page", "Cookie", cookies)
		if !slices.Contains(refused, guest.RefusedCookies) {
			t.Errorf("not refused: %v", refused)
		}
	}
	if _, body := s.browser().request("GET", "/page", "Cookie", attacker); strings.Contains(body, "tea") {
		t.Errorf("the tossed cookie's guest has the victim's cart: %s", body)
	}
}

// A late request with an absorbed sibling's cookie signs in: its response brings no cookie of the claimed guest.
func TestALateSiblingSignsIn(t *testing.T) {
	s := newSite(t, nil)
	a, _ := s.browser().request("POST", "/add/tea")
	b, _ := s.browser().request("POST", "/add/tea")
	cookies := []*http.Cookie{given(a)[0], given(b)[0]}
	_, body := s.browser().request("GET", "/page", "Cookie", pair(cookies[0])+"; "+pair(cookies[1]))
	var p page
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatal(err)
	}
	absorbed := cookies[0]
	if strings.HasSuffix(absorbed.Name, p.Guest[:6]) {
		absorbed = cookies[1]
	}
	late := s.browser()
	res, _ := late.request("POST", "/login/ann", "Cookie", pair(absorbed))
	if c := given(res); len(c) > 0 {
		t.Errorf("the claim's response sets %v", c)
	}
	if c := late.login("bob"); c.Err != "" {
		t.Errorf("somebody else signs in with this browser: %s", c.Err)
	}
}

// A claim by header token at the guest's first return: no cookie of the claimed guest either.
func TestAHeaderTokenSignsInAtItsReturn(t *testing.T) {
	s := newSite(t, func(c *guest.Config) { c.Header = "Guest" })
	bare := &browser{Client: http.DefaultClient, s: s}
	res, _ := bare.request("POST", "/add/tea")
	res, _ = bare.request("POST", "/login/ann", "Guest", res.Header.Get("Guest"))
	if c := given(res); len(c) > 0 || res.Header.Get("Guest") != "" {
		t.Errorf("the claim's response sets %v, and the header %q", c, res.Header.Get("Guest"))
	}
}

// A magic link opened on another device: that device's guest was made in vain, and is none.
func TestATicketElsewhereLeavesNoGuest(t *testing.T) {
	var minted, claimed, moved int
	s := newSite(t, func(c *guest.Config) {
		c.Hooks.Created = func(context.Context) { minted++ }
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
		if _, err := s.guests.ClaimTicket(w, r, r.FormValue("ticket"), "ann@example.org", "ann"); err != nil {
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
	if minted != 1 || claimed != 1 || moved != 1 {
		t.Errorf("%d guests, %d claims, OnClaim %d times; want 1 of each", minted, claimed, moved)
	}
}

// What is sent is sent: the server may be reading the header.
func TestTheHeaderIsLeftAloneOnceSent(t *testing.T) {
	s := newSite(t, nil)
	s.guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Cart.Add(r.Context(), "tea", 1)
		w.WriteHeader(200)
		before := w.Header().Clone()
		s.guests.ClaimContext(r.Context(), "ann")
		s.guests.ForgetContext(r.Context())
		if got := w.Header(); !slices.Equal(got["Set-Cookie"], before["Set-Cookie"]) {
			t.Errorf("%v, sent %v", got, before)
		}
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil))
}

func TestAKindThatWasNeverMade(t *testing.T) {
	for _, k := range []guest.Kind{&guest.Counters{}, (*guest.Counters)(nil), &guest.Value[string]{}} {
		_, err := guest.New(guest.Config{Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Data: []guest.Kind{k}})
		var fault *guest.ConfigError
		if !errors.As(err, &fault) || fault.Field != "Data" {
			t.Errorf("%T: %v", k, err)
		}
	}
}

// Without __Host- a subdomain can plant a spare cookie. The guest of yesterday neither becomes the planted one nor takes it in.
func TestAPlantedSpareCookie(t *testing.T) {
	for _, tt := range []struct {
		name    string
		between time.Duration // from the victim's first visit to the attacker's
		wait    time.Duration // from the later of the two to the attack
		taken   bool
	}{
		{"a parallel first request", time.Second, time.Second, true},
		{"another one, half an hour before the victim", -30 * time.Minute, time.Second, true},
		{"a new one beside the guest of yesterday", 24 * time.Hour, time.Second, false},
		{"one that was kept for the purpose", -24 * time.Hour, time.Second, false},
		{"one of the victim's own time, kept until tomorrow", time.Second, 24 * time.Hour, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, err := guest.New(guest.Config{
					Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Data: []guest.Kind{Cart},
					Cookie: guest.Cookie{Domain: "shop.example"}, ProvisionalTTL: time.Hour,
				})
				if err != nil {
					t.Fatal(err)
				}
				add := func(cookie, sku string) string {
					return at(m, cookie, func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), sku, 1) })
				}
				reads := func(cookie string) (cart map[string]int64) {
					at(m, cookie, func(w http.ResponseWriter, r *http.Request) { cart, _ = Cart.All(r.Context()) })
					return cart
				}
				var victim, planted string
				visit := func() { victim = add(add("", "mine"), "mine") }
				mint := func() { planted = add("", "theirs") }
				if tt.between < 0 {
					mint()
					time.Sleep(-tt.between)
					visit()
				} else {
					visit()
					time.Sleep(tt.between)
					mint()
				}
				time.Sleep(tt.wait)

				cart := reads(victim + "; " + planted)
				theirs := reads(planted)
				if taken := theirs["mine"] != 0; taken != tt.taken || cart["mine"] != 2 || !taken && cart["theirs"] != 0 {
					t.Errorf("the victim reads %v, the attacker %v", cart, theirs)
				}
				if own := reads(victim); own["mine"] != 2 {
					t.Errorf("the victim without the planted cookie reads %v", own)
				}
			})
		})
	}
}

// An app that keeps rows of its own under a new guest's ID gets them moved, though the guest is made and claimed in one
// request and nothing else was kept. Repeating the claim finds it done.
func TestAnIDThatWasAskedForIsClaimed(t *testing.T) {
	var moved []string
	m, err := guest.New(guest.Config{
		Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Data: []guest.Kind{Cart},
		OnClaim: func(_ context.Context, r guest.Receipt) error { moved = append(moved, r.GuestID); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, add := range []bool{false, true} {
		moved = nil
		var id string
		cookie := at(m, "", func(w http.ResponseWriter, r *http.Request) {
			id = guest.FromContext(r.Context()).GuestID()
			if add {
				Cart.Add(r.Context(), "tea", 1)
			}
			first, err := m.Claim(w, r, "ann")
			if err != nil || !first.Claimed || first.Replayed || first.GuestID != id {
				t.Errorf("the claim: %+v, %v", first, err)
			}
			again, err := m.Claim(w, r, "ann")
			if err != nil || !again.Replayed || again.ID != first.ID {
				t.Errorf("the claim again: %+v, %v", again, err)
			}
		})
		if len(moved) == 0 || slices.ContainsFunc(moved, func(s string) bool { return s != id }) {
			t.Errorf("rows of %q were moved, not of %q", moved, id)
		}
		if cookie != "" {
			t.Errorf("a claimed guest's cookie is given out: %s", cookie)
		}
	}
	dead := at(m, "", func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), "pot", 1) })
	at(m, dead, func(w http.ResponseWriter, r *http.Request) { m.Claim(w, r, "bob") })
	at(m, dead, func(w http.ResponseWriter, r *http.Request) { // its cookie came back late, and a fresh guest is claimed
		Cart.Add(r.Context(), "cup", 1)
		first, err := m.Claim(w, r, "ann")
		again, err2 := m.Claim(w, r, "ann")
		if err != nil || err2 != nil || !first.Claimed || again.ID != first.ID {
			t.Errorf("%+v, %v; again: %+v, %v", first, err, again, err2)
		}
	})
	at(m, dead, func(w http.ResponseWriter, r *http.Request) { // a double click of bob's
		guest.FromContext(r.Context()).GuestID()
		if receipt, err := m.Claim(w, r, "bob"); err != nil || !receipt.Replayed {
			t.Errorf("%+v, %v", receipt, err)
		}
	})
	at(m, "", func(w http.ResponseWriter, r *http.Request) { // a ticket claims another guest; this one stays
		var ticket string
		at(m, "", func(w http.ResponseWriter, r *http.Request) { ticket, _ = m.Ticket(r.Context(), "mail", time.Hour) })
		guest.FromContext(r.Context()).GuestID()
		if _, err := m.ClaimTicket(w, r, ticket, "mail", "ann"); err != nil {
			t.Error(err)
		}
		if len(w.Header()["Set-Cookie"]) != 1 {
			t.Errorf("the guest whose ID was asked for gets %q", w.Header()["Set-Cookie"])
		}
	})
	at(m, "", func(w http.ResponseWriter, r *http.Request) { // a guest that nobody asked about was none
		guest.FromContext(r.Context()).IsGuest()
		if receipt, err := m.Claim(w, r, "ann"); err != nil || receipt.Claimed {
			t.Errorf("%+v, %v", receipt, err)
		}
	})
}

// Where nobody can plant a cookie, guests of different times are one visitor's: a SameSite=Strict cookie stays at home when the
// visitor follows a link from another site, and what the landing page writes joins the guest of yesterday.
func TestAStrictCookieStaysAtHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := guest.New(guest.Config{
			Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Data: []guest.Kind{Cart},
			Cookie: guest.Cookie{SameSite: http.SameSiteStrictMode},
		})
		if err != nil {
			t.Fatal(err)
		}
		add := func(cookie, sku string) string {
			return at(m, cookie, func(w http.ResponseWriter, r *http.Request) { Cart.Add(r.Context(), sku, 1) })
		}
		home := add(add("", "old"), "old")
		time.Sleep(48 * time.Hour)
		landing := add("", "landing")
		at(m, home+"; "+landing, func(w http.ResponseWriter, r *http.Request) {
			if cart, err := Cart.All(r.Context()); cart["old"] != 2 || cart["landing"] != 1 || err != nil {
				t.Errorf("the cart holds %v, %v", cart, err)
			}
		})
	})
}

// A record does not expire under a stream that writes to it, nor under a cookie that an absorbed sibling was given.
func TestARecordOutlivesItsWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 30 * time.Minute
		m, err := guest.New(guest.Config{
			Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Data: []guest.Kind{Cart}, TTL: ttl,
		})
		if err != nil {
			t.Fatal(err)
		}
		quiet := func(http.ResponseWriter, *http.Request) {}
		cookie := at(m, at(m, "", quiet), quiet)
		at(m, cookie, func(w http.ResponseWriter, r *http.Request) {
			for n := range int64(90) {
				if have, err := Cart.Add(r.Context(), "tea", 1); have != n+1 || err != nil {
					t.Fatalf("after %d minutes the cart holds %d, %v", n, have, err)
				}
				time.Sleep(time.Minute)
			}
		})

		older, younger := at(m, "", quiet), at(m, "", quiet)
		confirmed := at(m, younger, quiet)
		at(m, older+"; "+confirmed, quiet) // absorbs it, and the response is lost
		for range 10 {
			time.Sleep(ttl / 3)
			confirmed = at(m, confirmed, func(w http.ResponseWriter, r *http.Request) {
				if _, err := Cart.Add(r.Context(), "pot", 1); err != nil {
					t.Error(err)
				}
			})
		}
		at(m, confirmed, func(w http.ResponseWriter, r *http.Request) {
			if n, err := Cart.Get(r.Context(), "pot"); n != 10 || err != nil {
				t.Errorf("the cart holds %d, %v", n, err)
			}
		})
	})
}
