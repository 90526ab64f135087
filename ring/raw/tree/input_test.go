package tree

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// forgetful is a file of a file system that says that bytes are a hole which were written, until there was an fsync.
type forgetful struct {
	fs.Inode

	mu     sync.Mutex
	synced bool
}

const forgetfulSize = 1 << 20

func (f *forgetful) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blocks, out.Blksize = syscall.S_IFREG|0o600, forgetfulSize, 8, 4096
	return 0
}

func (f *forgetful) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, 0, 0
}

func (f *forgetful) Read(_ context.Context, _ fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	return fuse.ReadResultData(bytes.Repeat([]byte("x"), int(min(int64(len(p)), forgetfulSize-off)))), 0
}

func (f *forgetful) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.synced = true
	return 0
}

func (f *forgetful) Lseek(_ context.Context, _ fs.FileHandle, off uint64, whence uint32) (uint64, syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case !f.synced && whence == unix.SEEK_DATA:
		return 0, syscall.ENXIO
	case whence == unix.SEEK_HOLE && f.synced:
		return forgetfulSize, 0
	}
	return off, 0
}

// Bytes of a file that are not on the disk yet are no holes.
func TestUnwrittenIsNoHole(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	dir := t.TempDir()
	file, root := &forgetful{}, &fs.Inode{}
	server, err := fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{FsName: "forgetful", DirectMountStrict: true},
		OnAdd: func(ctx context.Context) {
			root.AddChild("file", root.NewPersistentInode(ctx, file, fs.StableAttr{Mode: syscall.S_IFREG}), false)
		},
	})
	if err != nil {
		if os.Getenv("DOLLY_IMG_COUNTERPARTS") == "1" {
			t.Fatalf("no FUSE: %v", err)
		}
		t.Skipf("no FUSE: %v", err)
	}
	defer server.Unmount()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	blobs, _ := s.Blobs(t.Context())
	r, err := s.Open(t.Context(), blobs[0], s.Size()-trailer-forgetfulSize)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := r.(ring.ZeroSkipper).SkipZeros(forgetfulSize); n != 0 || err != nil {
		t.Errorf("%d bytes were skipped, %v", n, err)
	}
	b := make([]byte, 1)
	if _, err := io.ReadFull(r, b); err != nil || string(b) != "x" {
		t.Errorf("read %q, %v", b, err)
	}
}

// Whoever exchanges a directory for a link has nothing opened that is elsewhere: with a device that may be enough to do harm.
func TestExchangedForLink(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(dir+"/a", 0o700), os.WriteFile(dir+"/a/watchdog", []byte("x"), 0o600), unix.Mkfifo(elsewhere+"/watchdog", 0o600))
	s, err := Open(dir, Options{})
	must(err)
	defer s.Close()
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	must(err)
	defer unix.Close(watch)
	_, err = unix.InotifyAddWatch(watch, filepath.Join(elsewhere, "watchdog"), unix.IN_OPEN)
	must(err, os.Rename(dir+"/a", dir+"/b"), os.Symlink(elsewhere, dir+"/a"))
	blobs, _ := s.Blobs(t.Context())
	r, err := s.Open(t.Context(), blobs[0], 0)
	must(err)
	defer r.Close()
	_, err = io.ReadAll(r)
	if kind, _ := errkind.Of(err); kind != "input-changes" {
		t.Errorf("read: %v", err)
	}
	if n, err := unix.Read(watch, make([]byte, 4096)); n > 0 || err != unix.EAGAIN {
		t.Errorf("what the link leads to was opened: %d, %v", n, err)
	}
}
