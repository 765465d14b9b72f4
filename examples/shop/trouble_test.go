package main

import (
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest/memstore"
)

const eve = "eve@example.com"

// newTrouble opens a shop for what a mailed link or a typed code may meet. The page says what
// happened, and signing in works wherever the visitor has shown who they are.
func newTrouble(t *testing.T) *testShop {
	return openShop(t, memstore.New(memstore.Config{}), newSecret())
}

func (s *testShop) client(t *testing.T) *client {
	return &client{t, s.handler(), map[string]string{}, s.shop}
}

// starter is a browser with a cart that has asked for a link.
func (s *testShop) starter(t *testing.T, email string) (c *client, token, ticket string) {
	t.Helper()
	c = s.client(t)
	c.get("/")
	c.post("/cart/fern/more")
	c.shows(c.post("/link", "email", email), "Look into your mail")
	link, err := url.Parse(s.lastLink(t))
	if err != nil || link.Fragment == "" {
		t.Fatalf("%v, %v", link, err)
	}
	return c, link.Query().Get("token"), link.Fragment
}

func (c *client) openLink(token, ticket string) string {
	c.Helper()
	return c.post("/link/open", "token", token, "ticket", ticket)
}

// refuses checks for a page that says no.
func (c *client) refuses(status int, method, path, text string, form ...string) {
	c.Helper()
	w := c.do(method, path, form...)
	if w.Code != status || !strings.Contains(html.UnescapeString(w.Body.String()), text) {
		c.Errorf("%s %s: status %d, want %d and %q:\n%s", method, path, w.Code, status, text, w.Body)
	}
	for _, cookie := range w.Result().Cookies() {
		if cookie.Name == sessionCookie {
			c.Errorf("%s %s signs in", method, path)
		}
	}
}

const (
	badTicket  = "What was kept where you started did not come along"
	othersCart = "belongs to another account already"
	goneLink   = "This link does not work any more"
)

func TestTicketsInTheWrongPlace(t *testing.T) {
	for name, wrong := range map[string]func(c *client, ticket string) string{
		"tampered":           func(_ *client, ticket string) string { return ticket[:30] + swap(ticket[30:31]) + ticket[31:] },
		"cut":                func(_ *client, ticket string) string { return ticket[:len(ticket)-1] },
		"a cookie":           func(c *client, _ string) string { return c.cookies["guest"] },
		"nonsense":           func(*client, string) string { return "☃" },
		"another audience's": nil,
	} {
		t.Run(name, func(t *testing.T) {
			s := newTrouble(t)
			here, token, ticket := s.starter(t, ada)
			who := ada
			if wrong == nil {
				_, token, _ = s.starter(t, eve)
				who = eve
			} else {
				ticket = wrong(here, ticket)
			}
			there := s.client(t)
			there.shows(there.openLink(token, ticket), "Welcome to Windowsill!", badTicket, who)
			s.account(t, who, map[string]int64{}, nil, "")
			here.shows(here.get("/cart"), `id="amount-fern">1<`) // nothing was taken from where it started
			if s.log.text.Len() == 0 {
				t.Error("nothing was logged")
			}
			s.log.keepQuiet(t, ticket, token, here.cookies["guest"])
		})
	}

	t.Run("as a cookie", func(t *testing.T) {
		s := newTrouble(t)
		_, _, ticket := s.starter(t, ada)
		thief := s.client(t)
		thief.cookies["guest"] = ticket
		thief.shows(thief.get("/cart"), "Nothing here yet")
	})
}

func swap(letter string) string {
	if letter == "A" {
		return "B"
	}
	return "A"
}

func TestLinkOpenedTwice(t *testing.T) {
	s := newTrouble(t)
	here, token, ticket := s.starter(t, ada)
	there, later := s.client(t), s.client(t)
	there.shows(there.openLink(token, ticket), "Your item moved to your account.")
	form := []string{"token", token, "ticket", ticket}
	there.refuses(410, "POST", "/link/open", "you are signed in", form...)
	later.refuses(410, "POST", "/link/open", "a link signs in once", form...)
	later.refuses(410, "GET", "/link?token="+token, goneLink)
	s.account(t, ada, map[string]int64{"fern": 1}, nil, "")

	// Where it started, the next thing that the visitor does says why.
	here.shows(here.post("/cart/aloe/more"), replacedText, "1 in cart")
}

