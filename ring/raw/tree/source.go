package tree

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sort"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/dolly-img/dolly-img/ring/raw"
)

// MediaType is that of a stream which does not travel in leaves.
const MediaType = "application/x-tar"

// trailer is how many zeros end the stream, in bytes.
const trailer = 2 * block

// Source is a directory as a source of one blob, the stream.
type Source struct {
	top   int // the directory, open
	title string
	o     Options

	all    []*found
	at     []int64 // where the entries begin in the stream, and where the last one ends
	data   int64   // bytes of the stream that are stored on the disk, or are headers
	digest digest.Digest
}

// Open walks a directory to be sent. Nothing in it may be changed before Unchanged was called. Close frees it.
func Open(dir string, o Options) (*Source, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, errkind.Errorf("input-missing", "input %s: %w", dir, err)
	case err != nil:
		return nil, errkind.Errorf("input-unreadable", "input %s: %w", dir, err)
	}
	return openAt(fd, dir, o)
}

// openAt is Open of a directory that is open, which Close closes.
func openAt(fd int, dir string, o Options) (*Source, error) {
	s := &Source{top: fd, title: filepath.Clean(dir), o: o, at: []int64{0}}
	var scratch []byte
	end := int64(0)
	err := walk(fd, s.title, o, func(f *found) error {
		var headers int64
		headers, scratch = f.headers(scratch)
		end += headers + f.size + padding(f.size)
		if end < 0 || f.size > 1<<62 {
			return fmt.Errorf("input %s: its files are longer than can be counted", s.title)
		}
		s.data += headers + padding(f.size) + f.stored()
		s.all, s.at = append(s.all, f), append(s.at, end)
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.o.Skipped, s.o.Unfit = nil, nil // once is enough
	raw.WaitTick(s.newest())
	return s, nil
}

// newest is when anything in the directory was changed last.
func (s *Source) newest() (last time.Time) {
	for _, f := range s.all {
		if at := time.Unix(f.ctime.Unix()); at.After(last) {
			last = at
		}
	}
	return last
}

// stored returns about how many bytes of a file are no holes.
func (f *found) stored() int64 {
	if f.sparse {
		return f.blocks
	}
	return f.size
}

// Size is the length of the stream in bytes.
func (s *Source) Size() int64 { return s.at[len(s.at)-1] + trailer }

// Entries is how many names are in the directory, with that of itself.
func (s *Source) Entries() int { return len(s.all) }

// Known says which digest the stream has, where that is known. It does nothing for a stream that travels in leaves. It is called before Blobs. Whoever keeps the digest of a
// transfer keeps Mark and Form beside it: the digest is that of the stream as long as both are the same.
func (s *Source) Known(d digest.Digest) { s.digest = d }

// leastHoles is from how many bytes of holes on a stream travels in leaves, in which they cost nothing on the way. A blob in
// leaves has no digest before it was read, so that nodes cannot say that they hold it.
const leastHoles = 64 << 20

// Form is a number that differs when the same tree makes another stream.
const Form = 1

// Blobs is the stream: its size is known, its digest is not, unless Known was called.
func (s *Source) Blobs(context.Context) ([]v1.Descriptor, error) {
	d := raw.Describe(s.title+".tar", s.Size())
	if data := s.data + trailer; d.Size-data >= leastHoles {
		d.Annotations[leaf.AnnotationData] = strconv.FormatInt(data, 10)
	} else {
		d.MediaType, d.Digest = MediaType, s.digest
	}
	return []v1.Descriptor{d}, nil
}

// Open reads the stream from off on.
func (s *Source) Open(ctx context.Context, _ v1.Descriptor, off int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if off < 0 || off > s.Size() {
		return nil, fmt.Errorf("input %s: offset %d is outside the %d bytes of its stream", s.title, off, s.Size())
	}
	r := &reader{ctx: ctx, s: s, fd: -1}
	r.next = sort.Search(len(s.all), func(i int) bool { return s.at[i+1] > off })
	begin := s.at[r.next]
	if err := r.enter(); err != nil {
		return nil, err
	}
	if err := r.skip(off - begin); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Unchanged walks the directory again.
func (s *Source) Unchanged(ctx context.Context) error {
	i := 0
	o := s.o
	o.xattrs = 1 // a change of others shows in the time of change
	err := walk(s.top, s.title, o, func(f *found) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if i >= len(s.all) || !f.same(s.all[i]) {
			return changed(filepath.Join(s.title, f.path))
		}
		i++
		return nil
	})
	if err == nil && i < len(s.all) {
		err = changed(filepath.Join(s.title, s.all[i].path))
	}
	return err
}

// same reports whether two walks found the same. What the inode does not say of an entry is compared, too.
func (f *found) same(b *found) bool {
	return f.identity == b.identity && f.path == b.path && f.kind == b.kind && f.link == b.link
}

// Mark is a digest of what the file system says about everything in the directory: as long as it is the same, so is the
// stream.
func (s *Source) Mark() digest.Digest {
	m := digest.Canonical.Digester()
	var b []byte
	for _, f := range s.all {
		b = f.mark(b[:0])
		m.Hash().Write(b)
	}
	return m.Digest()
}

// mark appends all of an entry by which a change of it is seen. A change of what a hard link names is seen at the first name.
func (f *found) mark(b []byte) []byte {
	b = f.core(b)
	b = binary.BigEndian.AppendUint64(b, f.dev)
	b = binary.BigEndian.AppendUint64(b, f.ino)
	if f.kind == typeHardLink {
		return b
	}
	b = binary.BigEndian.AppendUint64(b, uint64(f.length))
	return binary.BigEndian.AppendUint64(b, uint64(f.ctime.Nano()))
}

// Close ends the source.
func (s *Source) Close() error { return unix.Close(s.top) }

var (
	_ ring.Source    = (*Source)(nil)
	_ ring.Unchanged = (*Source)(nil)
)
