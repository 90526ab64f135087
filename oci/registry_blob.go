package oci

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containers/image/v5/pkg/blobinfocache/none"
	"github.com/containers/image/v5/types"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func (r *registry) blob(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	b := &blobReader{ctx: ctx, r: r, d: d, off: off}
	if err := retry(ctx, b.open); err != nil {
		b.watch.end()
		return nil, r.explain(err)
	}
	return b, nil
}

// blobReader reads a blob though connections may break. If the blob stops after some progress, the
// library asks for the rest by range. If that fails, blobReader asks for the
// whole blob again.
type blobReader struct {
	ctx   context.Context
	r     *registry
	d     v1.Descriptor
	body  io.ReadCloser
	off   int64 // place of the next byte
	tries int   // how often it failed since the last byte
	err   error // the error that came with the last bytes
	watch *watch
}

func (b *blobReader) open() error {
	b.watch.end()
	b.watch = newWatch(b.ctx, b.r.guard)
	body, size, err := b.r.src.GetBlob(b.watch.ctx, types.BlobInfo{Digest: b.d.Digest, Size: b.d.Size}, none.NoCache)
	if err != nil {
		return b.watch.cause(err)
	}
	if size >= 0 && size != b.d.Size {
		body.Close()
		err := fmt.Errorf("the registry has %d bytes of it, and the manifest says %d", size, b.d.Size)
		if size < b.d.Size { // this may be what a proxy has so far
			err = fmt.Errorf("%w: %w", err, io.ErrUnexpectedEOF)
		}
		return &wrong{err}
	}
	b.watch.pause()
	b.body = body
	buf := make([]byte, 64<<10)
	for left := b.off; left > 0; {
		n, err := b.read(buf[:min(left, int64(len(buf)))])
		if left -= int64(n); err != nil && left > 0 {
			body.Close()
			return noEOF(err)
		}
	}
	return nil
}

// read reads what the registry sends, for as long as it sends something.
func (b *blobReader) read(p []byte) (int, error) {
	b.watch.begin()
	n, err := b.body.Read(p)
	b.watch.pause()
	return n, b.watch.cause(err)
}

func (b *blobReader) Read(p []byte) (int, error) {
	for {
		n, err := 0, b.err
		if b.err = nil; err == nil {
			n, err = b.read(p)
		}
		b.off += int64(n)
		if err == io.EOF && b.off < b.d.Size {
			err = io.ErrUnexpectedEOF // a body without a length may end too early without an error
		}
		if n > 0 || err == nil || err == io.EOF {
			if n > 0 {
				b.tries = 0
			}
			if err != io.EOF {
				b.err, err = err, nil // the library does not return this error again
			}
			return n, err
		}
		if b.tries++; b.tries > retries || !passing(err) || b.ctx.Err() != nil {
			return 0, b.r.explain(err)
		}
		b.body.Close()
		if err := retry(b.ctx, b.open); err != nil {
			b.body = io.NopCloser(strings.NewReader(""))
			return 0, b.r.explain(err)
		}
	}
}

func (b *blobReader) Close() error {
	b.watch.end()
	return b.body.Close()
}

// watch ends a request if the registry sends nothing for stallLimit.
type watch struct {
	ctx     context.Context
	cancel  context.CancelFunc
	timer   *time.Timer
	stalled atomic.Bool
}

func newWatch(ctx context.Context, s *downgradeGuard) *watch {
	w := &watch{}
	ctx, w.cancel = context.WithCancel(ctx)
	w.ctx = s.watch(ctx)
	w.timer = time.AfterFunc(stallLimit, func() {
		w.stalled.Store(true)
		w.cancel()
	})
	return w
}

func (w *watch) begin() { w.timer.Reset(stallLimit) }

func (w *watch) pause() { w.timer.Stop() } // a slow reader is no stalled registry

func (w *watch) cause(err error) error {
	if err != nil && w.stalled.Load() {
		return errStalled
	}
	return refused(w.ctx, err)
}

func (w *watch) end() {
	if w != nil {
		w.timer.Stop()
		w.cancel()
	}
}
