package proofs

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// cacheShop is an app behind a cache. Its pages have caching headers as apps have them: good ones,
// bad ones, none.
type cacheShop struct {
	*httptest.Server
	guests *guest.Manager
	// requests for the public page that came through the cache without a cookie
	publics atomic.Int64
}

func newCacheShop(t *testing.T) *cacheShop {
	s := &cacheShop{}
	var err error
	s.guests, err = guest.New(guest.Config{
		Store:   memstore.New(memstore.Config{}),
		Secrets: [][]byte{[]byte("a secret of the tests, 32 bytes+")},
		Data:    []guest.Kind{basket}, Cookie: guest.Cookie{Insecure: true},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "style.css"), []byte("body {}"), 0o600); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /public", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") == "" {
			s.publics.Add(1)
		}
		w.Header().Set("Cache-Control", "public, max-age=600")
		io.WriteString(w, "welcome")
	})
	page := func(header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			cart, err := basket.All(r.Context())
			if err != nil {
				t.Error(err)
			}
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			json.NewEncoder(w).Encode(cachedPage{guest.FromContext(r.Context()).GuestID(), cart})
		}
	}
	mux.HandleFunc("GET /cart", page())
	mux.HandleFunc("GET /etag", page("ETag", `"1"`, "Cache-Control", "no-cache"))
	mux.HandleFunc("GET /large", page("X-App", strings.Repeat("x", 3<<10+900)))
	mux.HandleFunc("GET /aged", page("Cache-Control", "max-age=600"))
	mux.HandleFunc("GET /old", page("Last-Modified", "Thu, 01 Jan 2015 00:00:00 GMT"))
	add := func(w http.ResponseWriter, r *http.Request) {
		if _, err := basket.Add(r.Context(), r.FormValue("item"), 1); err != nil {
			t.Error(err)
		}
		w.Header().Set("Cache-Control", "public, max-age=600")
		fmt.Fprint(w, r.FormValue("item"))
	}
	mux.HandleFunc("POST /add", add)
	mux.HandleFunc("GET /add", add)
	mux.Handle("GET /static/", http.StripPrefix("/static/", http.FileServer(http.Dir(dir))))
	mux.HandleFunc("GET /moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/cart", http.StatusMovedPermanently)
	})
	mux.HandleFunc("GET /missing", http.NotFound)
	s.Server = httptest.NewServer(s.guests.Middleware(mux))
	t.Cleanup(s.Close)
	return s
}

// cachedPage is what a page shows about its visitor.
type cachedPage struct {
	Guest string
	Cart  map[string]int64
}

// A crowd remembers which client has which tokens and guests.
type crowd struct {
	mu     sync.Mutex
	holder map[string]int // by token or guest ID: the client
	hits   int            // of the public page
	bare   int            // requests for the public page without a cookie
}

const crowdSize = 1000

// visitThrough sends a thousand visitors through the cache at this address, each in an order of its
// own over pages of all sorts. No two may ever have one token, be one guest, or see each other's
// cart. The cache reports a hit with HIT in X-Cache-Status.
func (s *cacheShop) visitThrough(t *testing.T, base string) *crowd {
	c := &crowd{holder: map[string]int{}}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	transport := &http.Transport{MaxIdleConnsPerHost: 50}
	defer transport.CloseIdleConnections()
	var clients sync.WaitGroup
	var next atomic.Int64
	for range 50 {
		clients.Go(func() {
			for {
				i := int(next.Add(1))
				if i > crowdSize || t.Failed() {
					return
				}
				c.visit(t, s, i, base, transport, rand.New(rand.NewPCG(seed, uint64(i))))
			}
		})
	}
	clients.Wait()
	return c
}

// holds records that the client has this token or ID.
func (c *crowd) holds(t *testing.T, client int, secret string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if other, known := c.holder[secret]; known && other != client {
		t.Errorf("client %d was given what client %d has: %s", client, other, secret)
	}
	c.holder[secret] = client
}

