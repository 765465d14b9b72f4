package frameworks

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/guestkit/guest"
)

// Huma wraps the router under the API. An operation has the visitor in its context.
func Huma(guests *guest.Manager) http.Handler {
	mux := http.NewServeMux()
	api := humago.New(mux, huma.DefaultConfig("Shop", "1.0.0"))
	huma.Post(api, "/cart/{sku}", addItem)
	huma.Get(api, "/cart/{sku}", getItem)
	huma.Post(api, "/login", func(ctx context.Context, in *login) (*greeting, error) {
		user, ok := signIn(in.User, in.Password)
		if !ok {
			return nil, huma.Error401Unauthorized("wrong password")
		}
		if _, err := guests.ClaimContext(ctx, user); err != nil {
			slog.WarnContext(ctx, "the guest was not claimed", "error", err) // no reason to fail the login
		}
		return &greeting{Body: "hello " + user}, nil
	})
	return guests.Middleware(mux)
}

type item struct {
	SKU string `path:"sku"`
}

type amount struct{ Body int64 }

type login struct {
	User     string `query:"user"` // in your app it would be in the body
	Password string `query:"password"`
}

type greeting struct{ Body string }

func addItem(ctx context.Context, in *item) (*amount, error) {
	n, err := Cart.Add(ctx, in.SKU, 1)
	if err != nil {
		return nil, huma.Error503ServiceUnavailable("the cart is away", err)
	}
	return &amount{Body: n}, nil
}

func getItem(ctx context.Context, in *item) (*amount, error) {
	n, err := Cart.Get(ctx, in.SKU)
	if err != nil {
		return nil, huma.Error503ServiceUnavailable("the cart is away", err)
	}
	return &amount{Body: n}, nil
}
