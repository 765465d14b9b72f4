// Package token makes and verifies what guests carry: the tokens in their cookies, and tickets. It
// also encrypts data at rest. All keys are derived from the app's secrets.
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

// A Token says which guest a cookie belongs to. It is signed, but not encrypted, and holds no data.
type Token struct {
	ID ID

	// CreatedAt is when the guest was created, Unix milliseconds. It orders the guests of one
	// browser.
	CreatedAt int64

	// IssuedAt is when this token was made, Unix seconds: when the guest's life was last extended.
	IssuedAt int64

	Provisional bool // the cookie has not come back yet
	Successor   bool // the guest was created in place of a claimed or expired one
}

// An ID is 128 random bits, as OWASP ASVS 7.2.3 requires of session tokens. The zero value is no
// ID.
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
	if len(s) != base64.RawURLEncoding.EncodedLen(len(id)) { // a longer one does not fit into id
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

// ErrInvalid: the value does not verify with any of the secrets, or does not have the form of a
// token or ticket.
var ErrInvalid = errors.New("guest: the token is not valid")

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

// Unverified reads a token without verifying its signature, so it may be forged. A value of
// securecookie is the base64 of date|base64 of the token|MAC.
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

// longest is the longest value that is looked at, more than twice what we issue. securecookie
// itself would accept 4 KiB.
const longest = 256

var strictBase64 = base64.URLEncoding.Strict()

// canonical reports whether value is the only spelling of what it decodes to. securecookie accepts
// two variants, unused bits at the end and line breaks, which are refused here. It checks
// everything else itself.
func canonical(value string) bool {
	var last [3]byte // of four characters, the last of which may have unused bits
	_, err := strictBase64.Decode(last[:], []byte(value[max(0, len(value)-4):]))
	return err == nil && strings.IndexByte(value, '\r') < 0 && strings.IndexByte(value, '\n') < 0
}
