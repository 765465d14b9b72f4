module github.com/guestkit/guest/cmd/guestctl

go 1.26.0

replace github.com/guestkit/guest => ../..

require (
	github.com/alecthomas/kong v1.17.0
	github.com/guestkit/guest v0.0.0-00010101000000-000000000000
	github.com/redis/go-redis/v9 v9.23.0
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/gorilla/securecookie v1.1.2 // indirect
	go.uber.org/atomic v1.12.0 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
