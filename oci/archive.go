package oci

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// archive is a tar that is read where it lies, and never unpacked. A first pass notes where
// each file is. A compressed archive is decompressed again for each file that is read,
// or from where the last reader stopped.
type archive struct {
	f       *os.File
	size    int64
	unpack  func(io.Reader) (io.ReadCloser, error) // nil if the archive is not compressed
	entries map[string]entry

	mu   sync.Mutex
	idle *stream // a stream that nobody uses, from which a read may go on
}

// entry is a file in the tar: where its bytes begin, and how many they are.
type entry struct {
	off, size int64
	link      string // the target of a link
}

// openArchive reads the headers of a tar. The context ends a first pass that takes long.
func openArchive(ctx context.Context, name string) (_ *archive, err error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // without O_NONBLOCK, opening a FIFO would wait
	if err != nil {
		return nil, err
	}
	a := &archive{f: f, entries: map[string]entry{}}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	a.size = info.Size()
	var head [6]byte
	n, err := f.ReadAt(head[:], 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	for magic, command := range map[string]string{"\xfd7zXZ\x00": "xz", "BZh": "bzip2"} {
		if bytes.HasPrefix(head[:n], []byte(magic)) { // these are too slow to unpack again for each file
			return nil, errkind.About("archive-compression", command+" -dk "+name, "is compressed with %s, and only archives in gzip and zstd are read", command)
		}
	}
	a.unpack = unpacker(head[:n])
	if err := a.scan(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// unpacker returns what decompresses a file that begins with head, or nil if the file is not compressed.
func unpacker(head []byte) func(io.Reader) (io.ReadCloser, error) {
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		return func(r io.Reader) (io.ReadCloser, error) {
			// The window that a frame may ask for is bounded, because it is allocated.
			d, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderConcurrency(1))
			if err != nil {
				return nil, err
			}
			return d.IOReadCloser(), nil
		}
	}
	return nil
}

func (a *archive) scan(ctx context.Context) error {
	s, err := a.from(ctx, 0)
	if err != nil {
		return err
	}
	defer s.Close()
	r := &untilDone{ctx, s}
	var in io.Reader = r
	if a.unpack == nil {
		in = &seekable{r, s.seek.(io.Seeker), a.size}
	}
	t := tar.NewReader(in)
	names := 0 // bytes
	for n := 0; ; n++ {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("tar archive: %w", err)
		}
		if n == maxFiles {
			return fmt.Errorf("tar archive: more than %d files", maxFiles)
		}
		if names += len(h.Name) + len(h.Linkname); names > maxNames {
			return fmt.Errorf("tar archive: names of more than %d bytes", maxNames)
		}
		e := entry{off: s.at(), size: h.Size}
		switch h.Typeflag {
		case tar.TypeReg:
			for k := range h.PAXRecords {
				if strings.HasPrefix(k, "GNU.sparse.") {
					return fmt.Errorf("tar archive: %q is a sparse file", h.Name)
				}
			}
		case tar.TypeGNUSparse:
			return fmt.Errorf("tar archive: %q is a sparse file", h.Name)
		case tar.TypeSymlink:
			e.link = path.Join(path.Dir(path.Clean(h.Name)), h.Linkname)
		case tar.TypeLink:
			e.link = path.Clean(h.Linkname)
		default:
			continue
		}
		a.entries[path.Clean(h.Name)] = e
	}
}

// find returns the file with a name. It follows links.
func (a *archive) find(name string) (entry, error) {
	for range 8 {
		e, ok := a.entries[path.Clean(name)]
		if !ok {
			break
		}
		if e.link == "" {
			return e, nil
		}
		name = e.link
	}
	return entry{}, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

func (a *archive) length(name string) (int64, error) {
	e, err := a.find(name)
	return e.size, err
}

func (a *archive) open(ctx context.Context, name string, off int64) (io.ReadCloser, int64, error) {
	e, err := a.find(name)
	if err != nil {
		return nil, 0, err
	}
	if off < 0 || off > e.size {
		return nil, 0, fmt.Errorf("offset %d is outside of %d bytes", off, e.size)
	}
	s, err := a.from(ctx, e.off+off)
	if err != nil {
		return nil, 0, err
	}
	return &member{a, s, e.size - off}, e.size, nil
}

// readers returns how many files are worth reading at once. In a compressed archive each reader has to unpack
// everything before its file.
func (a *archive) readers() int {
	if a.unpack != nil {
		return 1
	}
	return runtime.GOMAXPROCS(0)
}

func (a *archive) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.idle != nil {
		a.idle.Close()
		a.idle = nil
	}
	return a.f.Close()
}

