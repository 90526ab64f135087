package wire

import (
	"strconv"
	"strings"
	"unicode"
)

// Printable makes a peer's text safe for terminals and logs, and bounded.
func Printable(s string) string {
	if len(s) > 4096 {
		s = s[:4096]
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			b.WriteRune(r)
		} else {
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}
