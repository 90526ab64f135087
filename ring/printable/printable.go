// Package printable makes text harmless that other machines, files or users wrote, before
// a terminal or a log gets it. What it returns can neither move the cursor nor forge a line.
package printable

import (
	"fmt"
	"strings"
	"unicode"
)

// Escape replaces every character of s that unicode.IsPrint does not call printable by its escape in a Go
// literal, the end of a line by \n. Printable characters stay, so that a second time changes nothing.
func Escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			q := fmt.Sprintf("%+q", r) // 'x' with its escapes
			b.WriteString(q[1 : len(q)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Line makes one line of s. It puts the lines that errors.Join makes behind each other, with "; " between
// them, and escapes the rest.
func Line(s string) string {
	return Escape(strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "; "))
}
