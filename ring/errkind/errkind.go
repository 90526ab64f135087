// Package errkind gives errors a kind. A library says what kind of failure an error is, and the program
// that talks to a person knows what that person can do about each kind. So no library has to know the
// commands, flags and files of a program.
//
// Kinds are words with hyphens. The command line has a table of them all: cmd/dolly-img/hints.go.
package errkind

import (
	"errors"
	"fmt"
)

// Kind is what kind of failure an error is. "" is no kind.
type Kind string

// Kinded is an error that has a kind. Error types of other packages implement it.
type Kinded interface {
	error
	// Kind returns the kind, and what the error is about: the names, paths or values that advice has
	// to repeat, in the order in which the advice for this kind expects them.
	Kind() (kind Kind, about []string)
}

type kinded struct {
	error
	kind  Kind
	about []string
}

func (e *kinded) Kind() (kind Kind, about []string) { return e.kind, e.about }
func (e *kinded) Unwrap() error                     { return e.error }

// Errorf makes an error as fmt.Errorf does, which may wrap others with %w, and gives it a kind.
func Errorf(kind Kind, format string, args ...any) error {
	return &kinded{fmt.Errorf(format, args...), kind, nil}
}

// About does the same for a kind whose advice repeats one word, about.
func About(kind Kind, about, format string, args ...any) error {
	return &kinded{fmt.Errorf(format, args...), kind, []string{about}}
}

// Of returns the kind of the first error in err's chain that has one, with what it is about. It returns
// "" where none has, and where err is nil.
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

// Has reports whether an error in err's chain has a kind.
func Has(err error) bool {
	kind, _ := Of(err)
	return kind != ""
}