func TestMailScannersOpenLinksFirst(t *testing.T) {
	s := newTrouble(t)
	here, token, ticket := s.starter(t, ada)
	scanner := s.client(t)
	for range 3 {
		scanner.shows(scanner.get("/link?token="+token), ada, "Sign in")
	}
	w := httptest.NewRecorder()
	s.handler().ServeHTTP(w, newRequest("GET", "/link?token="+token, nil))
	if got := w.Header().Get("Referrer-Policy"); got != "no-referrer" {
		t.Errorf("Referrer-Policy %q", got)
	}
	if len(s.users(t)) != 0 {
		t.Error("a GET has made an account")
	}
	here.shows(here.openLink(token, ticket), "Your item moved to your account.", ada) // the browser that started may end it
	if here.cookies["guest"] != "" {
		t.Error("the guest's cookie is still there")
	}
}

// Between asking for the link and opening it, another user logs in where it started.
func TestGuestOfAnotherPerson(t *testing.T) {
	s := newTrouble(t)
	here, token, ticket := s.starter(t, ada)
	here.post("/signup", "email", eve, "password", password)
	there := s.client(t)
	there.shows(there.openLink(token, ticket), "Welcome to Windowsill!", othersCart, ada)
	s.account(t, ada, map[string]int64{}, nil, "")
	s.account(t, eve, map[string]int64{"fern": 1}, nil, "")
}

// The link's claim is the starter's guest's, whatever cookie the browser that opens it has. A guest
// of its own is left alone by it, and comes along as with every request of a member: it is a guest
// of this browser.
func TestCookieSwapped(t *testing.T) {
	s := newTrouble(t)
	here, token, ticket := s.starter(t, ada)
	mallory := s.client(t)
	mallory.get("/")
	mallory.post("/cart/cactus/more")
	here.cookies["guest"] = mallory.cookies["guest"]
	here.shows(here.openLink(token, ticket), "Your item moved to your account.", ada)
	s.account(t, ada, map[string]int64{"fern": 1, "cactus": 1}, nil, "")
}

func TestLinksAndCodesExpire(t *testing.T) {
	inOutage(t, func(c *client, _ *outage) {
		sent := func() string { return c.shop.outbox.latest()[0].Text }
		c.get("/")
		c.post("/cart/fern/more")
		c.post("/link", "email", ada)
		link, _ := url.Parse(linkInMail.FindString(sent()))
		token := link.Query().Get("token")
		c.post("/code", "phone", adasPhone)
		code := codeInSMS.FindString(sent())

		time.Sleep(codeLife + time.Second)
		c.refuses(422, "POST", "/code/open", errCode.Text, "phone", adasPhone, "code", code)
		c.shows(c.get("/link?token="+token), ada)
		time.Sleep(proofLife - codeLife)
		c.refuses(410, "GET", "/link?token="+token, goneLink)
		c.refuses(410, "POST", "/link/open", goneLink, "token", token, "ticket", link.Fragment)
		c.shows(c.get("/cart"), `id="amount-fern">1<`)

		// A fresh link with the ticket of an old mail.
		c.post("/link", "email", ada)
		fresh, _ := url.Parse(linkInMail.FindString(sent()))
		there := &client{c.T, c.handler, map[string]string{}, c.shop}
		there.shows(there.openLink(fresh.Query().Get("token"), link.Fragment), badTicket, ada)
	})
}

func TestCodes(t *testing.T) {
	s := newTrouble(t)
	c := s.client(t)
	c.get("/")
	c.post("/cart/fern/more")
	c.refuses(422, "POST", "/code", errPhone.Text, "phone", "12345")
	c.post("/code", "phone", adasPhone)
	old := s.lastCode(t)
	c.post("/code", "phone", adasPhone)
	code := s.lastCode(t)
	wrong := func(code string) string { return swapDigit(code[:1]) + code[1:] }
	if old != code {
		c.refuses(422, "POST", "/code/open", errCode.Text, "phone", adasPhone, "code", old)
	}
	c.refuses(422, "POST", "/code/open", errCode.Text, "phone", "+4930999999", "code", code)
	c.refuses(422, "POST", "/code/open", errCode.Text, "phone", adasPhone, "code", wrong(code))
	c.shows(c.post("/code/open", "phone", adasPhone, "code", " "+code+" "), "Your item moved to your account.", adasPhone)
	c.refuses(422, "POST", "/code/open", errCode.Text, "phone", adasPhone, "code", code)

	// Guessing ends after five tries, for the browser that has asked and for all others together.
	guesser, other := s.client(t), s.client(t)
	guesser.post("/code", "phone", adasPhone)
	for range typingLimits.about.burst {
		guesser.refuses(422, "POST", "/code/open", errCode.Text, "phone", adasPhone, "code", wrong(s.lastCode(t)))
	}
	guesser.refuses(429, "POST", "/code/open", tooOften, "phone", adasPhone, "code", s.lastCode(t))
	for range typingLimits.about.burst {
		other.refuses(422, "POST", "/code/open", errCode.Text, "phone", adasPhone, "code", wrong(s.lastCode(t)))
	}
	other.refuses(429, "POST", "/code/open", tooOften, "phone", adasPhone, "code", s.lastCode(t))
}

