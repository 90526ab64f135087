package wire

import "github.com/dolly-img/dolly-img/ring/printable"

// Printable makes a peer's text safe for terminals and logs, and bounded.
func Printable(s string) string { return printable.Escape(s[:min(len(s), 4096)]) }
