package guest_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/doc"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
)

// Each piece of Go or JavaScript in the README and in docs/ is part of a file that is compiled or
// served, except for its indentation. A line "// …" stands for what is left out.
func TestCodeInDocsIsCompiled(t *testing.T) {
	t.Parallel()
	var code strings.Builder
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if ext := filepath.Ext(path); err == nil && !d.IsDir() &&
			(ext == ".go" || ext == ".js" || ext == ".html") {
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

// pkg.go.dev shows an example with each function and method. An example that only warns does not
// count.
func TestEveryEntryHasAnExample(t *testing.T) {
	t.Parallel()
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
		case !slices.ContainsFunc(f.Examples, func(e *doc.Example) bool {
			return e.Suffix != "incorrect"
		}):
			t.Errorf("there is no Example%s", entry)
		}
	}
}

// The README's figures are those of docs/benchmarks.md, which one run has printed.
func TestFiguresInTheReadme(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	benchmarks, err := os.ReadFile("docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := func(mark string, rows int) [][]string {
		_, rest, _ := strings.Cut(string(readme), "<!-- "+mark+" -->\n")
		text, _, found := strings.Cut(rest, "<!-- /"+mark+" -->")
		if !found || len(cells(text)) != rows {
			t.Fatalf("the README shows as %s %q", mark, text)
		}
		return cells(text)
	}
	// measured returns a column of the first table below a heading, by the names of the rows.
	measured := func(heading, column string) map[string]string {
		_, section, _ := strings.Cut(string(benchmarks), "# "+heading)
		section, _, found := strings.Cut(section, "\n#")
		if !found {
			t.Fatalf("no section %q", heading)
		}
		rows, figures := cells(section), map[string]string{}
		i := slices.Index(rows[0], column)
		if i < 0 {
			t.Fatalf("%s has no column %q", heading, column)
		}
		for _, row := range rows[1:] {
			figures[row[0]] = row[i]
		}
		return figures
	}
	same := func(line []string, figures map[string]string, names ...string) {
		for i, name := range names {
			want, _, _ := strings.Cut(figures[name], " (") // without the quartiles
			if have := line[i+1]; have != want || want == "" {
				t.Errorf("%s, %s: the README says %q, the benchmarks %q", line[0], name, have, want)
			}
		}
	}
	figures := shown("figures", 5)
	for i, column := range []string{"time", "time", "time", "of 200"} {
		line := figures[i+1]
		same(line, measured(line[0], column), "**guest on Redis**", "scs on Redis",
			"gorilla/sessions on Redis")
	}
	load := shown("load", 3)
	for _, line := range load[1:] {
		same(line, measured(load[0][0], line[0]), "**guest on Redis**", "scs on Redis",
			"Fiber's session on Redis")
	}
}

// cells are the cells of the tables in text, without the lines of dashes.
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

// Every test that docs/security.md names exists, in the package that it says.
func TestSecurityTable(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]string{}
	for pkg, dir := range map[string]string{
		".": ".", "proofs": "proofs", "redisstore": "redisstore", "fiberguest": "adapters/fiberguest",
		"cachecontrol": "internal/cachecontrol", "countmin": "internal/countmin",
		"headerwriter": "internal/headerwriter", "token": "internal/token",
		"spa": "examples/frameworks/spa",
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

// block returns the first fenced block of the README that begins so.
func block(t *testing.T, start string) string {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(readme), start)
	if !ok {
		t.Fatalf("README.md has no %q", start)
	}
	body, _, _ := strings.Cut(rest, "```\n")
	return body
}

