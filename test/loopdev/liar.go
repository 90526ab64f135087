//go:build linux

package loopdev

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// liar is a file in memory below a loop device: what the disk says that it does, and what it does.
type liar struct {
	fs.Inode

	mu   sync.Mutex
	data []byte
	// write is called for each write, and returns the bytes that get to the medium, nil for none.
	write func(b []byte, off int64) ([]byte, syscall.Errno)
}

func (l *liar) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = syscall.S_IFREG|0o600, uint64(len(l.data))
	return 0
}

func (l *liar) Setattr(ctx context.Context, f fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return l.Getattr(ctx, f, out)
}

// Open keeps the kernel from caching the file: from a cache, a write that was dropped is read back as if it was there.
func (l *liar) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (l *liar) Read(_ context.Context, _ fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fuse.ReadResultData(p[:copy(p, l.data[min(off, int64(len(l.data))):])]), 0
}

func (l *liar) Write(_ context.Context, _ fs.FileHandle, b []byte, off int64) (uint32, syscall.Errno) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := uint32(len(b))
	b, errno := l.write(b, off)
	if errno != 0 {
		return 0, errno
	}
	copy(l.data[off:], b)
	return n, 0
}

func (l *liar) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return 0 }

// NewLiar makes a loop device over a file in memory, which is mounted at dir with FUSE: a disk that says it has done what it
// has not. write is called for each write, and returns the bytes that get to the medium, nil for none.
func NewLiar(t testing.TB, dir string, size int64, write func(b []byte, off int64) ([]byte, syscall.Errno)) *Device {
	t.Helper()
	mount(t, dir, "liar", "disk", &liar{data: make([]byte, size), write: write})
	return Over(t, filepath.Join(dir, "disk"), Options{})
}

// mount mounts a file system with FUSE at dir, in which file is what is called name, until the test ends.
func mount(t testing.TB, dir, fsName, name string, file fs.InodeEmbedder) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	root := &fs.Inode{}
	server, err := fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{FsName: fsName, DirectMountStrict: true, MaxWrite: 512 << 10},
		OnAdd: func(ctx context.Context) {
			root.AddChild(name, root.NewPersistentInode(ctx, file, fs.StableAttr{Mode: syscall.S_IFREG}), false)
		},
	})
	if err != nil {
		Cannot(t, "no FUSE: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
}
