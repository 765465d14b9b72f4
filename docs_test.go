package guest_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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

// pkg.go.dev shows an example with each function and method. One that only warns does not count.
func TestEveryEntryHasAnExample(t *testing.T) {
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, path := range paths {
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	pkg, err := doc.NewFromFiles(fset, files, "github.com/guestkit/guest") // as pkg.go.dev does
	if err != nil {
		t.Fatal(err)
	}
	entries := pkg.Funcs
	for _, typ := range pkg.Types {
		entries = slices.Concat(entries, typ.Funcs, typ.Methods)
	}
	if len(entries) == 0 {
		t.Fatal("the package has no functions")
	}
	for _, f := range entries {
		entry := f.Name
		if f.Recv != "" {
			typ, _, _ := strings.Cut(strings.TrimPrefix(f.Recv, "*"), "[")
			entry = typ + "_" + f.Name
		}
		switch {
		case f.Recv != "" && (f.Name == "Error" || f.Name == "Unwrap" || f.Name == "Name"):
		case !slices.ContainsFunc(f.Examples, func(e *doc.Example) bool { return e.Suffix != "incorrect" }):
			t.Errorf("there is no Example%s", entry)
		}
	}
}
