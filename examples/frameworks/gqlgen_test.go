package frameworks

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/transport"

	"github.com/guestkit/guest/examples/frameworks/graph"
)

// graphQL sends a query and checks the data, or the error.
func (b *browser) graphQL(query, want string) *http.Response {
	b.Helper()
	request, err := json.Marshal(map[string]string{"query": query})
	if err != nil {
		b.Fatal(err)
	}
	return b.answers("POST", "/query", "application/json", string(request), 200, want)
}

func TestGQLGen(t *testing.T) {
	guests := newGuests(t)
	b := newBrowser(t, GQLGen(guests))
	b.graphQL(`mutation { add(sku: "tea") }`, `{"data":{"add":1}}`)
	b.graphQL(`mutation { tea: add(sku: "tea") cup: add(sku: "cup") }`, `{"data":{"tea":2,"cup":1}}`)
	b.graphQL(`mutation { signIn(user: "ann", password: "rose") }`,
		`{"errors":[{"message":"wrong password","path":["signIn"],"locations":[{"line":1,"column":12}]}],"data":null}`)
	b.graphQL(`{ amount(sku: "tea") }`, `{"data":{"amount":2}}`)

	// In one request a mutation after the sign-in is the member's.
	b.graphQL(`mutation { signIn(user: "ann", password: "tulip") add(sku: "tea") }`, `{"data":{"signIn":true,"add":3}}`)
	if left := b.cookies(); len(left) != 0 {
		t.Errorf("cookies after the login: %v", left)
	}
	hasCart(t, guests, "ann", "tea", 3)
	hasCart(t, guests, "ann", "cup", 1)
	b.graphQL(`{ amount(sku: "tea") }`, `{"data":{"amount":0}}`)
	if now := b.cookies(); len(now) != 1 {
		t.Errorf("cookies of the next guest: %v", now)
	}
}

// gqlgen resolves the fields of a query in parallel.
func TestGQLGenParallelResolvers(t *testing.T) {
	b := newBrowser(t, GQLGen(newGuests(t)))
	var query, want []string
	for i := range 20 {
		b.graphQL(fmt.Sprintf(`mutation { add(sku: "%d") }`, i), `{"data":{"add":1}}`)
		query = append(query, fmt.Sprintf(`a%d: amount(sku: "%d")`, i, i))
		want = append(want, fmt.Sprintf(`"a%d":1`, i))
	}
	b.graphQL("{"+strings.Join(query, " ")+"}", `{"data":{`+strings.Join(want, ",")+"}}")

	none := strings.NewReplacer(`:1`, `:0`).Replace(strings.Join(want, ","))
	b = newBrowser(t, GQLGen(newGuests(t)))
	b.graphQL("{"+strings.Join(query, " ")+"}", `{"data":{`+none+"}}")
	if got := b.cookies(); len(got) != 1 {
		t.Errorf("a new visitor's cookies: %v", got)
	}
}

// Over SSE gqlgen sends the header before it resolves. The claim is done, and the cookie that stays
// has no effect.
func TestGQLGenClaimOverSSE(t *testing.T) {
	guests := newGuests(t)
	server := handler.New(graph.NewExecutableSchema(graph.Config{Resolvers: &resolver{guests}}))
	server.AddTransport(transport.SSE{})
	mux := http.NewServeMux()
	mux.Handle("/sse", server)
	mux.Handle("/", GQLGen(guests))
	b := newBrowser(t, guests.Middleware(mux))
	b.graphQL(`mutation { add(sku: "tea") }`, `{"data":{"add":1}}`)
	b.graphQL(`mutation { add(sku: "tea") }`, `{"data":{"add":2}}`)

	req, err := http.NewRequestWithContext(t.Context(), "POST", b.url+"/sse",
		strings.NewReader(`{"query":"mutation { signIn(user: \"ann\", password: \"tulip\") }"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "text/event-stream")
	res, err := b.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if text, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(text), `{"data":{"signIn":true}}`) {
		t.Errorf("%s, %v", text, err)
	}
	hasCart(t, guests, "ann", "tea", 2)
	if left := b.cookies(); len(left) != 1 {
		t.Errorf("cookies %v: SSE clears them; say so in docs/frameworks.md", left)
	}
	b.graphQL(`mutation { add(sku: "tea") }`, `{"data":{"add":1}}`) // the successor's
	hasCart(t, guests, "ann", "tea", 2)
}
