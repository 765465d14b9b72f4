package frameworks

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/guestkit/guest"
)

// The procedures, as protoc-gen-connect-go would name them.
const (
	procedureAdd    = "/shop.v1.CartService/Add"
	procedureItems  = "/shop.v1.CartService/Items"
	procedureSignIn = "/shop.v1.CartService/SignIn"
)

// Connect wraps the mux that has the services. An RPC has the visitor in its context, whether by
// cookie or by header.
func Connect(guests *guest.Manager) http.Handler {
	s := &cartService{guests}
	mux := http.NewServeMux()
	mux.Handle(procedureAdd, connect.NewUnaryHandlerSimple(procedureAdd, s.Add))
	mux.Handle(procedureItems, connect.NewServerStreamHandlerSimple(procedureItems, s.Items))
	mux.Handle(procedureSignIn, connect.NewUnaryHandlerSimple(procedureSignIn, s.SignIn))
	return guests.Middleware(mux)
}

type cartService struct{ guests *guest.Manager }

func (s *cartService) Add(ctx context.Context, sku *wrapperspb.StringValue) (*wrapperspb.Int64Value, error) {
	n, err := Cart.Add(ctx, sku.Value, 1)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	return wrapperspb.Int64(n), nil
}

// Items sends what the cart holds, one by one.
func (s *cartService) Items(ctx context.Context, _ *emptypb.Empty, stream *connect.ServerStream[wrapperspb.StringValue]) error {
	items, err := Cart.All(ctx)
	if err != nil {
		return connect.NewError(connect.CodeUnavailable, err)
	}
	for sku := range items {
		if err := stream.Send(wrapperspb.String(sku)); err != nil {
			return err
		}
	}
	return nil
}

// SignIn takes "user password".
func (s *cartService) SignIn(ctx context.Context, in *wrapperspb.StringValue) (*emptypb.Empty, error) {
	name, password, _ := strings.Cut(in.Value, " ")
	user, ok := signIn(name, password)
	if !ok {
		return nil, connect.NewError(connect.CodeUnauthenticated, errors.New("wrong password"))
	}
	if _, err := s.guests.ClaimContext(ctx, user); err != nil {
		slog.WarnContext(ctx, "the guest was not claimed", "error", err) // no reason to fail the login
	}
	return &emptypb.Empty{}, nil
}
