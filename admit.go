package guest

import (
	"net/http"
	"strings"
)

// Browsers admits whatever could be a visitor, plain HTTP clients such as curl included, and not: methods that only
// ask (HEAD, OPTIONS, TRACE), prefetching and prerendering, parts of a page (images, scripts, styles, fonts, media,
// workers, by Sec-Fetch-Dest), WebSocket upgrades, declared crawlers, and unsafe requests from another site, which
// arrive without their Lax cookie: a new guest would overwrite the one that the browser has. Clients that send
// Config.Header, such as an app with Origin capacitor://localhost, have no such cookie and are admitted.
func Browsers(r *http.Request) bool {
	switch r.Method {
	case http.MethodHead, http.MethodOptions, http.MethodTrace:
		return false
	}
	h := r.Header
	switch {
	case h.Get("Sec-Purpose") != "" || strings.EqualFold(h.Get("Purpose"), "prefetch"):
		return false
	case partOfPage[strings.ToLower(h.Get("Sec-Fetch-Dest"))]:
		return false
	case h.Get("Upgrade") != "":
		return false
	case crossOrigin.Check(r) != nil && r.Context().Value(headerClientKey{}) == nil:
		return false
	}
	agent := strings.ReplaceAll(strings.ToLower(h.Get("User-Agent")), "cubot", "") // a maker of telephones
	for _, word := range crawlers {
		if strings.Contains(agent, word) {
			return false
		}
	}
	return true
}

// crossOrigin tells requests of other sites by Sec-Fetch-Site, else by Origin and Host. Safe methods pass.
var crossOrigin = http.NewCrossOriginProtection()

var partOfPage = map[string]bool{
	"audio": true, "audioworklet": true, "font": true, "image": true, "manifest": true, "paintworklet": true,
	"report": true, "script": true, "serviceworker": true, "sharedworker": true, "speculationrules": true,
	"style": true, "track": true, "video": true, "worker": true, "xslt": true,
}

// Crawlers that say so. Those that do not cost a provisional record each; see OnFirstWrite and Limit.
var crawlers = []string{
	"bot", "crawl", "spider", "slurp", "facebookexternalhit", "mediapartners", "ia_archiver", "lighthouse",
	"feedfetcher", "pingdom", "uptime", "whatsapp", "embedly", "bingpreview",
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
