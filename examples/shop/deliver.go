package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/wneessen/go-mail"
)

// A mailer sends a mail of plain text.
type mailer interface {
	Mail(ctx context.Context, to, subject, text string) error
}

// A texter sends an SMS: the adapter of a provider is one method.
type texter interface {
	Text(ctx context.Context, number, text string) error
}

// smtpMailer sends by a mail server.
type smtpMailer struct {
	client *mail.Client
	from   string
}

// newSMTPMailer uses TLS wherever the server offers it, and demands it before a password is sent.
func newSMTPMailer(addr, from string) (*smtpMailer, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("-smtp: %w", err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("-smtp: the port is a number, not %q", port)
	}
	options := []mail.Option{mail.WithPort(number), mail.WithTLSPolicy(mail.TLSOpportunistic), mail.WithTimeout(10 * time.Second)}
	if user := os.Getenv("SMTP_USER"); user != "" {
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory), mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover),
			mail.WithUsername(user), mail.WithPassword(os.Getenv("SMTP_PASSWORD")))
	}
	client, err := mail.NewClient(host, options...)
	if err != nil {
		return nil, fmt.Errorf("-smtp: %w", err)
	}
	return &smtpMailer{client, from}, nil
}

func (m *smtpMailer) Mail(ctx context.Context, to, subject, text string) error {
	msg := mail.NewMsg()
	if err := msg.FromFormat("Windowsill", m.from); err != nil {
		return err
	}
	if err := msg.To(to); err != nil {
		return err
	}
	msg.Subject(subject)
	msg.SetDate()
	msg.SetMessageID()
	msg.SetBodyString(mail.TypeTextPlain, text)
	return m.client.DialAndSendWithContext(ctx, msg)
}

// A Message is a mail or an SMS.
type Message struct {
	To, Subject, Text string
	At                time.Time
}

// An outbox keeps what a development shop would send, for all to read.
type outbox struct {
	mu       sync.Mutex
	messages []Message
}

const outboxSize = 100

func (o *outbox) Mail(_ context.Context, to, subject, text string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.messages = append(o.messages[max(0, len(o.messages)-outboxSize+1):], Message{to, subject, text, time.Now()})
	return nil
}

func (o *outbox) Text(ctx context.Context, number, text string) error {
	return o.Mail(ctx, number, "SMS", text)
}

// latest are the messages, the newest first.
func (o *outbox) latest() []Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := slices.Clone(o.messages)
	slices.Reverse(all)
	return all
}
