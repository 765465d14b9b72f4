package guest

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/guestkit/guest/internal/record"
	"github.com/guestkit/guest/internal/token"
)

var (
	testNow   = time.Unix(1_700_000_000, 0)
	testLives = lifetimes{
		guest: 180 * day, provisional: time.Hour, tombstone: 60 * day, account: 365 * day, renewal: day,
	}

	// knownToken came back in a cookie today, provisionalToken not yet.
	knownToken       = tokenOf(1, testNow.Add(-time.Hour), false)
	oldToken         = tokenOf(1, testNow.Add(-day), false) // whose life is due for renewal
	provisionalToken = tokenOf(1, testNow, true)
	siblingToken     = tokenOf(2, testNow.Add(-time.Minute), true)
)

func tokenOf(id byte, issued time.Time, provisional bool) token.Token {
	return token.Token{
		ID: token.ID{id}, CreatedAt: issued.UnixMilli(), IssuedAt: issued.Unix(),
		Provisional: provisional,
	}
}

// created is who create makes of a visitor without a guest.
var created = identity{
	state: newGuest, guest: provisionalToken, changes: tokenChanges{send: true, unrendered: true},
}

// known is a guest that came with its request, which changes none of the tokens that the client has.
var known = identity{state: knownGuest, guest: knownToken}

// with returns a copy of an identity that was changed.
func (id identity) with(changes ...func(*identity)) identity {
	id.changes.clear = slices.Clone(id.changes.clear)
	for _, change := range changes {
		change(&id)
	}
	return id
}

