package ahead

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"unsafe"
)

var errBroken = errors.New("broken")

// counted counts how often it is closed.
type counted struct {
	io.Reader
	closed int
}

func (c *counted) Close() error {
	c.closed++
	return nil
}

func TestAhead(t *testing.T) {
	want := make([]byte, 5*Align+7)
	for i := range want {
		want[i] = byte(i / 3)
	}
	for name, r := range map[string]io.Reader{
		"whole":    bytes.NewReader(want),
		"halves":   iotest.HalfReader(bytes.NewReader(want)),
		"with end": iotest.DataErrReader(bytes.NewReader(want)),
		"broken":   io.MultiReader(bytes.NewReader(want), iotest.ErrReader(errBroken)),
	} {
		synctest.Test(t, func(t *testing.T) {
			c := &counted{Reader: r}
			a := New(t.Context(), Align, 2, func(context.Context) (io.ReadCloser, error) { return c, nil })
			var got bytes.Buffer
			_, err := io.CopyBuffer(struct{ io.Writer }{&got}, a, make([]byte, 1000))
			if !bytes.Equal(got.Bytes(), want) || (err == nil) == (name == "broken") || err != nil && err != errBroken {
				t.Errorf("%s: %d bytes, %v", name, got.Len(), err)
			}
			if n, again := a.Read(make([]byte, 1)); n != 0 || again == nil || err != nil && again != err {
				t.Errorf("%s: once more: %d, %v", name, n, again)
			}
			synctest.Wait()
			if err := a.Close(); err != nil || c.closed != 1 {
				t.Errorf("%s: closed %d times, %v", name, c.closed, err)
			}
		})
	}
}

// Whoever closes it, or whose context ends, does not wait for a read that hangs, and reads nothing more.
func TestAheadEnds(t *testing.T) {
	for _, how := range []string{"close", "cancel"} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			pr, pw := io.Pipe()
			c := &counted{Reader: pr}
			var inner context.Context
			a := New(ctx, Align, 2, func(ctx context.Context) (io.ReadCloser, error) {
				inner = ctx
				return c, nil
			})
			synctest.Wait() // it hangs in the first read
			if how == "close" {
				a.Close()
			} else {
				cancel(errBroken)
			}
			if n, err := a.Read(make([]byte, 1)); n != 0 || err == nil || how == "cancel" && err != errBroken {
				t.Errorf("%s: %d, %v", how, n, err)
			}
			if inner.Err() == nil || c.closed != 0 {
				t.Errorf("%s: the context is %v, closed %d times", how, inner.Err(), c.closed)
			}
			pw.Close()
			synctest.Wait()
			if c.closed != 1 {
				t.Errorf("%s: closed %d times", how, c.closed)
			}
		})
	}
}

func TestAheadOpen(t *testing.T) {
	a := New(t.Context(), Align, 2, func(context.Context) (io.ReadCloser, error) { return nil, errBroken })
	defer a.Close()
	for range 2 {
		if _, err := a.Read(make([]byte, 1)); err != errBroken {
			t.Errorf("it cannot be opened: %v", err)
		}
	}
}

func TestBuffer(t *testing.T) {
	for range 10 {
		b := Buffer(3 * Align)
		if at := uintptr(unsafe.Pointer(&b[0])); len(b) != 3*Align || at%Align != 0 {
			t.Errorf("%d bytes at %x", len(b), at)
		}
	}
}
