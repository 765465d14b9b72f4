package guest_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each piece of Go or JavaScript in the README and in docs/ stands in a file that is compiled or served, but for
// indentation. A line "// …" stands for what is left out.
func TestCodeInDocsIsCompiled(t *testing.T) {
	var code strings.Builder
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if ext := filepath.Ext(path); err == nil && !d.IsDir() && (ext == ".go" || ext == ".js" || ext == ".html") {
			text, err := os.ReadFile(path)
			code.WriteString(unindented(string(text)))
			return err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	docs, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	fence := regexp.MustCompile("(?s)```(?:go|js)\n(.*?)```")
	for _, doc := range append(docs, "README.md") {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range fence.FindAllStringSubmatch(string(text), -1) {
			for part := range strings.SplitSeq(block[1], "// …\n") {
				if !strings.Contains(code.String(), unindented(part)) {
					t.Errorf("%s: in no file:\n%s", doc, part)
				}
			}
		}
	}
}

func unindented(text string) string {
	return regexp.MustCompile(`(?m)^[\t ]+`).ReplaceAllString(text, "")
}
