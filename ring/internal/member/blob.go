package member

import (
	"crypto/sha256"

	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/opencontainers/go-digest"
)

// blob is where the node stands in one blob. It holds that good <= accepted, claim <= accepted, and accepted <= size
// once the size is known. If a final mark shows a smaller size, the node falls back at once.
//
// Only the Machine changes accepted, and NEED tells it to the server. The window, the hash and the storage of the node
// follow it, and each of them knows itself how far it is.
type blob struct {
	// called is what people call it.
	called string
	// size is -1 until it is known.
	size int64
	// want is the digest of the offer. It is "" if only the final mark tells it.
	want digest.Digest
	// leaves says that each mark is the sum of the leaf before it, and that the digest is a sum over these sums.
	leaves bool
	// held says that the node vouched for the blob in its ANSWER.
	held bool
	// claim is how many leading bytes were there before and are not judged by marks yet.
	claim int64
	// set has the leaves that were there before, and nil where there are none. It never changes: another one takes its
	// place. What it says of leaves before accepted means nothing any more.
	set *leaf.Set
	// compared is how far what is there in place of the blob was compared before START.
	compared compared
	// accepted is how many leading bytes were claimed, are in the set, or were accepted frame by frame. It is never inside
	// or at the front of a leaf of the set.
	accepted int64
	// good is how many leading bytes are below a mark whose sum was equal.
	good int64
	// final is the digest of the final mark, or "" until that comes.
	final digest.Digest
	// sum is what the node computed over the whole blob, or "" until it has.
	sum digest.Digest
	// judged says that sum and final were compared and are equal.
	judged bool
	// stable says that the blob is durable.
	stable bool

	// marks has the marks above good that came, and sums has the node's own sums above good. Both are in the order of
	// offsets.
	marks []mark
	sums  []blobSum
}

// mark is a mark that came. It is as small as it can be, because a long blob may have many.
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

// walk moves accepted to off, or, if the leaf there is held, to the front of the next one that is not.
func (b *blob) walk(off int64) { b.accepted = b.set.Next(off) }

// miss drops the leaf before off from the set, because it differs, or with all the whole set.
func (b *blob) miss(off int64, all bool) {
	switch {
	case b.set == nil || !all && !b.set.Has(off-1):
	case all:
		b.set = nil
	default:
		b.set = b.set.Clone()
		b.set.Remove(off - 1)
	}
}

// lacks reports whether the blob lacks bytes that a feed has to bring.
func (b *blob) lacks() bool { return !b.held && b.accepted != b.size }
