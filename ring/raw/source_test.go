package raw

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/dolly-img/dolly-img/ring/ringtest"
)

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

// kindOf is the kind of an error and what it is about, "" for one without.
func kindOf(err error) string {
	kind, about := errkind.Of(err)
	return strings.TrimSpace(string(kind) + " " + strings.Join(about, " "))
}

func TestFile(t *testing.T) {
	for _, size := range []int{0, 1, 3<<20 + 5} {
		want := random(size)
		ringtest.TestSource(t, func(t *testing.T) ring.Source {
			path := filepath.Join(t.TempDir(), "in.img")
			if err := os.WriteFile(path, want, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := OpenFile(path)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}, want)
	}
}

func TestFileTitle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "in.img")
	os.WriteFile(path, []byte("x"), 0o600)
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blobs, _ := f.Blobs(context.Background())
	if d := blobs[0]; d.Annotations[v1.AnnotationTitle] != "in.img" || d.MediaType != "application/octet-stream" || d.Digest != "" {
		t.Errorf("descriptor is %+v", d)
	}
}

// A long file travels in leaves, and its SHA-256 is computed beside.
func TestFileInLeaves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "long")
	if err := os.WriteFile(path, []byte("begins with this"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, LeavesFrom+5); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blobs, err := f.Blobs(t.Context())
	if err != nil || !leaf.In(blobs[0]) {
		t.Fatalf("%+v, %v", blobs, err)
	}
	f.WantSHA256()
	if got := f.SHA256(t.Context(), func() {}); got != "" {
		t.Errorf("nothing was read, and its digest is %s", got)
	}
	r, err := f.Open(t.Context(), blobs[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	want, err := digest.FromReader(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := f.SHA256(t.Context(), func() {}); got != want {
		t.Errorf("SHA-256 %s, want %s", got, want)
	}
	late := 0
	root, err := f.Digest(t.Context())
	if err != nil || root.Algorithm() != leaf.Algorithm {
		t.Fatalf("digest %s, %v", root, err)
	}
	f.Sums([]digest.Digest{root})
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteAt([]byte("more"), LeavesFrom+5); err != nil {
		t.Fatal(err)
	}
	if err := f.Unchanged(t.Context()); err != nil || f.Grown() != 4 {
		t.Errorf("it became longer by %d: %v", f.Grown(), err)
	}
	if _, err := w.WriteAt([]byte("other"), LeavesFrom-8); err != nil {
		t.Fatal(err)
	}
	if err := f.Unchanged(t.Context()); err == nil {
		t.Error("it has other bytes, and counts as unchanged")
	}
	// Its SHA-256 may be computed after the nodes have it: what changed then is in it.
	if got := f.SHA256(t.Context(), func() { late++ }); got != "" || late > 0 {
		t.Errorf("of a file that changed: %q, late %d", got, late)
	}
}

// However long a file is, it travels in leaves.
func TestLongestFileInLeaves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "longest")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 2<<40+1); err != nil {
		t.Skipf("a sparse file of 2 TiB: %v", err)
	}
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if blobs, err := f.Blobs(t.Context()); err != nil || !leaf.In(blobs[0]) {
		t.Errorf("%+v, %v", blobs, err)
	}
}

func TestOpenFileRefuses(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path, want string
		hint       bool
	}{
		{filepath.Join(dir, "no"), "no such file", true},
		{dir, "is a directory", true},
		{"/dev/null", "device", true},
		{fifo, "not a regular file", true},
	} {
		_, err := OpenFile(tt.path)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.path) {
			t.Errorf("%s: %v, want %s", tt.path, err, tt.want)
		}
		if (kindOf(err) != "") != tt.hint {
			t.Errorf("%s: kind is %q", tt.path, kindOf(err))
		}
	}
}

func TestFileChanged(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(path string) error
	}{
		{"written and appended", func(path string) error { return os.WriteFile(path, []byte("byteS and more"), 0o600) }},
		{"appended and removed", func(path string) error { return errors.Join(appendTo(path, "more"), os.Remove(path)) }},
		{"appended and replaced", func(path string) error {
			return errors.Join(appendTo(path, "more"), os.Rename(path, path+".1"), os.WriteFile(path, []byte("bytesmore"), 0o600))
		}},
		{"shorter", func(path string) error { return os.Truncate(path, 3) }},
		{"written", func(path string) error { return os.WriteFile(path, []byte("other"), 0o600) }},
		{"touched", func(path string) error { return os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)) }},
		{"replaced", func(path string) error {
			if err := os.WriteFile(path+".new", []byte("bytes"), 0o600); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		}},
		{"removed", os.Remove},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "in")
			os.WriteFile(path, []byte("bytes"), 0o600)
			os.Chtimes(path, time.Unix(2, 0), time.Unix(2, 0))
			f, err := OpenFile(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := f.Unchanged(context.Background()); err != nil {
				t.Errorf("before: %v", err)
			}
			if err := tt.change(path); err != nil {
				t.Fatal(err)
			}
			f.Sums([]digest.Digest{digest.FromString("bytes")})
			if err := f.Unchanged(context.Background()); err == nil {
				t.Error("not noticed")
			}
		})
	}
}

func appendTo(path, s string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(s)
	return errors.Join(err, f.Close())
}

