package guest

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gorilla/securecookie"
	"golang.org/x/crypto/chacha20poly1305"
)

// A token is what a cookie says: which guest. It is signed, not encrypted; it holds no data.
type token struct {
	id          guestID
	born        int64 // when the guest was minted, Unix milliseconds: orders the guests of one browser
	issued      int64 // when this token was made, Unix seconds: says when the TTL was last extended
	provisional bool  // the cookie has not come back yet
	heir        bool  // made in place of a claimed guest
}

// A guestID is 128 random bits, as OWASP ASVS 7.2.3 asks of session tokens.
type guestID [16]byte

func newGuestID() (id guestID) {
	rand.Read(id[:]) // never fails since Go 1.24
	return id
}

func (id guestID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

func parseGuestID(s string) (id guestID, ok bool) {
	if len(s) != base64.RawURLEncoding.EncodedLen(len(id)) { // a longer one would not fit
		return id, false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(id[:], []byte(s))
	return id, err == nil && n == len(id)
}

// Tokens and tickets begin with a version and what they are.
const (
	tokenVersion  = 0x10
	tokenFlagProv = 0x01
	tokenFlagHeir = 0x02
	ticketVersion = 0x20
	tokenLen      = 1 + 16 + 8 + 8
	ticketLen     = 1 + 16 + 8 + sha256.Size
)

var errToken = errors.New("guest: not a token of ours")

// A keyring seals and opens tokens, tickets and encrypted data. Each use has a key of its own from each secret.
type keyring struct {
	cookies []securecookie.Codec
	lapsed  []securecookie.Codec // the same keys without an age limit: tells an expired cookie from a forged one
	tickets []securecookie.Codec
	data    []cipher.AEAD
}

// newKeyring derives the keys. The app's name is part of each, so that apps that share a secret do not share keys.
func newKeyring(secrets [][]byte, app string, ttl time.Duration) *keyring {
	k := &keyring{}
	if app != "" {
		app = "\x00" + app
	}
	for _, secret := range secrets {
		cookie := derive(secret, "guest cookie v1"+app)
		// securecookie ends every value after 30 days unless told otherwise.
		k.cookies = append(k.cookies, codec(cookie, int(ttl/time.Second)))
		k.lapsed = append(k.lapsed, codec(cookie, 0))
		k.tickets = append(k.tickets, codec(derive(secret, "guest ticket v1"+app), 0))
		aead, err := chacha20poly1305.NewX(derive(secret, "guest data v1"+app))
		if err != nil {
			panic(err) // only for a key of another length than derive's
		}
		k.data = append(k.data, aead)
	}
	return k
}

func derive(secret []byte, label string) []byte {
	key, err := hkdf.Key(sha256.New, secret, nil, label, chacha20poly1305.KeySize)
	if err != nil {
		panic(err) // only for lengths over 255 hashes
	}
	return key
}

func codec(key []byte, maxAge int) securecookie.Codec {
	return securecookie.New(key, nil).MaxAge(maxAge).SetSerializer(securecookie.NopEncoder{})
}

// sealToken makes the value of the cookie of that name.
func (k *keyring) sealToken(name string, t token) (string, error) {
	b := make([]byte, 1, tokenLen)
	b[0] = tokenVersion
	if t.provisional {
		b[0] |= tokenFlagProv
	}
	if t.heir {
		b[0] |= tokenFlagHeir
	}
	b = append(b, t.id[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.born))
	b = binary.BigEndian.AppendUint64(b, uint64(t.issued))
	return k.cookies[0].Encode(name, b)
}

// openToken verifies the value of the cookie of that name. lapsed: it was ours, but its life is over.
func (k *keyring) openToken(name, value string) (t token, lapsed bool, err error) {
	b, err := open(k.cookies, name, value)
	if err != nil {
		if b, err = open(k.lapsed, name, value); err != nil {
			return t, false, err
		}
		lapsed = true
	}
	t, ok := parseToken(b)
	if !ok {
		return t, false, errToken
	}
	return t, lapsed, nil
}

func parseToken(b []byte) (t token, ok bool) {
	if len(b) != tokenLen || b[0]&^(tokenFlagProv|tokenFlagHeir) != tokenVersion {
		return t, false
	}
	t.provisional = b[0]&tokenFlagProv != 0
	t.heir = b[0]&tokenFlagHeir != 0
	copy(t.id[:], b[1:])
	t.born = int64(binary.BigEndian.Uint64(b[17:]))
	t.issued = int64(binary.BigEndian.Uint64(b[25:]))
	return t, true
}

// longestToken is over twice what we issue; securecookie itself would look at 4 KiB.
const longestToken = 256

func open(codecs []securecookie.Codec, name, value string) (b []byte, err error) {
	if len(value) > longestToken || !canonical(value) {
		return nil, errToken
	}
	for _, c := range codecs {
		if c.Decode(name, value, &b) == nil {
			return b, nil
		}
	}
	return nil, errToken
}

var strictBase64 = base64.URLEncoding.Strict()

// canonical reports whether value is the one spelling of what it decodes to; securecookie is lenient in two ways, and sees
// to the rest.
func canonical(value string) bool {
	var last [3]byte // four characters, the last of which may have bits to spare
	_, err := strictBase64.Decode(last[:], []byte(value[max(0, len(value)-4):]))
	return err == nil && strings.IndexByte(value, '\r') < 0 && strings.IndexByte(value, '\n') < 0 // which the decoder skips
}

// encrypted data begin with this byte, which no JSON text and no number begins with.
const sealedMark = '\x01'

// sealData encrypts a value for one field of one record: moved to another field or record it does not open.
func (k *keyring) sealData(key, field, plain string) string {
	aead := k.data[0]
	nonce := make([]byte, aead.NonceSize(), 1+aead.NonceSize()+len(plain)+aead.Overhead())
	rand.Read(nonce)
	box := aead.Seal(nonce, nonce, []byte(plain), []byte(key+"\x00"+field))
	return string(sealedMark) + string(box)
}

// openData returns what sealData was given; what is not sealed is returned as it is.
func (k *keyring) openData(key, field, stored string) (string, error) {
	if stored == "" || stored[0] != sealedMark {
		return stored, nil
	}
	box := []byte(stored[1:])
	for _, aead := range k.data {
		if len(box) < aead.NonceSize() {
			break
		}
		plain, err := aead.Open(nil, box[:aead.NonceSize()], box[aead.NonceSize():], []byte(key+"\x00"+field))
		if err == nil {
			return string(plain), nil
		}
	}
	return "", fmt.Errorf("%w: no secret in Config.Secrets opens it: add the one that encrypted it, unless it was changed", ErrUnreadable)
}
