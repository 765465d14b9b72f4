package guest_test

import (
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/guestkit/guest"
)

// The files list User-Agents as they are known: crawlers and fetchers of previews that say so, and what people use,
// some of whose phones are called "M bot 60", "Spider 8" or, by Cubot, "CUBOT X30". Two are made up: Slurp X, Robot 4.
func TestCrawlersAreToldFromPhones(t *testing.T) {
	for file, want := range map[string]bool{"testdata/agents/crawlers": false, "testdata/agents/people": true} {
		list, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for agent := range strings.Lines(string(list)) {
			n++
			for _, spelt := range []string{agent, strings.ToUpper(agent), strings.ToLower(agent)} {
				r := httptest.NewRequest("GET", "/", nil)
				r.Header.Set("User-Agent", strings.TrimSuffix(spelt, "\n"))
				if got := guest.Browsers(r); got != want {
					t.Errorf("%s:%d: admitted: %v, want %v: %s", file, n, got, want, spelt)
				}
			}
		}
		if n < 50 {
			t.Errorf("%s: only %d lines", file, n)
		}
	}
	for _, agent := range []string{"", "(", ")))bot", "((((bot", "[bot", "bot", ")bot(", strings.Repeat("(", 1<<17) + "bot"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("User-Agent", agent)
		guest.Browsers(r) // whatever it says: no panic, and at once
	}
}
