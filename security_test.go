package guest_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test that docs/security.md names exists, in the package that it says.
func TestSecurityTable(t *testing.T) {
	page, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]string{}
	for pkg, dir := range map[string]string{
		".": ".", "proofs": "proofs", "redisstore": "redisstore", "fiberguest": "adapters/fiberguest", "spa": "examples/frameworks/spa",
		"cachecontrol": "internal/cachecontrol", "countmin": "internal/countmin",
		"headerwriter": "internal/headerwriter", "token": "internal/token",
	} {
		files, _ := filepath.Glob(filepath.Join(dir, "*_test.go"))
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			sources[pkg] += string(source)
		}
	}
	named := regexp.MustCompile(`\b((?:Test|Fuzz|Example)[A-Z]\w*)(?: in (\w+))?`)
	rows, tests := 0, 0
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		rows++
		for _, m := range named.FindAllStringSubmatch(line, -1) {
			dir := m[2]
			if dir == "" {
				dir = "."
			}
			if tests++; !strings.Contains(sources[dir], "\nfunc "+m[1]+"(") {
				t.Errorf("docs/security.md names %s, which is not in %s", m[1], dir)
			}
		}
	}
	if rows < 30 || tests < 40 {
		t.Errorf("only %d rows with %d tests were found", rows, tests)
	}
}
