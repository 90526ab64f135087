package ring

import (
	"errors"
	"fmt"

	"github.com/dolly-img/dolly-img/ring/internal/coordinator"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
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

// Refusal is a word for why a node does not have its target overwritten. It becomes the Code of its row.
type Refusal string

// The refusals; "Codes" in PROTOCOL.md says what they mean.
const (
	RefusesInUse      = Refusal(wire.CodeInUse)
	RefusesReadOnly   = Refusal(wire.CodeReadOnly)
	RefusesTooSmall   = Refusal(wire.CodeTooSmall)
	RefusesSectorSize = Refusal(wire.CodeSectorSize)
	RefusesKind       = Refusal(wire.CodeKind)
	RefusesNotFound   = Refusal(wire.CodeNotFound)
	RefusesAmbiguous  = Refusal(wire.CodeAmbiguous)
	RefusesUnfit      = Refusal(wire.CodeUnfit)
	RefusesPermission = Refusal(wire.CodePermission)
	RefusesRole       = Refusal(wire.CodeAuth)
)

// RefusedError is an error of NodeConfig.Accept or Sink.Offer that says why in a word, too. Without it the word is "policy".
type RefusedError struct {
	Why Refusal
	Err error
}

func (e *RefusedError) Error() string { return e.Err.Error() }
func (e *RefusedError) Unwrap() error { return e.Err }

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
