module github.com/guestkit/guest/adapters/echo4guest

go 1.26.0

replace (
	github.com/guestkit/guest => ../..
	github.com/guestkit/guest/adaptertest => ../../adaptertest
)

require (
	github.com/guestkit/guest v0.0.0
	github.com/guestkit/guest/adaptertest v0.0.0
	github.com/labstack/echo/v4 v4.16.0
)

require (
	github.com/coder/websocket v1.8.15 // indirect
	github.com/gorilla/securecookie v1.1.2 // indirect
	github.com/gorilla/websocket v1.5.3 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/labstack/gommon v0.5.0 // indirect
	github.com/mattn/go-colorable v0.1.15 // indirect
	github.com/mattn/go-isatty v0.0.22 // indirect
	github.com/valyala/bytebufferpool v1.0.0 // indirect
	github.com/valyala/fasttemplate v1.2.2 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/time v0.15.0 // indirect
)
