//go:build linux

package loopdev

import (
	"bytes"
	"context"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// forgetful is a file of a file system that knows of bytes which were written once there was an fsync: before, it says that
// they are a hole, as some do whose bytes are in a cache.
type forgetful struct {
	fs.Inode
	size int64

	mu     sync.Mutex
	synced bool
}

// NewForgetful mounts a file system at dir with one file, of size bytes "x", and returns the path of that file. Until somebody calls
// fsync the file says that all of it is a hole, although it reads right.
func NewForgetful(t testing.TB, dir string, size int64) (path string) {
	t.Helper()
	mount(t, dir, "forgetful", "file", &forgetful{size: size})
	return filepath.Join(dir, "file")
}

func (f *forgetful) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blocks, out.Blksize = syscall.S_IFREG|0o600, uint64(f.size), 8, 4096
	return 0
}

func (f *forgetful) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, 0, 0
}

func (f *forgetful) Read(_ context.Context, _ fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	return fuse.ReadResultData(bytes.Repeat([]byte("x"), int(max(0, min(int64(len(p)), f.size-off))))), 0
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
		return uint64(f.size), 0
	}
	return off, 0
}
