package proofs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// Values that the tests search for in logs, errors and Redis.
const (
	privateAccount = "ann.private.account"
	privateSecret  = "a private secret of 32 bytes....."
)

var (
	privateColour  = guest.NewValue("colour", guest.PreferAccount[string])
	privateCart    = guest.NewCounters("cart", guest.EachItem(guest.Sum[int64]))
	privateEmail   = guest.NewValue("email", guest.PreferGuest[string]).Encrypted()
	privateBirth   = guest.NewValue("birth", guest.PreferGuest[time.Time])
	privateAddress = guest.NewMap("address", guest.EachItem(guest.PreferGuest[string])).Encrypted()
)

type privateSite struct {
	t      *testing.T
	m      *guest.Manager
	rdb    *redis.Client
	hook   error // of OnClaim
	errors []error
	tokens []string // all that were issued
	ids    []string
}

// syncBuffer receives the log.
type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func newPrivateSite(t *testing.T, server *redistest.Server, log *syncBuffer) *privateSite {
	s := &privateSite{t: t,
		rdb: redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true})}
	t.Cleanup(func() { s.rdb.Close() })
	var err error
	s.m, err = guest.New(guest.Config{
		Store:   redisstore.New(s.rdb, redisstore.Config{}),
		Secrets: [][]byte{[]byte(privateSecret)},
		Data: []guest.Kind{privateColour, privateCart, privateEmail, privateAddress,
			privateBirth},
		Account: func(r *http.Request) string { return r.Header.Get("User") },
		Header:  "X-Guest", Cookie: guest.Cookie{Insecure: true},
		AutoClaim: func(*http.Request) bool {
			return false
		},
		OnClaim: func(context.Context, guest.Receipt) error { return s.hook },
		Logger: slog.New(slog.NewTextHandler(
			log, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// request sends a request with these cookies, and returns those of the response.
func (s *privateSite) request(cookies, user string,
	page func(w http.ResponseWriter, r *http.Request) error) (set string) {
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("Cookie", cookies)
	if user != "" {
		r.Header.Set("User", user)
	}
	w := httptest.NewRecorder()
	s.m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.errors = append(s.errors, page(w, r))
		if id := guest.FromContext(r.Context()).GuestID(); id != "" {
			s.ids = append(s.ids, id)
		}
	})).ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if c.Value != "" {
			s.tokens = append(s.tokens, c.Value)
			set = c.Name + "=" + c.Value
		}
	}
	return set
}

func (s *privateSite) fill(_ http.ResponseWriter, r *http.Request) error {
	return fill(r.Context(), "of the guest")
}

// fill stores one value of each kind, all with the word private.
func fill(ctx context.Context, whose string) error {
	_, err := privateCart.Add(ctx, "private tea "+whose, 3)
	return errors.Join(err,
		privateColour.Set(ctx, "private colour "+whose),
		privateEmail.Set(ctx, "private-encrypted e-mail "+whose),
		privateAddress.Set(ctx, "home", "private-encrypted street "+whose))
}

// dump returns everything that Redis holds.
func (s *privateSite) dump() string {
	var all strings.Builder
	for keys := s.rdb.Scan(s.t.Context(), 0, "*", 100).Iterator(); keys.Next(s.t.Context()); {
		fmt.Fprintf(&all, "%s %q\n", keys.Val(), s.rdb.HGetAll(s.t.Context(), keys.Val()).Val())
	}
	return all.String()
}

func none(t *testing.T, what, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if word != "" && strings.Contains(text, word) {
			t.Errorf("%s: %q is in there:\n%s", what, word, text)
		}
	}
}

