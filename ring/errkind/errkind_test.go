package errkind_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// typed is an error with a type of its own, as packages have them. Its kind may be "".
type typed struct {
	kind  errkind.Kind
	inner error
}

func (e *typed) Error() string                  { return "typed" }
func (e *typed) Unwrap() error                  { return e.inner }
func (e *typed) Kind() (errkind.Kind, []string) { return e.kind, []string{"its own"} }
func plain(format string, args ...any) error    { return fmt.Errorf(format, args...) }
func of(err error) (kind errkind.Kind, all string) {
	k, about := errkind.Of(err)
	return k, fmt.Sprint(about)
}

// The kind of an error is that of the outermost error with a kind, however it is wrapped, and a kind changes neither
// the text of an error nor what errors.Is finds in it.
func TestOf(t *testing.T) {
	denied := errkind.Errorf("denied", "no entry: %w", fs.ErrPermission)
	full := errkind.About("full", "/data", "disk %s is full", "sda")
	for _, c := range []struct {
		name        string
		err         error
		text        string
		kind        errkind.Kind
		about       string
		isPermitted bool // whether errors.Is finds fs.ErrPermission
	}{
		{"nil", nil, "", "", "[]", false},
		{"without a kind", plain("broken"), "broken", "", "[]", false},
		{"Errorf", denied, "no entry: permission denied", "denied", "[]", true},
		{"About", full, "disk sda is full", "full", "[/data]", false},
		{"wrapped", plain("a: %w", plain("b: %w", full)), "a: b: disk sda is full", "full", "[/data]", false},
		{"not wrapped", plain("a: %v", full), "a: disk sda is full", "", "[]", false},
		{"the outer one counts", errkind.Errorf("outer", "outer: %w", denied), "outer: no entry: permission denied", "outer", "[]", true},
		{"an outer one with the kind of none", errkind.Errorf("", "outer: %w", full), "outer: disk sda is full", "full", "[/data]", false},
		{"joined", errors.Join(plain("first"), full), "first\ndisk sda is full", "full", "[/data]", false},
		{"joined, the first with a kind counts", errors.Join(denied, full), "no entry: permission denied\ndisk sda is full", "denied", "[]", true},
		{"two wrapped in one", plain("%w; %w", plain("first"), denied), "first; no entry: permission denied", "denied", "[]", true},
		{"a type of its own", plain("a: %w", &typed{"own", full}), "a: typed", "own", "[its own]", false},
		{"a type of its own without a kind", &typed{"", plain("b: %w", full)}, "typed", "full", "[/data]", false},
		{"a type of its own with nothing below", &typed{"", nil}, "typed", "", "[]", false},
	} {
		kind, about := of(c.err)
		if kind != c.kind || about != c.about {
			t.Errorf("%s: %q about %s, want %q about %s", c.name, kind, about, c.kind, c.about)
		}
		if errkind.Has(c.err) != (c.kind != "") {
			t.Errorf("%s: Has is %v", c.name, errkind.Has(c.err))
		}
		if c.err != nil && c.err.Error() != c.text {
			t.Errorf("%s: text is %q, want %q", c.name, c.err, c.text)
		}
		if errors.Is(c.err, fs.ErrPermission) != c.isPermitted {
			t.Errorf("%s: errors.Is finds the cause: %v", c.name, !c.isPermitted)
		}
	}
	if _, about := errkind.Of(full); !slices.Equal(about, []string{"/data"}) {
		t.Errorf("it is about %q", about)
	}
}
