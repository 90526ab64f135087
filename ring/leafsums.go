package ring

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"
)

// leafSums hashes the first size bytes of a blob in leaves of each bytes, so many leaves at once, and tells their sums in
// their order, one after the other. open opens the blob at the front of a leaf.
func leafSums(ctx context.Context, size, each int64, hashers int, open func(ctx context.Context, off int64) (io.ReadCloser, error), tell func(sum [sha256.Size]byte)) error {
	h := &leafHasher{size: size, each: each, open: open, tell: tell, sums: map[int64][sha256.Size]byte{}}
	h.zeroLeaf = sync.OnceValue(func() [sha256.Size]byte {
		l := leafReader{hash: sha256.New(), buf: make([]byte, hashPiece), zeros: each}
		l.flush()
		return [sha256.Size]byte(l.hash.Sum(nil))
	})
	work, ctx := errgroup.WithContext(ctx)
	for range hashers {
		work.Go(func() error { return h.run(ctx) })
	}
	return work.Wait()
}

// hashPiece is how much is read and hashed at a time: it stays in the processor's cache.
const hashPiece = 256 << 10

// leafHasher is where leafSums stands.
type leafHasher struct {
	size, each int64
	open       func(ctx context.Context, off int64) (io.ReadCloser, error)
	tell       func(sum [sha256.Size]byte)
	zeroLeaf   func() [sha256.Size]byte

	mu         sync.Mutex
	next, told int64                       // where the first leaf begins that nobody has taken, and the first whose sum is not told
	sums       map[int64][sha256.Size]byte // those that wait for a leaf before them, by where their leaf begins
}

func (h *leafHasher) run(ctx context.Context) error {
	l := leafReader{hash: sha256.New(), buf: make([]byte, hashPiece)}
	for {
		h.mu.Lock()
		off := h.next
		h.next += h.each
		h.mu.Unlock()
		if off >= h.size {
			return nil
		}
		sum, err := h.leaf(ctx, &l, off)
		if err != nil {
			return err
		}
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

// leaf hashes the leaf at off.
func (h *leafHasher) leaf(ctx context.Context, l *leafReader, off int64) (sum [sha256.Size]byte, err error) {
	rc, err := h.open(ctx, off)
	if err != nil {
		return sum, err
	}
	defer rc.Close()
	n := min(h.each, h.size-off)
	if err := l.read(ctx, rc, n); err != nil {
		return sum, fmt.Errorf("byte %d of %d: %w", off+n-l.left, h.size, err)
	}
	if l.zeros == h.each {
		return h.zeroLeaf(), nil
	}
	l.flush()
	return [sha256.Size]byte(l.hash.Sum(nil)), nil
}

// leafReader hashes one leaf after the other.
type leafReader struct {
	hash  hash.Hash
	buf   []byte
	left  int64 // what is still to be read of the leaf
	zeros int64 // so many zeros were read, and are not hashed
}

// read reads a leaf of n bytes.
func (l *leafReader) read(ctx context.Context, r io.Reader, n int64) error {
	l.hash.Reset()
	l.left, l.zeros = n, 0
	skips, _ := r.(ZeroSkipper)
	for l.left > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		if skips != nil {
			k, err := skips.SkipZeros(l.left)
			if err != nil {
				return err
			}
			l.zeros, l.left = l.zeros+k, l.left-k
		}
		b := l.buf[:min(l.left, int64(len(l.buf)))]
		if _, err := io.ReadFull(r, b); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		l.left -= int64(len(b))
		if bytes.Equal(b, noBytes[:len(b)]) {
			l.zeros += int64(len(b))
			continue
		}
		l.flush()
		l.hash.Write(b)
	}
	return nil
}

// noBytes are zeros.
var noBytes [hashPiece]byte

// flush hashes the zeros that were read.
func (l *leafReader) flush() {
	for ; l.zeros > 0; l.zeros -= min(l.zeros, hashPiece) {
		l.hash.Write(noBytes[:min(l.zeros, hashPiece)])
	}
}
