package main

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/guestkit/guest/examples/shop/gardenid"
)

// open opens the ways to sign in that need another server: a mail server, an OpenID provider. In
// development the shop has its own.
func (s *shop) open(ctx context.Context, flags settings) (err error) {
	if flags.smtp != "" {
		if s.mail, err = newSMTPMailer(flags.smtp, flags.from); err != nil {
			return err
		}
	}
	switch {
	case flags.issuer != "":
		s.oauth, err = newOAuth(ctx, flags.issuer, os.Getenv("OIDC_CLIENT_ID"), os.Getenv("OIDC_CLIENT_SECRET"), s.url)
	case s.dev:
		s.oauth, err = startGardenID(ctx, s.url)
	}
	if err == nil && s.oauth != nil {
		s.oauth.formPost = flags.formPost
	}
	return err
}

// startGardenID starts an OpenID provider on this machine. It is at localhost and the shop at
// 127.0.0.1: to a browser these are two sites, as a provider and an app are.
func startGardenID(ctx context.Context, shopURL string) (*oauth, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	issuer, secret := "http://localhost:"+port, rand.Text()
	handler, err := gardenid.New(issuer, secret, shopURL+oauthCallback)
	if err != nil {
		listener.Close()
		return nil, err
	}
	go func() {
		if err := serve(ctx, listener, onlyFor(isLoopback, handler)); err != nil && !errors.Is(err, http.ErrServerClosed) {
			slog.Error("the OpenID provider has stopped", "error", err)
		}
	}()
	return newOAuth(ctx, issuer, gardenid.ClientID, secret, shopURL)
}
