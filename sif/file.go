package sif

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// A File is a SIF on disk that is to be sent: it has the methods of a ring's Source.
// Its blobs are the SIF itself, the configuration and the manifest of its Artifact.
// It is safe for concurrent use.
type File struct {
	Image *Image // what it holds

	path  string
	f     *os.File
	info  fs.FileInfo
	state state

	mu       sync.Mutex // protects what follows
	blobs    []v1.Descriptor
	contents map[digest.Digest][]byte // of config and manifest
}

// state tells without reading a file whether its content has changed.
type state struct {
	Dev, Ino     uint64
	Size         int64 // bytes
	Mtime, Ctime int64 // nanoseconds of Unix time
}

func stateOf(st *unix.Stat_t) state {
	return state{Dev: uint64(st.Dev), Ino: st.Ino, Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano()}
}

// A ChangedError says that a file is no longer what it was when it was opened.
type ChangedError struct {
	Path string
}

func (e *ChangedError) Error() string { return e.Path + ": changed while it was being read" }

// Kind returns the kind of the error.
func (e *ChangedError) Kind() (errkind.Kind, []string) { return "sif-changed", nil }

// Open opens and inspects the SIF at path, which must be a regular file that a
// container runtime can start (see Image.CheckRunnable). It reads the header and the
// descriptors only.
func Open(path string) (*File, error) {
	// Without O_NONBLOCK, opening a named pipe would wait for its writer.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	file, err := newFile(path, f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return file, nil
}

func newFile(path string, f *os.File) (*File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, errors.New("is a directory, not a SIF")
	case !info.Mode().IsRegular():
		return nil, errors.New("is not a regular file")
	case st.Size == 0:
		return nil, errors.New("is empty")
	}
	img, err := Inspect(f, st.Size)
	if err != nil {
		return nil, err
	}
	if err := img.CheckRunnable(); err != nil {
		return nil, err
	}
	return &File{Image: img, path: path, f: f, info: info, state: stateOf(&st)}, nil
}

// Close closes the file; readers from Open fail afterwards.
func (f *File) Close() error { return f.f.Close() }

// Info describes the file as it was when it was opened.
func (f *File) Info() fs.FileInfo { return f.info }

// Size returns the length of the SIF in bytes.
func (f *File) Size() int64 { return f.state.Size }

// Digest returns the SHA-256 of the SIF. The first call reads the whole file, unless
// its digest was recorded when this state of it was read before.
func (f *File) Digest(ctx context.Context) (digest.Digest, error) {
	blobs, err := f.Blobs(ctx)
	if err != nil {
		return "", err
	}
	return blobs[0].Digest, nil
}

// Blobs returns the descriptors of the SIF, its configuration and its manifest. The
// first call takes the digest, see Digest.
func (f *File) Blobs(ctx context.Context) ([]v1.Descriptor, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.blobs != nil {
		return f.blobs, nil
	}
	sum, err := f.digest(ctx, userRecords())
	if err != nil {
		return nil, err
	}
	title := filepath.Base(f.path)
	config, manifest, err := Artifact(sum, f.state.Size, title)
	if err != nil {
		return nil, err
	}
	blobs := []v1.Descriptor{layer(sum, f.state.Size, title), descriptor(ConfigMediaType, config),
		descriptor(v1.MediaTypeImageManifest, manifest)}
	f.contents = map[digest.Digest][]byte{blobs[1].Digest: config, blobs[2].Digest: manifest}
	f.blobs = blobs
	return blobs, nil
}

// digest returns the recorded digest, or computes and records it.
func (f *File) digest(ctx context.Context, known *records) (digest.Digest, error) {
	abs, err := filepath.Abs(f.path)
	if err != nil {
		return "", err
	}
	if sum, ok := known.get(abs, f.state); ok {
		return sum, f.Unchanged(ctx)
	}
	started := known.now()
	hash := sha256.New()
	r := io.NewSectionReader(f.f, 0, f.state.Size)
	buf := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := r.Read(buf)
		hash.Write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", err
		}
	}
	if err := f.Unchanged(ctx); err != nil {
		return "", err
	}
	sum := digest.NewDigest(digest.SHA256, hash)
	// A change that comes within the grain of the clock after our read would not show in the times.
	if started.Sub(time.Unix(0, max(f.state.Mtime, f.state.Ctime))) > settled {
		known.put(abs, f.state, sum)
	}
	return sum, nil
}

// Open returns the bytes of one of the Blobs from off on, until the context ends.
func (f *File) Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	blobs, err := f.Blobs(ctx)
	if err != nil {
		return nil, err
	}
	var r io.ReaderAt
	size := f.state.Size
	if d.Digest == blobs[0].Digest {
		r = f.f
	} else if data, ok := f.contents[d.Digest]; ok {
		r, size = bytes.NewReader(data), int64(len(data))
	} else {
		return nil, fmt.Errorf("%s: no blob %s", f.path, d.Digest)
	}
	if off < 0 || off > size {
		return nil, fmt.Errorf("%s: offset %d in blob %s of %d bytes", f.path, off, d.Digest, size)
	}
	return io.NopCloser(&untilDone{ctx, io.NewSectionReader(r, off, size-off)}), nil
}

// untilDone reads until the context ends.
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

// Unchanged returns a *ChangedError unless the open file, and the one that is now under
// its path, are in the state in which Open found them.
func (f *File) Unchanged(context.Context) error {
	var open, named unix.Stat_t
	if err := unix.Fstat(int(f.f.Fd()), &open); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	if err := unix.Stat(f.path, &named); err != nil || stateOf(&open) != f.state || stateOf(&named) != f.state {
		return &ChangedError{Path: f.path}
	}
	return nil
}
