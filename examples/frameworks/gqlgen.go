package frameworks

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/transport"

	"github.com/guestkit/guest"
	"github.com/guestkit/guest/examples/frameworks/graph"
)

// GQLGen wraps the mux that has the GraphQL server. A resolver has only a context, which is enough.
func GQLGen(guests *guest.Manager) http.Handler {
	server := handler.New(graph.NewExecutableSchema(graph.Config{Resolvers: &resolver{guests}}))
	server.AddTransport(transport.POST{})
	mux := http.NewServeMux()
	mux.Handle("/query", server)
	return guests.Middleware(mux)
}

type resolver struct{ guests *guest.Manager }

func (r *resolver) Query() graph.QueryResolver       { return r }
func (r *resolver) Mutation() graph.MutationResolver { return r }

func (r *resolver) Amount(ctx context.Context, sku string) (int, error) {
	n, err := Cart.Get(ctx, sku)
	return int(n), err
}

func (r *resolver) Add(ctx context.Context, sku string) (int, error) {
	n, err := Cart.Add(ctx, sku, 1)
	return int(n), err
}

func (r *resolver) SignIn(ctx context.Context, user, password string) (bool, error) {
	user, ok := signIn(user, password)
	if !ok {
		return false, errors.New("wrong password")
	}
	if _, err := r.guests.ClaimContext(ctx, user); err != nil {
		slog.WarnContext(ctx, "the guest was not claimed", "error", err) // no reason to fail the login
	}
	return true, nil
}
