package ring

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"testing"
)

// leafBlob is a blob of which leaves are hashed. Whoever opens it may read up to ends only.
type leafBlob struct {
	b     []byte
	ends  int
	opens []int64
	read  int64
}

func (l *leafBlob) open(_ context.Context, off int64) (io.ReadCloser, error) {
	l.opens = append(l.opens, off)
	end := len(l.b)
	if int(off) < l.ends {
		end = l.ends
	}
	r := bytes.NewReader(l.b[min(int(off), end):end])
	return io.NopCloser(readFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		l.read += int64(n)
		return n, err
	})), nil
}

// A blob is opened once and read once, whatever the number of hashers, but where its reader ends with a leaf, and the sums are those of
// its leaves, in their order.
func TestLeafSums(t *testing.T) {
	const each = 600 << 10
	b := random(7, 10*each+123)
	clear(b[2*each : 4*each])
	clear(b[5*each : 5*each+300<<10])
	clear(b[10*each:])
	for _, size := range []int64{0, 77, each, 3*each + 1, 10 * each, 10*each + 123} {
		for _, ends := range []int{0, 2 * each} {
			for _, hashers := range []int{1, 4} {
				var want, got [][sha256.Size]byte
				for leaf := range slices.Chunk(b[:size], each) {
					want = append(want, sha256.Sum256(leaf))
				}
				blob := &leafBlob{b: b[:size], ends: min(ends, int(size))}
				err := leafSums(t.Context(), size, each, hashers, blob.open, func(sum [sha256.Size]byte) { got = append(got, sum) })
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("%d bytes, %d hashers: %d sums of %d, or others, %v", size, hashers, len(got), len(want), err)
				}
				opens := []int64{0}
				switch {
				case size == 0:
					opens = nil
				case ends > 0 && size > int64(ends):
					opens = append(opens, int64(ends))
				}
				if !slices.Equal(blob.opens, opens) || blob.read != size {
					t.Errorf("%d bytes, %d hashers: opened at %v, %d bytes were read", size, hashers, blob.opens, blob.read)
				}
			}
		}
	}
}

// A blob that ends early is an io.ErrUnexpectedEOF, and the sums before are told.
func TestLeafSumsShort(t *testing.T) {
	const each = 1000
	for _, has := range []int{0, 999, 5000, 5001} {
		blob := &leafBlob{b: random(7, has)}
		told := 0
		err := leafSums(t.Context(), 9*each, each, 3, blob.open, func([sha256.Size]byte) { told++ })
		if !errors.Is(err, io.ErrUnexpectedEOF) || told != has/each {
			t.Errorf("%d bytes: %d sums, %v", has, told, err)
		}
	}
}
