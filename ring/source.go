package ring

import (
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// The seam between the ring and what it moves. Every signature uses the
// standard library and v1.Descriptor only, so that packages which must not
// import ring (oci, sif, cache) satisfy it structurally.

// Opener returns the bytes of d starting at off. Closing the reader frees
// whatever it holds; a reader is used by one goroutine.
type Opener interface {
	Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error)
}

// Source is what the server sends. Blobs lists it in travelling order,
// manifests last. A descriptor with a Digest is checked against it on the
// server while it is read and on every node; one with Digest "" gets its digest
// from the bytes that were sent. Size -1 is a stream whose length is known at
// its end.
//
// A source that can give no more bytes ends the transfer, and nodes keep what they have for
// another push. They drop it where the error has a method Wrong() bool that says true: the
// bytes that came before are not what they should be.
type Source interface {
	Blobs(ctx context.Context) ([]v1.Descriptor, error)
	Opener
}

// Unverified is an optional second interface of a Source whose Open compares bytes with their digest, which costs as
// much as all else that a server does: OpenUnverified is Open that does not. The ring reads with it what it hashes
// itself, beside sending and several blobs at once.
type Unverified interface {
	OpenUnverified(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error)
}

// Unchanged is an optional second interface of a Source: it is asked once, after
// the last byte was read and before the first node is told to commit, whether
// what was read is still what the source holds. An error commits nothing
// anywhere.
type Unchanged interface {
	Unchanged(ctx context.Context) error
}

// Summed is an optional second interface of a Source: before Unchanged is asked, Sums is told
// the digests of the bytes that were read, in the order of Blobs. Sums must not block.
type Summed interface {
	Sums(read []digest.Digest)
}

// Planned is an optional second interface of a Source: it is told once, before anything is
// read, which of its blobs will be; the others every node holds. One of those may be read all
// the same, for a node that joins late. Planned must not block.
type Planned interface {
	Planned(read []bool)
}

// Sink is what a node keeps of one transfer.
//
// Offer only reads: for each blob the number of leading bytes it claims to hold
// (all of them: it vouches for the blob), and the free bytes where the rest
// would go (-1: unknown). Begin continues d at off; one blob is begun after the
// other, but the Commit of one may run beside the writes of the next. Publish,
// called once, on the server's COMMIT, does renames and references, nothing that
// can run out of space.
//
// A Sink may add more: each interface that the ring looks for stands in sinkExtras. A type that
// embeds a Sink hides them, so do not wrap one: embed the concrete type, whose methods all count.
type Sink interface {
	Offer(ctx context.Context, blobs []v1.Descriptor) (held []int64, free int64, err error)
	Begin(ctx context.Context, d v1.Descriptor, off int64) (Writer, error)
	Publish(ctx context.Context) error
}

// sinkExtras is what a Sink may add; nil is what one does not add. This is the only place where the
// ring looks for it.
type sinkExtras struct {
	// An Opener can replay what the Sink stored, to a successor whose predecessor was lost.
	Opener
	Keeper
	Switcher
	Preparer
	// The Closer is closed once, at the end of the transfer whatever its outcome, after all its
	// writers ended. Everything that was not published is then gone, or kept only as a cache.
	io.Closer
	// The Stringer names the target for the audit line.
	fmt.Stringer
}

func extrasOf(s Sink) (x sinkExtras) {
	x.Opener, _ = s.(Opener)
	x.Keeper, _ = s.(Keeper)
	x.Switcher, _ = s.(Switcher)
	x.Preparer, _ = s.(Preparer)
	x.Closer, _ = s.(io.Closer)
	x.Stringer, _ = s.(fmt.Stringer)
	return x
}

// Keeper is an optional second interface of a Sink that can serve another
// transfer with what this one leaves unpublished, by claiming it in its Offer: Keep
// is called before Close when the transfer was cut off through no fault of this node, or of the
// bytes. Without it Close leaves nothing.
type Keeper interface{ Keep() }

// Switcher is an optional second interface of a Sink that may hold everything and still have
// something to do: Switches is asked after such an Offer whether Publish would switch a reference or an
// output, for who only asks (Config.Check).
type Switcher interface {
	Switches(ctx context.Context) bool
}

// Preparer is an optional second interface of a Sink with work to do between its
// last blob and Publish, such as the temporary of an output. Prepare is called
// once, when every blob is complete (held or committed); blobs carries the final
// digests and sizes. What it makes is durable when it returns. inPlace says that
// Publish has nothing to switch: every reference and target already is what this
// transfer would make it.
type Preparer interface {
	Prepare(ctx context.Context, blobs []v1.Descriptor) (inPlace bool, err error)
}

// Writer stores one blob; it does not hash: the ring does. Commit makes the blob
// durable, not yet visible, and ends the Writer; final carries the digest and
// size the ring computed and checked. Abort ends the Writer and keeps exactly so
// many leading bytes (0: nothing); it is called instead of Commit, never after
// it. It is an alias so that a package which does not import ring can name the
// same type.
type Writer = interface {
	io.Writer
	Commit(ctx context.Context, final v1.Descriptor) error
	Abort(keep int64) error
}
