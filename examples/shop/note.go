package main

import "net/http"

// A note is a page that only says something.
type note struct {
	Heading, Text string
	Again         bool // offers to sign in once more
	Outbox        bool // the mail can be read here
}

func (s *shop) tell(w http.ResponseWriter, r *http.Request, status int, n note) {
	p := s.newPage(w, r, n.Heading)
	p.Body = n
	p.render(w, r, status, "note")
}

// showOutbox shows what was sent, as long as nothing is really sent.
func (s *shop) showOutbox(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Referrer-Policy", "no-referrer")
	p := s.newPage(w, r, "Outbox")
	p.Body = s.outbox.latest()
	p.render(w, r, http.StatusOK, "outbox")
}
