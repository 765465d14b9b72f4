// Command native is a server, and an app that has no cookies, such as one on a phone: it keeps the
// guest's token itself.
//
//	go run ./examples/native serve
//	go run ./examples/native add tea
//	go run ./examples/native add tea
//	go run ./examples/native login ann
//	go run ./examples/native show tea
//	go run ./examples/native logout
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"github.com/guestkit/guest"
)

func main() {
	addr := flag.String("addr", "localhost:8080", "where the server is")
	secret := flag.String("secret", "change me: 32 random bytes or more", "the server's")
	dir := flag.String("dir", filepath.Join(os.TempDir(), "guest-native"), "where the app keeps what it knows")
	flag.Parse()
	if err := run(*addr, *secret, *dir, flag.Arg(0), flag.Arg(1)); err != nil {
		log.Fatal(err)
	}
}

func run(addr, secret, dir, command, argument string) error {
	if command == "serve" {
		return serve(addr, secret)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	session := filepath.Join(dir, "user")
	user, _ := os.ReadFile(session) // none: not signed in
	c := &client{server: "http://" + addr, file: filepath.Join(dir, "token"), user: string(user)}
	switch command {
	case "add":
		return show(c.call("POST", "/cart/"+argument))
	case "show":
		return show(c.call("GET", "/cart/"+argument))
	case "login":
		c.user = argument
		if err := os.WriteFile(session, []byte(argument), 0o600); err != nil {
			return err
		}
		if err := c.claim(); err != nil {
			fmt.Println("the claim continues later:", err) // no reason to fail the login
		}
		fmt.Println("hello", argument)
		return nil
	case "logout":
		return os.RemoveAll(session)
	}
	return fmt.Errorf("no command %q: use serve, add, show, login or logout", command)
}

func serve(addr, secret string) error {
	guests, err := guest.New(config(secret))
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println("serving on", ln.Addr())
	return http.Serve(ln, app(guests))
}

func show(status int, body string, err error) error {
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%d %s", status, body)
	}
	fmt.Println(body)
	return nil
}
