package wire

import "fmt"

// Code classifies what ends a link or a node's part in a transfer. PROTOCOL.md section 4 has them under "Codes".
type Code string

// These are the codes. A new one is added at the end, and none is ever changed.
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
	CodeReadBack  Code = "readback"  // what was stored reads back with other bytes

	// The following codes exist since version 3, and only in an ABORT.
	CodeAsked       Code = "asked"       // the server only asked what would happen: nothing failed
	CodeInterrupted Code = "interrupted" // somebody ended the server
	CodeSource      Code = "source"      // the server's source failed or changed

	// The following codes exist since version 6, and only in an ANSWER: why a node does not have its target overwritten.
	CodeInUse      Code = "in-use"      // something else uses it
	CodeReadOnly   Code = "read-only"   // it is read-only
	CodeTooSmall   Code = "too-small"   // it is smaller than what comes
	CodeSectorSize Code = "sector-size" // what comes does not work with its logical sectors
	CodeKind       Code = "kind"        // it is a partition and what comes a whole disk, or the other way round
	CodeNotFound   Code = "not-found"   // the policy's name for it means nothing
	CodeAmbiguous  Code = "ambiguous"   // it means several things
	CodeUnfit      Code = "unfit"       // it means what must never be overwritten, or is not as the policy says
	CodePermission Code = "permission"  // the node's program may not open it
)

// Refuses reports whether c says that a node does not want what the server asks for, and would say so again until somebody changes
// something there.
func (c Code) Refuses() bool {
	switch c {
	case CodeAuth, CodePolicy, CodeInUse, CodeReadOnly, CodeTooSmall, CodeSectorSize, CodeKind, CodeNotFound, CodeAmbiguous, CodeUnfit, CodePermission:
		return true
	}
	return false
}

// Error is what ended a link or a node's part in a transfer, with its code. LINK, FAIL and ANSWER have both.
type Error struct {
	Code Code
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error of a code and of a text as fmt.Errorf makes it.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{code, fmt.Errorf(format, args...)}
}
