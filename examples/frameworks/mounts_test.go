package frameworks

import (
	"io"
	"log/slog"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/gorilla/mux"
	"github.com/julienschmidt/httprouter"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/adaptertest"
)

func inTable(t *testing.T, mount adaptertest.Mount) {
	adaptertest.InTable(t, "../../README.md", mount, adaptertest.Run(t, mount))
}

// chi's own recovery, compression and subtrees.
func TestChiMount(t *testing.T) {
	quiet := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, middleware.WithLogEntry(r, unlogged{}))
		})
	}
	inTable(t, adaptertest.Mount{
		Name: "chi",
		How:  "r.Use(guests.Middleware)",
		App: func(m *guest.Manager) http.Handler {
			routes := adaptertest.Routes(m)
			r := chi.NewRouter()
			r.Use(quiet, middleware.Recoverer)
			if m != nil {
				r.Use(m.Middleware)
			}
			static := http.StripPrefix("/static", http.FileServerFS(adaptertest.Files))
			r.Mount("/static", static)
			r.With(middleware.Recoverer).HandleFunc("/panic/inside",
				func(http.ResponseWriter, *http.Request) {
					panic("on purpose")
				})
			r.Route("/gzip", func(r chi.Router) {
				r.Use(middleware.Compress(5))
				r.Get("/json", func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					io.WriteString(w, adaptertest.Text)
				})
			})
			for path, h := range routes {
				switch path {
				case "/static/", "/panic/inside", "/gzip/json", "/gzip/missing":
				default:
					r.HandleFunc(path, h)
				}
			}
			return r
		},
	})
}

// unlogged keeps chi from printing panics that are part of the test.
type unlogged struct{}

func (unlogged) Write(int, int, http.Header, time.Duration, any) {}
func (unlogged) Panic(any, []byte)                               {}

// httprouter's own files, recovery and not-found.
func TestHTTPRouterMount(t *testing.T) {
	inTable(t, adaptertest.Mount{
		Name: "httprouter",
		How:  "guests.Middleware(router)",
		App: func(m *guest.Manager) http.Handler {
			router := httprouter.New()
			router.NotFound = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "nothing here", http.StatusNotFound)
			})
			router.PanicHandler = func(w http.ResponseWriter, r *http.Request, v any) {
				if r.URL.Path == "/panic/outside" {
					panic(v)
				}
				w.WriteHeader(http.StatusInternalServerError)
			}
			for path, h := range adaptertest.Routes(m) {
				switch path {
				case "/static/":
					router.ServeFiles("/static/*filepath", http.FS(adaptertest.Files))
				case "/panic/inside":
					router.GET(path, func(http.ResponseWriter, *http.Request, httprouter.Params) {
						panic("on purpose")
					})
				default:
					for _, method := range []string{"GET", "HEAD", "POST"} {
						router.HandlerFunc(method, path, h)
					}
				}
			}
			if m == nil {
				return adaptertest.Recover(router)
			}
			return adaptertest.Recover(m.Middleware(router))
		},
	})
}

// gorilla/mux's own subtrees, middleware and not-found.
func TestGorillaMuxMount(t *testing.T) {
	inTable(t, adaptertest.Mount{
		Name: "gorilla/mux",
		How:  "guests.Middleware(router)",
		App: func(m *guest.Manager) http.Handler {
			router := mux.NewRouter()
			router.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "nothing here", http.StatusNotFound)
			})
			for path, h := range adaptertest.Routes(m) {
				switch path {
				case "/static/":
					router.PathPrefix(path).Handler(
						http.StripPrefix("/static", http.FileServerFS(adaptertest.Files)))
				case "/panic/inside":
					inside := router.Path(path).Subrouter()
					inside.Use(adaptertest.Recover)
					inside.NewRoute().HandlerFunc(func(http.ResponseWriter, *http.Request) {
						panic("on purpose")
					})
				default:
					router.HandleFunc(path, h)
				}
			}
			if m == nil {
				return adaptertest.Recover(router)
			}
			return adaptertest.Recover(m.Middleware(router))
		},
	})
}

// Why gorilla/mux is wrapped: its Use does not see requests that no route matches.
func TestGorillaMuxUse(t *testing.T) {
	guests := newGuests(t)
	router := mux.NewRouter()
	router.Use(guests.Middleware)
	router.HandleFunc("/", func(http.ResponseWriter, *http.Request) {})
	b := newBrowser(t, router)
	b.says("GET", "/missing", 404, "404 page not found")
	if got := b.cookies(); len(got) != 0 {
		t.Errorf("cookies %v: Use sees what no route matches; say so in docs/frameworks.md", got)
	}
	b = newBrowser(t, GorillaMux(guests))
	b.says("GET", "/missing", 404, "404 page not found")
	if got := b.cookies(); len(got) != 1 {
		t.Errorf("cookies %v", got)
	}
}

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // pending claims
	os.Exit(m.Run())
}
