package push

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/raw"
)

// inParts is a source of one blob as a source of several, each of which becomes a file of its own.
type inParts struct {
	from  ring.Source
	whole v1.Descriptor // its only blob, with its size
	each  int64         // bytes of each part but the last
	parts []v1.Descriptor
	at    map[string]int64 // where a part begins, by its title
}

// split makes parts of each bytes of a source called path. It closes the source if there is an error. A stream is read to its
// end first, since its length has to be known.
func split(ctx context.Context, from ring.Source, path string, each int64) (ring.Source, error) {
	s := &inParts{from: from, each: each, at: map[string]int64{}}
	if err := s.divide(ctx, path); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *inParts) divide(ctx context.Context, path string) error {
	blobs, err := s.from.Blobs(ctx)
	if err != nil {
		return err
	}
	s.whole = blobs[0]
	if s.whole.Size < 0 {
		if s.whole.Size, err = s.measure(ctx); err != nil {
			return err
		}
	}
	if n := (s.whole.Size - 1) / s.each; n >= raw.MaxParts {
		return fmt.Errorf("input %s: %d parts of %d bytes, at most %d parts", path, n+1, s.each, raw.MaxParts)
	}
	for off := int64(0); off == 0 || off < s.whole.Size; off += s.each {
		title := raw.PartName(filepath.Base(path), len(s.parts))
		s.at[title] = off
		s.parts = append(s.parts, v1.Descriptor{
			MediaType: "application/octet-stream", Size: min(s.each, s.whole.Size-off), Annotations: map[string]string{v1.AnnotationTitle: title},
		})
	}
	return nil
}

// measure reads the source, which keeps what it has read, to its end.
func (s *inParts) measure(ctx context.Context) (int64, error) {
	r, err := s.from.Open(ctx, s.whole, 0)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(io.Discard, r)
	return n, errors.Join(err, r.Close())
}

// Blobs lists the parts.
func (s *inParts) Blobs(context.Context) ([]v1.Descriptor, error) { return s.parts, nil }

// Open reads a part from off on.
func (s *inParts) Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	begin, ok := s.at[d.Annotations[v1.AnnotationTitle]]
	if !ok || off < 0 || off > d.Size {
		return nil, fmt.Errorf("no byte %d in a part of %d bytes", off, d.Size)
	}
	r, err := s.from.Open(ctx, s.whole, begin+off)
	if err != nil {
		return nil, err
	}
	return &limited{ctx, io.LimitReader(r, d.Size-off), r}, nil
}

// limited is a reader with an end, which ctx may bring, too.
type limited struct {
	ctx context.Context
	r   io.Reader
	io.Closer
}

func (l *limited) Read(b []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	return l.r.Read(b)
}

// Unchanged is that of the source.
func (s *inParts) Unchanged(ctx context.Context) error {
	if u, ok := s.from.(ring.Unchanged); ok {
		return u.Unchanged(ctx)
	}
	return nil
}

// sha256 returns "": the digests are those of the parts.
func (s *inParts) sha256(context.Context) digest.Digest { return "" }

// Close closes the source.
func (s *inParts) Close() error {
	if c, ok := s.from.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