// The README's program is the one that is built, and its transcript is what the program answers.
func TestReadme(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("examples/quickstart/main.go")
	if err != nil {
		t.Fatal(err)
	}
	program := "package main\n" + block(t, "```go\npackage main\n")
	if !strings.HasSuffix(string(source), program) {
		t.Errorf("the README's program is not examples/quickstart/main.go")
	}

	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	main := filepath.Join(dir, "main.go")
	program = strings.ReplaceAll(program, "localhost:8080", addr)
	if err := os.WriteFile(main, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "quickstart")
	if out, err := exec.Command("go", "build", "-o", binary, main).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	server := exec.Command(binary)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		server.Process.Kill()
		server.Wait()
	}()
	for deadline := time.Now().Add(10 * time.Second); ; {
		if res, err := http.Get("http://" + addr); err == nil {
			res.Body.Close()
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}

	steps := strings.Split(block(t, "```console\n$ "), "\n$ ")
	if len(steps) < 5 {
		t.Fatalf("%d steps", len(steps))
	}
	for _, step := range steps {
		command, want, _ := strings.Cut(strings.TrimRight(step, "\n"), "\n")
		bash := exec.Command("bash", "-c", strings.ReplaceAll(command, "localhost:8080", addr))
		bash.Dir = dir
		got, err := bash.CombinedOutput()
		if strings.TrimSpace(string(got)) != want {
			t.Errorf("$ %s\n%s (%v)\nwant %s", command, got, err, want)
		}
	}
}

// The recipes of docs/recipes.md, which shows code of these tests.

// shopOf is an app with a cart: GET /cart shows it, POST /cart/{sku} adds to it.
func shopOf(t *testing.T, change func(*guest.Config)) (*guest.Manager, *http.ServeMux) {
	t.Helper()
	cfg := guest.Config{
		Store: memstore.New(memstore.Config{}), Secrets: [][]byte{secret}, Data: []guest.Kind{Cart},
		Account: func(r *http.Request) string { return r.Header.Get("User") },
	}
	if change != nil {
		change(&cfg)
	}
	m, err := guest.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /cart", func(w http.ResponseWriter, r *http.Request) {
		cart, err := Cart.All(r.Context())
		fmt.Fprint(w, cart, err)
	})
	mux.HandleFunc("POST /cart/{sku}", func(w http.ResponseWriter, r *http.Request) {
		if _, err := Cart.Add(r.Context(), r.PathValue("sku"), 1); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	return m, mux
}

// frontEnd renders pages on the server. It asks the app for their data with the visitor's cookies.
// If forwards is set, it passes the app's response headers on.
func frontEnd(api string, forwards bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ask, err := http.NewRequestWithContext(r.Context(), "GET", api+"/cart", nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		ask.Header["Cookie"] = r.Header["Cookie"] // as it came: not parsed and written anew
		ask.Header.Set("Rendering", "yes")
		answer, err := http.DefaultClient.Do(ask)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		if forwards {
			for _, name := range []string{"Set-Cookie", "Cache-Control", "Vary"} {
				w.Header()[name] = append(w.Header()[name], answer.Header[name]...)
			}
		}
		io.Copy(w, answer.Body)
	})
}

func TestRenderingOnAServer(t *testing.T) {
	t.Parallel()
	byBrowser := guest.All(guest.Browsers, func(r *http.Request) bool {
		return r.Header.Get("Rendering") == ""
	})
	for _, tt := range []struct {
		name     string
		forwards bool
		admit    func(*http.Request) bool
		created  int    // by three pages of a new visitor
		cookies  string // after them
	}{
		{"Set-Cookie is lost", false, nil, 3, "[]"},
		{"Set-Cookie is forwarded", true, nil, 1, "[__Host-Http-guest]"},
		{"only the browser's own calls begin guests", false, byBrowser, 0, "[]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			created := 0
			m, mux := shopOf(t, func(c *guest.Config) {
				c.Admit = tt.admit
				c.Hooks.Created = func(context.Context) { created++ }
			})
			app := m.Middleware(mux)
			api := httptest.NewServer(app)
			defer api.Close()
			pages, jar := frontEnd(api.URL, tt.forwards), map[string]*http.Cookie{}
			for range 3 {
				visit(pages, jar, "GET", "/")
			}
			if names := fmt.Sprint(namesOf(jar)); created != tt.created || names != tt.cookies {
				t.Errorf("three pages: %d guests, cookies %s; want %d, %s", created, names, tt.created,
					tt.cookies)
			}

			// Once the browser has called the app itself, pages show its guest's data.
			visit(app, jar, "POST", "/cart/tea")
			for range 3 {
				if page := visit(pages, jar, "GET", "/").Body.String(); page != "map[tea:1] <nil>" {
					t.Errorf("the page shows %s", page)
				}
			}
			// If Set-Cookie is lost the first cookie stays, which lives for ProvisionalTTL, until
			// the next call.
			if first := slices.ContainsFunc(namesOf(jar), func(name string) bool {
				return strings.Contains(name, ".")
			}); first == tt.forwards {
				t.Errorf("cookies %v", namesOf(jar))
			}
			visit(app, jar, "GET", "/cart")
			if got := namesOf(jar); !slices.Equal(got, []string{"__Host-Http-guest"}) {
				t.Errorf("after a call by the browser: cookies %v", got)
			}
		})
	}
}

