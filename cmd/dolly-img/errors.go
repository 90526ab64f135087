package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// What is printed about an error: one line that says what failed on which object,
// in lower case, and where the error has a Hint one more line that says what to do.
// Nothing in either can move the cursor or forge a line, whoever wrote it.

// usageError says that the command line itself is wrong.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// Hint is what to write instead.
func (e *usageError) Hint() string {
	if e.hint != "" {
		return e.hint
	}
	return hintOf(e.err)
}

func usagef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

// statusError carries an exit status of a transfer. What there is to say was said
// in its table, unless err is not nil.
type statusError struct {
	code int
	err  error
}

func (e *statusError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// hintedError is an error of this package with one line of advice.
type hintedError struct {
	error
	hint string
}

// Hint is what to do about it.
func (e *hintedError) Hint() string  { return e.hint }
func (e *hintedError) Unwrap() error { return e.error }

func hintf(hint, format string, args ...any) error {
	return &hintedError{fmt.Errorf(format, args...), hint}
}

// hintOf returns the advice of the first error in the chain that has one.
func hintOf(err error) string {
	var h interface{ Hint() string }
	for err != nil && errors.As(err, &h) {
		if hint := h.Hint(); hint != "" {
			return hint
		}
		next, ok := h.(interface{ Unwrap() error })
		if !ok {
			return ""
		}
		err = next.Unwrap()
	}
	return ""
}

func printError(w io.Writer, err error) {
	var status *statusError
	if err == nil || errors.As(err, &status) && status.err == nil {
		return
	}
	fmt.Fprintf(w, "dolly-img: %s\n", printable(err.Error()))
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(w, "hint: %s\n", printable(hint))
	}
}

// printable makes one harmless line of s: the lines of joined errors are put behind
// each other, and every other character without a shape of its own is escaped as Go
// would. What is printable stays as it is, so doing it twice changes nothing.
func printable(s string) string {
	s = strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "; ")
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
