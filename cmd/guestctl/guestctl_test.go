package main

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/internal/redistest"
)

func TestKeygen(t *testing.T) {
	d := deploy(t, single.Client(), "redis://"+single.Addr)
	a, b := d.want(0, "", "keygen"), d.want(0, "", "keygen")
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(a.out))
	if err != nil || len(secret) != 32 || a.out == b.out ||
		!strings.Contains(a.err, "Config.Secrets") {
		t.Errorf("%q, then %q; %s", a.out, b.out, a.err)
	}
	if s := decode[map[string]string](d, 0, "", "keygen"); len(s["secret"]) != 44 {
		t.Errorf("%v", s)
	}
}

func TestCookie(t *testing.T) {
	d := deploy(t, single.Client(), "redis://"+single.Addr)
	id, b := d.visit("oolong")
	header := d.cookies(b)
	_, token, _ := strings.Cut(header, "=")
	want := decode[[]cookieInfo](d, 0, header, "cookie")
	if len(want) != 1 || want[0].Verdict != guest.TokenValid || want[0].GuestID != id ||
		want[0].Secret != 0 || want[0].Name != "guest" || want[0].Provisional {
		t.Errorf("%+v", want)
	}
	for _, input := range []string{"Cookie: a=b; " + header + "; c=\"d\"\n", token,
		" guest=\"" + token + "\"\n"} {
		if got := decode[[]cookieInfo](d, 0, input, "cookie"); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v\nwant %+v", input, got, want)
		}
	}
	table(t, d.want(0, "", "cookie", token), "cookie guest", "verdict valid",
		"signed by secret 1 of 1, the one that signs",
		"guest "+id, "issued "+stamp(want[0].Issued), "created "+stamp(want[0].Created),
		"expires "+stamp(want[0].Expires), "provisional no")

	// A provisional cookie has a name of its own, which its value does not contain.
	jar, _ := cookiejar.New(nil)
	once := &http.Client{Jar: jar}
	d.post(once, "/add/oolong")
	first := d.cookies(once)
	_, value, _ := strings.Cut(first, "=")
	for _, input := range []string{first, value} {
		if got := decode[[]cookieInfo](d, 0, input, "cookie"); len(got) != 1 ||
			!got[0].Provisional || !strings.HasPrefix(got[0].Name, "guest.") {
			t.Errorf("%q: %+v", input, got)
		}
	}

	old := d.onDuty["GUEST_SECRETS"]
	fresh := base64.StdEncoding.EncodeToString([]byte("another secret of the tests, 32 b"))
	d.onDuty["GUEST_SECRETS"] = fresh + "\n" + old
	table(t, d.want(0, header, "cookie"), "signed by secret 2 of 2, an older one")
	file := filepath.Join(t.TempDir(), "secrets")
	os.WriteFile(file, []byte(old+"\n"), 0o600)
	table(t, d.want(0, header, "cookie", "--secrets-file", file),
		"signed by secret 1 of 1, the one that signs")
	d.onDuty["GUEST_SECRETS"] = fresh
	for _, name := range []string{"", "guest="} {
		if got := decode[[]cookieInfo](d, 1, name+token, "cookie"); len(got) != 1 ||
			got[0].Verdict != guest.TokenForged || got[0].GuestID != id {
			t.Errorf("under another secret: %+v", got)
		}
	}
	table(t, d.want(1, "rubbish", "cookie"), "verdict malformed: not a guest cookie")
	for _, strange := range []string{
		"\u2000" + header, "a=b; \u00a0" + header, "guest\u2003=" + token, "\vguest=" + token,
		"guest.abcde=" + token,
		"guest.abcdefg=" + token, "guest.abcd\xff\xff=" + token, "=" + header,
	} {
		if a := d.want(2, strange, "cookie"); !strings.Contains(a.err, "there is no guest cookie") {
			t.Errorf("%q: %s", strange, a.err) // the app does not accept it either
		}
	}
	d.want(2, "a=b; c=d", "cookie")
	d.onDuty["GUEST_SECRETS"] = ""
	if a := d.want(2, header, "cookie"); !strings.Contains(a.err, "GUEST_SECRETS") {
		t.Error(a.err)
	}
	d.onDuty["GUEST_SECRETS"] = "dG9vIHNob3J0"
	d.want(2, header, "cookie")
}

