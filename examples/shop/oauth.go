package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const oauthCallback = "/oauth/callback"

// An oauth signs in with an OpenID provider: authorization code, PKCE, state and nonce.
type oauth struct {
	config   oauth2.Config
	provider *oidc.Provider
	issuer   string
	formPost bool // the provider answers with a POST that its page sends
}

func newOAuth(ctx context.Context, issuer, clientID, clientSecret, shopURL string) (*oauth, error) {
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		return nil, fmt.Errorf("the OpenID provider: %w", err)
	}
	return &oauth{
		provider: provider,
		issuer:   issuer,
		config: oauth2.Config{
			ClientID: clientID, ClientSecret: clientSecret, Endpoint: provider.Endpoint(),
			RedirectURL: shopURL + oauthCallback, Scopes: []string{oidc.ScopeOpenID, "email"},
		},
	}, nil
}

// origin is where the browser is sent to; the form that starts it must be allowed to lead there.
func (o *oauth) origin() string {
	u, err := url.Parse(o.config.Endpoint.AuthURL)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// An identity is who the provider says it is.
type identity struct {
	Issuer, Subject string
	Email           string // "" unless the provider has verified it
}

// identify exchanges the code.
func (o *oauth) identify(ctx context.Context, code string, f flow) (id identity, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	token, err := o.config.Exchange(ctx, code, oauth2.VerifierOption(f.verifier))
	if err != nil {
		return id, err
	}
	raw, _ := token.Extra("id_token").(string)
	idToken, err := o.provider.Verifier(&oidc.Config{ClientID: o.config.ClientID}).Verify(ctx, raw)
	if err != nil {
		return id, err
	}
	if subtle.ConstantTimeCompare([]byte(idToken.Nonce), []byte(f.nonce)) != 1 {
		return id, errors.New("the ID token has another nonce")
	}
	info, err := o.provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return id, err
	}
	if info.Subject != idToken.Subject {
		return id, errors.New("the user info is about another user")
	}
	id = identity{Issuer: idToken.Issuer, Subject: idToken.Subject}
	if email, ok := normalEmail(info.Email); ok && info.EmailVerified {
		id.Email = email
	}
	return id, nil
}

// A flow is what the shop remembers between sending a browser to the provider and seeing it again.
type flow struct {
	verifier, nonce string
	ticket, next    string
	code            string // what a POST has brought
}

type flows struct{ db *sql.DB }

var errFlow = errors.New("no such flow was started in this browser")

func (s flows) start(ctx context.Context, state, browser string, f flow) error {
	now := time.Now()
	if _, err := s.db.ExecContext(ctx, `DELETE FROM flows WHERE expires <= ?`, now.Unix()); err != nil {
		return err
	}
	_, err := s.db.ExecContext(ctx, `INSERT INTO flows (state_hash, browser_hash, verifier, nonce, ticket, next, expires) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		hashToken(state), hashToken(browser), f.verifier, f.nonce, f.ticket, f.next, now.Add(proofLife).Unix())
	return err
}

// bring keeps the code that a POST has brought.
func (s flows) bring(ctx context.Context, state, code string) error {
	_, err := s.db.ExecContext(ctx, `UPDATE flows SET code = ? WHERE state_hash = ? AND code = '' AND expires > ?`,
		code, hashToken(state), time.Now().Unix())
	return err
}

// end returns the flow, once, to the browser that started it.
func (s flows) end(ctx context.Context, state, browser string) (f flow, err error) {
	err = s.db.QueryRowContext(ctx, `DELETE FROM flows WHERE state_hash = ? AND browser_hash = ? AND expires > ?
		RETURNING verifier, nonce, ticket, next, code`, hashToken(state), hashToken(browser), time.Now().Unix()).
		Scan(&f.verifier, &f.nonce, &f.ticket, &f.next, &f.code)
	if errors.Is(err, sql.ErrNoRows) {
		return f, errFlow
	}
	return f, err
}

const flowCookie = "oauth"

func (s *shop) startOAuth(w http.ResponseWriter, r *http.Request) {
	if s.limited(w, r, oauthLimits, "", s.known.browser(r, "")) {
		return
	}
	state, browser := rand.Text(), s.cookies.get(r, flowCookie) // one cookie for the flows of all tabs
	if browser == "" {
		browser = rand.Text()
	}
	f := flow{verifier: oauth2.GenerateVerifier(), nonce: rand.Text(), ticket: s.ticket(r, stateAudience(state)), next: next(r)}
	if err := s.flows.start(r.Context(), state, browser, f); err != nil {
		fail(w, r, err)
		return
	}
	s.cookies.set(w, flowCookie, browser, proofLife)
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(f.verifier), oidc.Nonce(f.nonce)}
	if s.oauth.formPost {
		options = append(options, oauth2.SetAuthURLParam("response_mode", "form_post"))
	}
	http.Redirect(w, r, s.oauth.config.AuthCodeURL(state, options...), http.StatusSeeOther)
}

// bringOAuth takes an answer with response_mode=form_post. The provider's page sends it, so no Lax
// cookie comes along and any page could have sent it: a page of an attacker who wants this browser
// in the attacker's account sends the same. It is only kept. The redirect is a GET, which does
// carry the cookies, and so ends in the browser that started. (Cookies with SameSite=None would
// come along, but only over https and not where browsers block third parties'.)
func (s *shop) bringOAuth(w http.ResponseWriter, r *http.Request) {
	state := r.PostFormValue("state")
	if err := s.flows.bring(r.Context(), state, r.PostFormValue("code")); err != nil {
		fail(w, r, err)
		return
	}
	http.Redirect(w, r, oauthCallback+"?"+url.Values{"state": {state}}.Encode(), http.StatusSeeOther)
}

func (s *shop) endOAuth(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Referrer-Policy", "no-referrer")
	state := r.FormValue("state")
	f, err := s.flows.end(r.Context(), state, s.cookies.get(r, flowCookie))
	if errors.Is(err, errFlow) {
		s.tell(w, r, http.StatusBadRequest, note{
			Heading: "Not signed in",
			Text:    "This was started in another browser, or longer than 15 minutes ago, or it is done already. Nothing has changed.",
			Again:   userOf(r).ID == "",
		})
		return
	} else if err != nil {
		fail(w, r, err)
		return
	}
	code := f.code
	if code == "" && !s.oauth.formPost {
		code = r.FormValue("code")
	}
	if code == "" {
		s.tell(w, r, http.StatusOK, note{Heading: "Not signed in", Text: "The provider did not say who you are; perhaps you did not want it to. Nothing has changed.", Again: true})
		return
	}
	id, err := s.oauth.identify(r.Context(), code, f)
	if err != nil {
		slog.WarnContext(r.Context(), "the OpenID provider's answer is no good", "error", err)
		s.tell(w, r, http.StatusBadGateway, note{Heading: "Not signed in", Text: "The provider could not be asked who you are. Nothing has changed: try again in a moment.", Again: true})
		return
	}
	user, isNew, err := s.accounts.byIdentity(r.Context(), id)
	if err != nil {
		fail(w, r, err)
		return
	}
	s.welcome(w, r, arrival{user: user, isNew: isNew, ticket: f.ticket, audience: stateAudience(state), next: f.next})
}
