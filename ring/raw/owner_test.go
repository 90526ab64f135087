package raw

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// A complete part has its owner before it has its name. To another transfer it is
// busy, not foreign; what a killed process left of one is replaced, never written to.
func TestTargetGivenAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir := t.TempDir()
	o := TargetOptions{Dir: dir, Name: "out", Owner: &Owner{UID: 12345, GID: -1}}
	commit := func(o TargetOptions) *Target {
		t.Helper()
		target, err := NewTarget(o)
		if err != nil {
			t.Fatal(err)
		}
		w, err := target.Begin(ctx, blob([]byte("old")), 0)
		if err != nil {
			t.Fatal(err)
		}
		w.Write([]byte("old"))
		if err := w.Commit(ctx, blob([]byte("old"))); err != nil {
			t.Fatal(err)
		}
		return target
	}
	offer := func(o TargetOptions) error {
		target, _ := NewTarget(o)
		defer target.Close()
		_, _, err := target.Offer(ctx, []v1.Descriptor{blob(nil)})
		_, berr := target.Begin(ctx, blob(nil), 0)
		if (err == nil) != (berr == nil) {
			t.Errorf("offer: %v, begin: %v", err, berr)
		}
		return err
	}
	first := commit(o)
	other := TargetOptions{Dir: dir, Name: "out"}
	for _, o := range []TargetOptions{o, other} {
		if err := offer(o); !errors.Is(err, ErrBusy) {
			t.Errorf("while it is about to be published: %v", err)
		}
	}
	first.part.File.Close() // what the kernel does for a killed process
	first.part = nil
	first.Close()
	part := filepath.Join(dir, ".out.dolly-img-part")
	held, err := os.Open(part)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := offer(other); err == nil || !strings.Contains(err.Error(), "not a part file of ours") {
		t.Errorf("another owner's: %v", err)
	}
	second, _ := NewTarget(o)
	defer second.Close()
	if err := place(second, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(second.Path()); string(b) != "new" {
		t.Errorf("file is %q", b)
	}
	b := make([]byte, 9)
	if n, _ := held.ReadAt(b, 0); string(b[:n]) != "old" {
		t.Errorf("what was left was written to: %q", b[:n])
	}
}

// squashed is a file system that gives every file to nobody, as an export of NFS does
// with those of root.
type squashed struct{ durable.FS }

type squashedFile struct{ durable.File }

type squashedInfo struct{ fs.FileInfo }

func (s squashedInfo) Sys() any {
	st := *s.FileInfo.Sys().(*syscall.Stat_t)
	st.Uid = 65534
	return &st
}

func (s squashedFile) Stat() (fs.FileInfo, error) {
	info, err := s.File.Stat()
	return squashedInfo{info}, err
}

func (s squashed) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := s.FS.OpenFile(name, flag, perm)
	return squashedFile{f}, err
}

func (s squashed) Lstat(name string) (fs.FileInfo, error) {
	info, err := s.FS.Lstat(name)
	return squashedInfo{info}, err
}

func TestTargetSquashed(t *testing.T) {
	dir := t.TempDir()
	target, err := NewTarget(TargetOptions{Dir: dir, Name: "out", Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	target.top = squashed{target.top}
	if _, err := target.Check(); err != nil {
		t.Fatal(err)
	}
	if err := place(target, []byte("bytes")); err != nil {
		t.Fatal(err)
	}
	if names := list(t, dir); len(names) != 1 || names[0] != "out" {
		t.Errorf("directory is %v", names)
	}
}

// unprivileged is a file system on which the mode of a file counts, which for root it
// does not.
type unprivileged struct{ durable.FS }

func (u unprivileged) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	if info, err := u.Lstat(name); err == nil && flag&os.O_RDWR != 0 && flag&os.O_CREATE == 0 && info.Mode()&0o200 == 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return u.FS.OpenFile(name, flag, perm)
}

// What a killed process left complete and read-only is replaced, too, whoever can read it.
func TestTargetSealed(t *testing.T) {
	for _, mode := range []fs.FileMode{0o444, 0o400} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, ".out.dolly-img-part"), []byte("old"), mode); err != nil {
			t.Fatal(err)
		}
		target, err := NewTarget(TargetOptions{Dir: dir, Name: "out", Mode: mode})
		if err != nil {
			t.Fatal(err)
		}
		defer target.Close()
		target.top = unprivileged{target.top}
		if held, _, err := target.Offer(ctx, []v1.Descriptor{blob([]byte("newer"))}); err != nil || held[0] != 0 {
			t.Errorf("mode %v: %v held, %v", mode, held, err)
		}
		if err := place(target, []byte("newer")); err != nil {
			t.Fatalf("mode %v: %v", mode, err)
		}
		if b, _ := os.ReadFile(target.Path()); string(b) != "newer" {
			t.Errorf("file is %q", b)
		}
		if names := list(t, dir); len(names) != 1 {
			t.Errorf("directory is %v", names)
		}
	}
}
