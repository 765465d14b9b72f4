// Package token makes and verifies what guests carry: the tokens in their cookies and tickets.
// It also encrypts data at rest. All keys come from the app's secrets.
package token

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
)

// A Token says which guest a cookie is. It is signed, not encrypted; it holds no data.
type Token struct {
	ID          ID
	CreatedAt   int64 // when the guest was created, Unix milliseconds: orders the guests of one browser
	IssuedAt    int64 // when this token was made, Unix seconds: says when the TTL was last extended
	Provisional bool  // the cookie has not come back yet
	Successor   bool  // the guest was created in place of a claimed one
}

// An ID is 128 random bits, as OWASP ASVS 7.2.3 asks of session tokens. The zero value is none.
type ID [16]byte

// NewID returns a random ID.
func NewID() (id ID) {
	rand.Read(id[:]) // never fails since Go 1.24
	return id
}

// String returns the ID in 22 characters of URL-safe base64.
func (id ID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// ParseID is the reverse of [ID.String].
func ParseID(s string) (id ID, ok bool) {
	if len(s) != base64.RawURLEncoding.EncodedLen(len(id)) { // a longer one would not fit
		return id, false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(id[:], []byte(s))
	return id, err == nil && n == len(id)
}

// A token is a byte for version and flags, the ID, and two times. A ticket is a version, an ID, the
// time it expires, and the hash of its audience.
const (
	tokenVersion    = 0x10
	flagProvisional = 0x01
	flagSuccessor   = 0x02
	tokenLen        = 1 + 16 + 8 + 8

	ticketVersion = 0x20
	ticketLen     = 1 + 16 + 8 + sha256.Size
)

// ErrInvalid: it does not verify under any of the secrets, or does not have the form of ours.
var ErrInvalid = errors.New("guest: not a token of ours")

func (t Token) encode() []byte {
	b := make([]byte, 1, tokenLen)
	b[0] = tokenVersion
	if t.Provisional {
		b[0] |= flagProvisional
	}
	if t.Successor {
		b[0] |= flagSuccessor
	}
	b = append(b, t.ID[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.CreatedAt))
	return binary.BigEndian.AppendUint64(b, uint64(t.IssuedAt))
}

func decode(b []byte) (t Token, ok bool) {
	if len(b) != tokenLen || b[0]&^(flagProvisional|flagSuccessor) != tokenVersion {
		return t, false
	}
	t.Provisional = b[0]&flagProvisional != 0
	t.Successor = b[0]&flagSuccessor != 0
	copy(t.ID[:], b[1:])
	t.CreatedAt = int64(binary.BigEndian.Uint64(b[17:]))
	t.IssuedAt = int64(binary.BigEndian.Uint64(b[25:]))
	return t, true
}

// Unverified reads a token without looking at its signature: it may be forged. What securecookie
// makes is the base64 of date|base64 of the token|MAC.
func Unverified(value string) (Token, bool) {
	if len(value) > longest {
		return Token{}, false
	}
	outer, err := base64.URLEncoding.DecodeString(value)
	parts := bytes.SplitN(outer, []byte("|"), 3)
	if err != nil || len(parts) != 3 || len(parts[2]) != sha256.Size {
		return Token{}, false
	}
	b, err := base64.URLEncoding.DecodeString(string(parts[1]))
	if err != nil {
		return Token{}, false
	}
	return decode(b)
}

// longest is over twice what we issue; securecookie itself would look at 4 KiB.
const longest = 256

var strictBase64 = base64.URLEncoding.Strict()

// canonical reports whether value is the one spelling of what it decodes to. securecookie is
// lenient in two ways, about unused bits at the end and about line breaks, and sees to the rest.
func canonical(value string) bool {
	var last [3]byte // four characters, the last of which may have bits to spare
	_, err := strictBase64.Decode(last[:], []byte(value[max(0, len(value)-4):]))
	return err == nil && strings.IndexByte(value, '\r') < 0 && strings.IndexByte(value, '\n') < 0
}
