package ring

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// backChunk is how much is read back at once, in bytes.
const backChunk = 1 << 20

// readBack compares what a Sink has stored with the sums of what came (ReadBacker). Its methods do nothing for nil.
type readBack struct {
	open func(ctx context.Context, b int, off int64) (io.ReadCloser, error)
	// called names where a blob is stored: the device or the file, where the Sink tells.
	called func(b int) string
	mark   int64
	sums   [][]byte // of each blob in leaves those of its whole leaves, one behind the other
	// known returns the sum of a leaf that was read and compared before the start, and not written since; nil of any other.
	known func(b int, off int64) []byte
	right atomic.Int64
}

// newReadBack returns nil where the Sink need not be read back.
func newReadBack(x sinkExtras, blobs []v1.Descriptor, mark int64, known func(b int, off int64) []byte) *readBack {
	if x.ReadBacker == nil || x.Opener == nil || !x.ReadsBack() {
		return nil
	}
	r := &readBack{mark: mark, known: known, sums: make([][]byte, len(blobs))}
	r.open = func(ctx context.Context, b int, off int64) (io.ReadCloser, error) { return x.Open(ctx, blobs[b], off) }
	r.called = func(b int) string {
		if x.Stringer != nil && len(blobs) == 1 {
			return x.String()
		}
		return wire.Called(blobs, b)
	}
	for i, d := range blobs {
		if leaf.In(d) {
			r.sums[i] = make([]byte, d.Size/mark*sha256.Size)
		}
	}
	return r
}

// keep notes the sum of the leaf that ends at off. A leaf that was wrong and came again has the newer one.
func (r *readBack) keep(b int, off int64, sum []byte, end bool) {
	if r != nil && !end && r.sums[b] != nil {
		copy(r.sums[b][(off/r.mark-1)*sha256.Size:], sum)
	}
}

// checked returns how many bytes were read back and are right.
func (r *readBack) checked() int64 {
	if r == nil {
		return 0
	}
	return r.right.Load()
}

// compare reads blob b, which is durable and has the digest and size of d, and compares it with what came.
func (r *readBack) compare(ctx context.Context, b int, d v1.Descriptor) error {
	switch {
	case r == nil:
		return nil
	case r.sums[b] != nil:
		return r.leaves(ctx, b, d)
	}
	h := sha256.New()
	if err := r.read(ctx, h, b, 0, d.Size, make([]byte, backChunk)); err != nil {
		return err
	}
	if digest.NewDigest(digest.SHA256, h) != d.Digest {
		return r.differs(b, 0, d.Size)
	}
	r.right.Add(d.Size)
	return nil
}

// leaves reads several leaves at once, and none a second time that was there before.
func (r *readBack) leaves(ctx context.Context, b int, d v1.Descriptor) error {
	work, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	var last []byte // the sum of the last leaf, if it is not whole
	zeros := newZeroLeaf(r.mark)
	for range hashers() {
		work.Go(func() error {
			buf := make([]byte, min(r.mark, d.Size))
			for {
				k := next.Add(1) - 1
				off := k * r.mark
				n := min(r.mark, d.Size-off)
				if n <= 0 {
					return nil
				}
				sum := r.known(b, off)
				if sum == nil {
					if err := r.leaf(ctx, b, off, buf[:n]); err != nil {
						return err
					}
					is := zeros.sum(buf[:n], false)
					sum = is[:]
				}
				if n < r.mark {
					last = sum
				} else if string(sum) != string(r.sums[b][k*sha256.Size:][:sha256.Size]) {
					return r.differs(b, off, n)
				}
				r.right.Add(n)
			}
		})
	}
	if err := work.Wait(); err != nil {
		return err
	}
	root := sha256.New()
	root.Write(r.sums[b])
	root.Write(last)
	if leaf.Digest(root.Sum(nil)) != d.Digest {
		return r.differs(b, d.Size/r.mark*r.mark, d.Size%r.mark)
	}
	return nil
}

// leaf reads the bytes at off of blob b as they are stored, at once: a device is read into aligned memory without a copy.
func (r *readBack) leaf(ctx context.Context, b int, off int64, buf []byte) error {
	in, err := r.open(ctx, b, off)
	if err != nil {
		return err
	}
	defer in.Close()
	n, err := io.ReadFull(in, buf)
	if err == nil {
		err = ctx.Err()
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("read back at byte %d: %w", off+int64(n), err)
	}
	return nil
}

// read hashes n bytes at off of blob b as they are stored.
func (r *readBack) read(ctx context.Context, h io.Writer, b int, off, n int64, buf []byte) error {
	in, err := r.open(ctx, b, off)
	if err != nil {
		return err
	}
	defer in.Close()
	k, err := io.CopyBuffer(h, io.LimitReader(in, n), buf)
	if err == nil && k < n {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("read back at byte %d: %w", off+k, err)
	}
	return nil
}

func (r *readBack) differs(b int, off, n int64) error {
	return wire.Errorf(wire.CodeReadBack, "%s reads back with other bytes than were written, from byte %d to %d", r.called(b), off, off+n)
}
