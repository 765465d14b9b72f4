package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
)

// A client calls the server as the visitor of this device. What makes it the visitor is a token in a file; in an app on
// a phone, in its keychain.
type client struct {
	server string
	file   string // of the token
	user   string // who is signed in, "" for a guest; in your app a session or an access token
	http   http.Client

	first sync.Mutex // held by a call that has no token
	token sync.Mutex // guards the file
}

// call sends the token, and keeps the one that the response brings, if it brings one. A call without a token goes alone:
// each of several at once would begin a guest of its own, and the app can only go on with one.
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

// claim brings the guest into the account of the user that has signed in. With an answer of 200 the guest is no more, and
// the response said so by an empty token. With any other it stays: call again, at the latest when the app starts.
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
	token, _ := os.ReadFile(c.file) // none yet, or none to be had: a new guest
	return string(token)
}

// save keeps a token; an empty one says that the guest is no more.
func (c *client) save(token string) error {
	c.token.Lock()
	defer c.token.Unlock()
	if token == "" {
		return os.RemoveAll(c.file)
	}
	if err := os.WriteFile(c.file+".new", []byte(token), 0o600); err != nil {
		return err
	}
	return os.Rename(c.file+".new", c.file) // never half a token
}
