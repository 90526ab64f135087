package device

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/dolly-img/dolly-img/test/loopdev"
)

func TestReaderAt(t *testing.T) {
	const size = 3 * edge
	want := random(size)
	for _, sector := range []int{512, 4096} {
		d := loopdev.New(t, t.TempDir(), size, loopdev.Options{Sector: sector})
		f := d.Open(t, os.O_RDWR)
		if _, err := f.WriteAt(want, 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		b := openLoop(t, d, 0)
		for _, tt := range []struct{ off, n, got int }{
			{0, size, size}, {1, 1, 1}, {511, 2, 2}, {513, size, size - 513}, {size - 3, 5, 3}, {size, 1, 0}, {size + 4096, 1, 0}, {7, 0, 0},
		} {
			p := make([]byte, tt.n+1)[1:]
			n, err := ReaderAt(b).ReadAt(p, int64(tt.off))
			if n != tt.got || (err == io.EOF) != (tt.got < tt.n) || err != nil && err != io.EOF {
				t.Errorf("%d bytes at %d: %d, %v", tt.n, tt.off, n, err)
				continue
			}
			if !bytes.Equal(p[:n], want[min(tt.off, size):][:n]) {
				t.Errorf("%d bytes at %d are wrong", tt.n, tt.off)
			}
		}
		b.Close()
	}
}