// Redis never holds encrypted data as plaintext. After Forget it holds only a tombstone of the
// guest. After EraseAccount it holds neither the account's ID nor its values, and nothing that
// Export had shown. Both can be repeated.
func TestPrivacy(t *testing.T) {
	s := newPrivateSite(t, redistest.Single(t), &syncBuffer{})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	forget := func(w http.ResponseWriter, r *http.Request) error { return s.m.Forget(w, r) }
	cookie := s.request("", "", s.fill)
	cookie = s.request(cookie, "", s.fill)
	none(t, "a guest's encrypted data", s.dump(), "private-encrypted")
	if !strings.Contains(s.dump(), "private colour") {
		t.Fatal("the guest's data are not there: ", s.dump())
	}
	for range 2 {
		s.request(cookie, "", forget)
		left := s.dump()
		none(t, "after Forget", left, "private", "theme", "cart", "email", "wish")
		if strings.Count(left, "\n") > 1 || !strings.Contains(left, `".s":"c"`) {
			t.Fatalf("after Forget more is left than a tombstone without an owner: %s", left)
		}
	}

	as := s.m.As(t.Context(), privateAccount)
	must(fill(as, "of the account"))
	cookie = s.request("", "", s.fill)
	cookie = s.request(cookie, "", s.fill)
	guests := slices.Clone(s.ids)
	s.request(cookie, "", func(w http.ResponseWriter, r *http.Request) error {
		receipt, err := s.m.Claim(w, r, privateAccount)
		if !receipt.Claimed || len(receipt.Kinds) != 4 {
			t.Errorf("%+v", receipt)
		}
		return err
	})
	none(t, "encrypted data after a claim", s.dump(), "private-encrypted", privateAccount)
	exported, err := s.m.Export(as)
	must(err)
	shown, err := json.Marshal(exported)
	must(err)
	for _, word := range []string{
		"private tea of the guest", "private tea of the account", "private colour of the account",
		"private-encrypted e-mail of the guest", "private-encrypted street of the guest",
	} {
		if !strings.Contains(string(shown), word) {
			t.Errorf("Export lacks %q: %s", word, shown)
		}
	}

	// A value that was moved, cut or changed in Redis cannot be decrypted.
	key := s.rdb.Keys(t.Context(), "guest:a:*").Val()[0]
	email, street := s.rdb.HGet(t.Context(), key, "email").Val(),
		s.rdb.HGet(t.Context(), key, "address/home").Val()
	for name, value := range map[string]string{
		"another field's": street, "cut": email[:len(email)-1], "cut to nothing": email[:1],
		"cut to a nonce": email[:25], "changed": email[:30] + "x" + email[31:],
	} {
		must(s.rdb.HSet(t.Context(), key, "email", value).Err())
		if got, err := privateEmail.Get(as); got != "" || err == nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	must(s.rdb.HSet(t.Context(), key, "email", email).Err())

	for range 2 {
		must(s.m.EraseAccount(t.Context(), privateAccount))
		none(t, "after EraseAccount", s.dump(), "private", "colour", "email", "address", "cart")
		if again, err := s.m.Export(as); len(again) != 0 || err != nil {
			t.Errorf("%s, %v", again, err)
		}
	}
	// Two tombstones are left, so that the cookies of the claimed and of the forgotten guest stay
	// without effect.
	if left := s.dump(); strings.Count(left, "\n") != 2 ||
		!strings.Contains(left, "guest:g:"+guests[len(guests)-1]) {
		t.Errorf("left: %s", left)
	}
}

// No secret, token, ticket, ID or value gets into the log or an error: not when Redis is down, has
// other types under our keys, or is changed, and not when the app's OnClaim fails.
func TestLogsTellNothing(t *testing.T) {
	server := redistest.Single(t)
	log := &syncBuffer{}
	var s *privateSite
	var private []string
	var faults []error
	// Each with a process of its own, because a Manager logs little in ten seconds.
	scene := func(f func()) {
		s = newPrivateSite(t, server, log)
		f()
		faults = append(faults, s.errors...)
		private = append(append(private, s.tokens...), s.ids...)
		s.rdb.FlushAll(t.Context())
	}
	claim := func(w http.ResponseWriter, r *http.Request) error {
		_, err := s.m.Claim(w, r, privateAccount)
		return err
	}
	returned := func() string { return s.request(s.request("", "", s.fill), "", s.fill) }
	scene(func() { // no failure
		s.request(returned(), "", claim)
		s.request("guest="+s.tokens[0]+"x; guest.abc=y", "", s.fill)
	})
	scene(func() { // OnClaim fails
		s.hook = errors.New("the shop's database is away")
		cookie := returned()
		s.request(cookie, "", claim)
		s.m.Recover(t.Context())
		s.request(cookie, privateAccount, s.fill)
	})
	scene(func() { // another type under our keys
		cookie := returned()
		key := "guest:g:" + s.ids[0]
		s.rdb.Del(t.Context(), key)
		s.rdb.Set(t.Context(), key, "private", 0)
		s.request(cookie, "", s.fill)
		s.request(cookie, "", claim)
		s.request(s.tokens[0], "", s.fill)
	})
	scene(func() { // changed data, and data of another type
		cookie := returned()
		key := "guest:g:" + s.ids[0]
		for field, value := range map[string]string{"email": "\x01private", "colour": "private{", "cart/private tea of the guest": "private", "birth": `"private"`} {
			s.rdb.HSet(t.Context(), key, field, value)
			s.request(cookie, "", func(w http.ResponseWriter, r *http.Request) error {
				_, err := privateColour.Get(r.Context())
				_, err2 := privateEmail.Get(r.Context())
				_, err3 := privateCart.All(r.Context())
				_, err4 := privateCart.Add(r.Context(), "private tea of the guest", 1)
				_, err5 := privateBirth.Get(r.Context())
				return errors.Join(err, err2, err3, err4, err5)
			})
		}
		s.request(cookie, "", claim)
	})
	scene(func() { // misuse
		s.request("", "", func(w http.ResponseWriter, r *http.Request) error {
			_, err := s.m.ClaimTicket(w, r, "private ticket", "private audience", privateAccount)
			_, err2 := s.m.Claim(w, r, strings.Repeat(privateAccount, 100))
			return errors.Join(err, err2,
				privateAddress.Set(r.Context(), "private\x00item", "private"),
				privateColour.Set(r.Context(), strings.Repeat("private", 20_000)),
				privateCart.Set(r.Context(), "private", 1<<60))
		})
	})
	scene(func() { // scripts are forbidden
		cookie := returned()
		s.rdb.Do(t.Context(), "ACL", "SETUSER", "default", "-eval", "-evalsha")
		s.request(cookie, "", s.fill)
		s.request(cookie, "", claim)
		s.request("", "", s.fill)
		s.rdb.Do(t.Context(), "ACL", "SETUSER", "default", "+eval", "+evalsha")
	})
	scene(func() { // a full Redis
		cookie := returned()
		s.rdb.ConfigSet(t.Context(), "maxmemory", "1")
		s.request(cookie, "", s.fill)
		s.request("", "", s.fill)
		s.rdb.ConfigSet(t.Context(), "maxmemory", "0")
	})
	whole := server
	server = redistest.Single(t, "--rename-command", "evalsha", "") // as some services do
	scene(func() {
		cookie := returned()
		s.request(cookie, "", claim)
		s.m.Recover(t.Context())
		s.request(cookie, "", func(w http.ResponseWriter, r *http.Request) error {
			_, err := privateCart.Get(r.Context(), "private tea of the guest")
			return err
		})
	})
	server = whole
	scene(func() { // Redis is down
		cookie := returned()
		server.Kill()
		s.request(cookie, "", s.fill)
		s.request(cookie, "", claim)
		s.request("", "", func(w http.ResponseWriter, r *http.Request) error { return nil })
		s.m.Recover(t.Context())
		s.errors = append(s.errors, s.m.EraseAccount(t.Context(), privateAccount))
	})

	text := log.String()
	if strings.Count(text, "level=") < 5 {
		t.Errorf("hardly anything was logged:\n%s", text)
	}
	failed := 0
	for _, err := range faults {
		if err != nil {
			text += err.Error() + "\n"
			failed++
		}
	}
	if failed < 10 {
		t.Errorf("hardly anything failed:\n%s", text)
	}
	if testing.Verbose() {
		t.Log(text)
	}
	none(t, "log and errors", text, append(private, "private", "{g:", "{a:")...)
}
