// Package hinted has errors that carry one line of advice.
package hinted

import (
	"errors"
	"fmt"
)

// hintedError is an error with one line of advice.
type hintedError struct {
	error
	hint string
}

// Hint is what to do about it.
func (e *hintedError) Hint() string  { return e.hint }
func (e *hintedError) Unwrap() error { return e.error }

// Errorf is fmt.Errorf with advice.
func Errorf(hint, format string, args ...any) error {
	return &hintedError{fmt.Errorf(format, args...), hint}
}

// Of returns the advice of the first error in the chain that has one.
func Of(err error) string {
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
