package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/cache/warm"
)

// listManual returns the manual page of the list of dolly-img warm. It is made of the keys that package cache/warm knows, of the errors
// that it gives, and of the list in packaging/.
func listManual(t *testing.T) []byte {
	t.Helper()
	example, err := os.ReadFile("packaging/warm.toml")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(`.nh
.TH "DOLLY-IMG-WARM.TOML" "5" "" "dolly-img" "File Formats"

.SH NAME
dolly-img-warm.toml - which images are to be warm on which nodes

.SH SYNOPSIS
/etc/dolly-img/warm.toml

.SH DESCRIPTION
`)
	paragraphs(&b,
		"The list that dolly-img warm keeps. It is a file in TOML 1.0, of up to 1 MiB. It has no secrets, and is made to be kept in git.",
		"A key that is not below is an error. All errors are found at once, and each is named with its line: dolly-img warm --check shows them. A list with an error is not taken: dolly-img warm does not begin with it, and when it is read again (systemctl reload dolly-img-warm, or SIGHUP) the one before stands, and log, status and metrics say so.",
		"What is taken out of the list is not wanted on nodes any more. Nothing is deleted there: it goes when its room is needed.")
	table := ""
	for _, k := range warm.Keys() {
		if k.Table != table {
			table = k.Table
			fmt.Fprintf(&b, "\n.SH %s\n", roff(map[string]string{"[defaults]": "[defaults]: how it works", "[nodes.NAME]": "[nodes.NAME]: a group of nodes", "[[image]]": "[[image]]: an image"}[table]))
		}
		fmt.Fprintf(&b, ".TP\n\\fB%s\\fP = %s\n%s\n.br\nValues: %s.\n.br\n", roff(k.Name), roff(k.Example), roff(k.Text), roff(k.Bounds))
		if k.Default == "" {
			b.WriteString("It has to be there.\n")
		} else {
			fmt.Fprintf(&b, "Without it: %s.\n", roff(k.Default))
		}
	}
	b.WriteString("\n.SH ERRORS\n")
	paragraphs(&b, "What is wrong, and what is then said of its line:")
	for _, k := range warm.Keys() {
		fmt.Fprintf(&b, ".TP\n%s = %s\n%s\n", roff(k.Name), roff(k.Wrong), roff(mistake(t, k)))
	}
	b.WriteString("\n.SH EXAMPLE\n.EX\n")
	for line := range strings.Lines(string(example)) {
		b.WriteString(roff(strings.TrimSuffix(line, "\n")) + "\n")
	}
	b.WriteString(".EE\n\n.SH SEE ALSO\n\\fBdolly-img-warm(1)\\fP, \\fBdolly-img-status(1)\\fP\n")
	return []byte(b.String())
}

// mistake returns what Parse says of the wrong value of a key.
func mistake(t *testing.T, k warm.Key) string {
	t.Helper()
	table := strings.Replace(k.Table, "NAME", "gpu", 1)
	_, err := warm.Parse(fmt.Appendf(nil, "%s\n%s = %s\n", table, k.Name, k.Wrong))
	if list, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range list.Unwrap() {
			if at := new(warm.LineError); errors.As(err, &at) && at.Line == 2 && strings.HasPrefix(at.Err.Error(), k.Name) {
				return at.Err.Error()
			}
		}
	}
	t.Fatalf("%s %s = %s: %v", k.Table, k.Name, k.Wrong, err)
	return ""
}

func paragraphs(b *strings.Builder, texts ...string) {
	for i, text := range texts {
		if i > 0 {
			b.WriteString("\n.PP\n")
		}
		b.WriteString(roff(text) + "\n")
	}
}

// roff returns a line of text as roff has it.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...").Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