func swapDigit(digit string) string {
	if digit == "0" {
		return "1"
	}
	return "0"
}

// A user who signs up with the address of another one, and waits with a login that is not quite
// done, is not let in by it once the owner has come.
func TestTheOwnersProofEndsLoginsUnderWay(t *testing.T) {
	type finish func() *httptest.ResponseRecorder
	for name, begin := range map[string]func(s *testShop, squatter *client) finish{
		"signed up, no session yet": func(s *testShop, squatter *client) finish {
			user, err := s.accounts.signUp(squatter.Context(), ada, password)
			return squatter.arrives(user, err)
		},
		"password checked, no session yet": func(s *testShop, squatter *client) finish {
			squatter.post("/signup", "email", ada, "password", password)
			user, err := s.accounts.logIn(squatter.Context(), ada, password)
			return squatter.arrives(user, err)
		},
		"asked which cart": func(s *testShop, squatter *client) finish {
			squatter.withTwoCarts()
			squatter.shows(squatter.post("/login", "email", ada, "password", password, "ask", "yes"), "Which cart?")
			return func() *httptest.ResponseRecorder { return squatter.do("POST", "/choose", "keep", "both") }
		},
		"about to be asked which cart": func(s *testShop, squatter *client) finish {
			squatter.post("/signup", "email", ada, "password", password)
			user, err := s.accounts.logIn(squatter.Context(), ada, password)
			if err != nil {
				t.Fatal(err)
			}
			return squatter.serves(func(w http.ResponseWriter, r *http.Request) { s.ask(w, r, user) })
		},
		"cart chosen, no session yet": func(s *testShop, squatter *client) finish {
			squatter.withTwoCarts()
			squatter.post("/login", "email", ada, "password", password, "ask", "yes")
			token := squatter.cookies[choiceCookie]
			user, _, err := s.choices.of(squatter.Context(), token)
			if ended, errEnd := s.choices.end(squatter.Context(), token); errEnd != nil || !ended {
				t.Fatal(ended, errEnd)
			}
			return squatter.arrives(user, err)
		},
	} {
		for way, come := range map[string]func(s *testShop) string{
			"a link": func(s *testShop) string {
				_, token, ticket := s.starter(t, ada)
				return s.client(t).openLink(token, ticket)
			},
			"OAuth": func(s *testShop) string {
				b := s.surfer(t)
				page, _ := b.get(b.answer("yes", ada, true))
				return page
			},
		} {
			t.Run(name+", the owner comes by "+way, func(t *testing.T) {
				s := newOAuthTrouble(t)
				squatter := s.client(t)
				squatter.get("/")
				finish := begin(s, squatter)
				squatter.shows(come(s), "Welcome back!", ada)
				w := finish()
				for _, cookie := range w.Result().Cookies() {
					if cookie.Value != "" && slices.Contains([]string{sessionCookie, choiceCookie, knownCookie}, cookie.Name) {
						t.Errorf("the squatter gets a cookie %q", cookie.Name)
					}
				}
				for table, want := range map[string]int{"sessions": 1, "choices": 0, "known_browsers": 1} {
					var n int
					if err := s.accounts.db.QueryRow(`SELECT count(*) FROM ` + table).Scan(&n); err != nil || n != want {
						t.Errorf("%s: %d rows, want %d, the owner's: %v", table, n, want, err)
					}
				}
			})
		}
	}
}

// Whatever the user has shown, it counts only while the account's password is what it was.
func TestAPasswordThatChangesEndsLoginsUnderWay(t *testing.T) {
	s := newTrouble(t)
	ctx := t.Context()
	newcomer := func(user User, _ bool, err error) (User, error) { return user, err }
	for name, show := range map[string]func() (User, error){
		"a password": func() (User, error) { return s.accounts.signUp(ctx, ada, password) },
		"an address": func() (User, error) { return newcomer(s.accounts.byEmail(ctx, "address@example.com")) },
		"a number":   func() (User, error) { return newcomer(s.accounts.byPhone(ctx, adasPhone)) },
		"an identity": func() (User, error) {
			return newcomer(s.accounts.byIdentity(ctx, identity{Issuer: "issuer", Subject: "subject"}))
		},
	} {
		for _, isNew := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, isNew %v", name, isNew), func(t *testing.T) {
				if name == "a password" && !isNew {
					show = func() (User, error) { return s.accounts.logIn(ctx, ada, password) }
					old, _ := hashPassword(ctx, password)
					s.accounts.db.Exec(`UPDATE users SET password = ? WHERE email = ?`, old, ada)
				}
				user, err := show()
				if err != nil {
					t.Fatal(err)
				}
				if err := s.sessions.start(httptest.NewRecorder(), newRequest("POST", "/", nil), user); err != nil {
					t.Errorf("not signed in: %v", err)
				}
				if _, err := s.accounts.db.Exec(`UPDATE users SET password = password || 'another' WHERE id = ?`, user.ID); err != nil {
					t.Fatal(err)
				}
				w := httptest.NewRecorder()
				if err := s.sessions.start(w, newRequest("POST", "/", nil), user); err != errProofVoid || len(w.Result().Cookies()) > 0 {
					t.Errorf("%v, want %v and no cookie", err, errProofVoid)
				}
			})
		}
	}
}

