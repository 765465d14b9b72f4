package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// MAIN and PROVISIONAL stand for the values of the two cookies of the attacker's guest, and .suffix
// for the end of the second one's name.
const (
	mainName        = "__Host-Http-guest"
	provisionalName = mainName + ".suffix"
	forAll          = "; Domain=shop.test; Path=/; Secure; HttpOnly"
)

// What evil.shop.test tries with a line of Set-Cookie, or with a script if it begins with js: or
// store: (the CookieStore API). arrives: Chromium 156 accepts it and sends a cookie for it to
// www.shop.test.
var planted = []struct {
	line    string
	arrives bool
}{
	// Under our names, which browsers accept only from the host itself, without Domain, and here
	// with HttpOnly.
	{mainName + "=MAIN" + forAll, false},
	{provisionalName + "=PROVISIONAL" + forAll, false},
	{" \t" + mainName + " =MAIN" + forAll, false},
	// evil's own cookie, which only evil gets
	{mainName + "=MAIN; Path=/; Secure; HttpOnly", false},
	{"js:" + mainName + "=MAIN; Domain=shop.test; Path=/; Secure", false},
	{"js:" + provisionalName + "=PROVISIONAL; Path=/; Secure", false},

	// Without a name. This Chromium accepts none that contain "="; older ones refused those that
	// begin with __Host-.
	{"=" + mainName + "=MAIN" + forAll, false},
	{" = " + provisionalName + "=PROVISIONAL" + forAll, false},
	{"js:=" + mainName + "=MAIN; Domain=shop.test; Path=/; Secure", false},
	{"==" + mainName + "=MAIN" + forAll, false},
	{"=a=" + mainName + "=MAIN" + forAll, false},
	{`="` + mainName + `=MAIN"` + forAll, false},
	{"=\u2000" + provisionalName + "=PROVISIONAL" + forAll, false},
	{"=," + mainName + "=MAIN" + forAll, false},

	// In another case, quoted, or with one more byte or word.
	{"__HOST-HTTP-GUEST=MAIN" + forAll, false},
	{"__host-http-guest.suffix=PROVISIONAL" + forAll, false},
	{"GUEST=MAIN" + forAll, true},
	{"guest=MAIN" + forAll, true},
	{`"` + mainName + `"=MAIN` + forAll, true},
	{"$" + mainName + "=MAIN" + forAll, true},
	{"$Version=1, " + mainName + "=MAIN" + forAll, true},
	{"a," + mainName + "=MAIN" + forAll, true},
	{"a==" + mainName + "=MAIN" + forAll, true},
	{`a="x, ` + mainName + `=MAIN"` + forAll, true},
	{"a=\t" + mainName + "=MAIN" + forAll, true},

	// With a Unicode space or a control character beside it.
	{"\u2000" + mainName + "=MAIN" + forAll, true},
	{"\u2000" + provisionalName + "=PROVISIONAL" + forAll, true},
	{provisionalName + "\u2000=PROVISIONAL" + forAll, false}, // it begins with __Host-
	{"\u3000" + provisionalName + "=PROVISIONAL" + forAll, true},
	{"\u1680" + provisionalName + "=PROVISIONAL" + forAll, true},
	{"\u2028" + provisionalName + "=PROVISIONAL" + forAll, true},
	{"\u0085" + provisionalName + "=PROVISIONAL" + forAll, true},
	{"\u00a0" + provisionalName + "=PROVISIONAL" + forAll, true},
	{"\x85" + provisionalName + "=PROVISIONAL" + forAll, true},
	{"\xa0" + provisionalName + "=PROVISIONAL" + forAll, true},
	{"\ufeff" + provisionalName + "=PROVISIONAL" + forAll, true},
	{"\v" + provisionalName + "=PROVISIONAL" + forAll, false},
	{"\f" + provisionalName + "=PROVISIONAL" + forAll, false},
	{"\x1c" + provisionalName + "=PROVISIONAL" + forAll, false},
	{"\x7f" + provisionalName + "=PROVISIONAL" + forAll, false},
	{"a\x00;" + provisionalName + "=PROVISIONAL" + forAll, false},
	{"js:\u2001" + provisionalName + "=PROVISIONAL; Domain=shop.test; Path=/; Secure", true},
	{"js:\u2001" + mainName + "=MAIN; Domain=shop.test; Path=/; Secure", true},
	{"js:a\n" + provisionalName + "=PROVISIONAL; Domain=shop.test; Path=/; Secure", false},
	{"store:" + mainName + "=MAIN", false},
	{"store:\u2002" + mainName + "=MAIN", true},
	{"store:=" + mainName + "=MAIN", false},
}

// A page on another subdomain can set cookies for the whole domain. No cookie changes whose guest
// the visitor's is: it is neither the attacker's nor absorbed by the attacker's, and the attacker
// reads nothing of it.
func TestASiblingSubdomainTakesNoGuest(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprint("before the visitor comes to the shop, HTTP/2 ", http2),
			func(t *testing.T) {
				siblingTakesNoGuest(t, http2, false, "=MAIN")
			})
		t.Run(fmt.Sprint("from a visitor with a cart, HTTP/2 ", http2), func(t *testing.T) {
			siblingTakesNoGuest(t, http2, true, "=PROVISIONAL")
		})
	}
}

