package main

import (
	"context"
	"maps"
	"regexp"
	"testing"
)

const adasPhone = "+49301234567"

// A way is one to sign in. It starts in the browser of the guest and ends there, or in the other
// one.
type way struct {
	name      string
	elsewhere bool   // it ends in the other browser
	who       string // what the account is called
	open      func(*testing.T, *testShop)
	seed      func(*client, *testShop)
	signIn    func(s *testShop, here, there *tab, isNew bool)
}

func passwordSeed(c *client, _ *testShop) { c.post("/signup", "email", ada, "password", password) }

var ways = []way{
	{
		name: "password", who: ada,
		seed: passwordSeed,
		signIn: func(s *testShop, here, _ *tab, isNew bool) {
			here.signsIn(map[bool]string{true: "/signup", false: "/login"}[isNew], ada, password)
		},
	},
	{
		name: "phone", who: adasPhone, elsewhere: true,
		seed: func(c *client, s *testShop) {
			c.post("/code", "phone", adasPhone)
			c.post("/code/open", "phone", adasPhone, "code", s.lastCode(c.T))
		},
		signIn: func(s *testShop, here, there *tab, _ bool) {
			here.open("/login")
			here.fill("phone", "+49 (30) 123-4567")
			here.follow("#send-code")
			there.open("/code")
			there.fill("phone", adasPhone)
			there.fill("code", s.lastCode(here.T))
			there.follow("#submit")
		},
	},
	{
		name: "link", who: ada, elsewhere: true,
		seed: passwordSeed, // it must not make a second account
		signIn: func(s *testShop, here, there *tab, _ bool) {
			here.open("/login")
			here.fill("link", " Ada@Example.com")
			here.follow("#mail-link")
			there.open(s.lastLink(here.T))
			there.sees("email", ada)
			there.lacks(`[data-fragment][value=""]`)
			there.follow("#submit")
		},
	},
}

func init() {
	for _, mode := range []string{"OAuth", "OAuth with form_post"} {
		ways = append(ways, way{
			name: mode, who: ada,
			open: func(t *testing.T, s *testShop) {
				s.withGardenID(t)
				s.oauth.formPost = mode != "OAuth"
			},
			seed: passwordSeed, // it must not make a second account
			signIn: func(s *testShop, here, _ *tab, _ bool) {
				here.open("/login")
				here.follow("#oauth")
				here.fill("email", "Ada@Example.com")
				here.click("#yes")
				here.sees("who", ada)
				if posted := s.formPosts.Load() > 0; posted != s.oauth.formPost {
					here.Errorf("answered by a POST: %v", posted)
				}
			},
		})
	}
}

// withGardenID gives the shop an OpenID provider.
func (s *testShop) withGardenID(t *testing.T) {
	t.Helper()
	var err error
	if s.oauth, err = startGardenID(t.Context(), s.url); err != nil {
		t.Fatal(err)
	}
}

// Every way, to a new account and to one that has something already.
func TestEveryWay(t *testing.T) {
	for _, way := range ways {
		for _, isNew := range []bool{true, false} {
			t.Run(way.name+map[bool]string{true: ", new", false: ", existing"}[isNew], func(t *testing.T) {
				forEachStore(t, func(t *testing.T, s *testShop) {
					if way.open != nil {
						way.open(t, s)
					}
					testWay(t, s, way, isNew)
				})
			})
		}
	}
}

func testWay(t *testing.T, s *testShop, way way, isNew bool) {
	want, receipt := map[string]int64{"fern": 2}, "Welcome to Windowsill! Your 2 items moved to your account. Your wish list came along, with 1 plant."
	if !isNew {
		before := &client{t, s.handler(), map[string]string{}, s.shop}
		before.get("/")
		before.post("/cart/pilea/more")
		way.seed(before, s)
		want["pilea"] = 1
		receipt = "Welcome back! 2 items from this browser were added to the one you had. Your wish list came along, with 1 plant."
	}

	here, there := newBrowser(t, s.url), newBrowser(t, s.url)
	here.open("/")
	here.click("#add-fern")
	here.click("#add-fern")
	here.click("#heart-aloe")
	here.counts("2", "1")
	here.open("/")
	guest := here.guestCookies()["guest"]
	way.signIn(s, here, there, isNew)

	end, other := here, there
	if way.elsewhere {
		end, other = there, here
	}
	end.sees("who", way.who)
	end.sees("flash", receipt)
	if isNew {
		end.counts("2", "1")
	} else {
		end.counts("3", "1")
	}
	if users := s.users(t); len(users) != 1 {
		t.Fatalf("%d accounts", len(users))
	} else {
		s.holds(t, users[0], want, []string{"aloe"})
	}

	// The other browser is no member, and has nothing of it. If it was where the guest started, it
	// says why.
	other.open("/")
	other.sees("who", "Guest")
	other.counts("0", "0")
	if way.elsewhere {
		other.sees("replaced", replacedText)
	}
	other.open("/")
	other.lacks("#replaced")
	other.click("#add-cactus") // and is a guest like any other
	other.counts("1", "0")

	// The guest is no more.
	if left := end.guestCookies(); len(left) != 0 && !way.elsewhere {
		t.Errorf("%d guest cookies where it ended", len(left))
	}
	if now := other.guestCookies(); now["guest"] == "" || now["guest"] == guest {
		t.Error("the other browser has no guest of its own")
	}
	old := &client{t, s.handler(), map[string]string{"guest": guest}, s.shop}
	old.shows(old.get("/cart"), replacedText, "Nothing here yet")
}

// users are the IDs of all accounts.
func (s *testShop) users(t *testing.T) (ids []string) {
	t.Helper()
	rows, err := s.accounts.db.Query(`SELECT id FROM users`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// holds checks what is stored for an account, whatever the pages say.
func (s *testShop) holds(t *testing.T, id string, cart map[string]int64, wishes []string) {
	t.Helper()
	data, err := load(s.guests.As(context.Background(), id))
	if err != nil {
		t.Fatal(err)
	}
	ok := len(data.Wishes) == len(wishes)
	for _, sku := range wishes {
		ok = ok && !data.Wishes[sku].IsZero()
	}
	if !ok || !maps.Equal(data.Cart, cart) {
		t.Errorf("stored for the account: cart %v, wishes %v; want %v, %v", data.Cart, data.Wishes, cart, wishes)
	}
}

var (
	linkInMail = regexp.MustCompile(`/link\?\S+`)
	codeInSMS  = regexp.MustCompile(`^\d{6}`)
)

// lastLink is the path of the link that was mailed last.
func (s *testShop) lastLink(t *testing.T) string { return s.lastOf(t, linkInMail) }

// lastCode is the code that was sent last.
func (s *testShop) lastCode(t *testing.T) string { return s.lastOf(t, codeInSMS) }

func (s *testShop) lastOf(t *testing.T, form *regexp.Regexp) string {
	t.Helper()
	for _, m := range s.outbox.latest() {
		if found := form.FindString(m.Text); found != "" {
			return found
		}
	}
	t.Fatal("nothing was sent")
	return ""
}
