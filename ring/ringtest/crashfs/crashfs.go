// Package crashfs is a file system in memory, for tests of what survives a failure. It fails the n-th operation, or
// takes the power away there and drops what was not made durable.
//
// Only that is durable which POSIX promises (IEEE 1003.1, fsync): the bytes of a file after its Sync, and an entry
// of a directory after SyncDir of that directory. For every file and every entry on its own, a power loss chooses
// whether what came later has reached the disk. So a rename may lose both names, and an entry may survive though its
// file is empty or holds zeros.
package crashfs

import (
	"errors"
	"io/fs"
	"strings"
	"sync"
	"syscall"
)

// ErrPowerLoss is the error of every operation from the crash on.
var ErrPowerLoss = errors.New("power loss")

// FS is the file system. It stands in for durable.Dir and durable.OpenRoot. Its files have no descriptors.
type FS struct {
	*disk
	root *node
}

// disk is what the file system of a directory and those of its subdirectories share.
type disk struct {
	mu    sync.Mutex
	inode uint64
	clock int64
	ops   int

	failAt    int
	crashAt   int
	skipFiles bool
	skipDirs  bool
}

// New makes an empty file system.
func New() *FS {
	f := &FS{disk: &disk{}}
	f.root = f.newNode(fs.ModeDir | 0o755)
	return f
}

// FailAt makes the n-th operation from now fail with EIO and do nothing. It counts from 1. If n is 0, no operation fails.
func (f *FS) FailAt(n int) { f.set(&f.failAt, f.ops+n) }

// CrashAt takes the power away before the n-th operation from now.
func (f *FS) CrashAt(n int) { f.set(&f.crashAt, f.ops+n) }

// IgnoreSync makes Sync of files, SyncDir of directories, or both lie: they succeed and make nothing durable. A
// test that does not notice this proves nothing.
func (f *FS) IgnoreSync(files, dirs bool) {
	f.mu.Lock()
	f.skipFiles, f.skipDirs = files, dirs
	f.mu.Unlock()
}

// SyncLies reports whether IgnoreSync is in effect. A reboot ends that.
func (f *FS) SyncLies() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.skipFiles || f.skipDirs
}

func (f *FS) set(p *int, v int) { f.mu.Lock(); *p = v; f.mu.Unlock() }

// Ops returns how many operations there were.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// node is a file or directory. It has the present state, and what of it is durable.
type node struct {
	ino        uint64
	mode       fs.FileMode
	nlink      uint64
	mtime      int64
	ctime      int64
	data       []byte
	durable    []byte             // of a file: its data at the last Sync
	entries    map[string]*node   // of a directory
	entriesLog map[string][]*node // by name: the durable entry, or nil if there is none, and then all later ones
	exchanged  [][2]string        // pairs of names that were exchanged and are not durable
}

func (f *disk) newNode(mode fs.FileMode) *node {
	f.inode++
	n := &node{ino: f.inode, mode: mode, nlink: 1}
	if mode.IsDir() {
		n.entries, n.entriesLog = map[string]*node{}, map[string][]*node{}
	}
	f.touch(n)
	return n
}

func (f *disk) touch(n *node) {
	f.clock++
	n.mtime, n.ctime = f.clock, f.clock
}

// enter puts child under name, or removes the name if child is nil. It does not make that durable.
func (n *node) enter(name string, child *node) {
	if n.entriesLog[name] == nil {
		n.entriesLog[name] = []*node{n.entries[name]}
	}
	n.entriesLog[name] = append(n.entriesLog[name], child)
	if child == nil {
		delete(n.entries, name)
	} else {
		n.entries[name] = child
	}
}

// op counts one operation, and returns an error if the operation must fail. If it returns nil, it holds the lock.
func (f *FS) op(what, name string) error {
	f.mu.Lock()
	f.ops++
	var err error
	switch {
	case f.crashAt > 0 && f.ops >= f.crashAt:
		err = ErrPowerLoss
	case f.failAt > 0 && f.ops == f.failAt:
		err = syscall.EIO
	}
	if err != nil {
		f.mu.Unlock()
		return pathError(what, name, err)
	}
	return nil
}

func pathError(what, name string, err error) error {
	return &fs.PathError{Op: what, Path: name, Err: err}
}

// find returns the directory of name, the last element of name, and what is there, which is nil for nothing.
func (f *FS) find(name string) (dir *node, base string, n *node, err error) {
	if !fs.ValidPath(name) {
		return nil, "", nil, fs.ErrInvalid
	}
	dir, n = f.root, f.root
	if name == "." {
		return dir, base, n, nil
	}
	for elem := range strings.SplitSeq(name, "/") {
		if n == nil {
			return nil, "", nil, fs.ErrNotExist
		}
		if !n.mode.IsDir() {
			return nil, "", nil, syscall.ENOTDIR
		}
		dir, base, n = n, elem, n.entries[elem]
	}
	return dir, base, n, nil
}
