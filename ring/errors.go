package ring

import (
	"errors"
	"fmt"

	"github.com/dolly-img/dolly-img/ring/internal/coordinator"
)

// SourceError says that the server's own source failed or changed while it was
// read. Nothing was committed anywhere.
type SourceError struct {
	// Err is what the source said.
	Err error
	// Kept says that what came before is not in doubt: nodes keep it for another push.
	Kept bool
}

func (e *SourceError) Error() string { return "source: " + e.Err.Error() }
func (e *SourceError) Unwrap() error { return e.Err }

// ErrBusy is the error that NodeConfig.Accept wraps when another transfer holds the target.
var ErrBusy = errors.New("busy")

// isInterrupted reports whether Send ended because its context did, before the
// first node was told to commit.
func isInterrupted(err error) bool { return errors.Is(err, coordinator.ErrInterrupted) }

// AbortedError says that Node.Shutdown ended transfers before they were done.
type AbortedError struct {
	// Transfers is how many.
	Transfers int
}

func (e *AbortedError) Error() string {
	return fmt.Sprintf("%d running transfers were aborted", e.Transfers)
}
