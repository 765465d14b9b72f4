package main

import (
	"encoding/base64"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/guestkit/guest/internal/redistest"
)

var update = flag.Bool("update", false, "write the commands' answers into docs/operations.md")

const (
	operations   = "../../docs/operations.md"
	guestOfDocs  = "7Q0vZ3mXk1uT9bYpL2cF4w"
	consoleFence = "```console\n"
)

// docs/operations.md shows what the commands print, except for IDs, times and sizes.
func TestOperationsDocs(t *testing.T) {
	server := redistest.Single(t)
	d := deployAs(t, "guest", server.Client(), "redis://"+server.Addr)
	id, b := d.visit("tea", "tea", "cup")
	if _, err := Cart.Add(d.guests.As(t.Context(), "ann@example.com"), "tea", 1); err != nil {
		t.Fatal(err)
	}
	if err := Theme.Set(d.guests.AsGuest(t.Context(), id), "dark"); err != nil {
		t.Fatal(err)
	}
	cookie := d.cookies(b)
	d.post(b, "/login/ann@example.com")

	if _, err := Cart.Add(d.guests.As(t.Context(), "bob@example.com"), "tea", 1); err != nil {
		t.Fatal(err)
	}
	bobs, b := d.visit("tea")
	if err := Email.Set(d.guests.AsGuest(t.Context(), bobs), "bob@example.com"); err != nil {
		t.Fatal(err)
	}
	d.store.dieAt(beforeMerge)
	d.post(b, "/login/bob@example.com")
	d.store.dieAt(nil)
	d.visit("pot")
	d.visit()

	dir := t.TempDir()
	for name, text := range map[string]string{"cookie.txt": "Cookie: " + cookie, "secrets.txt": base64.StdEncoding.EncodeToString(d.secret) + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(operations)
	if err != nil {
		t.Fatal(err)
	}
	page, rest, blocks := "", string(text), 0
	for {
		before, after, found := strings.Cut(rest, consoleFence)
		page += before
		if !found {
			break
		}
		block, after, _ := strings.Cut(after, "```\n")
		rest = after
		blocks++
		page += consoleFence
		for step := range strings.SplitSeq(strings.TrimPrefix(block, "$ "), "\n$ ") {
			command, want, _ := strings.Cut(strings.TrimSuffix(step, "\n"), "\n")
			bash := exec.Command("bash", "-c", strings.ReplaceAll(command, guestOfDocs, id))
			bash.Dir = dir
			bash.Env = []string{"PATH=" + filepath.Dir(binary) + ":" + os.Getenv("PATH"),
				"GUEST_REDIS=redis://" + server.Addr,
				"GUEST_SECRETS_FILE=secrets.txt", race}
			out, _ := bash.CombinedOutput() // another test checks exit codes
			got := strings.ReplaceAll(strings.TrimRight(string(out), "\n"), id, guestOfDocs)
			if one, two := normal(got), normal(want); one != two && !*update {
				t.Errorf("$ %s\n%s\nwant\n%s", command, one, two)
			}
			page += "$ " + command + "\n"
			if got != "" {
				page += trailing.ReplaceAllString(got, "") + "\n"
			}
		}
		page += "```\n"
	}
	if blocks < 8 {
		t.Errorf("%d blocks", blocks)
	}
	if *update {
		if err := os.WriteFile(operations, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

var (
	trailing = regexp.MustCompile(`(?m) +$`)
	changing = []struct {
		what *regexp.Regexp
		as   string
	}{
		{regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
		{regexp.MustCompile(`\b\d+ [dhms]\b( \d+ [hms]\b)?`), "SPAN"},
		{regexp.MustCompile(`\d+(\.\d)? (B|KiB)`), "SIZE"},
		{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDRESS"},
		{regexp.MustCompile(`\b\d+\.\d+\.\d+\b`), "VERSION"},
		{regexp.MustCompile(`"age_seconds": \d+`), "AGE"},
		{regexp.MustCompile(`[A-Za-z0-9+/]{43}=`), "SECRET"},
	}
	word   = regexp.MustCompile(`[A-Za-z0-9_-]+`)
	spaces = regexp.MustCompile(` +`)
)

// normal returns the text without what differs between runs.
func normal(text string) string {
	for _, c := range changing {
		text = c.what.ReplaceAllString(text, c.as)
	}
	text = word.ReplaceAllStringFunc(text, func(w string) string {
		switch len(w) {
		case 22:
			return "GUEST"
		case 14:
			return "CLAIM"
		}
		return w
	})
	return trailing.ReplaceAllString(spaces.ReplaceAllString(text, " "), "")
}
