package crashfs

import (
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"
)

// handle is an open node.
type handle struct {
	fs   *FS
	n    *node
	name string
}

func (h *handle) ReadAt(b []byte, off int64) (int, error) {
	if err := h.fs.op("read", h.name); err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	if off >= int64(len(h.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, h.n.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (h *handle) WriteAt(b []byte, off int64) (int, error) {
	if err := h.fs.op("write", h.name); err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	h.n.data = slices.Clone(h.n.data) // what is durable may share it
	h.n.resize(max(int64(len(h.n.data)), off+int64(len(b))))
	copy(h.n.data[off:], b)
	h.fs.touch(h.n)
	return len(b), nil
}

func (n *node) resize(size int64) {
	if have := int64(len(n.data)); size > have {
		n.data = append(n.data, make([]byte, size-have)...)
	}
	n.data = n.data[:size:size]
}

func (h *handle) Truncate(size int64) error {
	if err := h.fs.op("truncate", h.name); err != nil {
		return err
	}
	defer h.fs.mu.Unlock()
	h.n.data = slices.Clone(h.n.data)
	h.n.resize(size)
	h.fs.touch(h.n)
	return nil
}

func (h *handle) Chmod(mode fs.FileMode) error {
	if err := h.fs.op("chmod", h.name); err != nil {
		return err
	}
	defer h.fs.mu.Unlock()
	h.n.mode = h.n.mode.Type() | mode.Perm()
	h.fs.clock++
	h.n.ctime = h.fs.clock
	return nil
}

func (h *handle) Chown(int, int) error {
	if err := h.fs.op("chown", h.name); err != nil {
		return err
	}
	defer h.fs.mu.Unlock()
	return nil
}

func (h *handle) Chtimes(_, mtime time.Time) error {
	if err := h.fs.op("chtimes", h.name); err != nil {
		return err
	}
	defer h.fs.mu.Unlock()
	h.fs.touch(h.n)
	h.n.mtime = mtime.UnixNano()
	return nil
}

func (h *handle) Sync() error {
	if err := h.fs.op("sync", h.name); err != nil {
		return err
	}
	defer h.fs.mu.Unlock()
	if !h.fs.skipFiles {
		h.n.durable = h.n.data
	}
	return nil
}

func (h *handle) Stat() (fs.FileInfo, error) {
	if err := h.fs.op("stat", h.name); err != nil {
		return nil, err
	}
	defer h.fs.mu.Unlock()
	return h.n.info(h.name), nil
}

// Close does not count as an operation, because nothing that it does can be lost.
func (h *handle) Close() error { return nil }

// info is the state of a node as os.Stat returns it, with a *syscall.Stat_t.
type info struct {
	name string
	mode fs.FileMode
	st   syscall.Stat_t
}

func (n *node) info(name string) info {
	return info{name, n.mode, syscall.Stat_t{
		Dev: 1, Ino: n.ino, Nlink: n.nlink, Uid: uint32(os.Geteuid()), Size: int64(len(n.data)),
		Mtim: syscall.NsecToTimespec(n.mtime), Ctim: syscall.NsecToTimespec(n.ctime),
	}}
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.st.Size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return time.Unix(i.st.Mtim.Unix()) }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return &i.st }
