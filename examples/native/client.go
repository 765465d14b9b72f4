package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
)

// A client calls the server as the visitor of this device. The visitor's token is in a file; in an
// app on a phone it would be in the keychain.
type client struct {
	server string
	file   string // of the token
	user   string // the user who is signed in, "" for a guest; in your app a session or an access token
	http   http.Client

	first sync.Mutex // held by a call that has no token
	token sync.Mutex // guards the file
}

// call sends the token, and keeps the one that the response brings, if it brings one. A call
// without a token goes alone: otherwise each of several parallel calls would create a guest, and
// the app can keep only one.
func (c *client) call(method, path string) (status int, body string, err error) {
	if c.user == "" && c.load() == "" {
		c.first.Lock()
		defer c.first.Unlock()
	}
	req, err := http.NewRequest(method, c.server+path, nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Guest-Token", c.load())
	req.Header.Set("Demo-User", c.user)
	res, err := c.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	if token, ok := res.Header["Guest-Token"]; ok {
		if err := c.save(token[0]); err != nil {
			return 0, "", err
		}
	}
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, strings.TrimSpace(string(text)), err
}

// claim claims the guest for the user who has signed in. An answer of 200 ends the guest, and
// brings an empty token. After any other answer the guest stays: call again, at the latest when the
// app starts.
func (c *client) claim() error {
	status, body, err := c.call("POST", "/claim")
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%d %s", status, body)
	}
	return nil
}

func (c *client) load() string {
	c.token.Lock()
	defer c.token.Unlock()
	token, _ := os.ReadFile(c.file) // none yet, or not readable: a new guest
	return string(token)
}

// save keeps a token. An empty one means that the guest has ended.
func (c *client) save(token string) error {
	c.token.Lock()
	defer c.token.Unlock()
	if token == "" {
		return os.RemoveAll(c.file)
	}
	if err := os.WriteFile(c.file+".new", []byte(token), 0o600); err != nil {
		return err
	}
	return os.Rename(c.file+".new", c.file) // never a part of a token
}
