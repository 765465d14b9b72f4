module github.com/guestkit/guest/adaptertest

go 1.26.0

replace github.com/guestkit/guest => ..

require (
	github.com/coder/websocket v1.8.15
	github.com/gorilla/websocket v1.5.3
	github.com/guestkit/guest v0.0.0
	github.com/klauspost/compress v1.20.3
)

require (
	github.com/gorilla/securecookie v1.1.2 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
