package raw

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// noFallocate is a file system that cannot reserve space: asked for it, it says so
// as a pipe does.
type noFallocate struct {
	durable.FS
	pipe *os.File
}

type noFallocateFile struct {
	durable.File
	pipe *os.File
}

func (f noFallocateFile) SyscallConn() (syscall.RawConn, error) { return f.pipe.SyscallConn() }

func (n noFallocate) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := n.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return noFallocateFile{f, n.pipe}, nil
}

// Where space cannot be reserved, to go on from a mark keeps what is before it. It was
// cut off, and zeros were published in its place.
func TestContinueWithoutFallocate(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	pipe, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer w.Close()
	open := func() (durable.FS, error) {
		root, err := durable.OpenRoot(dir)
		return noFallocate{root, pipe}, err
	}
	target, err := newTarget(open, TargetOptions{Dir: dir, Name: "out"})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	want := bytes.Repeat([]byte("x"), 8<<20)
	d := v1.Descriptor{Size: int64(len(want))}
	for _, step := range []struct{ from, to, keep int64 }{{0, 5 << 20, 4 << 20}, {4 << 20, 8 << 20, 0}} {
		w, err := target.Begin(ctx, d, step.from)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(want[step.from:step.to]); err != nil {
			t.Fatal(err)
		}
		if step.keep > 0 {
			err = w.Abort(step.keep)
		} else {
			err = w.Commit(ctx, d)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := target.Publish(ctx); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "out")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("other bytes were published: %v, %d bytes, the first is %v", err, len(got), got[:1])
	}
}
