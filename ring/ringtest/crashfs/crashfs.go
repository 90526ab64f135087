// Package crashfs is a file system in memory for tests of what survives. It fails
// the n-th operation, or takes the power away there and drops what was not made
// durable.
//
// Durable is what POSIX promises (IEEE 1003.1, fsync) and no more: the bytes of a file
// after its Sync, an entry of a directory after SyncDir of that directory. A power
// loss chooses for every file and every entry on its own whether what came later
// reached the disk. So a rename may lose both names, and an entry may survive whose
// file is empty or holds zeros.
package crashfs

import (
	"errors"
	"io/fs"
	"strings"
	"sync"
	"syscall"
)

// ErrPowerLoss is what every operation returns from the crash on.
var ErrPowerLoss = errors.New("power loss")

// FS is the file system, in the place of durable.Dir or durable.OpenRoot. No file has a descriptor.
type FS struct {
	*disk
	root *node
}

// disk is what a file system and those of its directories have in common.
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

// FailAt makes the n-th operation from now, counted from 1, fail with EIO and do
// nothing. With 0 none fails.
func (f *FS) FailAt(n int) { f.set(&f.failAt, f.ops+n) }

// CrashAt takes the power away before the n-th operation from now.
func (f *FS) CrashAt(n int) { f.set(&f.crashAt, f.ops+n) }

// IgnoreSync makes Sync of files, SyncDir of directories, or both lie: they
// succeed and make nothing durable. A test that does not notice proves nothing.
func (f *FS) IgnoreSync(files, dirs bool) {
	f.mu.Lock()
	f.skipFiles, f.skipDirs = files, dirs
	f.mu.Unlock()
}

// SyncLies reports whether IgnoreSync is in effect, which ends with a reboot.
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

// node is a file or directory: its state now, and what of it is durable.
type node struct {
	ino        uint64
	mode       fs.FileMode
	nlink      uint64
	mtime      int64
	ctime      int64
	data       []byte
	durable    []byte             // of a file: its data at the last Sync
	entries    map[string]*node   // of a directory
	entriesLog map[string][]*node // by name: the durable entry (nil where there is none), then all later ones
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

// enter puts child under name, or removes the name where child is nil. It does not make it durable.
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

// op counts one operation and returns an error if it must not be done. The lock is held
// when it returns nil.
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

// find returns the directory of name, its last element, and what is there, or nil.
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
