// Package gardenid is an OpenID provider for development: it believes every user about their e-mail
// address. The protocol is zitadel/oidc's, its storage that module's example; this package adds the
// page that asks for consent.
package gardenid

import (
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// ClientID is what the one client is known by.
const ClientID = "windowsill"

// New returns a provider that serves the address issuer, for one client.
func New(issuer, clientSecret, redirectURI string) (http.Handler, error) {
	people := &people{known: map[string]*storage.User{}}
	store := storage.NewStorageWithClients(people, map[string]*storage.Client{
		ClientID: storage.WebClient(ClientID, clientSecret, redirectURI),
	})
	config := &op.Config{CodeMethodS256: true}
	rand.Read(config.CryptoKey[:])
	provider, err := op.NewProvider(config, store, op.StaticIssuer(issuer),
		op.WithAllowInsecure(), // plain http, on this machine
		op.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
	if err != nil {
		return nil, fmt.Errorf("the OpenID provider: %w", err)
	}
	c := &consent{store, provider}
	mux := http.NewServeMux()
	mux.Handle("/", provider)
	mux.HandleFunc("GET /login/username", c.ask)
	mux.HandleFunc("POST /login/username", op.NewIssuerInterceptor(provider.IssuerFromRequest).HandlerFunc(c.answer))
	return http.NewCrossOriginProtection().Handler(mux), nil
}

// consent is the page where a person says who they are, and whether the client may know.
type consent struct {
	store    *storage.Storage
	provider *op.Provider
}

//go:embed consent.html
var consentHTML string

var consentPage = template.Must(template.New("consent").Parse(consentHTML))

func (c *consent) ask(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Referrer-Policy", "no-referrer")
	consentPage.Execute(w, r.FormValue("authRequestID"))
}

func (c *consent) answer(w http.ResponseWriter, r *http.Request) {
	id := r.FormValue("id")
	request, err := c.store.AuthRequestByID(r.Context(), id)
	if err != nil {
		http.Error(w, "This page is too old. Start again where you came from.", http.StatusBadRequest)
		return
	}
	if r.FormValue("answer") != "yes" {
		op.AuthRequestError(w, r, request, oidc.ErrAccessDenied().WithDescription("the person said no"), c.provider)
		return
	}
	if err := c.store.CheckUsernamePassword(username(r.FormValue("email"), r.FormValue("verified") != ""), "", id); err != nil {
		http.Error(w, "That is no e-mail address.", http.StatusBadRequest)
		return
	}
	http.Redirect(w, r, op.AuthCallbackURL(c.provider)(r.Context(), id), http.StatusFound)
}

// people are all users who have come by. Their password is "".
type people struct {
	mu    sync.Mutex
	known map[string]*storage.User // by ID
}

const unverified = "unverified "

func username(email string, verified bool) string {
	email = strings.ToLower(strings.TrimSpace(email))
	if !verified {
		return unverified + email
	}
	return email
}

func (p *people) GetUserByUsername(name string) *storage.User {
	email, isUnverified := strings.CutPrefix(name, unverified)
	if !strings.Contains(email, "@") {
		return nil
	}
	user := &storage.User{
		ID:            fmt.Sprintf("%x", sha256.Sum256([]byte(email)))[:16], // it stays, as a subject should
		Username:      email,
		Email:         email,
		EmailVerified: !isUnverified,
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known[user.ID] = user
	return user
}

func (p *people) GetUserByID(id string) *storage.User {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[id]
}

func (p *people) ExampleClientID() string { return "" }