func TestShowExportErase(t *testing.T) {
	onEach(t, func(t *testing.T, d *deployment) {
		id, b := d.visit("oolong", "oolong", "cup")
		ctx := d.guests.AsGuest(t.Context(), id)
		for _, err := range []error{Theme.Set(ctx, "midnight-blue"),
			Wishes.Set(ctx, "pot", "gift for bob"), Email.Set(ctx, "ann@home.example")} {
			if err != nil {
				t.Fatal(err)
			}
		}
		before := d.snapshot()

		shown := decode[record](d, 0, "", "show", "guest", id)
		var kinds []string
		for _, k := range shown.Kinds {
			kinds = append(kinds,
				fmt.Sprint(k.Name, " ", k.Items, " ", k.PerItem, " ", k.Encrypted))
			if k.Data != nil {
				t.Errorf("data of %s", k.Name)
			}
		}
		if got := strings.Join(kinds,
			", "); got != "cart 2 true false, email 1 false true, theme 1 false false, wishes 1 true false" {
			t.Errorf("kinds %s", got)
		}
		if shown.State != guest.StateOpen || shown.Expires == nil ||
			time.Until(*shown.Expires) < 29*24*time.Hour || shown.Memory < 100 {
			t.Errorf("%+v", shown)
		}
		table(t, d.want(0, "", "show", "guest", id), "guest "+id, "state open",
			"expires "+stamp(*shown.Expires)+"…",
			"memory "+size(float64(shown.Memory)), "KIND ITEMS BYTES", "cart 2 21", "theme 1 20",
			"wishes 1 24",
			fmt.Sprint("email 1 ", shown.Kinds[1].Bytes, " encrypted"))
		table(t, d.want(0, "", "show", "guest", id, "--data"), `{"cup":1,"oolong":2}`, `"midnight-blue"`, `{"pot":"gift for bob"}`, `"ann@home.example"`)

		x := d.want(0, "", "export", "guest", id)
		var got exported
		if err := json.Unmarshal([]byte(x.out), &got); err != nil {
			t.Fatal(err)
		}
		held, err := d.guests.Export(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if one, two := compact(t, got.Data), compact(t, held); one != two {
			t.Errorf("exported %s\nwant %s", one, two)
		}
		secrets := d.onDuty["GUEST_SECRETS"]
		d.onDuty["GUEST_SECRETS"] = ""
		if x := d.want(1, "", "export", "guest", id); !strings.Contains(x.err, "email") ||
			strings.Contains(x.out, "ann@home.example") ||
			!strings.Contains(x.out, "midnight-blue") {
			t.Errorf("without secrets: %s%s", x.out, x.err)
		}
		table(t, d.want(0, "", "show", "guest", id, "--data"),
			"not shown: the secret that encrypted it is not among these")
		d.onDuty["GUEST_SECRETS"] = secrets

		if after := d.snapshot(); !maps.Equal(before, after) {
			t.Errorf("looking changed what is stored: %v\nwas %v", after, before)
		}

		// Erasing asks.
		for _, answer := range []string{"", "no\n", "y\n"} {
			d.want(1, answer, "erase", "guest", id)
		}
		if after := d.snapshot(); !maps.Equal(before, after) {
			t.Error("erased without a yes")
		}
		other, _ := d.visit("cup")
		d.want(0, "yes\n", "erase", "guest", other)
		d.want(1, "", "show", "guest", other)
		d.want(1, "", "erase", "guest", other, "--yes")

		// A claimed guest is a tombstone; the account has the data.
		d.post(b, "/login/ann@home")
		tomb := decode[record](d, 0, "", "show", "guest", id)
		account := decode[record](d, 0, "", "show", "account", "ann@home")
		if tomb.State != guest.StateClaimed || tomb.OwnerKey != account.Key ||
			len(tomb.Kinds) != 0 {
			t.Errorf("%+v", tomb)
		}
		if account.Expires != nil || len(account.Claims) != 1 ||
			account.Claims[0].ID != tomb.ClaimID {
			t.Errorf("%+v", account)
		}
		table(t, d.want(0, "", "show", "guest", id), "state claimed: its data are now its owner's",
			"by "+account.Key)
		table(t, d.want(0, "", "show", "account", "ann@home"), "account ann@home", "expires never",
			"claim "+tomb.ClaimID+" at …")
		d.want(1, "", "erase", "guest", id, "--yes")
		if d.account("ann@home")["oolong"] != 2 {
			t.Error("erasing a tombstone touched the account")
		}
		table(t, d.want(0, "", "erase", "account", "ann@home", "--yes"), "erased account ann@home")
		if len(d.account("ann@home")) != 0 {
			t.Errorf("%v", d.account("ann@home"))
		}
		d.want(1, "", "export", "account", "ann@home")

		d.want(2, "", "show", "guest", "ann")
		d.want(2, "", "show", "visitor", "ann")
		// an ID, not a flag; if it is other itself, that was erased
		d.want(1, "", "show", "guest", "-"+other[1:])
		if d.ctl("", "show", "account", "a\x1b[2Jb").out == "" ||
			strings.Contains(d.ctl("", "show", "account", "a\x1b[2Jb").out, "\x1b") {
			t.Error("an ID reaches the terminal as it is")
		}
	})
}

func compact(t *testing.T, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPendingAndRecover(t *testing.T) {
	onEach(t, func(t *testing.T, d *deployment) {
		table(t, d.want(0, "", "pending"), "no claim is under way")
		table(t, d.want(0, "", "recover"), "no claim is under way")
		if err := Theme.Set(d.guests.As(t.Context(), "ann"), "midnight-blue"); err != nil {
			t.Fatal(err)
		}
		if _, err := Cart.Add(d.guests.As(t.Context(), "bob"), "oolong", 3); err != nil {
			t.Fatal(err)
		}
		moves, b1 := d.visit("oolong", "cup") // Ann holds no cart
		meets, b2 := d.visit("oolong")        // Bob does
		secret, b3 := d.visit()
		if err := Email.Set(d.guests.AsGuest(t.Context(), secret), "ann@home.example"); err != nil {
			t.Fatal(err)
		}
		d.store.dieAt(beforeMerge)
		d.post(b1, "/login/ann")
		d.post(b2, "/login/bob")
		d.post(b3, "/login/eve")
		d.store.dieAt(nil)

		pending := func(code int) map[string]string {
			t.Helper()
			states := map[string]string{}
			for _, p := range decode[[]pendingInfo](d, code, "", "pending", "--overdue", "10m") {
				states[p.GuestID] = p.State + " " + p.AccountID
			}
			return states
		}
		want := map[string]string{moves: "frozen ann", meets: "frozen bob", secret: "frozen eve"}
		if got := pending(0); !maps.Equal(got, want) {
			t.Errorf("pending: %v, want %v", got, want)
		}
		d.want(1, "", "pending", "--overdue", "0s")
		if a := d.want(0, "", "pending"); !strings.Contains(a.out, moves+"  account ann") {
			t.Error(a.out)
		}
		if r := decode[record](d, 0, "", "show", "account", "ann"); len(r.Pending) != 1 ||
			r.Pending[0].GuestID != moves {
			t.Errorf("%+v", r.Pending)
		}
		if r := decode[record](d, 0, "", "show", "guest", moves); r.State != guest.StateFrozen ||
			r.AccountID != "ann" {
			t.Errorf("%+v", r)
		}

		recovered := func(args ...string) map[string]string {
			t.Helper()
			outcomes := map[string]string{}
			a := d.ctl("", append([]string{"recover", "--json"}, args...)...)
			var claims []pendingInfo
			if err := json.Unmarshal([]byte(a.out), &claims); err != nil {
				t.Fatal(err, a)
			}
			left := 0
			for _, p := range claims {
				outcomes[p.GuestID] = strings.TrimSpace(p.Outcome + " " + p.Why)
				if p.Outcome == "left" {
					left = 1
				}
			}
			if a.code != left {
				t.Errorf("recover %q: exit %d\n%s", args, a.code, a.out)
			}
			return outcomes
		}
		// They are young: they may still be under way.
		if got := recovered(); !strings.Contains(got[moves], "under way") {
			t.Errorf("%v", got)
		}
		// Without --without-onclaim, --rule and the secrets.
		secrets := d.onDuty["GUEST_SECRETS"]
		d.onDuty["GUEST_SECRETS"] = ""
		got := recovered("--older", "0s")
		if !strings.Contains(got[moves], "OnClaim is due") ||
			!strings.Contains(got[meets], "both hold cart") ||
			!strings.Contains(got[secret], "email is encrypted") {
			t.Errorf("%v", got)
		}
		want = map[string]string{moves: "merged ann", meets: "frozen bob", secret: "frozen eve"}
		if got := pending(0); !maps.Equal(got, want) {
			t.Errorf("pending: %v, want %v", got, want)
		}
		if got := d.account("bob"); got["oolong"] != 3 {
			t.Errorf("bob holds %v", got)
		}
		d.onDuty["GUEST_SECRETS"] = secrets
		got = recovered("--older", "0s", "--without-onclaim")
		if got[moves] != "finished" || got[secret] != "finished" ||
			!strings.Contains(got[meets], "both hold cart") {
			t.Errorf("%v", got)
		}
		d.want(2, "", "recover", "--rule", "cart=most")
		table(t, d.want(0, "", "recover", "--older", "0s", "--without-onclaim", "--rule",
			"cart=sum"), "AGE WAS GUEST BY OUTCOME", "…")
		if got := pending(0); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
		ann, bob := d.account("ann"), d.account("bob")
		if ann["oolong"] != 1 || ann["cup"] != 1 || bob["oolong"] != 4 {
			t.Errorf("ann holds %v, bob %v", ann, bob)
		}
		if email, err := Email.Get(d.guests.As(t.Context(), "eve")); email != "ann@home.example" ||
			err != nil {
			t.Errorf("encrypted data became %q, %v", email, err)
		}
		// The claim was done once: the app's own retry finds it done.
		var receipt guest.Receipt
		json.Unmarshal([]byte(d.post(b2, "/login/bob")), &receipt)
		if !receipt.Replayed || d.account("bob")["oolong"] != 4 {
			t.Errorf("%+v, %v", receipt, d.account("bob"))
		}
	})
}

// Erasing an account also erases the data that pending claims move to it.
func TestEraseWithAPendingClaim(t *testing.T) {
	d := deploy(t, single.Client(), "redis://"+single.Addr)
	id, b := d.visit("oolong")
	if _, err := Cart.Add(d.guests.As(t.Context(), "ann"), "oolong", 3); err != nil {
		t.Fatal(err)
	}
	d.store.dieAt(beforeMerge)
	d.post(b, "/login/ann")
	d.store.dieAt(nil)
	d.onDuty["GUEST_SECRETS"] = "" // erasing needs none
	got := decode[erased](d, 0, "", "erase", "account", "ann", "--yes")
	if !got.Erased || len(got.NotClaimed) != 1 || got.NotClaimed[0] != id {
		t.Errorf("%+v", got)
	}
	if _, err := d.guests.Recover(t.Context()); err != nil || len(d.account("ann")) != 0 {
		t.Errorf("%v came back: %v", d.account("ann"), err)
	}
}

func TestCheck(t *testing.T) {
	onEach(t, func(t *testing.T, d *deployment) {
		found := decode[[]finding](d, 1, "", "check")
		nodes := map[string]bool{}
		for _, f := range found {
			if f.Check == "version" {
				nodes[f.Node] = true
			}
			if want := map[string]string{"persistence": unsafe, "memory limit": note,
				"replicas": note, "client options": note}[f.Check]; f.Verdict != want &&
				(want != "" || f.Verdict != ok) {
				t.Errorf("%+v", f)
			}
		}
		if want := map[string]int{"single": 1,
			"cluster": 3}[t.Name()[strings.LastIndex(t.Name(), "/")+1:]]; len(nodes) != want {
			t.Errorf("looked at %v, want %d nodes", nodes, want)
		}
		if len(d.snapshot()) != 0 {
			t.Errorf("left behind: %v", d.snapshot())
		}
	})
	safe := redistest.Single(t, "--appendonly", "yes", "--maxmemory", "64mb", "--maxmemory-policy",
		"noeviction")
	d := deploy(t, safe.Client(), "redis://"+safe.Addr)
	table(t, d.want(0, "", "check"), "NODE CHECK FOUND", safe.Addr+" eviction noeviction ok",
		safe.Addr+" persistence appendonly ok",
		"all scripts and permissions run ok",
		"app client options not checked note: let the app call Store.Check when it starts")

	rdb := safe.Client()
	for _, policy := range []string{"allkeys-lru", "volatile-ttl"} {
		rdb.ConfigSet(t.Context(), "maxmemory-policy", policy)
		table(t, d.want(1, "", "check"), safe.Addr+" eviction "+policy+
			" unsafe: it evicts the records of claimed guests, which then can be claimed a second time (set maxmemory-policy noeviction)")
	}
	rdb.ConfigSet(t.Context(), "maxmemory-policy", "noeviction")

	if err := rdb.Do(t.Context(), "ACL", "SETUSER", "op", "on", ">hunter22", "~*", "+@all",
		"-@scripting").Err(); err != nil {
		t.Fatal(err)
	}
	d.onDuty["GUEST_REDIS_USERNAME"], d.onDuty["GUEST_REDIS_PASSWORD"] = "op", "hunter22"
	if a := d.want(1, "", "check"); !strings.Contains(a.out, "scripts do not run") {
		t.Error(a.out)
	}
}

// No password is ever printed, and an unreachable Redis is not the answer no.
func TestConnection(t *testing.T) {
	locked := redistest.Single(t, "--requirepass", "hunter22")
	d := deploy(t, single.Client(), "")
	for _, row := range []struct {
		url, password string
		code          int
	}{
		{"redis://:hunter22@" + locked.Addr, "", 0},
		{"redis://" + locked.Addr, "hunter22", 0},
		{"redis://" + locked.Addr, "", 3},
		{"redis://:hunter22x@" + locked.Addr, "", 3},
		{"redis://:hunter22@127.0.0.1:1", "", 3},
		{"redis+cluster://:hunter22@127.0.0.1:1", "", 3},
		{"redis://:hunt/hunter22@" + locked.Addr, "", 2},
		{"redis://:hunt%hunter22@" + locked.Addr, "", 2},
		{"http://:hunter22@" + locked.Addr, "", 2},
		{"redis://" + locked.Addr + "?hunter22=1", "", 2},
	} {
		d.onDuty["GUEST_REDIS"], d.onDuty["GUEST_REDIS_PASSWORD"] = row.url, row.password
		a := d.want(row.code, "", "pending")
		help := d.want(0, "", "--help")
		if strings.Contains(a.out+a.err+help.out+help.err, "hunter22") {
			t.Errorf("%s: prints the password:\n%s%s", row.url, a.out, a.err)
		}
	}
	d.onDuty["GUEST_REDIS_PASSWORD"] = ""
	d.onDuty["GUEST_REDIS"] = "redis://" + cluster.Addrs()[1]
	d.want(0, "", "pending", "--cluster")
	for _, args := range [][]string{{}, {"frobnicate"}, {"show"}, {"show", "guest"},
		{"stats", "--rate", "0"}, {"stats", "--sample=-1"}} {
		d.want(2, "", args...)
	}
}

func TestGuardIDs(t *testing.T) {
	id := "-bcdefghijklmnopqrstuQ"
	for _, row := range [][2]string{
		{"show guest " + id, "show guest -- " + id},
		{"show guest " + id + " --json", "show guest --json -- " + id},
		{"show --data guest " + id, "show --data guest -- " + id},
		{"show guest abc --json", "show guest abc --json"},
		{"show guest --json abc", "show guest --json abc"},
		{"stats", "stats"},
	} {
		if got := strings.Join(guardIDs(strings.Fields(row[0])), " "); got != row[1] {
			t.Errorf("%s: %s, want %s", row[0], got, row[1])
		}
	}
}

func TestSentinel(t *testing.T) {
	servers := redistest.Sentinel(t, 0, 1)
	d := deploy(t, servers.Nodes[0].Client(), "redis://"+servers.Sentinels[0].Addr)
	id, _ := d.visit("oolong")
	d.onDuty["GUEST_REDIS_SENTINEL_MASTER"] = redistest.MasterName
	table(t, d.want(0, "", "show", "guest", id), "state open")
	table(t, d.want(0, "", "stats"), "guests 1")
	table(t, d.want(1, "", "check"), "master eviction noeviction ok")
	d.onDuty["GUEST_REDIS_SENTINEL_MASTER"] = "another"
	d.want(3, "", "show", "guest", id)
}

// rediss:// is TLS, and refuses certificates that the machine does not trust. SSL_CERT_FILE names
// an authority of one's own.
func TestTLS(t *testing.T) {
	d := deploy(t, single.Client(), "")
	id, _ := d.visit("oolong")
	certified := httptest.NewTLSServer(nil) // for its certificate, which is for 127.0.0.1
	defer certified.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0",
		&tls.Config{Certificates: certified.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				out, err := net.Dial("tcp", single.Addr)
				if err != nil {
					return
				}
				defer out.Close()
				go io.Copy(out, in)
				io.Copy(in, out)
			}()
		}
	}()
	d.onDuty["GUEST_REDIS"] = "rediss://" + l.Addr().String()
	if a := d.want(3, "", "show", "guest", id); !strings.Contains(a.err, "certificate") {
		t.Errorf("a stranger's certificate: %s", a.err)
	}
	authority := filepath.Join(t.TempDir(), "authority.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certified.Certificate().Raw})
	if err := os.WriteFile(authority, block, 0o600); err != nil {
		t.Fatal(err)
	}
	d.onDuty["SSL_CERT_FILE"] = authority
	table(t, d.want(0, "", "show", "guest", id), "state open")
	d.onDuty["GUEST_REDIS"] = "rediss://" + single.Addr
	d.want(3, "", "show", "guest", id)
}
