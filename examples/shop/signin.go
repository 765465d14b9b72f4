package main

import (
	"cmp"
	"errors"
	"log/slog"
	"net/http"

	"github.com/guestkit/guest"
)

// An arrival is what every way of signing in comes to.
type arrival struct {
	user             User
	isNew            bool   // the account is
	ticket, audience string // of the guest that started, unless it is sure to be this browser's
	next             string // the page to go on with; "" if the request says so
	choice           choice // of carts, if the visitor was asked
}

// welcome signs the user in and binds what the guest has kept to the account. It does not matter to
// a login whether that works at once: what is left is bound by itself, with one of the next
// requests.
func (s *shop) welcome(w http.ResponseWriter, r *http.Request, a arrival) {
	if err := s.sessions.start(w, r, a.user); err != nil {
		s.notSignedIn(w, r, err)
		return
	}
	if err := s.known.add(w, r, a.user); err != nil {
		slog.WarnContext(r.Context(), "the browser is not known next time", "error", err)
	}
	here := guest.FromContext(r.Context()).GuestID()
	receipt, err := s.claim(w, r, a, a.choice.options()...)
	if err != nil {
		slog.WarnContext(r.Context(), "guest not claimed", "pending", receipt.Pending, "error", err)
	}
	lines := []string{"Welcome back!"}
	if a.isNew {
		lines = []string{"Welcome to Windowsill!"}
	}
	if receipt.Pending && receipt.GuestID != here { // this browser has no cookie to try again with
		lines = append(lines, strandedText)
	} else {
		lines = append(lines, a.choice.inWords(receipt)...)
	}
	s.cookies.flash(w, append(lines, whyNot(err)...)...)
	http.Redirect(w, r, cmp.Or(a.next, next(r)), http.StatusSeeOther)
}

// notSignedIn is for a login that has failed after its user had shown who they are.
func (s *shop) notSignedIn(w http.ResponseWriter, r *http.Request, err error) {
	if !errors.Is(err, errProofVoid) {
		fail(w, r, err)
		return
	}
	s.tell(w, r, http.StatusConflict, note{
		Heading: "Not signed in",
		Text:    "How to get into this account has changed while you were about to. Nothing else has: sign in once more.",
		Again:   true,
	})
}

func (s *shop) claim(w http.ResponseWriter, r *http.Request, a arrival, opts ...guest.ClaimOption) (guest.Receipt, error) {
	if a.ticket == "" {
		return s.guests.Claim(w, r, a.user.ID, opts...)
	}
	return s.guests.ClaimTicket(w, r, a.ticket, a.audience, a.user.ID, opts...)
}

func (s *shop) signUp(w http.ResponseWriter, r *http.Request) {
	if s.passwordLimited(w, r) {
		return
	}
	user, err := s.accounts.signUp(r.Context(), r.FormValue("email"), r.FormValue("password"))
	if err != nil {
		s.tryAgain(w, r, signUpForm, err)
		return
	}
	s.welcome(w, r, arrival{user: user, isNew: true})
}

func (s *shop) logIn(w http.ResponseWriter, r *http.Request) {
	if s.passwordLimited(w, r) {
		return
	}
	user, err := s.accounts.logIn(r.Context(), r.FormValue("email"), r.FormValue("password"))
	if err != nil {
		s.tryAgain(w, r, logInForm, err)
		return
	}
	if r.FormValue("ask") != "" && s.bothHaveCarts(r, user) {
		s.ask(w, r, user)
		return
	}
	s.welcome(w, r, arrival{user: user})
}

// passwordLimited is for both forms with a password: each hashes one, and tells something about an
// account.
func (s *shop) passwordLimited(w http.ResponseWriter, r *http.Request) bool {
	email, _ := normalEmail(r.FormValue("email"))
	return s.limited(w, r, passwordLimits, email, s.known.browser(r, email))
}

// logOut ends the session. The guest cookie went when the guest was claimed, so the next visitor
// with this browser is a new guest.
func (s *shop) logOut(w http.ResponseWriter, r *http.Request) {
	if err := s.sessions.end(w, r); err != nil {
		fail(w, r, err)
		return
	}
	// What the browser has kept all the same, such as pages kept for the back button. Not
	// "cookies": that takes those of all subdomains and of the domain above, the next guest's too.
	w.Header().Set("Clear-Site-Data", `"cache"`)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// A signInForm is the page to sign up or to log in.
type signInForm struct {
	Heading, Action   string
	New               bool
	Next              string // the page to go on with
	Email, Phone      string
	Mistake           mistake
	Link, Code, OAuth bool // the other ways that are open
}

var (
	signUpForm = signInForm{Heading: "Sign up", Action: "/signup", New: true}
	logInForm  = signInForm{Heading: "Log in", Action: "/login"}
)

func (s *shop) showSignUp(w http.ResponseWriter, r *http.Request) { s.showForm(w, r, signUpForm) }
func (s *shop) showLogIn(w http.ResponseWriter, r *http.Request)  { s.showForm(w, r, logInForm) }

func (s *shop) showForm(w http.ResponseWriter, r *http.Request, form signInForm) {
	form.Next, form.Link, form.Code, form.OAuth = next(r), s.mail != nil, s.sms != nil, s.oauth != nil
	status := http.StatusOK
	if form.Mistake.Text != "" {
		status = http.StatusUnprocessableEntity
	}
	p := s.newPage(w, r, form.Heading)
	p.Body = form
	if s.oauth != nil {
		p.FormsTo = s.oauth.origin()
	}
	p.render(w, r, status, "signin")
}

// tryAgain shows the form again, with what was wrong and what was typed, but for the password.
func (s *shop) tryAgain(w http.ResponseWriter, r *http.Request, form signInForm, err error) {
	var m *mistake
	if !errors.As(err, &m) {
		fail(w, r, err)
		return
	}
	form.Email, form.Phone, form.Mistake = r.FormValue("email"), r.FormValue("phone"), *m
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
