package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The code in docs/signin.md is the shop's.
func TestRecipes(t *testing.T) {
	var shop strings.Builder
	for _, pattern := range []string{"*.go", "static/*.js"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			shop.WriteString(unindented(string(text)))
		}
	}
	recipes, err := os.ReadFile("../../docs/signin.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```(?:go|js)\n(.*?)```").FindAllStringSubmatch(string(recipes), -1)
	if len(blocks) < 10 {
		t.Fatalf("%d blocks", len(blocks))
	}
	for _, block := range blocks {
		for part := range strings.SplitSeq(block[1], "// …\n") { // what is left out
			if !strings.Contains(shop.String(), unindented(part)) {
				t.Errorf("not in the shop:\n%s", part)
			}
		}
	}
}

func unindented(text string) string {
	return regexp.MustCompile(`(?m)^[\t ]+`).ReplaceAllString(text, "")
}
