package token

import (
	"encoding/base64"
	"strings"
	"testing"
)

func TestParseID(t *testing.T) {
	for range 100 {
		id := NewID()
		if got, ok := ParseID(id.String()); !ok || got != id || len(id.String()) != 22 {
			t.Fatalf("%q is %v, %v", id, got, ok)
		}
	}
	if a, b := NewID(), NewID(); a == b || a == (ID{}) {
		t.Errorf("%v and then %v are no random IDs", a, b)
	}
	for name, s := range map[string]string{
		"nothing":                    "",
		"a character too few":        strings.Repeat("A", 21),
		"a character too many":       strings.Repeat("A", 23),
		"padding":                    strings.Repeat("A", 22) + "==",
		"unused bits":                strings.Repeat("A", 21) + "B",
		"characters of plain base64": strings.Repeat("+", 20) + "AA",
		"a line break":               strings.Repeat("A", 20) + "\nA",
		"line breaks alone":          strings.Repeat("\n", 22),
		"a space":                    " " + strings.Repeat("A", 21),
	} {
		if id, ok := ParseID(s); ok {
			t.Errorf("%s: %q is the ID %v", name, s, id)
		}
	}
}

// Unverified reads what Verify reads, and asks no key.
func TestUnverified(t *testing.T) {
	for _, want := range tokens {
		value := sign(t, newKeyring("a"), "guest", want)
		if got, ok := Unverified(value); !ok || got != want {
			t.Errorf("%+v, %v, want %+v", got, ok, want)
		}
		for end := range len(value) {
			if got, ok := Unverified(value[:end]); ok {
				t.Errorf("the first %d of %d bytes are read as %+v", end, len(value), got)
			}
		}
	}
	encode := func(parts ...string) string {
		return base64.URLEncoding.EncodeToString([]byte(strings.Join(parts, "|")))
	}
	body := base64.URLEncoding.EncodeToString(tokens[0].encode())
	newer := tokens[0].encode()
	newer[0] = 0x30
	mac := strings.Repeat("m", 32)
	if got, ok := Unverified(encode("0", body, mac)); !ok || got != tokens[0] {
		t.Errorf("of a forged token it reads %+v, %v", got, ok)
	}
	for name, value := range map[string]string{
		"nothing":           "",
		"no base64":         "%" + encode("0", body, mac)[1:],
		"two parts":         encode("0", body),
		"a short signature": encode("0", body, mac[1:]),
		"a long signature":  encode("0", body, mac+"m"),
		"no base64 inside":  encode("0", "%"+body[1:], mac),
		"a short token":     encode("0", body[:40], mac),
		"another version":   encode("0", base64.URLEncoding.EncodeToString(newer), mac),
		"a long date":       encode(strings.Repeat("0", 200), body, mac),
	} {
		if got, ok := Unverified(value); ok {
			t.Errorf("%s: %q is read as %+v", name, value, got)
		}
	}
}
