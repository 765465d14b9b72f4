package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/guestkit/guest/internal/redistest"
)

// TestMain stops what the tests share, each started when first needed: one Chromium and one Redis.
// It lowers the cost of passwords, as the tests hash hundreds; TestAccounts uses the real cost.
func TestMain(m *testing.M) {
	realCost, passwordCost = passwordCost, cost{memory: 8, passes: 1, threads: 1}
	status := m.Run()
	for i := len(atExit) - 1; i >= 0; i-- {
		atExit[i]()
	}
	os.Exit(status)
}

var (
	atExit   []func()
	realCost cost // of a password
)

var sharedRedis = sync.OnceValues(func() (*redistest.Server, error) {
	dir, err := os.MkdirTemp("", "shop-redis-")
	if err != nil {
		return nil, err
	}
	atExit = append(atExit, func() { os.RemoveAll(dir) })
	server, err := redistest.Start(dir)
	if err == nil {
		atExit = append(atExit, server.Close)
	}
	return server, err
})

var sharedChromium = sync.OnceValues(func() (context.Context, error) {
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless-shell"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		return nil, fmt.Errorf("no Chromium in the PATH " +
			"(apt-get install chromium, or run scripts/test, which does)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program),
		chromedp.NoSandbox, // root has none; it opens nothing but the shop
		chromedp.DisableGPU,
		chromedp.Flag("disable-component-update", true),
		// Each window has an address bar whose popups are pages, too. They take half of the CPU
		// time.
		chromedp.Flag("disable-features", "Translate,WebUIOmniboxPopup,WebUIOmniboxAimPopup"),
		chromedp.WindowSize(1280, 900),
	)
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	atExit = append(atExit, cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	atExit = append(atExit, cancel)
	return ctx, chromedp.Do(ctx)
})

// timeout is how long a test waits for what should come at once. It is long, as machines are busy.
const timeout = time.Minute

// A tab is a browser tab that shows a shop.
type tab struct {
	*testing.T
	ctx context.Context
	url string // of the shop
}

// newBrowser opens a browser without cookies, as a new visitor has it.
func newBrowser(t *testing.T, url string) *tab {
	t.Helper()
	chromium, err := sharedChromium()
	if err != nil {
		t.Fatal(err)
	}
	return openTab(t, chromium, url, chromedp.WithNewBrowserContext())
}

// another opens a second tab of the same browser.
func (b *tab) another() *tab {
	b.Helper()
	return openTab(b.T, b.ctx, b.url)
}

func openTab(t *testing.T, parent context.Context, url string, opts ...chromedp.ContextOption) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(parent, opts...)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return &tab{t, ctx, url}
}

// do runs an action with a deadline. What fails, fails with what the page says.
func do[T any](b *tab, what string, action chromedp.Action[T]) T {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, timeout)
	defer cancel()
	value, err := chromedp.Run(ctx, action)
	if err != nil {
		ctx, cancel := context.WithTimeout(b.ctx, time.Second)
		defer cancel()
		url, _ := chromedp.Run(ctx, chromedp.Location())
		text, _ := chromedp.Run(ctx, chromedp.Text(chromedp.CSS("body")))
		b.Fatalf("%s: %v\n%s says:\n%s", what, err, url, text)
	}
	return value
}

// open opens a page and returns its status.
func (b *tab) open(path string) int64 {
	b.Helper()
	return do(b, "open "+path, chromedp.NavigateResponse(b.url+path)).Status
}

// click clicks what changes the page in place.
func (b *tab) click(selector string) {
	b.Helper()
	do(b, "click "+selector, chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// follow clicks what leads to another page, and returns that page's status.
func (b *tab) follow(selector string) int64 {
	b.Helper()
	return do(b, "follow "+selector, func(ctx context.Context, _ *chromedp.Target) (int64, error) {
		response, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
		if err != nil {
			return 0, err
		}
		return response.Status, nil
	})
}

func (b *tab) fill(id, text string) {
	b.Helper()
	do(b, "fill "+id, chromedp.SendKeys(chromedp.ID(id), text))
}

// sees waits until the element of this ID says exactly that.
func (b *tab) sees(id, text string) {
	b.Helper()
	do(b, fmt.Sprintf("waiting for #%s to say %q", id, text),
		chromedp.WaitReady(chromedp.Search(fmt.Sprintf(`//*[@id=%q][normalize-space()=%q]`, id, text))))
}

func (b *tab) waits(selector string) {
	b.Helper()
	do(b, "waiting for "+selector, chromedp.WaitReady(chromedp.CSS(selector)))
}

// lacks checks that the page, as it is now, has no such element.
func (b *tab) lacks(selector string) {
	b.Helper()
	do(b, "lacks "+selector, chromedp.WaitNotPresent(chromedp.CSS(selector)))
}

// count checks the numbers in the header.
func (b *tab) counts(cart, wishes string) {
	b.Helper()
	b.sees("cart-count", cart)
	b.sees("wish-count", wishes)
}

// signsIn sends the form of the page /signup or /login.
func (b *tab) signsIn(page, email, password string) (status int64) {
	b.Helper()
	b.open(page)
	b.fill("email", email)
	b.fill("password", password)
	return b.follow("#submit")
}

// guestCookies are the guest cookies that the browser keeps for the shop, by name.
func (b *tab) guestCookies() map[string]string {
	b.Helper()
	found := map[string]string{}
	result := do(b, "reading cookies", call(network.GetCookies, network.GetCookiesParams{URLs: []string{b.url}}))
	for _, c := range result.Cookies {
		if c.Name == "guest" || strings.HasPrefix(c.Name, "guest.") {
			found[c.Name] = c.Value
		}
	}
	return found
}

func (b *tab) setGuestCookie(value string) {
	b.Helper()
	do(b, "setting a cookie", call(network.SetCookie, network.SetCookieParams{Name: "guest", Value: value, URL: b.url}))
}

func (b *tab) disableScripts() {
	b.Helper()
	do(b, "disabling scripts", call(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}))
}

func call[P, R any](command cdp.Command[P, R], params P) chromedp.Action[R] {
	return func(ctx context.Context, target *chromedp.Target) (R, error) {
		return cdp.Call(ctx, target, command, params)
	}
}
