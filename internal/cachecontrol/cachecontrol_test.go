package cachecontrol

import (
	"net/http"
	"reflect"
	"testing"
)

const cc = "Cache-Control"

func TestShareable(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header http.Header
		want   bool
	}{
		{"nothing", http.Header{}, false},
		{"public", http.Header{cc: {"public, max-age=60"}}, true},
		{"public, in capitals", http.Header{cc: {"PUBLIC"}}, true},
		{"s-maxage", http.Header{cc: {"s-maxage=60"}}, true},
		{"s-maxage after spaces and tabs", http.Header{cc: {"max-age=60,\t  s-maxage=60"}}, true},
		{"public on a second line", http.Header{cc: {"max-age=60", "public"}}, true},
		{"max-age only", http.Header{cc: {"max-age=60"}}, false}, // RFC 9111, section 3.5
		{"private", http.Header{cc: {"private, max-age=60"}}, false},
		{"no-cache", http.Header{cc: {"no-cache"}}, false},
		{"no-store", http.Header{cc: {"no-store"}}, false},
		{"public and no-store", http.Header{cc: {"public, no-store"}}, false},
		{"public, and NO-STORE on a second line", http.Header{cc: {"public", "NO-STORE"}}, false},
		{"public and private", http.Header{cc: {"public, private"}}, false},
		{"public but for one field", http.Header{cc: {`public, private="X-Field"`}}, false},
		{"a word that begins like one", http.Header{cc: {"publicity, no-storey"}}, false},
		{"no-store after a space of another kind",
			http.Header{cc: {"public, \u00a0no-store"}}, true},
		{"no-store after a line break", http.Header{cc: {"public,\r\n no-store"}}, false},

		{"for CDNs", http.Header{"Cdn-Cache-Control": {"max-age=60"}}, true},
		{"for CDNs, in capitals", http.Header{"CDN-CACHE-CONTROL": {"max-age=60"}}, true},
		{"for CDNs, in small letters", http.Header{"cdn-cache-control": {"max-age=60"}}, true},
		{"for CDNs: no-store", http.Header{"Cdn-Cache-Control": {"no-store"}}, false},
		{"for CDNs: private", http.Header{"Cdn-Cache-Control": {"private"}}, false},
		{"for CDNs: private for one field",
			http.Header{"Cdn-Cache-Control": {`max-age=60, private="X-Field"`}}, false},
		{"for CDNs: private before a space of another kind",
			http.Header{"Cdn-Cache-Control": {"max-age=60, private\u2003"}}, true},
		{"for CDNs alone", http.Header{
			cc: {"private, no-store"}, "Cdn-Cache-Control": {"max-age=60"},
		}, true},
		{"public, but not for CDNs", http.Header{
			cc: {"public"}, "Cdn-Cache-Control": {"no-store"},
		}, true},
		{"Cloudflare's", http.Header{"Cloudflare-Cdn-Cache-Control": {"max-age=60"}}, true},
		{"any vendor's", http.Header{"Examplecdn-Cache-Control": {"max-age=60"}}, true},
		{"LiteSpeed's", http.Header{"X-Litespeed-Cache-Control": {"public"}}, true},
		{"Akamai's", http.Header{"Edge-Control": {"max-age=60"}}, true},
		{"Surrogate-Control", http.Header{"Surrogate-Control": {"max-age=60"}}, true},
		{"Surrogate-Control: no-store", http.Header{"Surrogate-Control": {"no-store"}}, false},
		{"nginx's", http.Header{"X-Accel-Expires": {"60"}}, true},
		{"nginx's 0", http.Header{"X-Accel-Expires": {"0"}}, false},
		{"nginx's point in time", http.Header{"X-Accel-Expires": {"@4070908800"}}, true},

		{"Expires", http.Header{"Expires": {"Thu, 01 Jan 2099 00:00:00 GMT"}}, false},
		{"Pragma", http.Header{"Pragma": {"public"}}, false},
		{"a header with a similar name", http.Header{"Xcache-Control": {"public"}}, false},
	} {
		if got := Shareable(tt.header); got != tt.want {
			t.Errorf("%s: %v of %v", tt.name, got, tt.header)
		}
	}
}

// What Set leaves is not shareable, and Undo and Without bring back what stood there before.
func TestPrivate_Set(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before http.Header
		want   []string // lines of Cache-Control
		same   bool     // the app's lines stay as they are
	}{
		{"nothing", http.Header{}, []string{private}, false},
		{"public", http.Header{cc: {"public, max-age=60"}}, []string{private}, false},
		{"two lines", http.Header{cc: {"public", "max-age=60"}}, []string{private}, false},
		{"private", http.Header{cc: {"private"}}, []string{private}, false},
		{"no-store", http.Header{cc: {"no-store"}}, []string{"no-store"}, true},
		{"an equal line", http.Header{cc: {private}}, []string{private}, true},
		{"no-store for old caches", // RFC 9111, section 5.2.2.3
			http.Header{cc: {"must-understand, no-store, max-age=60"}}, []string{private}, false},
		{"no-store in quotes",
			http.Header{cc: {`max-age=60, ext="a, no-store, b"`}}, []string{private}, false},
		{"no-store on a second line",
			http.Header{cc: {"public", "no-store"}}, []string{private}, false},
		{"no-store after a space of another kind",
			http.Header{cc: {"public, \u00a0no-store"}}, []string{private}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p Private
			h, theirs := tt.before.Clone(), tt.before[cc]
			for range 2 { // the second time it has nothing to do
				p.Set(h)
				if !reflect.DeepEqual(h, http.Header{cc: tt.want}) || Shareable(h) {
					t.Errorf("Set: %v", h)
				}
			}
			if p.Used() == tt.same {
				t.Errorf("used: %v", p.Used())
			}
			lines, ours := p.Without(h)
			if ours == tt.same || !equal(lines, theirs) {
				t.Errorf("Without: %q, %v, want %q", lines, ours, theirs)
			}
			p.UndoIfAdded(h)
			if !equal(h[cc], tt.want) {
				t.Errorf("UndoIfAdded, and nothing was added: %v", h)
			}
			p.Undo(h)
			if !reflect.DeepEqual(h, tt.before) {
				t.Errorf("Undo: %v, want %v", h, tt.before)
			}
		})
	}
}

