// Package errkind gives errors a kind: a library says what kind of failure it is, and whoever talks
// to a person knows what that person can do about each kind. Kinds are words with hyphens; the
// command line has a table of them all.
package errkind

import (
	"errors"
	"fmt"
)

// Kind is what kind of failure an error is. "" is none.
type Kind string

// Kinded is an error that has a kind, and says what it is about: names, paths or values that advice
// has to repeat. Errors with a type of their own implement it, too.
type Kinded interface {
	error
	Kind() (kind Kind, about []string)
}

type kinded struct {
	error
	kind  Kind
	about []string
}

func (e *kinded) Kind() (kind Kind, about []string) { return e.kind, e.about }
func (e *kinded) Unwrap() error                     { return e.error }

// Errorf is fmt.Errorf with a kind.
func Errorf(kind Kind, format string, args ...any) error {
	return &kinded{fmt.Errorf(format, args...), kind, nil}
}

// About is Errorf of a kind whose advice repeats one word.
func About(kind Kind, about, format string, args ...any) error {
	return &kinded{fmt.Errorf(format, args...), kind, []string{about}}
}

// Of returns the kind of the first error in the chain that has one, and "" where none does.
func Of(err error) (kind Kind, about []string) {
	var k Kinded
	for err != nil && errors.As(err, &k) {
		if kind, about = k.Kind(); kind != "" {
			return kind, about
		}
		err = errors.Unwrap(k)
	}
	return "", nil
}

// Has reports whether an error in the chain has a kind.
func Has(err error) bool {
	kind, _ := Of(err)
	return kind != ""
}
