package member

import (
	"errors"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// AbortError says that the server ended this node's part with ABORT.
type AbortError struct {
	Code   wire.Code
	Reason string
}

func (e *AbortError) Error() string { return "aborted by the server: " + e.Reason }

var errEnded = errors.New("the server ended the transfer")
