// Command shop is a small store: it keeps a cart, a wish list and a theme for visitors who have not signed in, and
// binds them to the account when they do.
//
//	go run ./examples/shop
//
// needs nothing else: guests are kept in memory, accounts and orders in SQLite, in memory too. What package guest has
// to do with it is in guests.go, signin.go and receipt.go.
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

func main() {
	addr := flag.String("addr", "", "address to listen on (default 127.0.0.1:8080, or a free port if that is taken)")
	redisURL := flag.String("redis", "", "keep guest data in this Redis, such as redis://localhost:6379, not in memory")
	file := flag.String("db", "", "keep accounts and orders in this SQLite file, not in memory")
	publicURL := flag.String("url", "", "where visitors find the shop, for links in mails (default http:// and the address, if that is this machine only)")
	smtp := flag.String("smtp", "", "send mails by this server, such as localhost:25; SMTP_USER and SMTP_PASSWORD log in to it")
	from := flag.String("from", "shop@windowsill.example", "the sender of mails")
	issuer := flag.String("oidc", "", "sign in with this OpenID provider, by OIDC_CLIENT_ID and OIDC_CLIENT_SECRET (default: one that starts with the shop, on this machine only)")
	formPost := flag.Bool("form-post", false, "have the provider answer with response_mode=form_post")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *redisURL, *file, signInFlags{*publicURL, *smtp, *from, *issuer, *formPost}); err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

// signInFlags are those that have to do with signing in.
type signInFlags struct {
	url, smtp, from, issuer string
	formPost                bool
}

func run(ctx context.Context, addr, redisURL, file string, flags signInFlags) error {
	listener, err := listen(addr)
	if err != nil {
		return err
	}
	defer listener.Close()

	store, secrets, closeStore, err := openStore(ctx, redisURL)
	if err != nil {
		return err
	}
	defer closeStore()

	db, err := openDatabase(file)
	if err != nil {
		return err
	}
	defer db.Close()

	host := listener.Addr().(*net.TCPAddr)
	plainHTTP := host.IP.IsLoopback() // for development; a shop that others can reach is behind https
	s, err := newShop(ctx, db, store, secrets, plainHTTP)
	if err != nil {
		return err
	}
	if flags.url == "" && plainHTTP {
		flags.url = "http://" + host.String()
	}
	if err := s.open(ctx, flags, plainHTTP); err != nil {
		return err
	}
	go s.guests.Run(ctx, time.Minute) // finishes claims that a crash left half done

	if plainHTTP {
		fmt.Printf("Open http://%s\n", host)
	} else {
		fmt.Printf("Listening on %s. Cookies are Secure, so put https in front.\n", host)
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

func listen(addr string) (net.Listener, error) {
	if addr != "" {
		return net.Listen("tcp", addr)
	}
	listener, err := net.Listen("tcp", usualAddr)
	if errors.Is(err, syscall.EADDRINUSE) {
		fmt.Println("Port 8080 is taken, so this uses a free one.")
		return net.Listen("tcp", "127.0.0.1:0")
	}
	return listener, err
}

const secretVar = "GUEST_SECRETS"

// openStore opens the store of the guests, and the secrets that sign their cookies.
func openStore(ctx context.Context, redisURL string) (store guest.Store, secrets [][]byte, closeStore func() error, err error) {
	if redisURL == "" {
		// The guests end with this process, so their secret may as well. Guests that are kept need one that is.
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
