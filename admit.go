package guest

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// Browsers admits every request that a visitor could have sent, also with a plain HTTP client such
// as curl. It refuses methods that only ask (HEAD, OPTIONS, TRACE), prefetching and prerendering,
// requests for parts of a page (images, scripts, styles, fonts, media, workers, by Sec-Fetch-Dest),
// WebSocket upgrades, and crawlers that say so.
//
// It also refuses unsafe requests from another site: they arrive without the browser's Lax cookie,
// so a new guest would overwrite the one that the browser has. A client that sends Config.Header,
// such as an app with Origin capacitor://localhost, has no such cookie and is admitted.
func Browsers(r *http.Request) bool {
	switch r.Method {
	case http.MethodHead, http.MethodOptions, http.MethodTrace:
		return false
	}
	h := r.Header
	switch {
	case isPrefetch(h):
		return false
	case partOfPage[strings.ToLower(h.Get("Sec-Fetch-Dest"))]:
		return false
	case h.Get("Upgrade") != "":
		return false
	case crossOrigin.Check(r) != nil && r.Context().Value(headerClientKey{}) == nil:
		return false
	}
	return !isCrawler(h.Get("User-Agent"))
}

// isPrefetch reports whether a page is fetched before the visitor asks to see it.
func isPrefetch(h http.Header) bool {
	return h.Get("Sec-Purpose") != "" || // Fetch standard; Firefox from 115, Chromium
		h.Get("X-Sec-Purpose") != "" || // Turbo 8: scripts cannot set Sec-Purpose
		strings.EqualFold(h.Get("Purpose"), "prefetch") || // Chromium, Safari
		strings.EqualFold(h.Get("X-Purpose"), "preview") || // Safari's Top Sites, Facebook's app
		strings.EqualFold(h.Get("X-Moz"), "prefetch") // Firefox before 115
}

// headerClientKey marks, for Browsers, a request whose client has no cookies that a new guest could
// overwrite.
type headerClientKey struct{}

// crossOrigin recognises unsafe requests of other sites by Sec-Fetch-Site, else by Origin and Host.
// Safe methods pass.
var crossOrigin = http.NewCrossOriginProtection()

var partOfPage = map[string]bool{
	"audio": true, "audioworklet": true, "font": true, "image": true, "manifest": true,
	"paintworklet": true, "report": true, "script": true, "serviceworker": true,
	"sharedworker": true, "speculationrules": true, "style": true, "track": true, "video": true,
	"worker": true, "xslt": true,
}

// Crawlers and fetchers of previews that name themselves. Each visit of another one costs a
// provisional record; see OnFirstWrite and Limit.
var (
	crawlerWords = []string{"bot", "crawl", "spider", "slurp"}
	crawlerNames = []string{
		"facebookexternalhit", "mediapartners", "ia_archiver", "lighthouse", "feedfetcher",
		"pingdom", "uptime", "whatsapp", "embedly", "bingpreview",
	}
	crawlerSigns = []string{"compatible", "http", "www.", "@"}

	// A product with its version, such as Storebot-Google/1.0.
	crawlerProduct = regexp.MustCompile(`(bot|crawl|spider|slurp)[a-z-]*/\d`)
)

// isCrawler reports whether a User-Agent is a crawler's. In brackets, browsers name the device, and
// there are devices called "M bot 60", Cubot and "Spider 8". So a word in brackets counts only with
// a version, or beside "compatible" or an address, as in "(compatible; bingbot/2.0;
// +http://www.bing.com/bingbot.htm)".
func isCrawler(agent string) bool {
	agent = strings.ToLower(agent) + ")" // so that the last part ends at a bracket too
	switch {
	case containsAny(agent, crawlerNames):
		return true
	case !containsAny(agent, crawlerWords): // the common case
		return false
	}
	for depth := 0; agent != ""; {
		end := strings.IndexAny(agent, "()[]")
		part := agent[:end]
		if containsAny(part, crawlerWords) &&
			(depth == 0 || containsAny(part, crawlerSigns) || crawlerProduct.MatchString(part)) {
			return true
		}
		if agent[end] == '(' || agent[end] == '[' {
			depth++
		} else {
			depth = max(depth-1, 0)
		}
		agent = agent[end+1:]
	}
	return false
}

func containsAny(s string, words []string) bool {
	return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(s, word) })
}

// All returns a function for Config.Admit that admits a request if every one of these functions
// does.
func All(admit ...func(*http.Request) bool) func(*http.Request) bool {
	return func(r *http.Request) bool {
		for _, a := range admit {
			if !a(r) {
				return false
			}
		}
		return true
	}
}
