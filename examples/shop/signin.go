package main

import (
	"errors"
	"log/slog"
	"net/http"
)

// welcome signs the user in and binds what this browser's guest has kept to the account. It does not matter to a
// login whether that works at once: what is left is bound by itself, with one of the next requests.
func (s *shop) welcome(w http.ResponseWriter, r *http.Request, user User, greeting string) {
	if err := s.sessions.start(w, r, user); err != nil {
		fail(w, r, err)
		return
	}
	receipt, err := s.guests.Claim(w, r, user.ID)
	if err != nil {
		slog.WarnContext(r.Context(), "guest not claimed", "pending", receipt.Pending, "error", err)
	}
	s.cookies.flash(w, append([]string{greeting}, inWords(receipt)...)...)
	http.Redirect(w, r, next(r), http.StatusSeeOther)
}

func (s *shop) signUp(w http.ResponseWriter, r *http.Request) {
	user, err := s.accounts.signUp(r.Context(), r.FormValue("email"), r.FormValue("password"))
	if err != nil {
		s.tryAgain(w, r, signUpForm, err)
		return
	}
	s.welcome(w, r, user, "Welcome to Windowsill!")
}

func (s *shop) logIn(w http.ResponseWriter, r *http.Request) {
	user, err := s.accounts.logIn(r.Context(), r.FormValue("email"), r.FormValue("password"))
	if err != nil {
		s.tryAgain(w, r, logInForm, err)
		return
	}
	s.welcome(w, r, user, "Welcome back!")
}

// logOut ends the session. The guest cookie went when the guest was claimed, so whoever comes next with this browser
// is a new guest.
func (s *shop) logOut(w http.ResponseWriter, r *http.Request) {
	if err := s.sessions.end(w, r); err != nil {
		fail(w, r, err)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// A signInForm is the page to sign up or to log in.
type signInForm struct {
	Heading string
	New     bool
	Next    string // the page to go on with
	Email   string
	Mistake mistake
}

var (
	signUpForm = signInForm{Heading: "Sign up", New: true}
	logInForm  = signInForm{Heading: "Log in"}
)

func (s *shop) showSignUp(w http.ResponseWriter, r *http.Request) { s.showForm(w, r, signUpForm) }
func (s *shop) showLogIn(w http.ResponseWriter, r *http.Request)  { s.showForm(w, r, logInForm) }

func (s *shop) showForm(w http.ResponseWriter, r *http.Request, form signInForm) {
	form.Next = next(r)
	status := http.StatusOK
	if form.Mistake.Text != "" {
		status = http.StatusUnprocessableEntity
	}
	p := s.newPage(w, r, form.Heading)
	p.Body = form
	p.render(w, r, status, "signin")
}

// tryAgain shows the form again, with what was wrong and what was typed, but for the password.
func (s *shop) tryAgain(w http.ResponseWriter, r *http.Request, form signInForm, err error) {
	var m *mistake
	if !errors.As(err, &m) {
		fail(w, r, err)
		return
	}
	form.Email, form.Mistake = r.FormValue("email"), *m
	s.showForm(w, r, form)
}

// next is the page to go on with after signing in.
func next(r *http.Request) string {
	switch to := r.FormValue("next"); to {
	case "/cart", "/orders":
		return to
	}
	return "/"
}