// Each transition: who the visitor was, and who it is then.
func TestIdentity_Transitions(t *testing.T) {
	changed := func(id *identity) { id.changes.unrendered = true }
	send := func(id *identity) { id.changes.send, id.changes.unrendered = true, true }
	gone := func(id *identity) { id.state, id.changes.send, id.changes.unrendered = noGuest, false, true }
	replaced := func(id *identity) { id.replaced = true }
	clearMain := func(id *identity) { id.changes.clearMain, id.changes.unrendered = true, true }
	clears := func(names ...string) func(*identity) {
		return func(id *identity) { id.changes.clear, id.changes.unrendered = names, true }
	}
	of := func(t token.Token) func(*identity) { return func(id *identity) { id.guest = t } }
	state := func(s guestState) func(*identity) { return func(id *identity) { id.state = s } }
	use := func(u guestUse) func(*identity) { return func(id *identity) { id.use = u } }
	missing := func(err error) func(*identity) { return func(id *identity) { id.missing = err } }

	create := func(id *identity) { id.create(tokenOf(1, testNow, false)) }
	adopt := func(id *identity) { id.adopt(knownToken) }
	adoptSibling := func(id *identity) { id.adoptSibling(siblingToken, testLives, testNow) }
	release := func(id *identity) { id.release(false) }
	clearProvisional := func(name string) func(*identity) {
		return func(id *identity) { id.clearProvisional(name) }
	}
	takenBack := identity{guest: provisionalToken, changes: tokenChanges{unrendered: true}}
	clearsA := known.with(func(id *identity) { id.changes.clear = []string{"guest.a"} })
	successor := provisionalToken
	successor.Successor = true
	absorber := siblingToken
	absorber.Provisional, absorber.IssuedAt = false, testNow.Add(-day).Unix()
	confirmedNow := provisionalToken
	confirmedNow.Provisional = false

	for _, tt := range []struct {
		name string
		from identity
		step func(*identity)
		want identity
	}{
		{"create/a first visit", identity{}, create, created},
		{"create/in place of a guest that is claimed or expired", identity{replaced: true}, create,
			created.with(replaced, of(successor))},
		{"create/data calls find it, whatever they answered before",
			identity{missing: ErrClaimed}, create, created},
		{"create/nothing is kept of the guest before", known.with(use(written), state(noGuest),
			func(id *identity) { id.reported = true }), create, created},
		{"create/the cookies of the guest before go",
			identity{}.with(clearMain, clears("guest.a")), create,
			created.with(clearMain, clears("guest.a"))},
		{"create/its token goes in place of the one that is over",
			identity{changes: tokenChanges{endHeader: true}}, create, created},

		{"adopt/changes no token of the client", identity{}, adopt, known},

		{"adoptSibling/its life is due for renewal", known,
			adoptSibling, known.with(of(absorber))},
		{"adoptSibling/also in place of a new guest", created,
			adoptSibling, created.with(state(knownGuest), of(absorber))},

		{"confirm/a provisional guest", known.with(of(provisionalToken)),
			func(id *identity) { id.confirm(testNow) }, known.with(of(confirmedNow))},

		{"saved/a new guest", created, (*identity).saved, created.with(state(newGuestSaved))},
		{"saved/twice", created.with(state(newGuestSaved)), (*identity).saved,
			created.with(state(newGuestSaved))},
		{"saved/a known guest", known, (*identity).saved, known},
		{"saved/no guest", identity{}, (*identity).saved, identity{}},

		{"lose/its cookies stay", known, func(id *identity) { id.lose(ErrClaimed) },
			known.with(state(noGuest), replaced, missing(ErrClaimed))},
		{"lose/its token is not sent", created, func(id *identity) { id.lose(ErrGone) },
			created.with(gone, replaced, missing(ErrGone))},
		{"lose/another guest may follow", known.with(missing(ErrClaimed)),
			func(id *identity) { id.lose(nil) }, known.with(state(noGuest), replaced)},
		{"lose/other cookies are cleared as before", known.with(clearMain, clears("guest.a")),
			func(id *identity) { id.lose(nil) },
			known.with(state(noGuest), replaced, clearMain, clears("guest.a"))},

		{"discard/replaces no guest", created, (*identity).discard, created.with(gone)},
		{"discard/a guest whose record is stored", created.with(state(newGuestSaved)),
			(*identity).discard, created.with(gone)},
		{"discard/other cookies are cleared as before", created.with(clears("guest.a")),
			(*identity).discard, created.with(gone, clears("guest.a"))},

		{"takeBack/a new guest", created.with(clears("guest.a")), (*identity).takeBack, takenBack},
		{"takeBack/a guest whose record is stored", created.with(state(newGuestSaved)),
			(*identity).takeBack, takenBack},
		{"takeBack/a known guest stays", known.with(send, clearMain, clears("guest.a")),
			(*identity).takeBack, known.with(changed)},

		{"release/a guest whose token is not sent", known, release, known.with(gone)},
		{"release/a guest that this response has confirmed", known.with(send), release,
			known.with(gone, clearMain)},
		{"release/of Config.Header, which has no cookie", known.with(send),
			func(id *identity) { id.release(true) }, known.with(gone)},
		{"release/a provisional guest, which has no main cookie",
			known.with(send, of(provisionalToken)), release,
			known.with(gone, of(provisionalToken))},

		{"sendToken/a main cookie is not cleared but set", known.with(clearMain),
			(*identity).sendToken, known.with(send)},
		{"sendToken/a provisional cookie leaves the main one cleared",
			known.with(clearMain, of(provisionalToken)), (*identity).sendToken,
			known.with(send, clearMain, of(provisionalToken))},
		{"sendToken/the header's token is not over", known.with((*identity).endHeader),
			(*identity).sendToken, known.with(send)},

		{"clearMain/the main cookie is not set but cleared", known.with(send),
			(*identity).clearMain, known.with(clearMain)},
		{"clearMain/a provisional cookie is set all the same", created, (*identity).clearMain,
			created.with(clearMain)},

		{"clearProvisional/one", known, clearProvisional("guest.a"), known.with(clears("guest.a"))},
		{"clearProvisional/another", known.with(clears("guest.a")), clearProvisional("guest.b"),
			known.with(clears("guest.a", "guest.b"))},
		{"clearProvisional/the same again", clearsA, clearProvisional("guest.a"), clearsA},
		{"clearProvisional/none", known, clearProvisional(""), known},

		{"endHeader/says so", identity{}, (*identity).endHeader,
			identity{changes: tokenChanges{endHeader: true, unrendered: true}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.from.with(tt.step)
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// The record that data calls act on, or why there is none.
func TestIdentity_Target(t *testing.T) {
	key := record.GuestKey(knownToken.ID)
	account := target{key: record.AccountKey("ann"), ttl: testLives.account}
	named := identity{state: knownGuest, guest: token.Token{ID: knownToken.ID}}
	signedIn := func(id *identity) { id.account = "ann" }
	short := lifetimes{guest: 2 * time.Hour, provisional: time.Hour, renewal: time.Hour}
	for _, tt := range []struct {
		name  string
		id    identity
		lives lifetimes
		want  target
		err   error
	}{
		{"not admitted", identity{}, testLives, target{}, ErrNotAdmitted},
		{"claimed, and too late for another", identity{missing: ErrClaimed}, testLives,
			target{}, ErrClaimed},
		{"forgotten, and too late for another", identity{missing: ErrGone}, testLives,
			target{}, ErrGone},
		{"a guest that is not stored yet", created, testLives,
			target{key: key, guest: knownToken.ID, ttl: time.Hour, isNew: true}, nil},
		{"a new guest that is stored", created.with((*identity).saved), testLives,
			target{key: key, guest: knownToken.ID, ttl: time.Hour}, nil},
		{"a provisional guest", identity{state: knownGuest, guest: provisionalToken}, testLives,
			target{key: key, guest: knownToken.ID, ttl: time.Hour}, nil},
		{"a guest of today", known, testLives,
			target{key: key, guest: knownToken.ID, ttl: 180 * day, keepTTL: true}, nil},
		{"a guest of yesterday", identity{state: knownGuest, guest: oldToken}, testLives,
			target{key: key, guest: knownToken.ID, ttl: 180 * day}, nil},
		{"a guest in the second half of a short life", known, short,
			target{key: key, guest: knownToken.ID, ttl: 2 * time.Hour}, nil},
		{"a guest of AsGuest", named, testLives,
			target{key: key, guest: knownToken.ID, ttl: 180 * day}, nil},
		{"an account", identity{account: "ann"}, testLives, account, nil},
		{"an account, with a guest", known.with(signedIn), testLives, account, nil},
		{"an account, whose guest is claimed", identity{missing: ErrClaimed}.with(signedIn),
			testLives, account, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := tt.id.target(tt.lives, testNow); got != tt.want || err != tt.err {
				t.Errorf("%+v, %v\nwant %+v, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestIdentity_IsKept(t *testing.T) {
	for _, tt := range []struct {
		use         guestUse
		namedOthers bool
		want        bool
	}{
		{unused, false, false}, {unused, true, false},
		{idRead, false, true}, {idRead, true, false},
		{written, false, true}, {written, true, true},
	} {
		id := identity{use: tt.use}
		if got := id.isKept(tt.namedOthers); got != tt.want {
			t.Errorf("use %d, named others %v: %v", tt.use, tt.namedOthers, got)
		}
	}
}

// A transition as TestIdentity_EverySequence makes it, where it may be made.
type transition struct {
	name    string
	allowed func(*identity) bool // nil: always
	step    func(id *identity, fresh token.Token)
	loses   bool // the guest is lost, discarded or released
}

func hasGuest(id *identity) bool { return id.state != noGuest }

var transitions = []transition{
	{"create", func(id *identity) bool { return id.state == noGuest },
		func(id *identity, fresh token.Token) { id.create(fresh) }, false},
	{"adopt", func(id *identity) bool { return !id.changes.send }, // it comes before the changes
		func(id *identity, fresh token.Token) { id.adopt(fresh) }, false},
	{"adoptSibling", hasGuest, func(id *identity, fresh token.Token) {
		id.adoptSibling(fresh, testLives, testNow)
	}, false},
	{"confirm", func(id *identity) bool { return hasGuest(id) && !id.changes.send },
		func(id *identity, _ token.Token) { id.confirm(testNow) }, false},
	{"saved", nil, func(id *identity, _ token.Token) { id.saved() }, false},
	{"lose, too late", hasGuest, func(id *identity, _ token.Token) { id.lose(ErrClaimed) }, true},
	{"lose", hasGuest, func(id *identity, _ token.Token) { id.lose(nil) }, true},
	{"discard", (*identity).isNew, func(id *identity, _ token.Token) { id.discard() }, true},
	{"takeBack", nil, func(id *identity, _ token.Token) { id.takeBack() }, false},
	{"release", hasGuest, func(id *identity, _ token.Token) { id.release(false) }, true},
	{"release, in the header", hasGuest,
		func(id *identity, _ token.Token) { id.release(true) }, true},
	{"sendToken", hasGuest, func(id *identity, _ token.Token) { id.sendToken() }, false},
	{"clearMain", nil, func(id *identity, _ token.Token) { id.clearMain() }, false},
	{"clearProvisional", nil,
		func(id *identity, _ token.Token) { id.clearProvisional("guest.a") }, false},
	{"endHeader", func(id *identity) bool { return id.state == noGuest || !id.changes.send },
		func(id *identity, _ token.Token) { id.endHeader() }, false},
}

// Every sequence of three transitions from every state keeps these promises.
func TestIdentity_EverySequence(t *testing.T) {
	var starts []identity
	for _, account := range []string{"", "ann"} {
		for _, use := range []guestUse{unused, idRead, written} {
			for _, start := range []identity{
				{}, {missing: ErrGone, replaced: true},
				created, created.with((*identity).saved),
				known, {state: knownGuest, guest: provisionalToken},
			} {
				start.account, start.use = account, use
				starts = append(starts, start)
			}
		}
	}
	const most = 3
	sequences := 0
	var walk func(id identity, path string, lost []token.ID, steps int)
	walk = func(before identity, path string, lost []token.ID, steps int) {
		if steps == most {
			return
		}
		fresh := tokenOf(byte(10+steps), testNow, steps%2 == 0)
		for _, tr := range transitions {
			if tr.allowed != nil && !tr.allowed(&before) {
				continue
			}
			sequences++
			after := before.with(func(id *identity) { tr.step(id, fresh) })
			path, lost := path+", "+tr.name, slices.Clip(lost)
			if tr.loses {
				lost = append(lost, before.guest.ID)
			}
			for _, broken := range brokenPromises(&before, &after, tr, lost) {
				t.Errorf("%s: %s: %+v", path, broken, after)
			}
			if t.Failed() {
				return
			}
			walk(after, path, lost, steps+1)
		}
	}
	for _, start := range starts {
		walk(start, fmt.Sprintf("from %+v", start), nil, 0)
	}
	if sequences < 10_000 {
		t.Errorf("only %d sequences", sequences)
	}
}

// brokenPromises returns what a transition must not lead to. lost are the guests that were lost,
// discarded or released until then.
func brokenPromises(before, after *identity, tr transition, lost []token.ID) (broken []string) {
	promise := func(kept bool, what string) {
		if !kept {
			broken = append(broken, what)
		}
	}
	changes, earlier := after.changes, before.changes
	promise(!changes.send || after.state != noGuest, "a token is sent without a guest")
	promise(!changes.send || !slices.Contains(lost, after.guest.ID), "a lost guest's token is sent")
	promise(!changes.send || !changes.endHeader, "the header's token is sent, and is over")
	promise(!before.replaced || after.replaced, "it is forgotten that a guest was replaced")
	changes.unrendered, earlier.unrendered = false, false
	promise(reflect.DeepEqual(changes, earlier) || after.changes.unrendered, "the header is not made anew")
	promise(after.account == before.account, "the account changes")

	got, err := after.target(testLives, testNow)
	promise(after.account == "" || err == nil && !got.isGuest(), "the account's record is not found")
	promise(after.account != "" || (err == nil) == (after.state != noGuest && after.missing == nil),
		"data calls do not agree with the state")
	promise(!got.isNew || after.state == newGuest, "a stored record counts as new")
	promise(err != nil || got.key == after.guestKey() || after.account != "",
		"the record is another's")

	switch {
	case tr.loses:
		promise(after.state == noGuest, "the guest is still there")
		promise(after.account != "" || err != nil, "data calls find a lost guest")
	case tr.name == "create":
		promise(after.guest.Successor == before.replaced, "Successor and replaced do not agree")
		promise(after.guest.Provisional && changes.send && after.use == unused, "it is no new guest")
	case tr.name == "sendToken", tr.name == "clearMain":
		promise(!changes.send || !changes.clearMain || after.guest.Provisional,
			"the main cookie is set and cleared")
	case tr.name == "takeBack":
		promise(reflect.DeepEqual(after.changes, tokenChanges{unrendered: true}), "tokens of the client change")
		promise(!after.isNew(), "a new guest without a token")
	}
	return broken
}

// Whatever changes, the tokens that are sent come first, the main cookie is set or cleared but
// not both, and provisional cookies are cleared while there is room.
func TestCookies_Lines(t *testing.T) {
	keyring := token.NewKeyring([][]byte{[]byte(strings.Repeat("s", 32))}, "", testLives.guest)
	usual := Config{Header: "Guest-Token", FormerCookies: []Cookie{
		{Domain: "www.shop.example"}, {Path: "/shop"}, {Path: "/elsewhere"},
	}}
	longest := Config{Header: strings.Repeat("H", 64), Cookie: Cookie{
		Name:   strings.Repeat("n", 64),
		Domain: strings.Repeat("d", 253), Path: "/" + strings.Repeat("p", 511), Partitioned: true,
	}}
	for name, cfg := range map[string]Config{"usual": usual, "longest": longest} {
		fault := func(field, _ string, _ ...any) { t.Errorf("%s: a fault in %s", name, field) }
		cfg.Cookie.complete("Cookie", fault)
		for i := range cfg.FormerCookies {
			cfg.FormerCookies[i].complete("FormerCookies", fault)
		}
		c := newCookies(cfg.Cookie, cfg.FormerCookies, cfg.Header, keyring, testLives)
		for _, guest := range []token.Token{knownToken, provisionalToken} {
			for bits := range 1 << 5 {
				is := func(bit int) bool { return bits&(1<<bit) != 0 }
				for provisionals := range 8 {
					changes := tokenChanges{send: is(0), clearMain: is(1), endHeader: is(2) && !is(0)}
					for i := range provisionals {
						changes.clear = append(changes.clear, c.provisionalName(token.ID{byte(i), 1}))
					}
					brought := credentials{keepMain: is(3), byHeader: is(4)}
					lines, err := c.lines(&changes, guest, &brought, "/shop/cart")
					if err != nil {
						t.Fatal(err)
					}
					for _, broken := range brokenLines(c, lines, &changes, guest, &brought) {
						t.Fatalf("%s: %s: %+v of %+v, keepMain %v, byHeader %v:\n%q", name, broken,
							changes, guest, brought.keepMain, brought.byHeader, lines)
					}
				}
			}
		}
	}
}

// brokenLines returns what is wrong about the lines of a header.
func brokenLines(
	c *cookies, lines []headerLine, changes *tokenChanges, guest token.Token, brought *credentials,
) (broken []string) {
	promise := func(kept bool, what string) {
		if !kept {
			broken = append(broken, what)
		}
	}
	bytes, order := 0, ""
	var provisionals []string
	for _, l := range lines {
		bytes += l.size()
		name, value, _ := strings.Cut(l.value, "=")
		clears := strings.HasPrefix(value, ";")
		switch {
		case l.header == c.header && l.value == "":
			order += "E" // the header's token is over
		case l.header == c.header:
			order += "H" // the token in the header
			got, _, err := c.keyring.Verify(c.Name, l.value)
			promise(got == guest && err == nil, "the header has another token")
		case !clears:
			order += map[bool]string{true: "M", false: "P"}[name == c.Name]
			value, _, _ = strings.Cut(value, ";")
			got, _, err := c.keyring.Verify(name, value)
			promise(got == guest && err == nil, "the cookie has another token")
		case l.value == c.clearing(c.Name):
			order += "C" // the main cookie is cleared
		case name == c.Name:
			order += "F" // in a former scope
		default:
			order += "S" // a provisional one
			provisionals = append(provisionals, name)
		}
	}
	promise(bytes <= mostHeaderBytes, "the lines are too long")
	promise(len(provisionals) <= mostClears && slices.Equal(provisionals, changes.clear[:len(provisionals)]),
		"other provisional cookies are cleared")

	sendMain := changes.send && !guest.Provisional && !brought.keepMain
	want := ""
	add := func(when bool, letters string) {
		if when {
			want += letters
		}
	}
	add(sendMain, "M")
	add(changes.send && guest.Provisional, "P")
	add(changes.send && brought.byHeader, "H")
	add(changes.endHeader, "E")
	add(changes.clearMain && !sendMain, "C")
	if len(c.former) > 0 {
		add(changes.clearMain || sendMain, "FF") // the third is of another path
	}
	urgent, _, _ := strings.Cut(order, "S")
	promise(urgent == want, "the urgent lines are "+urgent+", want "+want)
	promise(order == urgent+strings.Repeat("S", len(provisionals)), "an urgent line comes late: "+order)

	// A cookie is left out only if there is no room for it.
	clears := len(provisionals) + strings.Count(want, "C") + strings.Count(want, "F")
	if left := changes.clear[len(provisionals):]; len(left) > 0 && clears < mostClears {
		next := headerLine{"Set-Cookie", c.clearing(left[0])}
		promise(bytes+next.size() > mostHeaderBytes, "there is room for one more")
	}
	promise(clears <= mostClears, "too many cookies are cleared")
	return broken
}
