package main

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/guestkit/guest"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed static/*
var staticFiles embed.FS

// A page is what every template sees.
type page struct {
	kept
	Title string
	Path  string
	User  User
	Lines []Line   // of the cart
	Flash []string // what happened, said once
	Down  bool     // the visitor's data cannot be read
	Body  any      // what only this page shows

	Replaced string // why the visitor starts again with nothing
	Outbox   bool   // there is one
	FormsTo  string // where forms may lead but here
}

const replacedText = "What this browser kept went to the account that was signed in to with it elsewhere, or had grown too old. Log in to see what your account has."

// newPage collects what every page shows. Without the guest data the page is still a page: it says
// so.
func (s *shop) newPage(w http.ResponseWriter, r *http.Request, title string) *page {
	data, err := load(r.Context())
	if err != nil {
		slog.WarnContext(r.Context(), "guest data cannot be read", "error", err)
	}
	replaced := ""
	if guest.FromContext(r.Context()).Replaced() { // known after reading
		replaced = replacedText
	}
	return &page{
		kept:  data,
		Title: title,
		Path:  r.URL.Path,
		User:  userOf(r),
		Lines: linesOf(data.Cart),
		Flash: s.cookies.takeFlash(w, r),
		Down:  err != nil,

		Replaced: replaced,
		Outbox:   s.outbox != nil,
	}
}

// A card shows a plant to a visitor.
type card struct {
	*Plant
	Amount int64 // in the cart
	Wished bool
	Back   string // the page that its buttons lead back to
}

func (p *page) card(plant *Plant) card {
	_, wished := p.Wishes[plant.SKU]
	return card{plant, p.Cart[plant.SKU], wished, p.Path}
}

// wished are the cards of the wish list, the latest wish first.
func (p *page) wished() (cards []card) {
	for i := range catalog {
		if c := p.card(&catalog[i]); c.Wished {
			cards = append(cards, c)
		}
	}
	slices.SortStableFunc(cards, func(a, b card) int { return p.Wishes[b.SKU].Compare(p.Wishes[a.SKU]) })
	return cards
}

var views = parseViews("products", "cart", "wishes", "signin", "orders", "link", "code", "note", "outbox", "choose")

func parseViews(names ...string) map[string]*template.Template {
	base := template.Must(template.New("layout.html").Funcs(template.FuncMap{
		"asset":  asset,
		"count":  count,
		"total":  total,
		"plural": plural,
		"linked": linked,
	}).ParseFS(templateFiles, "templates/layout.html", "templates/icons.html"))
	views := map[string]*template.Template{}
	for _, name := range names {
		views[name] = template.Must(template.Must(base.Clone()).ParseFS(templateFiles, "templates/"+name+".html"))
	}
	return views
}

var urls = regexp.MustCompile(`https?://\S+`)

// linked is a text whose addresses can be clicked, as a mail program shows it.
func linked(text string) template.HTML {
	text = template.HTMLEscapeString(text)
	text = urls.ReplaceAllString(text, `<a href="$0">$0</a>`)
	return template.HTML(strings.ReplaceAll(text, "\n", "<br>"))
}

// render sends a page, whole or not at all.
func (p *page) render(w http.ResponseWriter, r *http.Request, status int, view string) {
	var b bytes.Buffer
	if err := views[view].Execute(&b, p); err != nil {
		fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self'; connect-src 'self'; form-action 'self' "+p.FormsTo+"; base-uri 'none'; frame-ancestors 'none'")
	w.WriteHeader(status)
	b.WriteTo(w)
}

// fail is for what the shop cannot do without: its own database.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	slog.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	http.Error(w, "Something went wrong. Please try again in a moment.", http.StatusInternalServerError)
}

// back returns to the page that a form was on, at the plant that it was about.
func back(w http.ResponseWriter, r *http.Request) {
	to := r.FormValue("back")
	if !slices.Contains([]string{"/", "/cart", "/wishes", "/orders", "/login", "/signup", "/code"}, to) {
		to = "/"
	}
	if sku := r.PathValue("sku"); sku != "" {
		to += "#" + sku
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// asset is the address of a static file; it changes with the file, so that browsers may keep it for
// long.
func asset(name string) (string, error) {
	data, err := staticFiles.ReadFile("static/" + name)
	hash := sha256.Sum256(data)
	return fmt.Sprintf("/static/%s?v=%x", name, hash[:4]), err
}

func assets() http.Handler {
	files := http.FileServerFS(staticFiles)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		files.ServeHTTP(w, r)
	})
}
