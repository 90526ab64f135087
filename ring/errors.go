package ring

import (
	"errors"
	"fmt"

	"github.com/dolly-img/dolly-img/ring/internal/coordinator"
)

// SourceError says that the server's own source failed or changed while it was
// read; nothing was committed anywhere.
type SourceError struct {
	Err error
	// Kept says that what came before is not in doubt: nodes keep it for another push.
	Kept bool
}

func (e *SourceError) Error() string { return "source: " + e.Err.Error() }
func (e *SourceError) Unwrap() error { return e.Err }

// ErrBusy is what an Accept wraps when another transfer holds the target.
var ErrBusy = errors.New("busy")

// IsInterrupted reports whether Send ended because its context did, before the
// first node was told to commit.
func IsInterrupted(err error) bool { return errors.Is(err, coordinator.ErrInterrupted) }

// AbortedError says how many transfers a Shutdown ended before they were done.
type AbortedError struct{ Transfers int }

func (e *AbortedError) Error() string {
	return fmt.Sprintf("%d running transfers were aborted", e.Transfers)
}

// Code classifies what ends a link or a node's part in a transfer. The constants travel on
// the control plane, see PROTOCOL.md, "Codes"; a Row has more words of its own.
type Code string

// The codes, append only.
const (
	CodeNone      Code = ""
	CodeAuth      Code = "auth"      // certificate, role or link proof
	CodePolicy    Code = "policy"    // the node's policy or its target says no
	CodeBusy      Code = "busy"      // too many transfers, or the target is taken
	CodeSpace     Code = "space"     // not enough room
	CodeStore     Code = "store"     // the node's storage failed
	CodeMismatch  Code = "mismatch"  // bytes do not match a mark or a digest
	CodeCRC       Code = "crc"       // a frame was damaged on its link
	CodeNetwork   Code = "network"   // a connection broke or was refused
	CodeGone      Code = "gone"      // the asked bytes can no longer be replayed
	CodeProtocol  Code = "protocol"  // the peer broke the protocol
	CodeVersion   Code = "version"   // no common version
	CodeShutdown  Code = "shutdown"  // the node is stopping
	CodeAbandoned Code = "abandoned" // no server for too long

	// Of the end that a server makes.
	CodeAsked       Code = "asked"       // the server only asked what would happen: nothing failed
	CodeInterrupted Code = "interrupted" // somebody ended the server
	CodeSource      Code = "source"      // the server's source failed or changed
)
