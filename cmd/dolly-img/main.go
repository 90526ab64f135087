// Dolly-img clones container images and files to many cluster nodes in the time
// it takes to clone them to one. See dolly-img --help, or the pages in doc/.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/dolly-img/dolly-img/ring"
)

func main() {
	// The first signal asks the command to end in good order. A second one has its usual effect and ends the
	// process at once, but only if it comes more than a second later: timeout(1), batch systems and a terminal
	// that is closed send the same signal twice, to the process and to its group.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, func() { time.AfterFunc(time.Second, stop) })
	root := newRoot()
	root.SetArgs(joinWeb(os.Args[1:]))
	asDolly := filepath.Base(os.Args[0]) == dollyName
	if asDolly {
		root.SetArgs(append([]string{dollyName}, os.Args[1:]...))
	}
	cmd, err := root.ExecuteContextC(ctx)
	if usage := new(usageError); errors.As(err, &usage) && hintOf(err) == "" {
		if usage.hint = "see " + cmd.CommandPath() + " --help"; asDolly {
			usage.hint = "see dolly -h"
		}
	}
	printError(root.ErrOrStderr(), err)
	os.Exit(exitCode(err))
}

// outliveReaders lets a command go on when the reader of its output is gone ("--json | head"): it must not end a
// transfer. When SIGPIPE is caught, the write fails with an error instead. The signal is not ignored, because
// processes that the command starts would inherit that.
func outliveReaders() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// exitCode is the only place where an error becomes an exit status. A status never changes its meaning:
//
//	0  done; push and raw: every requested node confirmed the right digest; status: it is warm
//	1  something failed on this machine; push and raw: and nothing was committed
//	2  a wrong command line; raw: or nobody agreed to overwrite devices, or what would come
//	   to them holds nothing known
//	3  push and raw: some nodes committed; status: some are warm
//	4  push and raw: no node committed; status: none is warm
//	5  push and raw: every node refused before any data: its keys, its policy, or
//	   what is at the output; status: every node refused to tell
//	6  push and raw: interrupted before the first commit, can be resumed
func exitCode(err error) int {
	var status *statusError
	var usage *usageError
	switch {
	case err == nil:
		return ring.ExitAll
	case errors.As(err, &status):
		return status.code
	case errors.As(err, &usage):
		return ring.ExitUsage
	case errors.Is(err, context.Canceled):
		return ring.ExitInterrupted // nothing but a signal cancels
	}
	return ring.ExitSource
}
