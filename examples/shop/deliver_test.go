package main

import (
	"io"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
)

// A letterBox is a mail server that keeps what it gets.
type letterBox struct{ letters chan string }

func (b letterBox) NewSession(*smtp.Conn) (smtp.Session, error) { return b, nil }
func (b letterBox) Mail(string, *smtp.MailOptions) error        { return nil }
func (b letterBox) Rcpt(string, *smtp.RcptOptions) error        { return nil }
func (b letterBox) Reset()                                      {}
func (b letterBox) Logout() error                               { return nil }

func (b letterBox) Data(r io.Reader) error {
	letter, err := io.ReadAll(r)
	b.letters <- string(letter)
	return err
}

// A link by a real mail server comes whole: the ticket is a long line.
func TestMailOverSMTP(t *testing.T) {
	box := letterBox{make(chan string, 1)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := smtp.NewServer(box)
	server.Domain = "localhost"
	go server.Serve(listener)
	defer server.Close()

	s := newTrouble(t)
	if s.mail, err = newSMTPMailer(listener.Addr().String(), "shop@windowsill.example"); err != nil {
		t.Fatal(err)
	}
	here := s.client(t)
	here.get("/")
	here.post("/cart/fern/more")
	here.shows(here.post("/link", "email", ada), "Look into your mail")
	letter, err := mail.ReadMessage(strings.NewReader(<-box.letters))
	if err != nil {
		t.Fatal(err)
	}
	if to, from := letter.Header.Get("To"), letter.Header.Get("From"); !strings.Contains(to, ada) || !strings.Contains(from, "shop@windowsill.example") {
		t.Errorf("from %q to %q", from, to)
	}
	text, err := io.ReadAll(quotedprintable.NewReader(letter.Body))
	if err != nil {
		t.Fatal(err)
	}
	link, ticket, _ := strings.Cut(linkInMail.FindString(string(text)), "#")
	there := s.client(t)
	there.shows(there.get(link), "You are about to sign in", ada)
	token, _, _ := strings.Cut(strings.TrimPrefix(link[strings.Index(link, "token="):], "token="), "&")
	there.shows(there.openLink(token, ticket), "Your item moved to your account.", ada)

	server.Close()
	here.refuses(500, "POST", "/link", "Something went wrong", "email", ada)
	for _, addr := range []string{"localhost", "localhost:smtp", ""} {
		if _, err := newSMTPMailer(addr, ""); err == nil {
			t.Errorf("%q is taken for the address of a server", addr)
		}
	}
}