func namesOf(jar map[string]*http.Cookie) (names []string) {
	for name := range jar {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func TestTwoAppsOnOneHost(t *testing.T) {
	t.Parallel()
	blogSecret := []byte("another app's secret, 32 bytes+++")
	for _, tt := range []struct {
		name string
		blog func(*guest.Config)
		keep bool // each app's guest gets a lasting cookie while the visitor goes to and fro
	}{
		{"names of their own", func(c *guest.Config) {
			c.Cookie.Name = "blog"
			c.Secrets = [][]byte{blogSecret}
		}, true},
		{"one name", func(c *guest.Config) { c.Secrets = [][]byte{blogSecret} }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			shop, shopPages := shopOf(t, nil)
			blog, blogPages := shopOf(t, tt.blog)
			host := http.NewServeMux()
			host.Handle("/shop/", http.StripPrefix("/shop", shop.Middleware(shopPages)))
			host.Handle("/blog/", http.StripPrefix("/blog", blog.Middleware(blogPages)))
			jar := map[string]*http.Cookie{}
			for range 3 {
				visit(host, jar, "POST", "/shop/cart/tea")
				visit(host, jar, "POST", "/blog/cart/post")
			}
			got := visit(host, jar, "GET", "/shop/cart").Body.String() +
				visit(host, jar, "GET", "/blog/cart").Body.String()
			lasting := 0
			for _, c := range jar {
				if c.MaxAge == 30*24*60*60 {
					lasting++
				}
			}
			if keep := got == "map[tea:3] <nil>map[post:3] <nil>" && lasting == 2; keep != tt.keep {
				t.Errorf("the carts are %s, of the cookies %d are lasting", got, lasting)
			}
		})
	}
}

func TestACartByLink(t *testing.T) {
	t.Parallel()
	guests, mux := shopOf(t, nil)
	mail := map[string]string{} // by address
	accountOf := func(address string) string { return "account of " + address }
	mux.HandleFunc("POST /send-my-cart/{address}", func(w http.ResponseWriter, r *http.Request) {
		address := r.PathValue("address")
		ticket, err := guests.Ticket(r.Context(), address, 7*24*time.Hour)
		if err != nil {
			http.Error(w, "There is no cart to send.", http.StatusConflict)
			return
		}
		mail[address] = ticket // in a link, behind its #
	})
	mux.HandleFunc("POST /open/{address}/{ticket}", func(w http.ResponseWriter, r *http.Request) {
		// the app's own token has proved the address
		address, ticket := r.PathValue("address"), r.PathValue("ticket")
		receipt, err := guests.ClaimTicket(w, r, ticket, address, accountOf(address))
		switch {
		case errors.Is(err, guest.ErrTicket):
			fmt.Fprint(w, "This link is too old, or was sent to another address.")
		case errors.Is(err, guest.ErrGone):
			fmt.Fprint(w, "What was in this cart is gone.")
		case err != nil:
			// signed in all the same
			slog.WarnContext(r.Context(), "the cart did not come along", "error", err)
		case receipt.Replayed:
			fmt.Fprint(w, "Your cart is here already.")
		default:
			fmt.Fprint(w, "Here is your cart.")
		}
	})
	app, laptop := guests.Middleware(mux), map[string]*http.Cookie{}
	visit(app, laptop, "POST", "/cart/tea")
	visit(app, laptop, "POST", "/send-my-cart/ann@example.com")
	if mail["ann@example.com"] == "" {
		t.Fatal("no mail")
	}
	for _, step := range []struct{ address, says string }{
		{"bob@example.com", "This link is too old, or was sent to another address."},
		{"ann@example.com", "Here is your cart."},
		{"ann@example.com", "Your cart is here already."},
	} {
		open := "/open/" + step.address + "/" + mail["ann@example.com"]
		if says := visit(app, map[string]*http.Cookie{}, "POST", open).Body.String(); says != step.says {
			t.Errorf("%s: %s, want %s", step.address, says, step.says)
		}
	}
	if cart, err := Cart.All(guests.As(t.Context(), accountOf("ann@example.com"))); err != nil ||
		cart["tea"] != 1 {
		t.Errorf("the account has %v, %v", cart, err)
	}
	if page := visit(app, laptop, "GET", "/cart").Body.String(); page != "map[] <nil>" {
		t.Errorf("the laptop shows %s", page)
	}
}

func TestASharedComputer(t *testing.T) {
	t.Parallel()
	guests, mux := shopOf(t, func(c *guest.Config) {
		c.TTL, c.ProvisionalTTL = 2*time.Hour, 30*time.Minute
	})
	endSession := func(http.ResponseWriter) {}
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		endSession(w)
		if err := guests.Forget(w, r); err != nil {
			http.Error(w, "Please try again.", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Clear-Site-Data", `"cache"`) // pages that the Back button would show
	})
	app := guests.Middleware(mux)
	records := func(jar map[string]*http.Cookie) string {
		return visit(app, jar, "GET", "/cart").Body.String()
	}

	// A guest says that they have finished.
	jar := map[string]*http.Cookie{}
	visit(app, jar, "POST", "/cart/secret")
	visit(app, jar, "GET", "/cart")
	if main := jar["__Host-Http-guest"]; main == nil || main.MaxAge != 2*60*60 {
		t.Errorf("the cookie is %+v", main)
	}
	thief := map[string]*http.Cookie{"__Host-Http-guest": jar["__Host-Http-guest"]}
	out := visit(app, jar, "POST", "/logout").Result()
	if len(jar) != 0 || out.Header.Get("Cache-Control") != "no-store" ||
		out.Header.Get("Clear-Site-Data") != `"cache"` {
		t.Errorf("cookies %v, %v", jar, out.Header)
	}
	for _, browser := range []map[string]*http.Cookie{jar, thief} {
		if page := records(browser); page != "map[] <nil>" {
			t.Errorf("the next person sees %s", page)
		}
	}

	// A member logs out: the account keeps its cart, and the browser keeps nothing of it.
	jar = map[string]*http.Cookie{}
	visit(app, jar, "POST", "/cart/tea")
	member := func(method, path string) {
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("User", "ann")
		for _, c := range jar {
			r.AddCookie(c)
		}
		w := httptest.NewRecorder()
		app.ServeHTTP(w, r)
		for _, c := range w.Result().Cookies() {
			if c.MaxAge < 0 {
				delete(jar, c.Name)
			}
		}
	}
	member("GET", "/cart") // the claim
	member("POST", "/logout")
	if cart, err := Cart.All(guests.As(t.Context(), "ann")); err != nil || cart["tea"] != 1 {
		t.Errorf("the account has %v, %v", cart, err)
	}
	if page := records(jar); page != "map[] <nil>" {
		t.Errorf("the next person sees %s", page)
	}
}

// The import law: the root knows no store and no Redis, stores do not know each other, and nothing
// that is only for tests is linked into users' programs. The packages of internal/ stand alone.
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

// In a clone go.work chooses the newest version that any module asks for, in CI each module its
// own: where they agree, both test the same.
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

// The files of the root can be read one after the other: hardly any two need each other, and each
// needs few others. A file needs another one if it uses a name, a field or a method that stands
// there.
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