func siblingTakesNoGuest(t *testing.T, http2, earlier bool, plants string) {
	address := guest.NewValue("address", guest.PreferGuest[string]).Encrypted()
	guests, err := guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("change me: 32 random bytes or more")},
		Data:    []guest.Kind{Cart, address},
	})
	if err != nil {
		t.Fatal(err)
	}
	type answer struct {
		Guest, Address string
		Cart           map[string]int64
	}
	mine := func(r *http.Request) (a answer) {
		ctx := r.Context()
		if r.URL.Path == "/buy" {
			if _, err := Cart.Add(ctx, "tea", 1); err != nil {
				t.Error(err)
			}
			if err := address.Set(ctx, "14 Elm Row"); err != nil {
				t.Error(err)
			}
		}
		a.Guest = guest.FromContext(ctx).GuestID()
		var err error
		if a.Cart, err = Cart.All(ctx); err != nil {
			t.Error(err)
		}
		if a.Address, err = address.Get(ctx); err != nil {
			t.Error(err)
		}
		return a
	}
	shop := guests.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(mine(r))
	}))

	// The attacker is an earlier visitor, because of two guests of one browser the older absorbs
	// the younger.
	ask := func(path, cookies string) (a answer, set []*http.Cookie) {
		r := httptest.NewRequest("GET", "https://www.shop.test"+path, nil)
		r.Header["Cookie"] = []string{cookies}
		w := httptest.NewRecorder()
		shop.ServeHTTP(w, r)
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		return a, w.Result().Cookies()
	}
	attacker, set := ask("/", "")
	provisional := set[0]
	_, set = ask("/", provisional.Name+"="+provisional.Value)
	main := set[slices.IndexFunc(set, func(c *http.Cookie) bool { return c.Name == mainName })]
	spell := strings.NewReplacer("MAIN", main.Value, "PROVISIONAL", provisional.Value, ".suffix",
		strings.TrimPrefix(provisional.Name, mainName)).Replace

	var mu sync.Mutex
	var got []string // the Cookie headers that www.shop.test got
	server := httptest.NewUnstartedServer(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch host, _, _ := strings.Cut(r.Host, ":"); {
			case r.URL.Path == "/favicon.ico":
				http.NotFound(w, r)
			case host != "evil.shop.test":
				mu.Lock()
				got = append(got, strings.Join(r.Header["Cookie"], "; "))
				mu.Unlock()
				shop.ServeHTTP(w, r)
			case r.URL.Path == "/plant":
				i, _ := strconv.Atoi(r.FormValue("i"))
				w.Header()["Set-Cookie"] = []string{spell(planted[i].line)}
			default:
				io.WriteString(w, "<p>evil</p>")
			}
		}))
	server.EnableHTTP2 = http2
	server.StartTLS()
	defer server.Close()
	_, port, _ := strings.Cut(server.Listener.Addr().String(), ":")
	www, evil := "https://www.shop.test:"+port, "https://evil.shop.test:"+port

	b := newBrowser(t)
	visit := func(path string) (a answer) {
		t.Helper()
		b.open(www + path)
		text := do(b, "reading the page", chromedp.Text(chromedp.CSS("body")))
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		return a
	}
	var before answer
	if earlier {
		visit("/buy")
		before = visit("/")
	}
	b.open(evil)
	for i, p := range planted {
		if !strings.Contains(p.line, plants) {
			continue
		}
		script := fmt.Sprintf("fetch('/plant?i=%d').catch(() => 0)", i)
		kind, cookie, ok := strings.Cut(p.line, ":")
		switch cookie = spell(cookie); {
		case ok && kind == "js":
			script = fmt.Sprintf("document.cookie = %q", cookie)
		case ok && kind == "store":
			j := strings.LastIndexByte(cookie[:len(cookie)-3], '=')
			script = fmt.Sprintf(
				"cookieStore.set({name: %q, value: %q, domain: 'shop.test'}).catch(() => 0)",
				cookie[:j], cookie[j+1:])
		}
		stored := b.stored(www)
		do(b, script, chromedp.Evaluate[any]("Promise.resolve("+script+").then(() => 0)",
			chromedp.EvalAwaitPromise))
		if arrives := !slices.Equal(b.stored(www), stored); arrives != p.arrives {
			t.Logf("row %d, %q, arrives: %v, which is new", i, p.line, arrives)
		}
	}
	if !earlier {
		visit("/buy")
		before = visit("/")
	}
	after := visit("/")

	if after.Guest == attacker.Guest || after.Guest != before.Guest || after.Cart["tea"] != 1 ||
		after.Address != "14 Elm Row" {
		t.Errorf("the visitor is %+v, was %+v, and the attacker's guest is %s", after, before,
			attacker.Guest)
	}
	for _, cookie := range []string{provisional.Name + "=" + provisional.Value,
		mainName + "=" + main.Value} {
		if a, _ := ask("/", cookie); a.Guest != attacker.Guest || len(a.Cart) != 0 ||
			a.Address != "" {
			t.Errorf("the attacker's guest has become %+v", a)
		}
	}

	// The browser sent only the visitor's own cookie under our name, and of the planted ones those
	// that the table lists.
	mu.Lock()
	last := got[len(got)-1]
	mu.Unlock()
	ours := regexp.MustCompile(`^` + mainName + `(\.[A-Za-z0-9_-]{6})?$`)
	for pair := range strings.SplitSeq(last, ";") {
		name, value, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
		if ours.MatchString(name) && (value == main.Value || value == provisional.Value) {
			t.Errorf("the browser sends the attacker's cookie under our name: %q", pair)
		}
	}
	if !strings.Contains(last, "\u2000"+mainName) {
		t.Errorf("this test shows nothing: the browser did not send the cookie with a Unicode space: %+q", last)
	}
}

// stored are the cookies that the browser would send there.
func (b *browser) stored(url string) (pairs []string) {
	b.Helper()
	get := func(ctx context.Context, target *chromedp.Target) (network.GetCookiesResult, error) {
		return cdp.Call(ctx, target, network.GetCookies,
			network.GetCookiesParams{URLs: []string{url}})
	}
	for _, c := range do(b, "reading cookies", get).Cookies {
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	slices.Sort(pairs)
	return pairs
}
