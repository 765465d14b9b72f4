package guest_test

import (
	"os"
	"os/exec"
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
