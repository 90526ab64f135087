package relay

import (
	"sync"
	"sync/atomic"
)

// ledger holds sums back until they may be told. It tells them in travelling order, and none of bytes that are
// not written.
type ledger struct {
	tell func(blob int, off int64, sum []byte, end bool) error

	mu      sync.Mutex
	blobs   []int         // the blobs whose last sum is not told yet, in travelling order
	blob    int           // the blob that is being written; all blobs before it are written; -1 before the first
	written int64         // how many bytes of blob are written
	sums    map[int][]sum // the sums that are held back, by blob, in the order of their offsets
}

// sum is the SHA-256 of the first off bytes of a blob, or for a blob in leaves that of the leaf that ends at off. With
// end it is what the blob's digest says.
type sum struct {
	off    int64
	sum    []byte
	end    bool
	untold *atomic.Int32 // of its blob
}

// hashed takes the next sum of a blob.
func (l *ledger) hashed(blob int, s sum) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sums == nil {
		l.sums = map[int][]sum{}
	}
	l.sums[blob] = append(l.sums[blob], s)
	return l.settle()
}

// wrote notes that the first off bytes of a blob are written.
func (l *ledger) wrote(blob int, off int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blob, l.written = blob, off
	return l.settle()
}

// settle tells the sums that may be told by now.
func (l *ledger) settle() error {
	for len(l.blobs) > 0 {
		b := l.blobs[0]
		if len(l.sums[b]) == 0 {
			return nil
		}
		s := l.sums[b][0]
		if b > l.blob || b == l.blob && s.off > l.written {
			return nil
		}
		l.sums[b] = l.sums[b][1:]
		if s.end {
			delete(l.sums, b)
			l.blobs = l.blobs[1:]
		}
		s.untold.Add(-1)
		if err := l.tell(b, s.off, s.sum, s.end); err != nil {
			return err
		}
	}
	return nil
}
