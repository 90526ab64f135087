package wire

import "github.com/dolly-img/dolly-img/ring/printable"

// maxReason is how many bytes a reason or a name has at most.
const maxReason = 4 << 10

// Cut bounds the length of a reason that is sent, or of one from a peer that is kept.
func Cut(s string) string { return s[:min(len(s), maxReason)] }

// Printable makes a peer's text safe for terminals and logs, and bounds its length.
func Printable(s string) string { return printable.Escape(Cut(s)) }
