// Package whole notes that a source was read from its first to its last byte, and what its SHA-256 is.
package whole

import (
	"hash"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
)

// Reading is what is known of a source once a reader was at its end. Its zero value knows nothing.
type Reading struct {
	mu     sync.Mutex
	wanted bool
	done   bool
	sum    digest.Digest
}

// Want has the readers that Watch returns from now on compute the SHA-256.
func (r *Reading) Want() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted = true
}

// Done reports whether a reader was at the end, and had no error.
func (r *Reading) Done() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done
}

// Sum returns the SHA-256 of the source, or "" while it is not known.
func (r *Reading) Sum() digest.Digest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sum
}

// Watch returns what reads the source from its first byte on, as rc does.
func (r *Reading) Watch(rc io.ReadCloser) io.ReadCloser {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := &reader{ReadCloser: rc, of: r}
	if r.wanted && r.sum == "" {
		w.hash = digest.SHA256.Hash()
	}
	return w
}

type reader struct {
	io.ReadCloser
	of   *Reading
	hash hash.Hash // may be nil
}

func (r *reader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	if r.hash != nil {
		r.hash.Write(b[:n])
	}
	if err == io.EOF {
		r.end()
	}
	return n, err
}

func (r *reader) end() {
	r.of.mu.Lock()
	defer r.of.mu.Unlock()
	r.of.done = true
	if r.hash != nil {
		r.of.sum = digest.NewDigest(digest.SHA256, r.hash)
	}
}

// zeros are hashed in place of what was skipped.
var zeros [64 << 10]byte

// SkipZeros skips zeros where what it reads knows of any; see ring.ZeroSkipper.
func (r *reader) SkipZeros(most int64) (int64, error) {
	s, ok := r.ReadCloser.(interface {
		SkipZeros(most int64) (int64, error)
	})
	if !ok {
		return 0, nil
	}
	n, err := s.SkipZeros(most)
	for left := n; r.hash != nil && left > 0; left -= min(left, int64(len(zeros))) {
		r.hash.Write(zeros[:min(left, int64(len(zeros)))])
	}
	return n, err
}
