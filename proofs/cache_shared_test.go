package proofs

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// A sharedCache stores all that RFC 9111 and the targeted fields let any shared cache store, for as
// long as the test takes. It honours Vary, and collapses requests: while one is sent to the origin,
// the others for that URL wait, and get its response if it may be stored. Otherwise each is sent by
// itself.
type sharedCache struct {
	origin http.Handler

	mu     sync.Mutex
	stored map[string][]storedResponse // by URL
	asked  map[string]chan struct{}    // by URL: closed when the response is there
	wait   func(url string)            // called before a request waits for another's
}

type storedResponse struct {
	request http.Header
	status  int
	header  http.Header
	body    []byte
}

func newSharedCache(t *testing.T, origin string) (*sharedCache, string) {
	u, err := url.Parse(origin)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(u) },
		Transport: &http.Transport{MaxIdleConnsPerHost: 50},
	}
	c := &sharedCache{origin: proxy, stored: map[string][]storedResponse{},
		asked: map[string]chan struct{}{}}
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	return c, s.URL
}

func (c *sharedCache) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		c.origin.ServeHTTP(w, r)
		return
	}
	url := r.URL.String()
	for waited := false; ; {
		c.mu.Lock()
		if hit := c.find(url, r.Header); hit != nil {
			c.mu.Unlock()
			hit.send(w, "HIT")
			return
		}
		first, busy := c.asked[url]
		if !busy {
			c.asked[url] = make(chan struct{})
		}
		wait := c.wait
		c.mu.Unlock()
		if busy && !waited {
			if wait != nil {
				wait(url)
			}
			<-first
			waited = true
			continue
		}
		c.fetch(w, r, url, !busy)
		return
	}
}

func (c *sharedCache) fetch(w http.ResponseWriter, r *http.Request, url string, leads bool) {
	rec := httptest.NewRecorder()
	c.origin.ServeHTTP(rec, r)
	res := rec.Result()
	got := storedResponse{r.Header.Clone(), res.StatusCode, res.Header, rec.Body.Bytes()}
	c.mu.Lock()
	if len(storedBy(r, res)) > 0 {
		c.stored[url] = append(c.stored[url], got)
	}
	if leads {
		close(c.asked[url])
		delete(c.asked, url)
	}
	c.mu.Unlock()
	got.send(w, "MISS")
}

// find returns a stored response whose Vary this request matches. The caller holds c.mu.
func (c *sharedCache) find(url string, request http.Header) *storedResponse {
	for i, s := range c.stored[url] {
		same := true
		for name := range strings.SplitSeq(strings.Join(s.header.Values("Vary"), ","), ",") {
			name = strings.TrimSpace(name)
			same = same && name != "*" && strings.Join(s.request.Values(name), ",") == strings.Join(
				request.Values(name), ",")
		}
		if same {
			return &c.stored[url][i]
		}
	}
	return nil
}

func (s *storedResponse) send(w http.ResponseWriter, status string) {
	maps.Copy(w.Header(), s.header)
	w.Header().Set("X-Cache-Status", status)
	w.WriteHeader(s.status)
	io.Copy(w, bytes.NewReader(s.body))
}

// A thousand visitors through a cache that stores all that the standards allow.
func TestBehindASharedCache(t *testing.T) {
	s := newCacheShop(t)
	_, base := newSharedCache(t, s.URL)
	s.servedFromCache(t, s.visitThrough(t, base))
}

// Many new visitors request one URL at once, while the first response is on its way. They share
// what may be stored, but never an identity.
func TestCollapsedRequests(t *testing.T) {
	const visitors = 50
	s := newCacheShop(t)
	for _, path := range []string{"/cart", "/public"} {
		c, base := newSharedCache(t, s.URL)
		var waiting sync.WaitGroup
		waiting.Add(visitors - 1)
		c.wait = func(string) { waiting.Done() }
		origin := c.origin
		var first sync.Once
		c.origin = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			first.Do(waiting.Wait)
			origin.ServeHTTP(w, r)
		})
		transport := &http.Transport{MaxIdleConnsPerHost: visitors}
		defer transport.CloseIdleConnections()
		seen := &crowd{holder: map[string]int{}}
		var clients sync.WaitGroup
		for i := range visitors {
			clients.Go(func() {
				res, err := (&http.Client{Transport: transport}).Get(base + path)
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				body, _ := io.ReadAll(res.Body)
				for _, cookie := range res.Cookies() {
					seen.holds(t, i, cookie.Value)
				}
				if path == "/cart" {
					seen.sees(t, i, "", path, body)
				}
			})
		}
		clients.Wait()
		if want := map[string]int{"/cart": 2 * visitors,
			"/public": 0}[path]; len(seen.holder) != want {
			t.Errorf("%s: %d tokens and guests, want %d", path, len(seen.holder), want)
		}
	}
	if got := s.publics.Load(); got != 1 {
		t.Errorf("%d collapsed requests for the public page reached the app", got)
	}
}
