package wire

import "github.com/dolly-img/dolly-img/ring/printable"

// maxReason is how many bytes of a reason, or of a name, there are at most.
const maxReason = 4 << 10

// Cut bounds a reason that is sent, or that a peer sent and that is kept.
func Cut(s string) string { return s[:min(len(s), maxReason)] }

// Printable makes a peer's text safe for terminals and logs, and bounded.
func Printable(s string) string { return printable.Escape(Cut(s)) }
