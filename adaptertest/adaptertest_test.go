package adaptertest_test

import (
	"net/http"
	"testing"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/adaptertest"
)

func TestNetHTTP(t *testing.T) {
	mount := adaptertest.Mount{
		Name: "net/http",
		How:  "guests.Middleware(mux)",
		App: func(m *guest.Manager) http.Handler {
			var app http.Handler = adaptertest.Mux(m)
			if m != nil {
				app = m.Middleware(app)
			}
			return adaptertest.Recover(app)
		},
	}
	adaptertest.InTable(t, "../README.md", mount, adaptertest.Run(t, mount))
}

// Each of these mounts has a fault, and the suite finds it.
func TestTeeth(t *testing.T) {
	broken := func(wrap func(m *guest.Manager, app http.Handler) http.Handler) adaptertest.Mount {
		return adaptertest.Mount{App: func(m *guest.Manager) http.Handler {
			var app http.Handler = adaptertest.Mux(m)
			if m != nil {
				app = wrap(m, app)
			}
			return adaptertest.Recover(app)
		}, Lacks: map[string]string{"SSE": "would wait for ever",
			"client gone": "would wait for ever"}}
	}
	for name, tt := range map[string]struct {
		wrap  func(m *guest.Manager, app http.Handler) http.Handler
		wants []string
	}{
		"nothing": {
			func(m *guest.Manager, app http.Handler) http.Handler { return app },
			[]string{"JSON", "empty body", "Claim in a handler", "32 parallel requests"},
		},
		"an unwatched response": {
			func(m *guest.Manager, app http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					app.ServeHTTP(w, m.Identify(w, r))
				})
			},
			[]string{"public page", "late write", "static 404", "103 Early Hints",
				"103 Early Hints, public page", "304"},
		},
		"a writer that can do nothing": {
			func(m *guest.Manager, app http.Handler) http.Handler {
				return m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					app.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
				}))
			},
			[]string{"interfaces", "ResponseController", "WebSocket, gorilla", "WebSocket, coder"},
		},
		"committed at the end": {
			func(m *guest.Manager, app http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					x := m.Begin(w.Header(), r)
					app.ServeHTTP(w, x.Request)
					x.End()
				})
			},
			[]string{"public page", "late write", "static 404"},
		},
		"committed at the end, with a header kept back": {
			func(m *guest.Manager, app http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					h := http.Header{}
					x := m.Begin(h, r)
					app.ServeHTTP(w, x.Request)
					x.End()
					for name, lines := range h {
						w.Header()[name] = append(w.Header()[name], lines...)
					}
				})
			},
			[]string{"JSON", "redirect", "panic, recovered outside", "flush first"},
		},
		"two cookies": {
			func(m *guest.Manager, app http.Handler) http.Handler {
				return m.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Add("Set-Cookie", "guest_of_another=1")
					app.ServeHTTP(w, r)
				}))
			},
			[]string{"JSON", "HEAD", "public page"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			faults := map[string][]string{}
			for _, r := range adaptertest.Play(t.Context(), broken(tt.wrap)) {
				faults[r.Scenario] = append(faults[r.Scenario], r.Faults...)
			}
			for _, scenario := range tt.wants {
				if len(faults[scenario]) == 0 {
					t.Errorf("%s: not caught", scenario)
				}
			}
		})
	}
}
