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

// The README's figures are those of docs/benchmarks.md, which one run has printed.
func TestFiguresInTheReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	benchmarks, err := os.ReadFile("docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), "<!-- figures -->\n")
	shown, _, _ := strings.Cut(rest, "<!-- /figures -->")
	if !found || len(cells(shown)) != 5 { // a head and four figures
		t.Fatalf("the README shows %q", shown)
	}
	for i, line := range cells(shown)[1:] {
		_, section, found := strings.Cut(string(benchmarks), "# "+line[0])
		section, _, _ = strings.Cut(section, "\n#")
		if !found {
			t.Errorf("no section %q", line[0])
		}
		measured := map[string]string{}
		for _, row := range cells(section) {
			measured[row[0]], _, _ = strings.Cut(row[1], " ") // without the quartiles
		}
		for column, name := range []string{"**guest on Redis**", "scs on Redis", "gorilla/sessions on Redis"} {
			if have, want := line[column+1], measured[name]; have != want || want == "" {
				t.Errorf("row %d, %s: the README says %q, the benchmarks %q", i+1, name, have, want)
			}
		}
	}
}

// cells are those of the tables in text, but for the lines of dashes.
func cells(text string) (rows [][]string) {
	for line := range strings.SplitSeq(text, "\n") {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		row := strings.Split(strings.Trim(line, "|"), "|")
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		rows = append(rows, row)
	}
	return rows
}