// stream reads the tar from some byte on.
type stream struct {
	io.Reader
	seek io.Reader // the reader below if the archive is not compressed
	pos  int64
	c    io.Closer // nil if there is nothing to free
}

func (s *stream) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b)
	s.pos += int64(n)
	return n, err
}

// at returns the place in the tar that is read next.
func (s *stream) at() int64 {
	if r, ok := s.seek.(io.Seeker); ok {
		at, _ := r.Seek(0, io.SeekCurrent)
		return at
	}
	return s.pos
}

func (s *stream) Close() error {
	if s.c != nil {
		return s.c.Close()
	}
	return nil
}

// from returns a stream that stands at off. The context ends a long read to that place.
func (a *archive) from(ctx context.Context, off int64) (*stream, error) {
	if a.unpack == nil {
		r := io.NewSectionReader(a.f, 0, a.size)
		if _, err := r.Seek(off, io.SeekStart); err != nil {
			return nil, err
		}
		return &stream{Reader: r, seek: r}, nil
	}
	a.mu.Lock()
	s := a.idle
	if s != nil && s.pos <= off {
		a.idle = nil
	} else {
		s = nil
	}
	a.mu.Unlock()
	if s == nil {
		rc, err := a.unpack(bufio.NewReaderSize(io.NewSectionReader(a.f, 0, a.size), 256<<10))
		if err != nil {
			return nil, fmt.Errorf("compressed archive: %w", noEOF(err))
		}
		s = &stream{Reader: rc, c: rc}
	}
	if _, err := io.CopyN(io.Discard, &untilDone{ctx, s}, off-s.pos); err != nil {
		s.Close()
		return nil, fmt.Errorf("compressed archive: %w", noEOF(err))
	}
	return s, nil
}

// member reads one file of the archive.
type member struct {
	a    *archive
	s    *stream
	left int64
}

func (m *member) Read(b []byte) (int, error) {
	if m.left == 0 {
		return 0, io.EOF
	}
	n, err := m.s.Read(b[:min(int64(len(b)), m.left)])
	if m.left -= int64(n); m.left > 0 {
		err = noEOF(err)
	} else if err == io.EOF {
		err = nil
	}
	return n, err
}

func (m *member) Close() error {
	if m.s == nil {
		return nil
	}
	s := m.s
	m.s, m.left = nil, 0
	if s.c == nil {
		return nil
	}
	m.a.mu.Lock()
	defer m.a.mu.Unlock()
	if m.a.idle == nil {
		m.a.idle = s
		return nil
	}
	return s.Close()
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// untilDone ends a long read when its context ends.
type untilDone struct {
	ctx context.Context
	io.Reader
}

func (r *untilDone) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

// seekable lets archive/tar skip what it does not read. If a skip ends behind the end of the file, the file
// is cut short, which a seek alone would not notice.
type seekable struct {
	io.Reader
	io.Seeker
	size int64
}

func (s *seekable) Seek(off int64, whence int) (int64, error) {
	at, err := s.Seeker.Seek(off, whence)
	if err == nil && at > s.size {
		err = io.ErrUnexpectedEOF
	}
	return at, err
}

func openOCIArchive(ctx context.Context, s string) (store, string, error) {
	name, ref, err := splitPath(s)
	if err != nil {
		return nil, "", err
	}
	a, err := openArchive(ctx, name)
	if err != nil {
		return nil, "", err
	}
	return newLayout(ctx, a, ref)
}
