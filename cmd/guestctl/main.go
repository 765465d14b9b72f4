// Command guestctl answers an operator's questions about guests in Redis: what a cookie says, what
// is stored for a guest or an account, which claims are under way, how many guests there are, and
// whether this Redis is safe.
//
//	(cd cmd/guestctl && go install .)
//	guestctl --help
//
// docs/operations.md shows its commands and answers.
//
// It prints tables, or JSON with --json. It prints data only when asked to (show --data, export),
// and never a secret, except the new one of keygen.
//
// Exit codes:
//
//	0 done, or the answer is yes
//	1 the answer is no: a cookie that is not valid, no such record, claims left unfinished, an unsafe Redis, a refusal to confirm
//	2  the command line, the environment or the input is wrong
//	3  Redis cannot be reached, or did not do what was asked
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/guestkit/guest"
)

const (
	exitNo          = 1
	exitUsage       = 2
	exitUnavailable = 3
)

type commandLine struct {
	connection
	JSON bool `name:"json" help:"Print JSON instead of tables."`

	Keygen  keygen   `cmd:"" help:"Print a new secret for Config.Secrets."`
	Cookie  cookie   `cmd:"" help:"Verify a guest cookie and print what it says."`
	Show    show     `cmd:"" help:"Print what is stored for a guest or an account; its data only with --data."`
	Export  export   `cmd:"" help:"Print the data of a guest or an account, as JSON."`
	Erase   erase    `cmd:"" help:"Erase all that is stored for a guest or an account."`
	Pending pending  `cmd:"" help:"List the claims under way."`
	Recover recovery `cmd:"" name:"recover" help:"Finish the claims that were interrupted."`
	Stats   stats    `cmd:"" help:"Count guests, accounts and their memory."`
	Check   check    `cmd:"" help:"Say what is unsafe in this Redis, and how to change it."`
}

const description = `Answers an operator's questions about guests in Redis.

Exit codes: 0 done, or the answer is yes; 1 the answer is no: a cookie that is not valid, no such record, claims left unfinished, an unsafe Redis;
2 wrong usage; 3 Redis cannot be reached.`

func main() {
	var c commandLine
	parser := kong.Must(&c, kong.Name("guestctl"), kong.Description(description),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	parsed, err := parser.Parse(guardIDs(os.Args[1:]))
	if err != nil {
		fmt.Fprintln(os.Stderr, "guestctl:", err)
		os.Exit(exitUsage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = parsed.Run(&session{ctx: ctx, connection: &c.connection, json: c.JSON,
		in: bufio.NewReader(os.Stdin), out: os.Stdout, err: os.Stderr})
	stop()
	var no negative
	if err != nil && !errors.As(err, &no) {
		fmt.Fprintln(os.Stderr, "guestctl:", err)
	}
	os.Exit(exitCode(err))
}

// A session is the environment of a command.
type session struct {
	ctx context.Context
	*connection
	json bool
	in   *bufio.Reader
	out  io.Writer
	err  io.Writer
}

// negative is the answer no. The reason has been printed.
type negative struct{}

func (negative) Error() string { return "no" }

// usage is a mistake of the operator.
type usage struct{ error }

func usagef(format string, args ...any) error { return usage{fmt.Errorf(format, args...)} }

func exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(negative)):
		return exitNo
	case errors.As(err, new(usage)), errors.Is(err, guest.ErrInvalid):
		return exitUsage
	}
	return exitUnavailable
}

// guardIDs moves a guest ID that begins with "-", as one in 64 does, behind a "--", so that it is
// not read as a flag.
func guardIDs(args []string) []string {
	for i := 1; i < len(args); i++ {
		if id := args[i]; args[i-1] == "guest" && len(id) == 22 && id[0] == '-' &&
			!strings.Contains(id, "=") {
			return append(slices.Concat(args[:i], args[i+1:]), "--", id)
		}
	}
	return args
}
