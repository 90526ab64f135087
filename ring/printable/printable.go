// Package printable makes text harmless that other machines, files or users wrote, before
// a terminal or a log gets it: it can neither move the cursor nor forge a line.
package printable

import (
	"fmt"
	"strings"
	"unicode"
)

// Escape writes every character of s that has no shape of its own as Go would, a line's end as \n. What is
// printable stays as it is, so that a second time changes nothing.
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

// Line makes one line of s: it puts the lines of joined errors behind each other, and
// escapes the rest.
func Line(s string) string {
	return Escape(strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "; "))
}
