package guest_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The import law: the root knows no store and no Redis, stores do not know each other, and nothing that is only for
// tests is linked into users' programs.
func TestImportLaw(t *testing.T) {
	const module = "github.com/guestkit/guest"
	deps := func(pkg string) []string {
		out, err := exec.Command("go", "list", "-deps", pkg).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(out))
	}
	for pkg, forbidden := range map[string][]string{
		module:                 {"github.com/redis", module + "/", "testing"},
		module + "/memstore":   {"github.com/redis", module + "/redisstore", module + "/internal", "testing"},
		module + "/redisstore": {module + "/memstore", module + "/internal", "testing"},
		module + "/storetest":  {"github.com/redis", module + "/memstore", module + "/redisstore", module + "/internal"},
	} {
		for _, dep := range deps(pkg) {
			for _, f := range forbidden {
				if dep == f || strings.HasPrefix(dep, strings.TrimSuffix(f, "/")+"/") && dep != pkg {
					t.Errorf("%s imports %s", pkg, dep)
				}
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
