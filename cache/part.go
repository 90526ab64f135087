package cache

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// part is a blob that arrives, or one that is read.
type part struct {
	*durable.Part
	// d is the descriptor with which the blob was begun. Its digest is "" if it was not known then.
	d    v1.Descriptor
	name string // below ingest
	// begun says that Begin was called. A part that is only claimed has begun false.
	begun bool
	// users counts the transfer and the readers. The last one closes the file.
	users atomic.Int32
}

// newPart returns a part with one user.
func newPart(f durable.File, written int64, d v1.Descriptor, name string) *part {
	p := &part{Part: durable.NewPart(f, written), d: d, name: name}
	p.users.Add(1)
	return p
}

// open returns a reader of what is written, from off on. The caller is a user of p, and the reader becomes one until it
// is closed.
func (p *part) open(ctx context.Context, off int64) (io.ReadCloser, error) {
	r, err := p.Open(ctx, off, p.release)
	if err == nil {
		p.users.Add(1)
	}
	return r, err
}

func (p *part) release() error {
	if p.users.Add(-1) == 0 {
		return p.File.Close()
	}
	return nil
}

// Open returns a reader of blob d from off on. If the blob is being received, the reader ends where the blob ends at
// the time of the read.
func (t *Transfer) Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.parts {
		if p.d.Digest == d.Digest {
			r, err := p.open(ctx, off)
			if err != nil {
				return nil, t.fail(d.Digest, "replay", err)
			}
			return r, nil
		}
	}
	name := d.Digest
	if name == "" {
		name = t.unnamed
	}
	if !t.vouched[name] {
		return nil, t.fail(name, "replay", ErrNotFound)
	}
	return t.c.open(ctx, name, off)
}

// open reads a blob that is complete.
func (c *Cache) open(ctx context.Context, d digest.Digest, off int64) (io.ReadCloser, error) {
	name, err := blobName(d)
	if err != nil {
		return nil, err
	}
	f, err := c.fs.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("cache %s: %w", c.dir, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cache %s: blob %s: %w", c.dir, d, err)
	}
	p := newPart(f, info.Size(), v1.Descriptor{}, "")
	defer p.release()
	r, err := p.open(ctx, off)
	if err != nil {
		return nil, fmt.Errorf("cache %s: blob %s: %w", c.dir, d, err)
	}
	return r, nil
}