func TestAPasswordThatChangesEndsChoices(t *testing.T) {
	s := newTrouble(t)
	c := s.client(t)
	c.get("/")
	c.withTwoCarts()
	c.shows(c.post("/login", "email", ada, "password", password, "ask", "yes"), "Which cart?")
	if _, err := s.accounts.db.Exec(`UPDATE users SET password = password || 'another'`); err != nil {
		t.Fatal(err)
	}
	for _, w := range []*httptest.ResponseRecorder{c.do("GET", "/choose"), c.do("POST", "/choose", "keep", "both")} {
		if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/login" || strings.Contains(w.Header().Get("Set-Cookie"), sessionCookie) {
			t.Errorf("status %d to %q, want the login form", w.Code, w.Header().Get("Location"))
		}
	}
}

// arrives is the end of a login by this client, when the user has shown who they are.
func (c *client) arrives(user User, err error) func() *httptest.ResponseRecorder {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
	return c.serves(func(w http.ResponseWriter, r *http.Request) { c.shop.welcome(w, r, arrival{user: user}) })
}

// serves sends a request that this serves.
func (c *client) serves(serve http.HandlerFunc) func() *httptest.ResponseRecorder {
	return func() *httptest.ResponseRecorder {
		handler := c.shop.sessions.middleware(c.shop.guests.Middleware(serve))
		return (&client{c.T, handler, c.cookies, c.shop}).do("POST", "/")
	}
}

// withTwoCarts signs up and out, and has a cart in the account and another one here.
func (c *client) withTwoCarts() {
	c.post("/cart/pilea/more")
	c.post("/signup", "email", ada, "password", password)
	c.post("/logout")
	c.post("/cart/fern/more")
}

// A user who signed up with the address of another one is out once its owner comes.
func TestAddressesAreTheirOwners(t *testing.T) {
	s := newTrouble(t)
	squatter := s.client(t)
	squatter.get("/")
	squatter.post("/signup", "email", ada, "password", password)
	_, token, ticket := s.starter(t, ada)
	owner := s.client(t)
	owner.shows(owner.openLink(token, ticket), "Welcome back!", ada)
	if page := squatter.get("/"); strings.Contains(page, ada) {
		t.Error("the squatter is still signed in")
	}
	squatter.refuses(422, "POST", "/login", errLogin.Text, "email", ada, "password", password)
	if n := len(s.users(t)); n != 1 {
		t.Errorf("%d accounts", n)
	}
}

// With the guests' store down a link signs in all the same. In another browser it cannot promise
// the cart.
func TestLinkElsewhereWithoutTheStore(t *testing.T) {
	inOutage(t, func(here *client, store *outage) {
		here.get("/")
		here.post("/cart/fern/more")
		here.post("/link", "email", ada)
		link, _ := url.Parse(linkInMail.FindString(here.shop.outbox.latest()[0].Text))
		there := &client{here.T, here.handler, map[string]string{}, here.shop}
		store.down.Store(true)
		there.shows(there.openLink(link.Query().Get("token"), link.Fragment), ada, strandedText)
		store.down.Store(false)
		time.Sleep(time.Minute)
		here.shows(here.get("/cart"), `id="amount-fern">1<`)
		here.post("/link", "email", ada)
		link, _ = url.Parse(linkInMail.FindString(here.shop.outbox.latest()[0].Text))
		here.shows(here.openLink(link.Query().Get("token"), link.Fragment), ada, "Your item moved to your account.")
	})
}

// In the same browser the cookie tries again.
func TestLinkWithoutTheStore(t *testing.T) {
	inOutage(t, func(c *client, store *outage) {
		c.get("/")
		c.post("/cart/fern/more")
		c.post("/link", "email", ada)
		link, _ := url.Parse(linkInMail.FindString(c.shop.outbox.latest()[0].Text))
		store.down.Store(true)
		c.shows(c.openLink(link.Query().Get("token"), link.Fragment), ada, "Your cart is on its way")
		store.down.Store(false)
		time.Sleep(time.Minute)
		c.shows(c.get("/cart"), ada, `id="amount-fern">1<`)
	})
}
