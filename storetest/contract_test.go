package storetest

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The sentences are those of store.go, and each duty has a case.
func TestSentences(t *testing.T) {
	file, err := os.ReadFile("../store.go")
	if err != nil {
		t.Fatal(err)
	}
	var comments strings.Builder
	for line := range strings.Lines(string(file)) {
		if _, comment, ok := strings.Cut(line, "//"); ok {
			comments.WriteString(comment)
		}
	}
	text := oneLine(comments.String())
	quoted := map[string]bool{}
	for _, c := range cases() {
		if quoted[c.says] = true; !strings.Contains(text, c.says) {
			t.Errorf("case %q quotes what store.go does not say: %s", c.name, c.says)
		}
	}

	doc, _, _ := strings.Cut(string(file), "type Store interface")
	number := regexp.MustCompile(`(?m)^//  \d+\. `)
	duties := number.Split(doc, -1)[1:]
	if len(duties) < 11 {
		t.Fatalf("store.go has %d duties, want 11 or more", len(duties))
	}
	for i, duty := range duties {
		if duty = oneLine(strings.ReplaceAll(duty, "\n//", "")); !quoted[duty] {
			t.Errorf("no case enforces duty %d: %s", i+1, duty)
		}
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range cases() {
		if seen[c.name] {
			t.Errorf("two cases are named %q", c.name)
		}
		seen[c.name] = true
	}
}
