module github.com/guestkit/guest/adapters/echoguest

go 1.26.0

replace (
	github.com/guestkit/guest => ../..
	github.com/guestkit/guest/adaptertest => ../../adaptertest
)

require (
	github.com/guestkit/guest v0.0.0
	github.com/guestkit/guest/adaptertest v0.0.0
	github.com/labstack/echo/v5 v5.4.4
)

require (
	github.com/coder/websocket v1.8.15 // indirect
	github.com/gorilla/securecookie v1.1.2 // indirect
	github.com/gorilla/websocket v1.5.3 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/time v0.15.0 // indirect
)
