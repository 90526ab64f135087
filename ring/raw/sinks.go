package raw

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring"
)

// Discard is a sink that keeps nothing: the ring verifies, the bytes are
// dropped. It takes any number of blobs at any offset.
type Discard struct{}

// Offer holds nothing and has room for everything.
func (Discard) Offer(_ context.Context, blobs []v1.Descriptor) ([]int64, int64, error) {
	return make([]int64, len(blobs)), -1, nil
}

// Begin returns a writer that drops what it is given.
func (Discard) Begin(context.Context, v1.Descriptor, int64) (ring.Writer, error) {
	return discard{}, nil
}

// Publish does nothing.
func (Discard) Publish(context.Context) error { return nil }

type discard struct{}

func (discard) Write(b []byte) (int, error)                 { return len(b), nil }
func (discard) Commit(context.Context, v1.Descriptor) error { return nil }
func (discard) Abort(int64) error                           { return nil }

// StreamSink is a sink that writes one blob to a stream as it arrives. It can be
// interrupted and continued where it ended, but not taken back.
type StreamSink struct {
	w  io.Writer
	mu sync.Mutex
	n  int64 // bytes written
}

// Stdout makes a sink of w.
func Stdout(w io.Writer) *StreamSink { return &StreamSink{w: w} }

// Offer takes exactly one blob and holds nothing of it.
func (o *StreamSink) Offer(_ context.Context, blobs []v1.Descriptor) ([]int64, int64, error) {
	if len(blobs) != 1 {
		return nil, 0, fmt.Errorf("standard output takes one blob, not %d", len(blobs))
	}
	return []int64{0}, -1, nil
}

// Begin continues at off, which is where the last writer ended.
func (o *StreamSink) Begin(_ context.Context, _ v1.Descriptor, off int64) (ring.Writer, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if off != o.n {
		return nil, fmt.Errorf("standard output: cannot go from byte %d to byte %d", o.n, off)
	}
	return (*streamSinkWriter)(o), nil
}

// Publish does nothing: what was written is out.
func (o *StreamSink) Publish(context.Context) error { return nil }

type streamSinkWriter StreamSink

func (o *streamSinkWriter) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	if n < len(b) && err == nil {
		err = io.ErrShortWrite
	}
	o.mu.Lock()
	o.n += int64(n)
	o.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("standard output: %w", err)
	}
	return n, err
}

func (o *streamSinkWriter) Commit(_ context.Context, final v1.Descriptor) error {
	if final.Size != o.n {
		return fmt.Errorf("standard output: %d bytes written, %d expected", o.n, final.Size)
	}
	return nil
}

func (o *streamSinkWriter) Abort(keep int64) error {
	if keep != o.n {
		return errors.New("standard output: what is written cannot be taken back")
	}
	return nil
}

var (
	_ ring.Source    = (*File)(nil)
	_ ring.Unchanged = (*File)(nil)
	_ ring.Summed    = (*File)(nil)
	_ ring.Source    = (*Spool)(nil)
	_ ring.Sink      = Discard{}
	_ ring.Sink      = (*StreamSink)(nil)
	_ ring.Sink      = (*Target)(nil)
	_ ring.Opener    = (*Target)(nil)
	_ ring.Keeper    = (*Target)(nil)
	_ ring.Preparer  = (*Target)(nil)
	_ io.Closer      = (*Target)(nil)
)
