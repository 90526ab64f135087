package ring

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"
)

// leafSums hashes the first size bytes of a blob in leaves of each bytes, so many leaves at once, and tells their sums in
// their order, one after the other. The blob is read once, from the front to the end, by whoever hashes the next leaf: so a disk
// reads in one direction, a source that can only be read so is opened once, and nothing is read in vain. open opens the blob at the
// front of a leaf. What it returns may end at the end of a leaf: then the rest is opened.
func leafSums(ctx context.Context, size, each int64, hashers int, open func(ctx context.Context, off int64) (io.ReadCloser, error), tell func(sum [sha256.Size]byte)) error {
	h := &leafHasher{size: size, each: each, open: open, tell: tell, reading: make(chan struct{}, 1), sums: map[int64][sha256.Size]byte{}}
	h.zeros = newZeroLeaf(each)
	work, ctx := errgroup.WithContext(ctx)
	for range min(int64(hashers), (size+each-1)/each) {
		work.Go(func() error { return h.run(ctx) })
	}
	defer h.close()
	return work.Wait()
}

// hashPiece is how much is read at a time where there may be holes, and how much is compared with zeros at a time.
const hashPiece = 256 << 10

// leafHasher is where leafSums stands.
type leafHasher struct {
	size, each int64
	open       func(ctx context.Context, off int64) (io.ReadCloser, error)
	tell       func(sum [sha256.Size]byte)
	zeros      *zeroLeaf

	reading chan struct{} // has a place for who reads a leaf
	blob    io.ReadCloser // at next, where the leaf begins that is read next; nil: to be opened there
	next    int64

	mu   sync.Mutex
	told int64                       // where the first leaf begins whose sum is not told
	sums map[int64][sha256.Size]byte // those that wait for a leaf before them, by where their leaf begins
}

func (h *leafHasher) run(ctx context.Context) error {
	buf := make([]byte, min(h.each, h.size))
	for {
		off, b, hole, err := h.read(ctx, buf)
		if len(b) == 0 || err != nil {
			return err
		}
		sum := h.zeros.sum(b, hole)
		h.mu.Lock()
		h.sums[off] = sum
		for s, ok := h.sums[h.told]; ok; s, ok = h.sums[h.told] {
			delete(h.sums, h.told)
			h.told += h.each
			h.tell(s)
		}
		h.mu.Unlock()
	}
}

// read reads the next leaf into buf, and returns where it begins, and its bytes, which are none behind the last leaf. If the leaf is
// a hole its bytes are not read.
func (h *leafHasher) read(ctx context.Context, buf []byte) (off int64, b []byte, hole bool, err error) {
	select {
	case h.reading <- struct{}{}:
		defer func() { <-h.reading }()
	case <-ctx.Done():
		return 0, nil, false, ctx.Err()
	}
	off = h.next
	b = buf[:min(h.each, h.size-off)]
	if len(b) == 0 {
		return off, nil, false, nil
	}
	var n int
	for again := h.blob != nil; ; again = false {
		if h.blob == nil {
			if h.blob, err = h.open(ctx, off); err != nil {
				break
			}
		}
		if n, hole, err = fillLeaf(ctx, h.blob, b); err != io.EOF {
			break
		}
		if err = io.ErrUnexpectedEOF; !again {
			break
		}
		h.close()
	}
	if err != nil {
		h.next = h.size // nobody reads on from there
		return off, nil, false, fmt.Errorf("byte %d of %d: %w", off+int64(n), h.size, err)
	}
	h.next += int64(len(b))
	return off, b, hole, nil
}

// fillLeaf reads a leaf, and returns how many bytes of it were read. hole says that all of it is one, and then b is as it was. It is
// an io.EOF only if there is no byte of it.
func fillLeaf(ctx context.Context, r io.Reader, b []byte) (n int, hole bool, err error) {
	piece := len(b)
	skips, _ := r.(ZeroSkipper)
	if skips != nil {
		piece = hashPiece
	}
	for n < len(b) {
		if err := ctx.Err(); err != nil {
			return n, false, err
		}
		if skips != nil {
			k, err := skips.SkipZeros(int64(len(b) - n))
			if err != nil {
				return n, false, err
			}
			if k == int64(len(b)) {
				return len(b), true, nil
			}
			clear(b[n : n+int(k)])
			n += int(k)
		}
		k, err := io.ReadFull(r, b[n:min(len(b), n+piece)])
		if n += k; err == io.EOF && n > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}

func (h *leafHasher) close() {
	if h.blob != nil {
		h.blob.Close()
		h.blob = nil
	}
}

// zeroLeaf has the sum of a leaf of zeros, once it is needed: zeros are told from other bytes in a tenth of the time in which they are
// hashed.
type zeroLeaf struct {
	size int64
	its  func() [sha256.Size]byte
}

func newZeroLeaf(size int64) *zeroLeaf {
	return &zeroLeaf{size, sync.OnceValue(func() [sha256.Size]byte { return sha256.Sum256(make([]byte, size)) })}
}

// sum returns the sum of a leaf. The bytes of a hole are zeros, whatever b is.
func (z *zeroLeaf) sum(b []byte, hole bool) [sha256.Size]byte {
	for at := 0; at < len(b) && !hole; at += hashPiece {
		if piece := b[at:min(len(b), at+hashPiece)]; !bytes.Equal(piece, noBytes[:len(piece)]) {
			return sha256.Sum256(b)
		}
	}
	if int64(len(b)) == z.size {
		return z.its()
	}
	clear(b)
	return sha256.Sum256(b)
}

// noBytes are zeros.
var noBytes [hashPiece]byte
