package printable_test

import (
	"errors"
	"strings"
	"testing"
	"unicode"

	"github.com/dolly-img/dolly-img/ring/printable"
)

// What can be seen stays as it is, all else is escaped, and an escaped text is not changed again.
func TestEscape(t *testing.T) {
	for _, c := range []struct{ name, in, escape, line string }{
		{"nothing", "", "", ""},
		{"letters", "node1: no space left", "node1: no space left", "node1: no space left"},
		{"letters of many scripts", "Knoten für Größe, 節点, узел, 😀", "Knoten für Größe, 節点, узел, 😀", "Knoten für Größe, 節点, узел, 😀"},
		{"what Go would quote", `C:\new "x" 'y' %s`, `C:\new "x" 'y' %s`, `C:\new "x" 'y' %s`},
		{"a line's end", "one\ntwo", `one\ntwo`, "one; two"},
		{"a line's end at the end", "one\n\n", `one\n\n`, "one"},
		{"joined errors", errors.Join(errors.New("one"), errors.New("two")).Error(), `one\ntwo`, "one; two"},
		{"carriage return", "good\rbad", `good\rbad`, `good\rbad`},
		{"tab", "a\tb", `a\tb`, `a\tb`},
		{"clear the screen", "\x1b[2J\x1b[H", `\x1b[2J\x1b[H`, `\x1b[2J\x1b[H`},
		{"set the title", "\x1b]0;x\a", `\x1b]0;x\a`, `\x1b]0;x\a`},
		{"backspace and delete", "a\bb\x7f", `a\bb\x7f`, `a\bb\x7f`},
		{"NUL", "a\x00b", `a\x00b`, `a\x00b`},
		{"C1 control", "a\u009b2Jb", `a\u009b2Jb`, `a\u009b2Jb`},
		{"right to left override", "a\u202egnp.exe", `a\u202egnp.exe`, `a\u202egnp.exe`},
		{"no width", "a\u200bb\ufeff", `a\u200bb\ufeff`, `a\u200bb\ufeff`},
		{"a blank that is none", "a\u00a0b\u2028c", `a\u00a0b\u2028c`, `a\u00a0b\u2028c`},
		{"a private character", "\U000f0000", `\U000f0000`, `\U000f0000`},
		{"no UTF-8", "a\xffb\xc3", `a\ufffdb\ufffd`, `a\ufffdb\ufffd`},
		{"a cut off character", "gr\xc3", `gr\ufffd`, `gr\ufffd`},
	} {
		for _, f := range []struct {
			name string
			do   func(string) string
			want string
		}{{"Escape", printable.Escape, c.escape}, {"Line", printable.Line, c.line}} {
			got := f.do(c.in)
			if got != f.want {
				t.Errorf("%s, %s: %q, want %q", f.name, c.name, got, f.want)
			}
			if again := f.do(got); again != got {
				t.Errorf("%s, %s: %q becomes %q", f.name, c.name, got, again)
			}
			if strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
				t.Errorf("%s, %s: %q is not printable", f.name, c.name, got)
			}
		}
	}
}
