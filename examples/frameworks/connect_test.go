package frameworks

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type (
	text  = wrapperspb.StringValue
	empty = emptypb.Empty
)

func add(b *browser, opts ...connect.ClientOption) *connect.Client[text, wrapperspb.Int64Value] {
	return connect.NewClient[text, wrapperspb.Int64Value](b, b.url+procedureAdd, opts...)
}

func TestConnect(t *testing.T) {
	for name, opts := range map[string][]connect.ClientOption{
		"binary": nil,
		"JSON":   {connect.WithProtoJSON()},
	} {
		t.Run(name, func(t *testing.T) {
			guests := newGuests(t)
			b := newBrowser(t, Connect(guests))
			for i := range int64(2) {
				res, err := add(b, opts...).CallUnary(t.Context(),
					connect.NewRequest(wrapperspb.String("tea")))
				if err != nil || res.Msg.Value != i+1 {
					t.Fatalf("%v, %v", res, err)
				}
			}
			if got := items(t, b, opts...); !slices.Equal(got, []string{"tea"}) {
				t.Errorf("the stream says %v", got)
			}
			signIn := connect.NewClient[text, empty](b, b.url+procedureSignIn, opts...)
			_, err := signIn.CallUnary(t.Context(),
				connect.NewRequest(wrapperspb.String("ann rose")))
			if connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("wrong password: %v", err)
			}
			if got := items(t, b, opts...); !slices.Equal(got, []string{"tea"}) {
				t.Errorf("after a wrong password the stream says %v", got)
			}
			if _, err = signIn.CallUnary(t.Context(),
				connect.NewRequest(wrapperspb.String("ann tulip"))); err != nil {
				t.Error(err)
			}
			if left := b.cookies(); len(left) != 0 {
				t.Errorf("cookies after the login: %v", left)
			}
			hasCart(t, guests, "ann", "tea", 2)
			if got := items(t, b, opts...); len(got) != 0 {
				t.Errorf("the next guest has %v", got)
			}
			if now := b.cookies(); len(now) != 1 {
				t.Errorf("cookies of the next guest: %v", now)
			}
		})
	}
}

func items(t *testing.T, b *browser, opts ...connect.ClientOption) (skus []string) {
	t.Helper()
	client := connect.NewClient[empty, text](b, b.url+procedureItems, opts...)
	stream, err := client.CallServerStream(t.Context(), connect.NewRequest(&empty{}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for stream.Receive() {
		skus = append(skus, stream.Msg().Value)
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	return skus
}

// The first response of a new visitor may be an error. It carries the cookie, too.
func TestConnectErrorCarriesTheCookie(t *testing.T) {
	b := newBrowser(t, Connect(newGuests(t)))
	signIn := connect.NewClient[text, empty](b, b.url+procedureSignIn)
	if _, err := signIn.CallUnary(t.Context(),
		connect.NewRequest(wrapperspb.String("ann rose"))); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("wrong password: %v", err)
	}
	if got := b.cookies(); len(got) != 1 {
		t.Errorf("cookies %v", got)
	}
}

// After the first message of a stream the header has been sent. The claim is done, and the cookie
// that stays has no effect.
func TestConnectClaimInAStream(t *testing.T) {
	for name, tt := range map[string]struct {
		late    bool
		cookies int
	}{
		"before the first message": {false, 0},
		"after it":                 {true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			guests := newGuests(t)
			mux := http.NewServeMux()
			mux.Handle(procedureItems, connect.NewServerStreamHandlerSimple(procedureItems,
				func(ctx context.Context, _ *empty, stream *connect.ServerStream[text]) error {
					if tt.late {
						if err := stream.Send(wrapperspb.String("first")); err != nil {
							return err
						}
					}
					_, err := guests.ClaimContext(ctx, "ann")
					return err
				}))
			mux.Handle("/", Connect(guests))
			b := newBrowser(t, guests.Middleware(mux))
			for range 2 {
				if _, err := add(b).CallUnary(t.Context(),
					connect.NewRequest(wrapperspb.String("tea"))); err != nil {
					t.Fatal(err)
				}
			}
			items(t, b)
			hasCart(t, guests, "ann", "tea", 2)
			if left := b.cookies(); len(left) != tt.cookies {
				t.Errorf("cookies %v", left)
			}
			res, err := add(b).CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("tea")))
			if err != nil || res.Msg.Value != 1 {
				t.Errorf("the next guest: %v, %v", res, err)
			}
			hasCart(t, guests, "ann", "tea", 2)
		})
	}
}

// connect speaks gRPC, too. A client without cookies sends back the token of the last response that
// brought one.
func TestConnectOverGRPC(t *testing.T) {
	guests := newGuests(t)
	server := httptest.NewUnstartedServer(Connect(guests))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)

	token := ""
	keep := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			req.Header().Set("Guest-Token", token) // empty at first
			res, err := next(ctx, req)
			if err == nil && res.Header().Get("Guest-Token") != "" {
				token = res.Header().Get("Guest-Token")
			}
			return res, err
		}
	})
	b := &browser{t, server.Client(), server.URL}
	for i := range int64(3) {
		res, err := add(b, connect.WithGRPC(), connect.WithInterceptors(keep)).CallUnary(
			t.Context(), connect.NewRequest(wrapperspb.String("tea")))
		if err != nil || res.Msg.Value != i+1 {
			t.Fatalf("call %d: %v, %v", i, res, err)
		}
		if kind := res.Header().Get("Content-Type"); kind != "application/grpc" {
			t.Fatalf("not gRPC but %q", kind)
		}
	}
	signIn := connect.NewClient[text, empty](b, b.url+procedureSignIn, connect.WithGRPC(),
		connect.WithInterceptors(keep))
	if _, err := signIn.CallUnary(t.Context(),
		connect.NewRequest(wrapperspb.String("ann tulip"))); err != nil {
		t.Error(err)
	}
	hasCart(t, guests, "ann", "tea", 3)
}
