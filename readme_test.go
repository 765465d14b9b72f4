package guest_test

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

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
	if err := os.WriteFile(main, []byte(strings.ReplaceAll(program, "localhost:8080", addr)), 0o600); err != nil {
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
