// Command shop is a small store: it keeps a cart, a wish list and a theme for visitors who have not
// signed in, and binds them to the account when they do.
//
//	go run ./examples/shop -dev
//
// needs nothing else: guests are kept in memory, accounts and orders in SQLite, in memory too. What
// package guest has to do with it is in guests.go, signin.go and receipt.go.
package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/memstore"
	"github.com/guestkit/guest/redisstore"
	"github.com/redis/go-redis/v9"
)

// settings are the flags.
type settings struct {
	dev               bool
	addr, redis, file string
	url, clientHeader string
	smtp, from        string
	issuer            string
	formPost          bool
}

func main() {
	var flags settings
	flag.BoolVar(&flags.dev, "dev", false, "for trying it on this machine: plain http, and mails, SMS and counts for all to read")
	flag.StringVar(&flags.addr, "addr", "", "address to listen on (default "+usualAddr+", or with -dev a free port if that is taken)")
	flag.StringVar(&flags.redis, "redis", "", "keep guest data in this Redis, such as redis://localhost:6379, not in memory")
	flag.StringVar(&flags.file, "db", "", "keep accounts and orders in this SQLite file, not in memory")
	flag.StringVar(&flags.url, "url", "", "where visitors find the shop, such as https://shop.example; no other host is served")
	flag.StringVar(&flags.clientHeader, "client-header", "", "header in which the proxy says whose request it is, such as X-Real-IP")
	flag.StringVar(&flags.smtp, "smtp", "", "send mails by this server, such as localhost:25; SMTP_USER and SMTP_PASSWORD log in to it")
	flag.StringVar(&flags.from, "from", "shop@windowsill.example", "the sender of mails")
	flag.StringVar(&flags.issuer, "oidc", "", "sign in with this OpenID provider, by OIDC_CLIENT_ID and OIDC_CLIENT_SECRET (default: with -dev one that starts with the shop)")
	flag.BoolVar(&flags.formPost, "form-post", false, "have the provider answer with response_mode=form_post")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, flags); err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

// check says what is missing. What the shop is for is said and not guessed: a shop that listens on
// this machine only may be behind a proxy, for all clients.
func (f settings) check() error {
	if !f.dev && (f.url == "" || f.clientHeader == "") {
		return errors.New(`say what it is for:
  -dev                                                  to try it on this machine
  -url https://shop.example -client-header X-Real-IP    for visitors, behind a proxy with https that sets this header`)
	}
	if f.url == "" {
		return nil
	}
	u, err := url.Parse(f.url)
	if err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !f.dev) || *u != (url.URL{Scheme: u.Scheme, Host: u.Host}) {
		return errors.New("-url is a scheme and a host, such as https://shop.example (http only with -dev)")
	}
	return nil
}

func run(ctx context.Context, flags settings) error {
	flags.url = strings.TrimSuffix(flags.url, "/")
	if err := flags.check(); err != nil {
		return err
	}
	listener, err := listen(flags.addr, flags.dev)
	if err != nil {
		return err
	}
	defer listener.Close()

	store, secrets, closeStore, err := openStore(ctx, flags.redis)
	if err != nil {
		return err
	}
	defer closeStore()

	db, err := openDatabase(flags.file)
	if err != nil {
		return err
	}
	defer db.Close()

	s, err := newShop(ctx, db, store, secrets, flags.dev)
	if err != nil {
		return err
	}
	s.url, s.clientHeader = flags.url, flags.clientHeader
	addr := listener.Addr().(*net.TCPAddr)
	if s.url == "" {
		s.url = "http://" + addr.String()
		if addr.IP.IsUnspecified() {
			s.url = fmt.Sprintf("http://127.0.0.1:%d", addr.Port)
		}
	}
	if err := s.open(ctx, flags); err != nil {
		return err
	}
	go s.guests.Run(ctx, time.Minute) // finishes claims that a crash left half done

	switch {
	case !flags.dev:
		fmt.Printf("Listening on %s for %s. Cookies are Secure, so the proxy in front has https.\n", addr, s.url)
	case !addr.IP.IsLoopback():
		fmt.Println("Others may reach this machine, and with -dev they can read all mails and SMS.")
		fallthrough
	default:
		fmt.Printf("Open %s\n", s.url)
	}
	return serve(ctx, listener, s.handler())
}

func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
	}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(last)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

const usualAddr = "127.0.0.1:8080"

func listen(addr string, dev bool) (net.Listener, error) {
	if addr != "" {
		return net.Listen("tcp", addr)
	}
	listener, err := net.Listen("tcp", usualAddr)
	if dev && errors.Is(err, syscall.EADDRINUSE) {
		fmt.Println("Port 8080 is taken, so this uses a free one.")
		return net.Listen("tcp", "127.0.0.1:0")
	}
	return listener, err
}

const secretVar = "GUEST_SECRETS"

// openStore opens the store of the guests, and the secrets that sign their cookies.
func openStore(ctx context.Context, redisURL string) (store guest.Store, secrets [][]byte, closeStore func() error, err error) {
	if redisURL == "" {
		// The guests end with this process, so their secret may as well. Guests that are kept need
		// one that is.
		secret := make([]byte, 32)
		rand.Read(secret)
		return memstore.New(memstore.Config{}), [][]byte{secret}, func() error { return nil }, nil
	}

	for text := range strings.SplitSeq(os.Getenv(secretVar), ",") {
		secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
		if err != nil || len(secret) == 0 {
			return nil, nil, nil, fmt.Errorf("with -redis, %s needs the secrets that sign guest cookies, newest first, with commas between them: make one with `openssl rand -base64 32`", secretVar)
		}
		secrets = append(secrets, secret)
	}
	options, err := redis.ParseURL(redisURL)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("-redis: %w", err)
	}
	options.ContextTimeoutEnabled = true
	rdb := redis.NewClient(options)
	redisStore := redisstore.New(rdb, redisstore.Config{Prefix: "shop"})
	if err := redisStore.Check(ctx); err != nil {
		slog.Warn("Redis is not as it should be; the shop opens all the same", "error", err)
	}
	return redisStore, secrets, rdb.Close, nil
}
