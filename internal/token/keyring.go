package token

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"time"

	"github.com/gorilla/securecookie"
	"golang.org/x/crypto/chacha20poly1305"
)

// A Keyring signs and verifies tokens and tickets, and encrypts data. It derives a key for each use
// from each secret. It is safe for concurrent use.
type Keyring struct {
	cookies []securecookie.Codec
	expired []securecookie.Codec // the keys of cookies, without a limit of age
	tickets []securecookie.Codec
	data    []cipher.AEAD
}

// NewKeyring derives the keys. The first secret signs and encrypts; all of them verify and decrypt.
// The app's name is part of each key, so that apps with the same secret have different keys.
// Cookies are valid for ttl.
func NewKeyring(secrets [][]byte, app string, ttl time.Duration) *Keyring {
	k := &Keyring{}
	if app != "" {
		app = "\x00" + app
	}
	for _, secret := range secrets {
		cookie := derive(secret, "guest cookie v1"+app)
		// Without a MaxAge, securecookie lets every value expire after 30 days.
		k.cookies = append(k.cookies, codec(cookie, int(ttl/time.Second)))
		k.expired = append(k.expired, codec(cookie, 0))
		k.tickets = append(k.tickets, codec(derive(secret, "guest ticket v1"+app), 0))
		aead, err := chacha20poly1305.NewX(derive(secret, "guest data v1"+app))
		if err != nil {
			panic(err) // it only fails for a key of another length
		}
		k.data = append(k.data, aead)
	}
	return k
}

func derive(secret []byte, label string) []byte {
	key, err := hkdf.Key(sha256.New, secret, nil, label, chacha20poly1305.KeySize)
	if err != nil {
		panic(err) // it only fails for a length of over 255 hashes
	}
	return key
}

func codec(key []byte, maxAge int) securecookie.Codec {
	return securecookie.New(key, nil).MaxAge(maxAge).SetSerializer(securecookie.NopEncoder{})
}

// Sign returns the value of the cookie of that name.
func (k *Keyring) Sign(name string, t Token) (string, error) {
	return k.cookies[0].Encode(name, t.encode())
}

// Verify reads the value of the cookie of that name. expired reports that one of the secrets signed
// it, but its life is over. The error is [ErrInvalid].
func (k *Keyring) Verify(name, value string) (t Token, expired bool, err error) {
	b, _, err := open(k.cookies, name, value)
	if err != nil {
		if b, _, err = open(k.expired, name, value); err != nil {
			return t, false, err
		}
		expired = true
	}
	t, ok := decode(b)
	if !ok {
		return t, false, ErrInvalid
	}
	return t, expired, nil
}

// SignedBy returns which of the secrets signed the value of that cookie, from 0; expired values
// count. -1: none.
func (k *Keyring) SignedBy(name, value string) int {
	if _, secret, err := open(k.expired, name, value); err == nil {
		return secret
	}
	return -1
}

func open(codecs []securecookie.Codec, name, value string) (b []byte, secret int, err error) {
	if len(value) > longest || !canonical(value) {
		return nil, 0, ErrInvalid
	}
	for i, c := range codecs {
		if c.Decode(name, value, &b) == nil {
			return b, i, nil
		}
	}
	return nil, 0, ErrInvalid
}

// SignTicket returns a ticket that names the guest for this audience, valid until that time.
func (k *Keyring) SignTicket(id ID, audience string, until time.Time) (string, error) {
	b := append(make([]byte, 0, ticketLen), ticketVersion)
	b = append(b, id[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(until.Unix()))
	to := sha256.Sum256([]byte(audience))
	return k.tickets[0].Encode("ticket", append(b, to[:]...))
}

// VerifyTicket returns the guest that a ticket names. The error is [ErrInvalid] if the ticket does
// not verify, has expired, or is for another audience.
func (k *Keyring) VerifyTicket(ticket, audience string, now time.Time) (id ID, err error) {
	b, _, err := open(k.tickets, "ticket", ticket)
	if err != nil || len(b) != ticketLen || b[0] != ticketVersion {
		return id, ErrInvalid
	}
	to := sha256.Sum256([]byte(audience))
	if int64(binary.BigEndian.Uint64(b[17:])) < now.Unix() ||
		subtle.ConstantTimeCompare(b[25:], to[:]) != 1 {
		return id, ErrInvalid
	}
	copy(id[:], b[1:])
	return id, nil
}

// encryptedMark is the first byte of encrypted data. No JSON text and no number begins with it.
const encryptedMark = '\x01'

// IsEncrypted reports whether a stored value is one that [Keyring.Encrypt] returned.
func IsEncrypted(stored string) bool { return stored != "" && stored[0] == encryptedMark }

// Encrypt encrypts a value for one field of one record. In another field or record it does not
// decrypt.
func (k *Keyring) Encrypt(key, field, plain string) string {
	aead := k.data[0]
	nonce := make([]byte, aead.NonceSize(), 1+aead.NonceSize()+len(plain)+aead.Overhead())
	rand.Read(nonce)
	box := aead.Seal(nonce, nonce, []byte(plain), []byte(key+"\x00"+field))
	return string(encryptedMark) + string(box)
}

// ErrNoSecret: none of the secrets decrypts the value, or it was changed.
var ErrNoSecret = errors.New("no secret in Config.Secrets decrypts the value " +
	"(add the one that encrypted it, unless the stored value was changed)")

// Decrypt returns what [Keyring.Encrypt] was given. It returns a value that is not encrypted as it
// is. The error is [ErrNoSecret].
func (k *Keyring) Decrypt(key, field, stored string) (string, error) {
	if !IsEncrypted(stored) {
		return stored, nil
	}
	box := []byte(stored[1:])
	for _, aead := range k.data {
		if len(box) < aead.NonceSize() {
			break
		}
		nonce, ciphertext := box[:aead.NonceSize()], box[aead.NonceSize():]
		plain, err := aead.Open(nil, nonce, ciphertext, []byte(key+"\x00"+field))
		if err == nil {
			return string(plain), nil
		}
	}
	return "", ErrNoSecret
}
