package raw

import (
	"context"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
)

// plainSum computes the SHA-256 of a file beside what else reads it. Its zero value has not begun.
type plainSum struct {
	wanted bool
	once   sync.Once
	stop   context.CancelFunc
	done   chan struct{}
	sum    digest.Digest // once done is closed; "" where the file could not be read
}

// begin begins to hash the first size bytes of r, the first time that it is called.
func (p *plainSum) begin(r io.ReaderAt, size int64) {
	p.once.Do(func() {
		ctx, stop := context.WithCancel(context.Background())
		p.stop, p.done = stop, make(chan struct{})
		go func() {
			defer close(p.done)
			hash := digest.SHA256.Digester()
			n, err := io.CopyBuffer(hash.Hash(), &endedReader{ctx, io.NewSectionReader(r, 0, size)}, make([]byte, chunk))
			if err == nil && n == size {
				p.sum = hash.Digest()
			}
		}()
	})
}

// wait returns the sum, or "" where there is none or ctx is done before. It calls late before it waits.
func (p *plainSum) wait(ctx context.Context, late func()) digest.Digest {
	if p.done == nil {
		return ""
	}
	select {
	case <-p.done:
		return p.sum
	default:
		late()
	}
	select {
	case <-p.done:
		return p.sum
	case <-ctx.Done():
		return ""
	}
}

// end ends the hashing, if it was begun, and waits for its end.
func (p *plainSum) end() {
	if p.done != nil {
		p.stop()
		<-p.done
	}
}

// endedReader reads r until ctx is done. It has no other method, so that io.CopyBuffer takes the buffer it is given.
type endedReader struct {
	ctx context.Context
	r   io.Reader
}

func (e *endedReader) Read(b []byte) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	return e.r.Read(b)
}
