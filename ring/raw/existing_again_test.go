package raw

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/dolly-img/dolly-img/cache/durable"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// These tests hold that what the file system says of a file does not decide alone: neither a length that
// is not where reading ends, nor a time that was set back, nor what an earlier Offer found.

// offered makes a target that was offered want.
func offered(t *testing.T, o TargetOptions, want []byte) *Target {
	t.Helper()
	target, err := NewTarget(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { target.Close() })
	if _, _, err := target.Offer(ctx, []v1.Descriptor{{Size: int64(len(want))}}); err != nil {
		t.Fatal(err)
	}
	return target
}

// compare has target compare its file with want, from the first byte to the commit.
func compare(t *testing.T, target *Target, want []byte) error {
	t.Helper()
	d := v1.Descriptor{Size: int64(len(want))}
	w, err := target.Begin(ctx, d, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(want); err != nil {
		t.Fatal(err)
	}
	return w.Commit(ctx, v1.Descriptor{Digest: blob(want).Digest, Size: d.Size})
}

func TestExistingTimeSetBack(t *testing.T) {
	want, dir := random(100000), t.TempDir()
	path := filepath.Join(dir, "out")
	os.WriteFile(path, want, 0o644)
	os.Chtimes(path, day, day)
	target := offered(t, TargetOptions{Dir: dir, Name: "out"}, want)
	if err := compare(t, target, want); err != nil {
		t.Fatal(err)
	}
	poke(t, 10)(path) // sets the same time
	for now, err := os.Stat(path); err == nil && unchanged(now, target.existing.info); now, err = os.Stat(path) {
		os.Chtimes(path, day, day) // until the clock that files are stamped with goes on
	}
	if err := target.Publish(ctx); err == nil {
		t.Error("published other bytes")
	}
}

// A mapping that was made before can be written to while the file is compared.
func TestExistingMapped(t *testing.T) {
	want, dir := random(100000), onDisk(t)
	f, err := os.OpenFile(filepath.Join(dir, "out"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.Write(want)
	mem, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	mem[10] = want[10]
	os.Chtimes(f.Name(), day, day)
	d := v1.Descriptor{Size: int64(len(want))}
	w, err := offered(t, TargetOptions{Dir: dir, Name: "out"}, want).Begin(ctx, d, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(want); err != nil {
		t.Fatal(err)
	}
	mem[10]++
	if err := w.Commit(ctx, v1.Descriptor{Digest: blob(want).Digest, Size: d.Size}); err == nil {
		t.Error("other bytes are the blob")
	}
}

func TestExistingRemovedAfterOffer(t *testing.T) {
	want, dir := random(100000), t.TempDir()
	path := filepath.Join(dir, "out")
	os.WriteFile(path, want, 0o644)
	target := offered(t, TargetOptions{Dir: dir, Name: "out"}, want)
	os.Remove(path)
	if _, _, err := target.Offer(ctx, []v1.Descriptor{{Size: int64(len(want))}}); err != nil {
		t.Fatal(err)
	}
	if err := compare(t, target, want); err != nil {
		t.Fatal(err)
	}
	if err := target.Publish(ctx); err != nil {
		t.Error(err)
	}
	if got, _ := os.ReadFile(path); !bytes.Equal(got, want) {
		t.Errorf("%d bytes are there", len(got))
	}
}

func TestExistingLongerThanItSays(t *testing.T) {
	want, dir := random(100000), t.TempDir()
	d := v1.Descriptor{Size: int64(len(want))}
	os.WriteFile(filepath.Join(dir, "out"), append(bytes.Clone(want), 1), 0o644)
	open := func() (durable.FS, error) {
		root, err := durable.OpenRoot(dir)
		return shortFS{root, d.Size}, err
	}
	target, err := newTarget(open, TargetOptions{Dir: dir, Name: "out"})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if _, _, err := target.Offer(ctx, []v1.Descriptor{d}); err != nil {
		t.Fatal(err)
	}
	if err := compare(t, target, want); !errors.Is(err, fs.ErrExist) {
		t.Errorf("longer than it says: %v", err)
	}
}

func TestExistingBelowLink(t *testing.T) {
	want, dir := random(100000), t.TempDir()
	os.Mkdir(filepath.Join(dir, "real"), 0o755)
	os.Symlink("real", filepath.Join(dir, "link"))
	os.WriteFile(filepath.Join(dir, "real", "out"), want, 0o644)
	target, err := NewTarget(TargetOptions{Dir: dir, Name: "link/out"})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if _, _, err := target.Offer(ctx, []v1.Descriptor{{Size: int64(len(want))}}); err == nil {
		t.Error("a path with a link is taken where a file stands, and else refused")
	}
}

// shortFS says that every file is so long.
type shortFS struct {
	durable.FS
	size int64
}

type shortFile struct {
	durable.File
	size int64
}

type shortInfo struct {
	fs.FileInfo
	size int64
}

func (s shortInfo) Size() int64 { return s.size }

func (s shortFS) Lstat(name string) (fs.FileInfo, error) {
	info, err := s.FS.Lstat(name)
	return shortInfo{info, s.size}, err
}

func (s shortFS) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := s.FS.OpenFile(name, flag, perm)
	return shortFile{f, s.size}, err
}

func (s shortFile) Stat() (fs.FileInfo, error) {
	info, err := s.File.Stat()
	return shortInfo{info, s.size}, err
}

// onDisk makes a directory on a file system that writes back to a disk, which a tmpfs does not: there no
// later write shows.
func onDisk(t *testing.T) string {
	t.Helper()
	for _, base := range []string{"", "/var/tmp", "."} {
		dir, err := os.MkdirTemp(base, "existing-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err == nil && st.Type != unix.TMPFS_MAGIC {
			return dir
		}
	}
	t.Skip("all that can be written to is memory, of which nothing is written back")
	return ""
}