func (c *crowd) visit(t *testing.T, s *cacheShop, i int, base string, transport http.RoundTripper,
	rnd *rand.Rand) {
	jar, _ := cookiejar.New(nil)
	client := &http.Client{Jar: jar, Transport: transport}
	client.CheckRedirect = func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}
	home, _ := url.Parse(base)
	item := fmt.Sprintf("item%d", i)
	ways := []string{"GET /public", "GET /cart", "GET /etag", "GET /aged", "GET /old", "POST /add",
		"GET /static/style.css", "GET /static/none", "GET /moved", "GET /missing"}
	rnd.Shuffle(len(ways), func(a, b int) { ways[a], ways[b] = ways[b], ways[a] })
	if rnd.IntN(2) == 0 {
		ways[0] = "GET /public"
	}
	ways = append(ways[:5], "GET /add?item="+item, "GET /cart")
	for _, way := range ways {
		method, path, _ := strings.Cut(way, " ")
		if way == "POST /add" {
			path += "?item=" + item
		}
		bare := len(jar.Cookies(home)) == 0
		req, _ := http.NewRequest(method, base+path, nil)
		res, err := client.Do(req)
		if err != nil {
			t.Errorf("%s: %v", way, err)
			return
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Errorf("%s: %v", way, err)
			return
		}
		for _, cookie := range res.Cookies() {
			if cookie.MaxAge > 0 {
				c.holds(t, i, cookie.Value)
			}
		}
		switch {
		case path == "/public":
			if string(body) != "welcome" || len(res.Cookies()) > 0 {
				t.Errorf("the public page: %s, %q, %v", res.Status, body, res.Header)
			}
			if bare {
				c.mu.Lock()
				if c.bare++; res.Header.Get("X-Cache-Status") == "HIT" {
					c.hits++
				}
				c.mu.Unlock()
			}
		case path == "/missing" || path == "/static/none":
			if res.StatusCode != http.StatusNotFound {
				t.Errorf("%s: %s", way, res.Status)
			}
		case path == "/moved":
			if res.StatusCode != http.StatusMovedPermanently {
				t.Errorf("%s: %s", way, res.Status)
			}
		case res.StatusCode != http.StatusOK:
			t.Errorf("%s: %s: %s", way, res.Status, body)
		case strings.HasPrefix(path, "/static"):
		case strings.HasPrefix(path, "/add"):
			if string(body) != item {
				t.Errorf("%s: %q, want %q", way, body, item)
			}
		default:
			c.sees(t, i, item, way, body)
		}
	}

	// The true state, without the cache.
	req, _ := http.NewRequest("GET", s.URL+"/cart", nil)
	for _, cookie := range jar.Cookies(home) {
		req.AddCookie(cookie)
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Error(err)
		return
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if cart := c.sees(t, i, item, "the truth", body); cart[item] == 0 {
		t.Errorf("client %d has lost its cart: %s", i, body)
	}
}

// sees checks that a page shows the client itself.
func (c *crowd) sees(t *testing.T, i int, item, way string, body []byte) map[string]int64 {
	var page cachedPage
	if err := json.Unmarshal(body, &page); err != nil {
		t.Errorf("%s: %v: %q", way, err, body)
		return nil
	}
	if page.Guest == "" {
		t.Errorf("%s: client %d has no guest", way, i)
	} else {
		c.holds(t, i, page.Guest)
	}
	for other := range page.Cart {
		if other != item {
			t.Errorf("%s: client %d sees %s in its cart", way, i, other)
		}
	}
	return page.Cart
}

// servedFromCache checks that the public page came from the cache, for visitors without a cookie:
// all but the first few.
func (s *cacheShop) servedFromCache(t *testing.T, c *crowd) {
	t.Logf("the public page without a cookie: %d requests, %d hits, %d at the origin", c.bare,
		c.hits, s.publics.Load())
	if c.bare < crowdSize/4 || int64(c.bare) != int64(c.hits)+s.publics.Load() ||
		c.hits < c.bare/2 {
		t.Errorf("%d requests for the public page, %d of them hits, %d at the origin", c.bare,
			c.hits, s.publics.Load())
	}
}