// A log that was appended to is what it was as far as it was read; an empty file to
// which somebody writes is not.
func TestFileGrown(t *testing.T) {
	ctx := context.Background()
	want := random(3<<20 + 5)
	path := filepath.Join(t.TempDir(), "log")
	os.WriteFile(path, want, 0o600)
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := appendTo(path, "one more line\n"); err != nil {
		t.Fatal(err)
	}
	r, err := f.Open(ctx, v1.Descriptor{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, want) {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
	if err := f.Unchanged(ctx); err == nil {
		t.Error("unchanged without a sum to compare with")
	}
	f.Sums([]digest.Digest{digest.FromBytes(want)})
	if err := f.Unchanged(ctx); err != nil || f.Grown() != 14 {
		t.Errorf("%d bytes more: %v", f.Grown(), err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	os.WriteFile(empty, nil, 0o600)
	e, err := OpenFile(empty)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if e.Unsized() {
		t.Error("an empty file is a stream")
	}
	e.Sums([]digest.Digest{digest.FromString("")})
	if err := errors.Join(e.Unchanged(ctx), appendTo(empty, "x")); err != nil {
		t.Fatal(err)
	}
	if err := e.Unchanged(ctx); err == nil {
		t.Error("an empty file that somebody writes counts as unchanged")
	}
}

// The files of the kernel say 0 bytes, or a page, and have what reading them gives.
func TestFileLies(t *testing.T) {
	for _, path := range []string{"/proc/version", "/proc/self/environ", "/proc/sys/kernel/ostype", "/sys/kernel/mm/transparent_hugepage/enabled"} {
		want, err := os.ReadFile(path)
		if err != nil || len(want) == 0 {
			t.Fatalf("%s: %q, %v", path, want, err)
		}
		ringtest.TestSource(t, func(t *testing.T) ring.Source {
			f, err := OpenFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !f.Unsized() || f.Size() == int64(len(want)) {
				t.Errorf("%s: size %d", path, f.Size())
			}
			s, err := f.Stream(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			return s
		}, want)
	}
}

func TestFileShrunk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "in")
	os.WriteFile(path, random(1000), 0o600)
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := f.Open(context.Background(), v1.Descriptor{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	os.Truncate(path, 10)
	if b, err := io.ReadAll(r); err != io.ErrUnexpectedEOF || len(b) != 10 {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
}

func TestStream(t *testing.T) {
	want := random(2<<20 + 77)
	for _, tt := range []struct {
		name string
		wrap func(io.Reader) io.Reader
	}{
		{"whole", func(r io.Reader) io.Reader { return r }},
		{"half", iotest.HalfReader},
		{"data with end", iotest.DataErrReader},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ringtest.TestSource(t, func(t *testing.T) ring.Source {
				s, err := Stream(tt.wrap(bytes.NewReader(want)), t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				return s
			}, want)
		})
	}
	ringtest.TestSource(t, func(t *testing.T) ring.Source {
		s, err := Stream(strings.NewReader(""), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}, []byte{})
}

// An earlier offset is read again and the reader goes on with what is new.
func TestStreamAgain(t *testing.T) {
	dir := t.TempDir()
	pr, pw := io.Pipe()
	s, err := Stream(pr, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("the spool has a name: %v", entries)
	}
	want := random(100000)
	go func() {
		for i := 0; i < len(want); i += 1000 {
			pw.Write(want[i : i+1000])
		}
		pw.Close()
	}()
	ctx := context.Background()
	first, err := s.Open(ctx, v1.Descriptor{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 50000)
	if _, err := io.ReadFull(first, got); err != nil {
		t.Fatal(err)
	}
	again, err := s.Open(ctx, v1.Descriptor{}, 20000)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(again); !bytes.Equal(b, want[20000:]) || err != nil {
		t.Errorf("again: %d bytes, %v", len(b), err)
	}
	if b, err := io.ReadAll(first); !bytes.Equal(append(got, b...), want) || err != nil {
		t.Errorf("first: %d bytes, %v", len(got)+len(b), err)
	}
}

func TestStreamNoSpool(t *testing.T) {
	want := random(3 << 20)
	s, err := Stream(bytes.NewReader(want), "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := context.Background()
	r, err := s.Open(ctx, v1.Descriptor{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); !bytes.Equal(b, want) || err != nil {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := s.Open(ctx, v1.Descriptor{}, 5); err == nil || kindOf(err) == "" {
		t.Errorf("what is not kept was opened: %v", err)
	}
}

func TestStreamErrors(t *testing.T) {
	broken := errors.New("broken")
	s, err := Stream(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken)), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 { // it stays
		r, err := s.Open(context.Background(), v1.Descriptor{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); string(b) != "abc" || !errors.Is(err, broken) {
			t.Errorf("%q, %v", b, err)
		}
	}
	if _, err := Stream(nil, t.TempDir()+"/missing"); kindOf(err) == "" {
		t.Errorf("no spool directory: %v", err)
	}
}

// Cancelling and closing end readers that wait for a silent input.
func TestStreamSilent(t *testing.T) {
	pr, pw := io.Pipe()
	defer pw.Close()
	s, err := Stream(pr, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancelled, _ := s.Open(ctx, v1.Descriptor{}, 0)
	closed, _ := s.Open(context.Background(), v1.Descriptor{}, 0)
	done := make(chan error, 2)
	wait := func(r io.Reader) {
		_, err := r.Read(make([]byte, 1))
		done <- err
	}
	go wait(cancelled)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	go wait(closed)
	s.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
