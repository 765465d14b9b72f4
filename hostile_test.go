package guest_test

import (
	"net/http"
	"testing"

	"github.com/guestkit/guest"
)

// The cookie of a claimed guest is worth no more than none: who admits decides on the fresh guest, too. Else anybody
// could have guests without limit, by repeating one such cookie.
func TestAReplayedCookieIsAdmittedLikeNone(t *testing.T) {
	open := true
	s := newSite(t, func(c *guest.Config) { c.Admit = func(*http.Request) bool { return open } })
	b := s.browser()
	b.add("tea")
	b.page()
	old := b.copy()
	b.login("ann")
	open = false
	before := len(s.store.keys(t, "g:"))
	for _, again := range []bool{false, true} { // on a process that knows of the claim, and on one that does not
		m := s
		if again {
			m = newSite(t, func(c *guest.Config) { c.Store = s.store; c.Admit = func(*http.Request) bool { return open } })
		}
		for range 3 {
			tab := m.browser()
			tab.Jar.SetCookies(mustURL(t, m.url), old.Jar.Cookies(mustURL(t, s.url)))
			if p := tab.page(); p.Guest != "" || len(p.Cart) != 0 || !p.Replaced {
				t.Errorf("%+v", p)
			}
			if res, body := tab.request("POST", "/add/cup"); res.StatusCode != 503 || body != "guest: data \"cart\": "+guest.ErrNotAdmitted.Error()+"\n" {
				t.Errorf("a write: %s %s", res.Status, body)
			}
		}
	}
	if n := len(s.store.keys(t, "g:")); n != before {
		t.Errorf("%d records, %d before", n, before)
	}
	open = true
	if p := old.page(); !p.New || !p.Replaced {
		t.Errorf("admitted again: %+v", p)
	}
}