// The fields that only shared caches read are removed in any spelling.
func TestPrivate_SetRemovesTargetedFields(t *testing.T) {
	var p Private
	h := http.Header{"Expires": {"0"}, "Content-Type": {"text/plain"}}
	want := h.Clone()
	want[cc] = []string{private}
	for _, name := range []string{
		"Cdn-Cache-Control", "CDN-Cache-Control", "cdn-cache-control", "Examplecdn-Cache-Control",
		"X-Litespeed-Cache-Control", "Surrogate-Control", "surrogate-control", "X-Accel-Expires",
		"Edge-Control",
	} {
		h[name] = []string{"max-age=60"}
	}
	if p.Set(h); !reflect.DeepEqual(h, want) {
		t.Errorf("%v, want %v", h, want)
	}
}

// What a handler does to Cache-Control after Set, and what then comes of the calls.
func TestPrivate_AfterTheHandler(t *testing.T) {
	add := func(h http.Header) { h.Add(cc, "max-age=60") }
	for _, tt := range []struct {
		name        string
		handler     func(h http.Header)
		without     []string
		ours        bool
		undo        []string
		undoIfAdded []string
		setAgain    []string
	}{
		{"it adds a line", add, []string{"public", "max-age=60"}, true,
			[]string{"public"}, []string{"public", "max-age=60"}, []string{private}},
		{"it replaces ours", func(h http.Header) { h.Set(cc, "s-maxage=60") },
			[]string{"s-maxage=60"}, false, []string{"s-maxage=60"}, []string{"s-maxage=60"},
			[]string{private}},
		{"it replaces ours by an equal one", func(h http.Header) { h.Set(cc, private) },
			[]string{private}, false, []string{private}, []string{private}, []string{private}},
		{"it removes ours", func(h http.Header) { h.Del(cc) },
			nil, false, nil, nil, []string{private}},
		{"it replaces ours by no-store", func(h http.Header) { h.Set(cc, "no-store") },
			[]string{"no-store"}, false, []string{"no-store"}, []string{"no-store"},
			[]string{"no-store"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			after := func() (*Private, http.Header) {
				var p Private
				h := http.Header{cc: {"public"}}
				p.Set(h)
				tt.handler(h)
				return &p, h
			}
			p, h := after()
			if lines, ours := p.Without(h); !equal(lines, tt.without) || ours != tt.ours {
				t.Errorf("Without: %q, %v", lines, ours)
			}
			if p.Undo(h); !equal(h[cc], tt.undo) {
				t.Errorf("Undo: %q", h[cc])
			}
			p, h = after()
			if p.UndoIfAdded(h); !equal(h[cc], tt.undoIfAdded) {
				t.Errorf("UndoIfAdded: %q", h[cc])
			}
			p, h = after()
			if p.Set(h); !equal(h[cc], tt.setAgain) {
				t.Errorf("Set: %q", h[cc])
			}
			if p.Undo(h); !equal(h[cc], tt.undo) {
				t.Errorf("Set and Undo: %q", h[cc])
			}
		})
	}
}

// Our line has room for what a handler adds, and that must not leak into the next use of it.
func TestPrivate_SetAfterUndoIfAdded(t *testing.T) {
	var p Private
	h := http.Header{}
	p.Set(h)
	h.Add(cc, "max-age=60")
	p.UndoIfAdded(h)
	if p.Set(h); !equal(h[cc], []string{private}) {
		t.Errorf("Set: %q", h[cc])
	}
	if p.Undo(h); !equal(h[cc], []string{"max-age=60"}) {
		t.Errorf("Undo: %q", h[cc])
	}
}

// equal reports whether there are the same lines; no lines are no entry.
func equal(a, b []string) bool {
	return len(a) == len(b) && (a == nil) == (b == nil) && (len(a) == 0 || reflect.DeepEqual(a, b))
}

func TestAddVary(t *testing.T) {
	for _, tt := range []struct{ lines, want []string }{
		{nil, []string{"Cookie"}},
		{[]string{"Origin"}, []string{"Origin", "Cookie"}},
		{[]string{"Cookies"}, []string{"Cookies", "Cookie"}},
		{[]string{"Cookie"}, []string{"Cookie"}},
		{[]string{"Origin, cookie"}, []string{"Origin, cookie"}},
		{[]string{"Origin", "Accept,\tCOOKIE"}, []string{"Origin", "Accept,\tCOOKIE"}},
		{[]string{"*"}, []string{"*"}},
	} {
		h := http.Header{}
		if tt.lines != nil {
			h["Vary"] = tt.lines
		}
		if AddVary(h, "Cookie"); !equal(h["Vary"], tt.want) {
			t.Errorf("Vary %q becomes %q, want %q", tt.lines, h["Vary"], tt.want)
		}
	}
}
