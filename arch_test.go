package guest_test

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The import law: the root knows no store and no Redis, stores do not know each other, and nothing that
// is only for tests is linked into users' programs. The packages of internal/ stand alone.
func TestImportLaw(t *testing.T) {
	const module = "github.com/guestkit/guest"
	deps := func(pkg string) []string {
		out, err := exec.Command("go", "list", "-deps", pkg).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(out))
	}
	root := []string{module} // and what it may import
	for _, leaf := range []string{
		"cachecontrol", "countmin", "headerwriter", "jsontype", "lru", "record", "token",
	} {
		root = append(root, module+"/internal/"+leaf)
	}
	for pkg, allowed := range map[string][]string{
		module:                            root,
		module + "/memstore":              append(root, module+"/memstore"),
		module + "/redisstore":            append(root, module+"/redisstore"),
		module + "/storetest":             append(root, module+"/storetest"),
		module + "/internal/cachecontrol": {module + "/internal/cachecontrol"},
		module + "/internal/countmin":     {module + "/internal/countmin"},
		module + "/internal/headerwriter": {module + "/internal/headerwriter"},
		module + "/internal/jsontype":     {module + "/internal/jsontype"},
		module + "/internal/lru":          {module + "/internal/lru"},
		module + "/internal/token":        {module + "/internal/token"},
		module + "/internal/record":       {module + "/internal/record", module + "/internal/token"},
	} {
		for _, dep := range deps(pkg) {
			switch {
			case strings.HasPrefix(dep, module) && !slices.Contains(allowed, dep),
				strings.HasPrefix(dep, "github.com/redis") && pkg != module+"/redisstore",
				dep == "testing" && pkg != module+"/storetest":
				t.Errorf("%s imports %s", pkg, dep)
			}
		}
	}
	list := exec.Command("go", "list", "-m", "-f", "{{if and (not .Indirect) (not .Main)}}{{.Path}}{{end}}", "all")
	list.Env = append(os.Environ(), "GOWORK=off")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	direct := strings.Fields(string(out))
	for _, m := range direct {
		switch m {
		case "github.com/gorilla/securecookie", "github.com/redis/go-redis/v9", "golang.org/x/crypto":
		default:
			t.Errorf("go.mod has a direct dependency on %s", m)
		}
	}
}

// In a clone go.work chooses the newest version that any module asks for, in CI each module its own: where they agree,
// both test the same.
func TestModulesAgree(t *testing.T) {
	direct := regexp.MustCompile(`(?m)^(?:require |\t)(\S+) (v\S+)$`) // an indirect one has a comment
	asked, by, modules := map[string]string{}, map[string]string{}, 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "go.mod" {
			return err
		}
		modules++
		mod, err := os.ReadFile(path)
		for _, m := range direct.FindAllStringSubmatch(string(mod), -1) {
			name, version := m[1], m[2]
			if strings.HasPrefix(version, "v0.0.0") { // of this repository
				continue
			}
			if old, ok := asked[name]; ok && old != version {
				t.Errorf("%s: %s asks for %s, %s for %s", name, by[name], old, path, version)
			}
			asked[name], by[name] = version, path
		}
		return err
	})
	if err != nil || modules < 10 || len(asked) < 10 {
		t.Errorf("%d modules with %d dependencies: %v", modules, len(asked), err)
	}
}

// The files of the root can be read one after the other: hardly any two need each other, and each needs
// few others. A file needs another one if it uses a name, a field or a method that stands there.
func TestFileGraph(t *testing.T) {
	files, needs := fileGraph(t)
	edges, mutual := 0, 0
	for a := range needs {
		for b := range needs[a] {
			edges++
			if a < b && needs[b][a] != nil {
				mutual++
				t.Logf("%s and %s need each other: %v, %v", a, b, needs[a][b], needs[b][a])
			}
		}
	}
	reach := func(from string) map[string]bool {
		seen := map[string]bool{}
		var visit func(string)
		visit = func(f string) {
			for next := range needs[f] {
				if !seen[next] {
					seen[next] = true
					visit(next)
				}
			}
		}
		visit(from)
		return seen
	}
	reached := map[string]map[string]bool{}
	for _, f := range files {
		reached[f] = reach(f)
	}
	for _, f := range files {
		cycle := 1
		for _, other := range files {
			if other != f && reached[f][other] && reached[other][f] {
				cycle++
			}
		}
		if cycle > 3 {
			t.Errorf("%s is in a cycle of %d files, of at most 3", f, cycle)
		}
	}
	if mutual > 2 {
		t.Errorf("%d pairs of files need each other, of at most 2", mutual)
	}
	if per := float64(edges) / float64(len(files)); per > mostEdges {
		for _, f := range files {
			t.Logf("%s needs %v", f, slices.Sorted(maps.Keys(needs[f])))
		}
		t.Errorf("a file needs %.2f others, of at most %.1f (%d edges)", per, mostEdges, edges)
	}
}

const mostEdges = 3.5

// fileGraph returns the files of the root package, and for each which others it needs and for what.
func fileGraph(t *testing.T) (files []string, needs map[string]map[string][]string) {
	out, err := exec.Command("go", "list", "-export", "-deps",
		"-f", "{{.ImportPath}} {{.Export}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	exported := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		exported[path] = file
	}
	fset := token.NewFileSet()
	var parsed []*ast.File
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files, parsed = append(files, name), append(parsed, f)
	}
	imports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exported[path])
	})
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	pkg, err := (&types.Config{Importer: imports}).Check("guest", fset, parsed, info)
	if err != nil {
		t.Fatal(err)
	}
	needs = map[string]map[string][]string{}
	for ident, object := range info.Uses {
		if object.Pkg() != pkg || !object.Pos().IsValid() {
			continue
		}
		from, to := fset.File(ident.Pos()).Name(), fset.File(object.Pos()).Name()
		if from == to {
			continue
		}
		if needs[from] == nil {
			needs[from] = map[string][]string{}
		}
		if !slices.Contains(needs[from][to], object.Name()) {
			needs[from][to] = append(needs[from][to], object.Name())
		}
	}
	return files, needs
}
