package guest

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// Browsers admits whatever could be a visitor, plain HTTP clients such as curl included, and not:
// methods that only ask (HEAD, OPTIONS, TRACE), prefetching and prerendering, parts of a page
// (images, scripts, styles, fonts, media, workers, by Sec-Fetch-Dest), WebSocket upgrades, declared
// crawlers, and unsafe requests from another site, which arrive without their Lax cookie: a new
// guest would overwrite the one that the browser has. Clients that send Config.Header, such as an
// app with Origin capacitor://localhost, have no such cookie and are admitted.
func Browsers(r *http.Request) bool {
	switch r.Method {
	case http.MethodHead, http.MethodOptions, http.MethodTrace:
		return false
	}
	h := r.Header
	switch {
	case ahead(h):
		return false
	case partOfPage[strings.ToLower(h.Get("Sec-Fetch-Dest"))]:
		return false
	case h.Get("Upgrade") != "":
		return false
	case crossOrigin.Check(r) != nil && r.Context().Value(headerClientKey{}) == nil:
		return false
	}
	return !crawler(h.Get("User-Agent"))
}

// ahead reports whether a page is fetched before the visitor asks to see it.
func ahead(h http.Header) bool {
	return h.Get("Sec-Purpose") != "" || // Fetch standard; Firefox from 115, Chromium
		h.Get("X-Sec-Purpose") != "" || // Turbo 8, when the pointer is over a link: a script cannot set Sec-Purpose
		strings.EqualFold(h.Get("Purpose"), "prefetch") || // Chromium, Safari
		strings.EqualFold(h.Get("X-Purpose"), "preview") || // Safari's Top Sites, Facebook's app
		strings.EqualFold(h.Get("X-Moz"), "prefetch") // Firefox before 115
}

// headerClientKey tells Browsers that a client has no cookies that a new guest could overwrite.
type headerClientKey struct{}

// crossOrigin tells requests of other sites by Sec-Fetch-Site, else by Origin and Host. Safe
// methods pass.
var crossOrigin = http.NewCrossOriginProtection()

var partOfPage = map[string]bool{
	"audio": true, "audioworklet": true, "font": true, "image": true, "manifest": true, "paintworklet": true,
	"report": true, "script": true, "serviceworker": true, "sharedworker": true, "speculationrules": true,
	"style": true, "track": true, "video": true, "worker": true, "xslt": true,
}

// Crawlers and fetchers of previews that say so. Those that do not cost a provisional record each;
// see OnFirstWrite and Limit.
var (
	crawlerWords = []string{"bot", "crawl", "spider", "slurp"}
	crawlerNames = []string{
		"facebookexternalhit", "mediapartners", "ia_archiver", "lighthouse", "feedfetcher", "pingdom", "uptime", "whatsapp",
		"embedly", "bingpreview",
	}
	crawlerSigns   = []string{"compatible", "http", "www.", "@"}
	crawlerProduct = regexp.MustCompile(`(bot|crawl|spider|slurp)[a-z-]*/\d`) // such as Storebot-Google/1.0
)

// crawler reports whether a User-Agent is a crawler's. In brackets browsers name the device, and
// some people have an "M bot 60", a Cubot or a "Spider 8". So there a word counts only with a
// version, or beside "compatible" or an address, as in "(compatible; bingbot/2.0;
// +http://www.bing.com/bingbot.htm)".
func crawler(agent string) bool {
	agent = strings.ToLower(agent) + ")" // so that the last part ends at a bracket, too
	switch {
	case containsAny(agent, crawlerNames):
		return true
	case !containsAny(agent, crawlerWords): // mostly
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

// All admits a request that every one of these admits.
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
