package disk

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"
)

// What is in use for a moment, by nobody who can be seen, is opened when it is not any more. Who is seen is named at once, and other errors are not tried again.
func TestExclusively(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		busy  int // times
		user  string
		then  error
		tries int
		err   error
	}{
		"free":         {0, "", nil, 1, nil},
		"for a moment": {3, "", nil, 4, nil},
		"for long":     {100, "", nil, triesUnseen, unix.EBUSY},
		"seen":         {100, "mounted", nil, 1, unix.EBUSY},
		"broken":       {1, "", broken, 2, broken},
	} {
		synctest.Test(t, func(t *testing.T) {
			tries := 0
			_, by, err := exclusively(func() (*os.File, error) {
				if tries++; tries <= c.busy {
					return nil, &os.PathError{Op: "open", Path: "x", Err: unix.EBUSY}
				}
				return nil, c.then
			}, func() string { return c.user })
			if tries != c.tries || !errors.Is(err, c.err) || by != c.user && c.err == unix.EBUSY {
				t.Errorf("%s: %d tries, %q, %v", name, tries, by, err)
			}
		})
	}
}
