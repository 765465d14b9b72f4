package token

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const ttl = 180 * 24 * time.Hour

// tokens have each flag, and times at their bounds.
var tokens = []Token{
	{ID: ID{1}, CreatedAt: 1_700_000_000_123, IssuedAt: 1_700_000_001},
	{ID: ID{15: 255}, CreatedAt: -1, IssuedAt: math.MinInt64, Provisional: true},
	{ID: ID{}, CreatedAt: math.MaxInt64, IssuedAt: 0, Successor: true},
	{ID: NewID(), CreatedAt: 1, IssuedAt: math.MaxInt64, Provisional: true, Successor: true},
}

// newKeyring returns a keyring of secrets that are these letters, 32 times.
func newKeyring(secrets string) *Keyring { return newAppKeyring(secrets, "") }

func newAppKeyring(secrets, app string) *Keyring {
	var all [][]byte
	for _, letter := range secrets {
		all = append(all, []byte(strings.Repeat(string(letter), 32)))
	}
	return NewKeyring(all, app, ttl)
}

func sign(t *testing.T, k *Keyring, name string, token Token) string {
	t.Helper()
	value, err := k.Sign(name, token)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func signTicket(t *testing.T, k *Keyring, id ID, audience string, until time.Time) string {
	t.Helper()
	ticket, err := k.SignTicket(id, audience, until)
	if err != nil {
		t.Fatal(err)
	}
	return ticket
}

func TestKeyring_Verify(t *testing.T) {
	k := newKeyring("a")
	for _, want := range tokens {
		value := sign(t, k, "guest", want)
		if got, expired, err := k.Verify("guest", value); got != want || expired || err != nil {
			t.Errorf("%+v, expired %v, %v, want %+v", got, expired, err, want)
		}
		for _, name := range []string{"", "Guest", "guest.AAAAAA", "ticket"} {
			if _, _, err := k.Verify(name, value); err != ErrInvalid {
				t.Errorf("a cookie named %q has the token of one named guest: %v", name, err)
			}
		}
	}
}

// Every other spelling of a genuine value is refused, and not only one that says something else.
func TestKeyring_OneSpelling(t *testing.T) {
	k := newKeyring("ab")
	until := time.Now().Add(time.Hour)
	for kind, tt := range map[string]struct {
		genuine string
		accepts func(value string) bool
	}{
		"token": {sign(t, k, "guest", tokens[0]), func(value string) bool {
			_, _, err := k.Verify("guest", value)
			return err == nil || k.SignedBy("guest", value) >= 0
		}},
		"ticket": {signTicket(t, k, ID{1}, "ann", until), func(value string) bool {
			_, err := k.VerifyTicket(value, "ann", time.Now())
			return err == nil
		}},
	} {
		t.Run(kind, func(t *testing.T) {
			if !tt.accepts(tt.genuine) {
				t.Fatal("the genuine one is refused")
			}
			refuse := func(what, value string, at int) {
				if tt.accepts(value) {
					t.Errorf("%s at byte %d: %q is accepted for %q", what, at, value, tt.genuine)
				}
			}
			for i := range len(tt.genuine) + 1 {
				before, after := tt.genuine[:i], tt.genuine[i:]
				for _, more := range []string{"\n", "\r\n", "\r", "=", "A", "\x00", " ", "%3D"} {
					refuse("inserted", before+more+after, i)
				}
				if after == "" {
					break
				}
				refuse("cut off", before, i)
				refuse("left out", before+after[1:], i)
				for other := range 256 { // among them every flipped bit
					if byte(other) != tt.genuine[i] {
						refuse("replaced", before+string([]byte{byte(other)})+after[1:], i)
					}
				}
			}
			refuse("twice", tt.genuine+tt.genuine, 0)
		})
	}
}

// A signature alone is not enough: what is signed must have the form of a token, or of a ticket.
func TestKeyring_OtherForms(t *testing.T) {
	k := newKeyring("a")
	token := tokens[3].encode()
	with := func(b []byte, first byte) []byte { b = slices.Clone(b); b[0] = first; return b }
	for name, b := range map[string][]byte{
		"nothing":          {},
		"a byte too few":   token[:len(token)-1],
		"a byte too many":  append(slices.Clone(token), 0),
		"another version":  with(token, tokenVersion+0x10),
		"an unknown flag":  with(token, tokenVersion|0x04),
		"a ticket's bytes": append([]byte{ticketVersion}, make([]byte, ticketLen-1)...),
	} {
		value, err := k.cookies[0].Encode("guest", b)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := k.Verify("guest", value); err != ErrInvalid {
			t.Errorf("%s: it is the token %+v, %v", name, got, err)
		}
	}

	until := time.Now().Add(time.Hour)
	var ticket []byte
	genuine := signTicket(t, k, ID{1}, "ann", until)
	if err := k.tickets[0].Decode("ticket", genuine, &ticket); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"a byte too few":  ticket[:len(ticket)-1],
		"a byte too many": append(slices.Clone(ticket), 0),
		"another version": with(ticket, tokenVersion),
		"a token's bytes": token,
	} {
		value, err := k.tickets[0].Encode("ticket", b)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.VerifyTicket(value, "ann", time.Now()); err != ErrInvalid {
			t.Errorf("%s: it is a ticket of %v, %v", name, got, err)
		}
	}

	// The key of cookies signs no ticket, and that of tickets no cookie.
	value, err := k.cookies[0].Encode("ticket", ticket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.VerifyTicket(value, "ann", time.Now()); err != ErrInvalid {
		t.Errorf("the key of cookies has signed a ticket: %v", err)
	}
	if value, err = k.tickets[0].Encode("guest", token); err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.Verify("guest", value); err != ErrInvalid {
		t.Errorf("the key of tickets has signed a cookie: %v", err)
	}
}

// A cookie whose life is over says whose it was; a forged one says nothing, however old it is.
func TestKeyring_Expired(t *testing.T) {
	const day = 24 * time.Hour
	for _, life := range []time.Duration{time.Second, day, 31 * day, 400 * day} {
		synctest.Test(t, func(t *testing.T) {
			k := NewKeyring([][]byte{[]byte("a"), []byte("b")}, "", life)
			old := NewKeyring([][]byte{[]byte("b")}, "", life)
			other := NewKeyring([][]byte{[]byte("c")}, "", life)
			values := []string{sign(t, k, "guest", tokens[0]), sign(t, old, "guest", tokens[0])}
			forged := sign(t, other, "guest", tokens[0])
			for _, tt := range []struct {
				after   time.Duration
				expired bool
			}{{0, false}, {life, false}, {time.Second, true}, {1000 * life, true}} {
				time.Sleep(tt.after)
				for secret, value := range values {
					got, expired, err := k.Verify("guest", value)
					if got != tokens[0] || expired != tt.expired || err != nil {
						t.Errorf("of a life of %v, %v later: %+v, expired %v, %v", life, tt.after,
							got, expired, err)
					}
					if by := k.SignedBy("guest", value); by != secret {
						t.Errorf("signed by %d, want %d", by, secret)
					}
				}
				if _, expired, err := k.Verify("guest", forged); expired || err != ErrInvalid {
					t.Errorf("a forged one: expired %v, %v", expired, err)
				}
			}
		})
	}
}

func TestKeyring_VerifyTicket(t *testing.T) {
	k, id := newKeyring("a"), NewID()
	until := time.Unix(2_000_000_000, 0)
	ticket := signTicket(t, k, id, "ann@example.com", until)
	for _, tt := range []struct {
		name, audience string
		at             time.Time
		want           error
	}{
		{"at once", "ann@example.com", time.Now(), nil},
		{"at its end", "ann@example.com", until, nil},
		{"after its end", "ann@example.com", until.Add(time.Second), ErrInvalid},
		{"for another", "eve@example.com", time.Now(), ErrInvalid},
		{"for none", "", time.Now(), ErrInvalid},
		{"in capitals", "Ann@example.com", time.Now(), ErrInvalid},
	} {
		got, err := k.VerifyTicket(ticket, tt.audience, tt.at)
		if err != tt.want || err == nil && got != id || err != nil && got != (ID{}) {
			t.Errorf("%s: %v, %v, want %v", tt.name, got, err, tt.want)
		}
	}
}

func TestKeyring_Encrypt(t *testing.T) {
	k := newKeyring("ab")
	long := strings.Repeat("x", 10_000)
	for _, plain := range []string{"", "x", "\x01", `"ann@example.com"`, long} {
		stored := k.Encrypt("g:1", "email", plain)
		if got, err := k.Decrypt("g:1", "email", stored); got != plain || err != nil {
			t.Errorf("%.20q is stored as %.20q, and read as %.20q, %v", plain, stored, got, err)
		}
		if !IsEncrypted(stored) || len(plain) > 1 && strings.Contains(stored, plain) {
			t.Errorf("%.20q is stored as %.20q", plain, stored)
		}
		if again := k.Encrypt("g:1", "email", plain); again == stored {
			t.Errorf("%.20q is encrypted twice in the same way", plain)
		}
	}
	for _, stored := range []string{"", "1", `"text"`, "\x02"} {
		got, err := k.Decrypt("g:1", "email", stored)
		if got != stored || err != nil || IsEncrypted(stored) {
			t.Errorf("%q, which is not encrypted, is read as %q, %v", stored, got, err)
		}
	}
}

// A ciphertext that was changed, or stands elsewhere than it was written, is not decrypted.
func TestKeyring_ChangedCiphertext(t *testing.T) {
	k := newKeyring("ab")
	const plain = `"ann@example.com"`
	stored := k.Encrypt("g:1", "email", plain)
	refuse := func(what, key, field, stored string) {
		t.Helper()
		if got, err := k.Decrypt(key, field, stored); got != "" || !errors.Is(err, ErrNoSecret) {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	for i := 1; i < len(stored); i++ {
		for bit := range 8 {
			changed := []byte(stored)
			changed[i] ^= 1 << bit
			refuse("a flipped bit", "g:1", "email", string(changed))
		}
		refuse("cut off", "g:1", "email", stored[:i])
		refuse("a byte left out", "g:1", "email", stored[:i]+stored[i+1:])
	}
	for bit := range 8 { // without the mark it is a value that was never encrypted
		changed := string([]byte{stored[0] ^ 1<<bit}) + stored[1:]
		if got, err := k.Decrypt("g:1", "email", changed); got != changed || err != nil {
			t.Errorf("without its mark: %q, %v", got, err)
		}
	}
	refuse("a byte more", "g:1", "email", stored+"x")
	refuse("another record", "g:2", "email", stored)
	refuse("another field", "g:1", "phone", stored)
}

// The first secret signs and encrypts, each of them verifies and decrypts, and no other does.
func TestKeyring_Secrets(t *testing.T) {
	until := time.Now().Add(time.Hour)
	for _, tt := range []struct {
		writes, reads string
		by            int // which of the reader's secrets has signed
	}{
		{"a", "a", 0}, {"a", "ba", 1}, {"a", "cba", 2}, {"ba", "b", 0}, // rotations
		{"ba", "a", -1}, {"a", "b", -1}, {"a", "bc", -1}, {"a", "A", -1},
	} {
		w, r := newKeyring(tt.writes), newKeyring(tt.reads)
		value := sign(t, w, "guest", tokens[0])
		if got := r.SignedBy("guest", value); got != tt.by {
			t.Errorf("%+v: signed by %d", tt, got)
		}
		checkReads(t, r, tt.by >= 0, value, signTicket(t, w, ID{1}, "ann", until),
			w.Encrypt("g:1", "email", "x"))
	}
}

// Apps that share a secret share no key, unless they have the same name.
func TestKeyring_Apps(t *testing.T) {
	until := time.Now().Add(time.Hour)
	names := []string{"", "a", "b", "a\x00", "cookie v1"}
	for _, writes := range names {
		for _, reads := range names {
			w, r := newAppKeyring("s", writes), newAppKeyring("s", reads)
			checkReads(t, r, writes == reads, sign(t, w, "guest", tokens[0]),
				signTicket(t, w, ID{1}, "ann", until), w.Encrypt("g:1", "email", "x"))
		}
	}
}

// checkReads checks that a keyring reads a token, a ticket and a ciphertext, or none of them.
func checkReads(t *testing.T, k *Keyring, want bool, value, ticket, stored string) {
	t.Helper()
	if _, _, err := k.Verify("guest", value); (err == nil) != want {
		t.Errorf("the token: %v, want %v", err, want)
	}
	if _, err := k.VerifyTicket(ticket, "ann", time.Now()); (err == nil) != want {
		t.Errorf("the ticket: %v, want %v", err, want)
	}
	if _, err := k.Decrypt("g:1", "email", stored); (err == nil) != want {
		t.Errorf("the ciphertext: %v, want %v", err, want)
	}
}
