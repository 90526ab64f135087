// Package leaf computes the digest of a long file in leaves, the parts of 4 MiB that are hashed each on its own, so
// that several cores hash one file (PROTOCOL.md section 7). It imports nothing of ours.
package leaf

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"runtime"
	"strconv"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

const (
	// Size is the length of a leaf in bytes. The last one of a file is as long as what is left.
	Size = 4 << 20
	// MediaType is that of a blob that travels in leaves.
	MediaType = "application/vnd.dolly-img.leaves"
	// AnnotationData is the annotation of a blob in leaves that says how many of its bytes may be other than zeros, in decimal.
	AnnotationData = "dolly-img.data"
	// Algorithm is the first word of a digest of leaves.
	Algorithm digest.Algorithm = "leaves-sha256"
)

// In reports whether a blob travels in leaves. A blob whose digest is known does not, whatever its media type
// says: the layer of an image has the media type that its author wrote.
func In(d v1.Descriptor) bool { return d.MediaType == MediaType && d.Digest == "" && d.Size >= 0 }

// Data returns how many bytes of a blob may be other than zeros, and so need room where holes do not. It is the size of the
// blob where nothing is said.
func Data(d v1.Descriptor) int64 {
	n, err := strconv.ParseInt(d.Annotations[AnnotationData], 10, 64)
	if !In(d) || err != nil || n < 0 {
		return d.Size
	}
	return min(n, d.Size)
}

// Digest returns the digest whose value is root: the SHA-256 of the SHA-256 sums of all leaves, 32 bytes each, in the
// order of the file.
func Digest(root []byte) digest.Digest { return digest.NewDigestFromBytes(Algorithm, root) }

// Of returns the digest of the first size bytes of r, and hashes with all cores. A file that is shorter is an
// io.ErrUnexpectedEOF.
func Of(ctx context.Context, r io.ReaderAt, size int64) (digest.Digest, error) {
	root := sha256.New()
	for off := int64(0); off < size; off += min(run, size-off) {
		if err := sumRun(ctx, root, r, off, size); err != nil {
			return "", err
		}
	}
	return Digest(root.Sum(nil)), nil
}

// run is how many bytes of a file are hashed until their sums are put together, because a file may have more leaves
// than there is memory for their sums.
const run = 1024 * Size

// sumRun hashes the leaves of r from off on, as far as a run goes, and writes their sums to root.
func sumRun(ctx context.Context, root io.Writer, r io.ReaderAt, off, size int64) error {
	leaves := int((min(run, size-off) + Size - 1) / Size)
	sums := make([][sha256.Size]byte, leaves)
	work, ctx := errgroup.WithContext(ctx)
	workers := min(runtime.GOMAXPROCS(0), leaves)
	for first := range workers {
		work.Go(func() error {
			buf := make([]byte, 256<<10) // stays in the processor's cache
			for k := first; k < leaves; k += workers {
				h, off := sha256.New(), off+int64(k)*Size
				leaf := io.NewSectionReader(r, off, min(Size, size-off))
				n, err := io.CopyBuffer(h, readerOnly{leaf}, buf)
				if err == nil && n < leaf.Size() {
					err = fmt.Errorf("ends at byte %d of %d: %w", off+n, size, io.ErrUnexpectedEOF)
				}
				if err == nil {
					err = ctx.Err()
				}
				if err != nil {
					return err
				}
				h.Sum(sums[k][:0])
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		return err
	}
	for _, sum := range sums {
		root.Write(sum[:])
	}
	return nil
}

// readerOnly keeps io.CopyBuffer from taking another buffer than the one it is given.
type readerOnly struct{ io.Reader }
