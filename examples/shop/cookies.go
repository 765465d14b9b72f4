package main

import (
	"net/http"
	"net/url"
	"strings"
	"time"
)

// cookies are those of the shop itself; the guest's is the business of package guest.
type cookies struct{ insecure bool }

func (c cookies) set(w http.ResponseWriter, name, value string, life time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: c.name(name), Value: value, MaxAge: int(life / time.Second),
		Path: "/", HttpOnly: true, Secure: !c.insecure, SameSite: http.SameSiteLaxMode,
	})
}

func (c cookies) get(r *http.Request, name string) string {
	cookie, err := r.Cookie(c.name(name))
	if err != nil {
		return ""
	}
	return cookie.Value
}

func (c cookies) clear(w http.ResponseWriter, name string) { c.set(w, name, "", -time.Second) }

// name adds the prefix that keeps subdomains from setting the cookie; browsers take it over https
// only.
func (c cookies) name(name string) string {
	if c.insecure {
		return name
	}
	return "__Host-" + name
}

const flashCookie = "flash"

// flash keeps these lines for the next page that the visitor sees.
func (c cookies) flash(w http.ResponseWriter, lines ...string) {
	c.set(w, flashCookie, url.QueryEscape(strings.Join(lines, "\n")), time.Minute)
}

// takeFlash returns the lines kept by flash, once.
func (c cookies) takeFlash(w http.ResponseWriter, r *http.Request) []string {
	text, err := url.QueryUnescape(c.get(r, flashCookie))
	if text == "" || err != nil {
		return nil
	}
	c.clear(w, flashCookie)
	return strings.Split(text, "\n")
}
