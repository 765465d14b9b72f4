package frameworks

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The code in docs/frameworks.md is that of files that are built and run.
func TestDocs(t *testing.T) {
	sources := map[string][]string{"go": nil, "js": nil}
	for kind, patterns := range map[string][]string{
		"go": {"*.go", "spa/*.go", "../native/*.go", "../quickstart/*.go", "../../adapters/*/*.go"},
		"js": {"spa/static/*.js"},
	} {
		for _, pattern := range patterns {
			files, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				if strings.HasSuffix(file, "_test.go") && !strings.Contains(file, "adapters") { // whose examples are in tests
					continue
				}
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				sources[kind] = append(sources[kind], spaced(string(text)))
			}
		}
	}
	docs, err := os.ReadFile("../../docs/frameworks.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```(go|js)\n(.*?)```").FindAllStringSubmatch(string(docs), -1)
	if len(blocks) < 20 {
		t.Fatalf("%d blocks", len(blocks))
	}
	for _, block := range blocks {
		parts := strings.Split(block[2], "// …\n") // what is left out
		if !slices.ContainsFunc(sources[block[1]], func(source string) bool {
			return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(source, spaced(part)) })
		}) {
			t.Errorf("in no file:\n%s", block[2])
		}
	}
}

// spaced returns text with one space for any amount of it, at its ends too.
func spaced(text string) string { return " " + strings.Join(strings.Fields(text), " ") + " " }
