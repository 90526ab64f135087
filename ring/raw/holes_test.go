package raw

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/leaf"
)

// writeSparse makes a file of a size whose only stored bytes are runs of 'x' of n bytes at some offsets.
func writeSparse(t *testing.T, path string, size, n int64, at ...int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, off := range at {
		if _, err := f.WriteAt(bytes.Repeat([]byte("x"), int(n)), off); err != nil {
			t.Fatal(err)
		}
	}
}

// The holes of a file are told and not read, and what the reader returns beside them is all of the file.
func TestHolesAreSkipped(t *testing.T) {
	const size, run = 66<<20 + 77, 100_000 // a shorter file does not travel in leaves
	path := filepath.Join(t.TempDir(), "sparse")
	at := []int64{0, 5<<20 + 3, 5<<20 + run + 30_000, 60 << 20}
	writeSparse(t, path, size, run, at...)
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blobs, err := f.Blobs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := leaf.Data(blobs[0]); n < int64(len(at))*run || n > int64(len(at))*(run+64<<10) {
		t.Errorf("%d bytes of data are told, there are %d", n, len(at)*run)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []int64{0, 5 << 20, 5<<20 + 4, 60<<20 + run, size} {
		r, err := f.Open(t.Context(), blobs[0], from)
		if err != nil {
			t.Fatal(err)
		}
		pos, skipped, wrong, zeros := from, int64(0), false, make([]byte, 4<<20)
		for buf := make([]byte, 48<<10); ; {
			n, err := r.(ring.ZeroSkipper).SkipZeros(4 << 20)
			if err != nil || n > 4<<20 {
				t.Fatal(n, err)
			}
			wrong = wrong || !bytes.HasPrefix(want[pos:], zeros[:n])
			pos, skipped = pos+n, skipped+n
			if n > 0 {
				continue
			}
			n2, err := r.Read(buf)
			wrong = wrong || !bytes.HasPrefix(want[pos:], buf[:n2])
			if pos += int64(n2); err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		r.Close()
		if wrong || pos != size {
			t.Errorf("from %d: other bytes, up to %d", from, pos)
		}
		if read := size - from - skipped; read > int64(len(at))*(run+200<<10) {
			t.Errorf("from %d: %d bytes were read", from, read)
		}
	}
}

// A file that becomes shorter while it is read does not end in zeros.
func TestShrunkIsNoHole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sparse")
	writeSparse(t, path, 100<<20, 4096, 0)
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blobs, _ := f.Blobs(t.Context())
	r, err := f.Open(t.Context(), blobs[0], 50<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := os.Truncate(path, 20<<20); err != nil {
		t.Fatal(err)
	}
	if n, err := r.(ring.ZeroSkipper).SkipZeros(4 << 20); n != 0 || err != nil {
		t.Errorf("skips %d bytes, %v", n, err)
	}
	if n, err := r.Read(make([]byte, 10)); n != 0 || err != io.ErrUnexpectedEOF {
		t.Errorf("reads %d bytes, %v", n, err)
	}
}

// A target of a blob with holes has them, also where a part from before had bytes or reserved them.
func TestTargetStaysSparse(t *testing.T) {
	const size = 24 << 20
	dir := t.TempDir()
	for _, sparse := range []bool{false, true} { // a dense blob is reserved, and the zeros in it are given back
		target, err := NewTarget(TargetOptions{Dir: dir, Name: map[bool]string{false: "dense", true: "sparse"}[sparse]})
		if err != nil {
			t.Fatal(err)
		}
		defer target.Close()
		d := v1.Descriptor{MediaType: leaf.MediaType, Size: size, Annotations: map[string]string{}}
		if sparse {
			d.Annotations[leaf.AnnotationData] = "1048576"
		}
		w, err := target.Begin(t.Context(), d, 0)
		if err != nil {
			t.Fatal(err)
		}
		x := bytes.Repeat([]byte("x"), 1<<20)
		for off := int64(0); off < size; off += int64(len(x)) {
			if _, err := w.(ring.Placer).WriteAt(x, off); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Abort(8 << 20); err != nil {
			t.Fatal(err)
		}
		if w, err = target.Begin(t.Context(), d, 4<<20); err != nil {
			t.Fatal(err)
		}
		p := w.(ring.Placer)
		if err := p.Zero(4<<20, size-5<<20); err != nil {
			t.Fatal(err)
		}
		if _, err := p.WriteAt(x, size-1<<20); err != nil {
			t.Fatal(err)
		}
		if err := p.Zero(size-2<<20, 1); err == nil {
			t.Error("zeros were made of what is written")
		}
		if err := w.Commit(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if err := target.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(target.Path())
		if err != nil {
			t.Fatal(err)
		}
		if used := stat(info).Blocks * 512; info.Size() != size || used > 6<<20 {
			t.Errorf("sparse %v: %d bytes take %d", sparse, info.Size(), used)
		}
		got, err := os.ReadFile(target.Path())
		want := append(append(bytes.Repeat([]byte("x"), 4<<20), make([]byte, size-5<<20)...), x...)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("sparse %v: other bytes, %v", sparse, err)
		}
	}
}
