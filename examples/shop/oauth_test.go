package main

import (
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// A surfer is a browser without a screen: it follows redirects between sites, with cookies for
// each.
type surfer struct {
	*testing.T
	http.Client
	shop *testShop
}

func (s *testShop) surfer(t *testing.T) *surfer {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &surfer{t, http.Client{Jar: jar}, s}
	b.get(s.url)
	b.post(s.url + "/cart/fern/more")
	return b
}

func (b *surfer) get(url string) (page string, at *url.URL) {
	b.Helper()
	res, err := b.Get(url)
	return b.read(res, err)
}

func (b *surfer) post(url string, form ...string) (page string, at *url.URL) {
	b.Helper()
	res, err := b.PostForm(url, values(form))
	return b.read(res, err)
}

func (b *surfer) read(res *http.Response, err error) (page string, at *url.URL) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.Fatal(err)
	}
	return html.UnescapeString(string(body)), res.Request.URL
}

// answer goes to the provider and answers its question, up to where the provider sends the browser
// back.
func (b *surfer) answer(answer, email string, verified bool) (back string) {
	b.Helper()
	page, at := b.post(b.shop.url + "/oauth")
	if !strings.Contains(page, "asks who you are") {
		b.Fatalf("at %v:\n%s", at, page)
	}
	form := url.Values{"id": {at.Query().Get("authRequestID")}, "answer": {answer}, "email": {email}}
	if verified {
		form.Set("verified", "yes")
	}
	b.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if back = r.URL.String(); strings.HasPrefix(back, b.shop.url) {
			return http.ErrUseLastResponse
		}
		back = ""
		return nil
	}
	res, err := b.PostForm(at.Scheme+"://"+at.Host+at.Path, form)
	page, at = b.read(res, err)
	b.CheckRedirect = nil
	if back == "" {
		b.Fatalf("at %v:\n%s", at, page)
	}
	return back
}

func (b *surfer) shows(page string, texts ...string) {
	b.Helper()
	for _, text := range texts {
		if !strings.Contains(page, text) {
			b.Fatalf("the page lacks %q:\n%s", text, page)
		}
	}
}

// guestCookie gets the guest cookie, and sets it if there is a new value.
func (b *surfer) guestCookie(value ...string) (old string) {
	u, _ := url.Parse(b.shop.url)
	for _, c := range b.Jar.Cookies(u) {
		if c.Name == "guest" {
			old = c.Value
		}
	}
	for _, v := range value {
		c := &http.Cookie{Name: "guest", Value: v, Path: "/"}
		if v == "" {
			c.MaxAge = -1
		}
		b.Jar.SetCookies(u, []*http.Cookie{c})
	}
	return old
}

func newOAuthTrouble(t *testing.T) *testShop {
	s := newTrouble(t)
	s.withGardenID(t)
	return s
}

const notSignedIn = "Not signed in"

func TestOAuthThatGoesNowhere(t *testing.T) {
	s := newOAuthTrouble(t)
	b, thief := s.surfer(t), s.surfer(t)

	page, _ := b.get(b.answer("no", ada, true))
	b.shows(page, notSignedIn, "perhaps you did not want it to")

	back := b.answer("yes", ada, true)
	page, _ = thief.get(back) // nor can a thief's answer be planted in another browser
	thief.shows(page, notSignedIn, "started in another browser")
	page, _ = b.get(back + "0")
	b.shows(page, notSignedIn)
	if len(s.users(t)) != 0 {
		t.Fatal("an account was made")
	}

	page, _ = b.get(back)
	b.shows(page, "Welcome to Windowsill!", "Your item moved to your account.", ada)
	page, _ = b.get(back)
	b.shows(page, notSignedIn, "it is done already")
	s.account(t, ada, map[string]int64{"fern": 1}, nil, "")

	forged := b.answer("yes", ada, true)
	page, _ = b.get(regexp.MustCompile(`code=[^&]+`).ReplaceAllString(forged, "code=forged"))
	b.shows(page, notSignedIn, "could not be asked")
}

// The ticket that waits with the state claims the guest of the start, whatever became of the
// cookie.
func TestOAuthWithoutTheGuestsCookie(t *testing.T) {
	s := newOAuthTrouble(t)
	b := s.surfer(t)
	back := b.answer("yes", ada, true)
	b.guestCookie("")
	page, _ := b.get(back)
	b.shows(page, "Your item moved to your account.", ada)
	s.account(t, ada, map[string]int64{"fern": 1}, nil, "")

	mallory := s.surfer(t)
	eves := s.surfer(t)
	eves.post(s.url + "/cart/fern/more")
	back = eves.answer("yes", eve, true)
	eves.guestCookie(mallory.guestCookie())
	eves.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	eves.get(back)
	s.account(t, eve, map[string]int64{"fern": 2}, nil, "")
}

var hidden = regexp.MustCompile(`name="(\w+)" value="([^"]*)"`)

// With form_post the answer is a form that any page can send. It signs in where the flow was
// started.
func TestFormPostFromElsewhere(t *testing.T) {
	s := newTrouble(t)
	s.withGardenID(t)
	s.oauth.formPost = true
	b, victim := s.surfer(t), s.surfer(t)

	_, at := b.post(s.url + "/oauth")
	page, _ := b.post(at.Scheme+"://"+at.Host+at.Path, "id", at.Query().Get("authRequestID"), "answer", "yes", "email", eve, "verified", "yes")
	var form []string
	for _, field := range hidden.FindAllStringSubmatch(page, -1) {
		form = append(form, field[1:]...)
	}
	if len(form) < 4 {
		t.Fatalf("no form:\n%s", page)
	}
	req, _ := http.NewRequest("POST", s.url+oauthCallback, strings.NewReader(values(form).Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	plain := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := plain.Do(req) // Lax cookies stay at home
	if err != nil || res.StatusCode != http.StatusSeeOther || len(res.Cookies()) > 0 {
		t.Fatalf("%v, %v", res, err)
	}
	res.Body.Close()
	next := res.Header.Get("Location")
	page, _ = victim.get(s.url + next)
	victim.shows(page, notSignedIn)
	page, _ = b.get(s.url + next)
	b.shows(page, "Your item moved to your account.", eve)
}

// An address that the provider has not verified proves nothing: no account is found by it.
func TestUnverifiedAddress(t *testing.T) {
	s := newOAuthTrouble(t)
	owner := s.client(t)
	owner.get("/")
	owner.post("/signup", "email", ada, "password", password)
	b := s.surfer(t)
	page, _ := b.get(b.answer("yes", ada, false))
	b.shows(page, "Welcome to Windowsill!", "Member")
	s.account(t, ada, map[string]int64{}, nil, "")
	b.post(s.url + "/logout")
	page, _ = b.get(b.answer("yes", ada, true)) // the same person, whatever the address is worth now
	b.shows(page, "Welcome back!", "Member")
	if n := len(s.users(t)); n != 2 {
		t.Errorf("%d accounts, want 2", n)
	}
}
