// Command conformance plays adaptertest's scenarios with guest and with alexedwards/scs, the
// best-known session library for net/http, and prints where they fail. -write puts the report into
// docs/conformance.md.
//
//	cd benchmarks && go run ./conformance
package main

import (
	"context"
	"crypto/rand"
	"encoding/gob"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"regexp"
	"strings"

	"github.com/alexedwards/scs/v2"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/adaptertest"
)

func main() {
	gob.Register(map[string]int64{}) // scs requires it for values of other types
	write := flag.Bool("write", false, "write docs/conformance.md")
	flag.Parse()
	report := report(context.Background())
	if !*write {
		fmt.Print(report)
		return
	}
	if err := os.WriteFile("../docs/conformance.md", []byte(report), 0o644); err != nil {
		log.Fatal(err)
	}
}

func report(ctx context.Context) string {
	var b strings.Builder
	b.WriteString(`# The same suite, with guest and with scs

Printed by ` + "`cd benchmarks && go run ./conformance -write`" + `. The same net/http app serves each scenario
of [adaptertest](../adaptertest/scenarios.go) without any middleware, and with it, to a new and to a
known visitor. scs v2.9.0 is mounted as its documentation says (` + "`sessions.LoadAndSave`" + `), and a
handler inside it puts an ID into each new visitor's session, except on HEAD and upgrades. Claims,
which scs does not offer, are left out. Of the faults in a scenario the first one is shown.

| scenario | HTTP | guest | scs |
|---|---|---|---|
`)
	ours, theirs := adaptertest.Play(ctx, guestMount), adaptertest.Play(ctx, scsMount)
	for i, r := range ours {
		version := "1.1"
		if r.HTTP2 {
			version = "2"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.Scenario, version, verdict(r),
			verdict(theirs[i]))
	}
	return b.String()
}

func verdict(r adaptertest.Result) string {
	switch {
	case r.Lacking != "":
		return "– " + r.Lacking
	case len(r.Faults) == 0:
		return "ok"
	}
	fault := strings.NewReplacer("|", "¦", "\n", " ").Replace(r.Faults[0])
	fault = regexp.MustCompile(`session=[^;]*;.*`).ReplaceAllString(fault, "session=…")
	if runes := []rune(fault); len(runes) > 160 {
		fault = string(runes[:160]) + " …"
	}
	return "**fails**: " + fault
}

var guestMount = adaptertest.Mount{App: func(m *guest.Manager) http.Handler {
	var app http.Handler = adaptertest.Mux(m)
	if m != nil {
		app = m.Middleware(app)
	}
	return adaptertest.Recover(app)
}}

const noClaims = "has no claims"

var scsMount = adaptertest.Mount{
	Cookie: "session",
	App: func(m *guest.Manager) http.Handler {
		sessions := scs.New()
		sessions.Cookie.Secure = false
		routes := adaptertest.Routes(nil)
		routes["/whoami"] = func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, sessions.GetString(r.Context(), "id"))
		}
		routes["/cart"] = func(w http.ResponseWriter, r *http.Request) {
			cart, _ := sessions.Get(r.Context(), "cart").(map[string]int64)
			fmt.Fprint(w, total(cart))
		}
		add := func(ctx context.Context, item string) int64 {
			old, _ := sessions.Get(ctx, "cart").(map[string]int64)
			cart := map[string]int64{item: 1}
			for have, n := range old {
				cart[have] += n
			}
			sessions.Put(ctx, "cart", cart)
			return cart[item]
		}
		routes["/add"] = func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, add(r.Context(), r.FormValue("item")))
		}
		routes["/gone"] = func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "begun")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
			add(r.Context(), "gone")
			adaptertest.Tell(r.URL.Query().Get("id"), nil)
		}
		mux := http.NewServeMux()
		for path, h := range routes {
			mux.Handle(path, h)
		}
		if m == nil { // the app without middleware
			return adaptertest.Recover(mux)
		}
		return adaptertest.Recover(
			sessions.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodHead && r.Header.Get("Upgrade") == "" &&
					!sessions.Exists(r.Context(), "id") {
					sessions.Put(r.Context(), "id", rand.Text())
				}
				mux.ServeHTTP(w, r)
			})))
	},
	Lacks: map[string]string{
		"Claim in a handler": noClaims, "Claim with a context": noClaims,
		"late write": noClaims, "late write after a flush": noClaims,
		"late write after a hijack": noClaims,
	},
}

func total(cart map[string]int64) (sum int64) {
	for _, n := range cart {
		sum += n
	}
	return sum
}
