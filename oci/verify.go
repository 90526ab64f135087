package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// sized reads a blob, never gives more bytes than the size of its descriptor, and gives io.EOF only behind all of them.
type sized struct {
	io.ReadCloser
	ctx  context.Context
	d    v1.Descriptor
	n    int64 // place of the next byte
	done error
}

func (r *sized) Read(b []byte) (int, error) {
	if r.done != nil {
		return 0, r.done
	}
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if left := r.d.Size - r.n; int64(len(b)) > left {
		b = b[:left+min(1, int64(len(b))-left)] // one byte more shows that the blob is too long
	}
	n, err := r.ReadCloser.Read(b)
	if over := r.n + int64(n) - r.d.Size; over > 0 {
		n -= int(over)
		err = &wrong{fmt.Errorf("blob %s: is longer than its %d bytes", r.d.Digest, r.d.Size)}
	}
	r.n += int64(n)
	if errors.Is(err, io.EOF) && r.n < r.d.Size {
		err = fmt.Errorf("blob %s: ended at byte %d of %d: %w", r.d.Digest, r.n, r.d.Size, io.ErrUnexpectedEOF)
	}
	r.done = err
	return n, err
}

// verifier reads a blob from its beginning, and gives the last bytes and io.EOF only if size and digest are right.
type verifier struct {
	*sized
	v digest.Verifier
}

func (r *verifier) Read(b []byte) (int, error) {
	n, err := r.sized.Read(b)
	_, _ = r.v.Write(b[:n]) // a hash never fails
	if r.n == r.d.Size && (err == nil || err == io.EOF) && !r.v.Verified() {
		// The last bytes are not given, so that nobody has a whole wrong blob.
		n, err = 0, &wrong{fmt.Errorf("blob %s: has other bytes than its digest says", r.d.Digest)}
		r.done = err
	}
	return n, err
}

// wrong is the error of a source whose bytes are not what they should be.
type wrong struct{ error }

func (e *wrong) Unwrap() error { return e.error }

// Wrong tells the ring that the bytes that were sent before are not worth keeping.
func (e *wrong) Wrong() bool { return true }

func (e *wrong) Kind() (errkind.Kind, []string) { return "image-damaged", nil }

// fromBytes returns a reader of bytes in memory.
func fromBytes(raw []byte, off int64) (io.ReadCloser, error) {
	if off < 0 || off > int64(len(raw)) {
		return nil, fmt.Errorf("offset %d is outside of %d bytes", off, len(raw))
	}
	return io.NopCloser(bytes.NewReader(raw[off:])), nil
}
