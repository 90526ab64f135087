package whole

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
)

func TestReading(t *testing.T) {
	var r Reading
	read := func(in io.Reader) {
		t.Helper()
		w := r.Watch(io.NopCloser(in))
		if n, err := w.(*reader).SkipZeros(10); n != 0 || err != nil {
			t.Errorf("skipped %d of what knows of no zeros, %v", n, err)
		}
		io.Copy(io.Discard, w)
	}
	read(iotest.ErrReader(errors.New("broken")))
	if r.Done() {
		t.Error("done after an error")
	}
	read(strings.NewReader("some bytes"))
	if !r.Done() || r.Sum() != "" {
		t.Errorf("done %v, sum %q that nobody wanted", r.Done(), r.Sum())
	}
	r.Want()
	read(strings.NewReader("some bytes"))
	if want := digest.FromString("some bytes"); r.Sum() != want {
		t.Errorf("sum %s", r.Sum())
	}
}

// holes is n zeros that can be skipped, and then the bytes of Reader.
type holes struct {
	io.Reader
	n int64
}

func (h *holes) SkipZeros(most int64) (int64, error) {
	n := min(most, h.n)
	h.n -= n
	return n, nil
}

func (*holes) Close() error { return nil }

func TestSkipped(t *testing.T) {
	const zeros = 3*len("x")<<16 + 5
	var r Reading
	r.Want()
	w := r.Watch(&holes{strings.NewReader("end"), int64(zeros)}).(*reader)
	for left := zeros; left > 0; {
		n, err := w.SkipZeros(100_000)
		if n <= 0 || err != nil {
			t.Fatal(n, err)
		}
		left -= int(n)
	}
	io.Copy(io.Discard, w)
	if want := digest.FromBytes(append(bytes.Repeat([]byte{0}, zeros), "end"...)); r.Sum() != want {
		t.Errorf("sum %s, want %s", r.Sum(), want)
	}
}
