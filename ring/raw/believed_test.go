package raw

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring"
)

// forgetful is a file of a file system that knows of bytes which were written once there was an fsync: before, it says that
// they are a hole, as some do whose bytes are in a cache.
type forgetful struct {
	fs.Inode

	mu     sync.Mutex
	synced bool
}

func (f *forgetful) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blocks, out.Blksize = syscall.S_IFREG|0o600, LeavesFrom, 8, 4096
	return 0
}

func (f *forgetful) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, 0, 0
}

func (f *forgetful) Read(_ context.Context, _ fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	return fuse.ReadResultData(bytes.Repeat([]byte("x"), int(min(int64(len(p)), LeavesFrom-off)))), 0
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
		return LeavesFrom, 0
	}
	return off, 0
}

// Bytes that are not on the disk yet are no holes.
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
	f, err := OpenFile(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blobs, err := f.Blobs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Open(t.Context(), blobs[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if z, ok := r.(ring.ZeroSkipper); ok {
		if n, err := z.SkipZeros(LeavesFrom); n != 0 || err != nil {
			t.Errorf("%d bytes were skipped, %v", n, err)
		}
	}
	b := make([]byte, 1)
	if _, err := r.Read(b); err != nil || string(b) != "x" {
		t.Errorf("read %q, %v", b, err)
	}
}

// OpenZFS is believed once its transaction group has ended.
func TestSettled(t *testing.T) {
	if settled(magicZFS, 10*time.Second) || !settled(magicZFS, time.Hour) || settled(magicZFS, -time.Hour) || !settled(unix.EXT4_SUPER_MAGIC, 0) {
		t.Error("another file system is believed")
	}
}
