package member

import (
	"crypto/sha256"

	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/opencontainers/go-digest"
)

// blob is where the node stands in one blob. good <= accepted, claim <= accepted, and accepted <= size
// once the size is known; a final mark that shows a smaller size makes the node fall back at once.
//
// accepted is the Machine's alone, and it is what NEED tells. The window, the hash and the storage of
// the node follow it, and each of them knows how far it is itself.
type blob struct {
	// size is -1 until it is known.
	size int64
	// want is the digest of the offer; "" where only the final mark tells it.
	want digest.Digest
	// leaves says that each mark is the sum of the leaf before it, and the digest that over these sums.
	leaves bool
	// held says that the node vouched for the blob in its ANSWER.
	held bool
	// claim is how many leading bytes were there before and are not judged by marks yet.
	claim int64
	// accepted is how many leading bytes were claimed, or accepted frame by frame.
	accepted int64
	// good is how many leading bytes are below a mark whose sum was equal.
	good int64
	// final is the digest of the final mark; "" until it comes.
	final digest.Digest
	// sum was computed over the whole blob; "" until it is there.
	sum digest.Digest
	// judged says that sum and final were compared and are equal.
	judged bool
	// stable says that the blob is durable.
	stable bool

	// marks are the marks above good that came, and sums the sums there that were hashed. Both are in the
	// order of offsets.
	marks []mark
	sums  []blobSum
}

// mark is a mark that came, as small as it can be: of a long blob there may be many.
type mark struct {
	off int64
	sum [sha256.Size]byte
}

type blobSum struct {
	off int64
	sum []byte
}

// digest returns the blob's digest whose value is sum.
func (b *blob) digest(sum []byte) digest.Digest {
	if b.leaves {
		return leaf.Digest(sum)
	}
	return digest.NewDigestFromBytes(digest.SHA256, sum)
}

// lacks reports whether a feed has something to bring of the blob.
func (b *blob) lacks() bool { return !b.held && b.accepted != b.size }
