package cache

import (
	"context"
	"io"
	"sync/atomic"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// part is a blob that arrives, or one that is read.
type part struct {
	*durable.Part
	d     v1.Descriptor // as it was begun; the digest may not be known
	name  string        // below ingest
	begun bool          // else it was only claimed
	users atomic.Int32  // the transfer and its readers; the last one closes the file
}

// newPart has one user.
func newPart(f durable.File, written int64, d v1.Descriptor, name string) *part {
	p := &part{Part: durable.NewPart(f, written), d: d, name: name}
	p.users.Add(1)
	return p
}

// open reads what is written, from off on. The caller is a user, and the reader is one until it is closed.
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
