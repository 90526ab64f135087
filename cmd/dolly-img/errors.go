package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/dolly-img/dolly-img/ring/printable"
)

// An error is printed as one line in lower case, which says what failed on which object. If the error has a hint, one
// more line says what to do. Both are escaped, so that nobody's text can move the cursor or forge a line.

// usageError says that the command line is wrong.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// Hint returns what to write instead.
func (e *usageError) Hint() string {
	if e.hint != "" {
		return e.hint
	}
	return hintOf(e.err)
}

func usagef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

// statusError carries the exit status of a transfer. If err is nil, the table of the transfer has said everything.
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

// hintedError is an error of the command line with one line of advice.
type hintedError struct {
	error
	hint string
}

// Hint returns what to do about it.
func (e *hintedError) Hint() string  { return e.hint }
func (e *hintedError) Unwrap() error { return e.error }

func hintf(hint, format string, args ...any) error {
	return &hintedError{fmt.Errorf(format, args...), hint}
}

func printError(w io.Writer, err error) {
	var status *statusError
	if err == nil || errors.As(err, &status) && status.err == nil {
		return
	}
	fmt.Fprintf(w, "dolly-img: %s\n", printable.Line(err.Error()))
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(w, "hint: %s\n", printable.Line(hint))
	}
}
