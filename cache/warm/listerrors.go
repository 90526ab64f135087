package warm

import (
	"errors"
	"fmt"
	"strings"
)

// A LineError is an error with the line of the list that it is in.
type LineError struct {
	// Line is from 1. 0 is unknown.
	Line int
	// Key is where in the list it is, as "image.ref". "" is unknown.
	Key string
	Err error
}

func (e *LineError) Error() string {
	if e.Line == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("line %d: %v", e.Line, e.Err)
}

// Unwrap returns the cause.
func (e *LineError) Unwrap() error { return e.Err }

// unknownKeyError is about a key that a list does not have.
type unknownKeyError string

func (e unknownKeyError) Error() string { return fmt.Sprintf("unknown key %q", string(e)) }

// public returns the error without any value of the list, for those who may not read it: somebody may have written a password into the wrong line.
func (e *LineError) public() string {
	what := "the log says what is wrong"
	if unknown := unknownKeyError(""); errors.As(e.Err, &unknown) {
		what = unknown.Error()
	} else if e.Key != "" {
		what = e.Key + ": " + what
	}
	return (&LineError{Line: e.Line, Err: errors.New(what)}).Error()
}

const mostPublic = 5 // mistakes of a list that the status names

// publicly returns an error about a list without any value of it.
func publicly(err error) string {
	lines := lineErrors(err)
	if len(lines) == 0 {
		return err.Error() // that it cannot be read
	}
	var said []string
	for _, e := range lines[:min(len(lines), mostPublic)] {
		said = append(said, e.public())
	}
	if n := len(lines) - len(said); n > 0 {
		said = append(said, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(said, "; ")
}

func lineErrors(err error) (list []*LineError) {
	switch e := err.(type) {
	case *LineError:
		return []*LineError{e}
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			list = append(list, lineErrors(err)...)
		}
	case interface{ Unwrap() error }:
		return lineErrors(e.Unwrap())
	}
	return list
}
