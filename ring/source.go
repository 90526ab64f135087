package ring

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// This file is the seam between the ring and what it moves. Every signature uses the standard library and
// v1.Descriptor only, so that packages which must not import ring (oci, sif, cache) can implement it.

// Opener reads blobs.
type Opener interface {
	// Open returns the bytes of d from off on. Closing the reader frees whatever it holds. One
	// goroutine uses a reader.
	Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error)
}

// Source is what the server sends.
//
// A source that can give no more bytes ends the transfer, and nodes keep what they have for
// another push. They drop it if the error has a method Wrong() bool that returns true: then the
// bytes that came before are not what they should be.
type Source interface {
	// Blobs lists the blobs in travelling order, manifests last. The server, while it reads, and
	// every node check a blob against the Digest of its descriptor. A blob with Digest "" gets its
	// digest from the bytes that were sent. Size is in bytes; -1 is a stream whose length is known
	// at its end.
	Blobs(ctx context.Context) ([]v1.Descriptor, error)
	Opener
}

// ZeroSkipper is an optional second interface of what Open returns for a blob in leaves: a reader that knows of zeros without
// reading them, such as the holes of a file.
type ZeroSkipper interface {
	// SkipZeros goes on to the first byte that may not be zero, but no further than most bytes, and returns how many zeros it
	// has skipped. It returns 0 where it knows of none, or of too few to be worth it.
	SkipZeros(most int64) (n int64, err error)
}

// Unverified is an optional second interface of a Source whose Open compares bytes with their digest, which costs as
// much as all else that a server does: OpenUnverified is Open that does not. The ring reads with it what it hashes
// itself, beside sending and several blobs at once.
type Unverified interface {
	OpenUnverified(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error)
}

// Unchanged is an optional second interface of a Source.
type Unchanged interface {
	// Unchanged returns an error unless what was read is still what the source holds. It is called
	// once, after the last byte was read and before the first node is told to commit. After an error
	// no node commits anything.
	Unchanged(ctx context.Context) error
}

// Summed is an optional second interface of a Source.
type Summed interface {
	// Sums is called before Unchanged, with the digests of the bytes that were read, in the order
	// of Blobs. It must not block.
	Sums(read []digest.Digest)
}

// Planned is an optional second interface of a Source.
type Planned interface {
	// Planned is called once, before anything is read, and says which of the Blobs will be read.
	// Every node holds the others. One of those may be read all the same, for a node that joins
	// late. Planned must not block.
	Planned(read []bool)
}

// Sink is what a node keeps of one transfer.
//
// A Sink may have more methods. It may be an Opener, which replays what was stored to a successor that
// lost its feed; a Keeper, Switcher, Preparer or Targeter; an io.Closer, which is closed once at the end of the
// transfer, whatever its outcome; and a fmt.Stringer, which names the target in the log. A type that
// embeds a Sink hides these, so do not wrap one: embed the concrete type, whose methods all count.
type Sink interface {
	// Offer returns, for each blob, how many leading bytes the Sink claims to hold, and how many bytes
	// are free where the rest would go; -1 is unknown. By claiming all bytes of a blob the Sink vouches
	// for it. Offer only reads. An error refuses the transfer.
	Offer(ctx context.Context, blobs []v1.Descriptor) (held []int64, free int64, err error)
	// Begin returns a writer that goes on with d at byte off. Blobs are begun one after the other, but
	// the Commit of one may run beside the writes of the next.
	Begin(ctx context.Context, d v1.Descriptor, off int64) (Writer, error)
	// Publish is called once, when the server orders to commit. It renames and sets references, and
	// does nothing that can run out of space.
	Publish(ctx context.Context) error
}

// sinkExtras is what a Sink may add, and nil where it does not. The ring looks for it in this place only.
type sinkExtras struct {
	// An Opener can replay what the Sink stored, to a successor whose predecessor was lost.
	Opener
	Keeper
	Switcher
	Preparer
	Targeter
	// The Closer is closed once, at the end of the transfer whatever its outcome, after all its
	// writers ended. Everything that was not published is then gone, or kept only as a cache.
	io.Closer
	// The Stringer names the target for the audit line.
	fmt.Stringer
	Holder
	Comparer
	Compared Compared
	ReadBacker
	Overwriter
}

func extrasOf(s Sink) (x sinkExtras) {
	x.Opener, _ = s.(Opener)
	x.Keeper, _ = s.(Keeper)
	x.Switcher, _ = s.(Switcher)
	x.Preparer, _ = s.(Preparer)
	x.Targeter, _ = s.(Targeter)
	x.Closer, _ = s.(io.Closer)
	x.Stringer, _ = s.(fmt.Stringer)
	x.Holder, _ = s.(Holder)
	x.Comparer, _ = s.(Comparer)
	x.Compared, _ = s.(Compared)
	x.ReadBacker, _ = s.(ReadBacker)
	x.Overwriter, _ = s.(Overwriter)
	return x
}

// Holder is an optional second interface of a Sink that can be read again, and that may hold leaves of a blob in leaves
// (package leaf) behind the leading bytes that Offer names. Its Writers of such blobs are Placers, and an Abort of them keeps
// also the leaves that the Sink holds.
type Holder interface {
	// Holds reports whether the Sink claims to hold the leaf of d that begins at byte off. It is called after Offer, for leaves
	// that are whole, and only reads what is in memory.
	Holds(d v1.Descriptor, off int64) bool
}

// ReadBacker is an optional second interface of a Sink that is an Opener, and whose storage may say that it has bytes and not
// have them, such as a disk.
type ReadBacker interface {
	// ReadsBack reports whether the ring shall read each blob again with Open once its Commit is done, and compare it with the
	// sums of what came, before the node says that it has everything. Several readers are open at once. It is called after
	// Offer.
	ReadsBack() bool
}

// Keeper is an optional second interface of a Sink. Another transfer can then go on from what this
// one leaves unpublished, by claiming it in its Offer.
type Keeper interface {
	// Keep is called before Close when the transfer was cut off through no fault of this node or of
	// the bytes. If it was not called, Close leaves nothing.
	Keep()
}

// Switcher is an optional second interface of a Sink that may hold everything and still have
// something to do.
type Switcher interface {
	// Switches reports whether Publish would switch a reference or an output. It is called after an
	// Offer that claims everything, for a sender that only asks (Config.Check).
	Switches(ctx context.Context) bool
}

// Overwriter is an optional second interface of a Targeter.
type Overwriter interface {
	// TargetState says what the target is by now. It must not wait, and not say TargetUntouched when something is about to be
	// written.
	TargetState() TargetState
}

// Targeter is an optional second interface of a Sink that overwrites something while bytes come, so that there is no way
// back. Such a Sink takes part only in a transfer that somebody confirms (Config.Confirm).
type Targeter interface {
	// Target describes what would be overwritten, as a JSON object of at most 4 KiB. It is called after Offer, and once more
	// after somebody has confirmed that: if it says something else then, or returns an error, nothing is written, and the node
	// refuses. It only reads.
	Target(ctx context.Context) (json.RawMessage, error)
}

// Preparer is an optional second interface of a Sink with work to do between its
// last blob and Publish, such as the temporary file of an output.
type Preparer interface {
	// Prepare is called once, when every blob is held or committed. blobs have the final digests and
	// sizes. What Prepare makes is durable when it returns. inPlace says that Publish has nothing to
	// switch: every reference and target already is what this transfer would make it.
	Prepare(ctx context.Context, blobs []v1.Descriptor) (inPlace bool, err error)
}

// Writer stores one blob. It does not hash, because the ring does. Writer is an alias, so that
// a package which does not import ring can name the same type.
type Writer = interface {
	io.Writer
	// Commit makes the blob durable, but not visible yet, and ends the Writer. final has the
	// digest and size that the ring computed and checked.
	Commit(ctx context.Context, final v1.Descriptor) error
	// Abort ends the Writer and keeps exactly keep leading bytes. It is called instead of Commit,
	// never after it.
	Abort(keep int64) error
}

// Placer is an optional second interface of the Writer of a blob in leaves (package leaf). The ring then brings that blob
// with WriteAt and Zero, and does not call Write. Offsets are bytes from the beginning of the blob, and rise: each call
// begins at or behind the end of the one before it, and the first at or behind the offset of Begin. What is left out
// between two calls, and behind the last one, are leaves that the Sink claimed to hold. Where a Writer is no Placer, zeros
// come as bytes through Write, and no leaf is left out.
type Placer interface {
	// WriteAt stores bytes of the blob. As for an io.Writer, fewer than len(b) bytes are an error, and b is not kept.
	io.WriterAt
	// Zero makes n bytes from off on read as zeros, whatever the Sink held there. It makes a hole where it can, and n may
	// be as large as the blob.
	Zero(off, n int64) error
}

// Cautious is an optional second interface of a Writer that overwrites what nobody can bring back, such as a disk. It gets no
// byte from behind the first mark, which stands 4 MiB into the blob, before those in front of it are known to be right: a
// source that cannot be read, or that is changed on the way, then costs nothing.
type Cautious interface {
	// Good says that all bytes of the blob before off are right. It is called at each mark, in their order and before
	// Commit, also beside the other methods, and must not wait.
	Good(off int64)
}

// Holding is an optional second interface of a Writer that is Cautious all the way, because it cannot take back what it made of
// bytes that are wrong, such as the files of a tree. It keeps in memory what is not known to be right.
type Holding interface {
	Cautious
	// Ahead returns how many bytes the Writer takes behind those that are known to be right, at least those up to the next
	// mark, which are 4 MiB.
	Ahead() int64
}

// Flusher is an optional second interface of a Writer whose Commit may take long, because much of what was written is in
// memory only.
type Flusher interface {
	// Flush waits until the device has taken what was written, and calls done after each part of it with its size in
	// bytes. It is called before Commit, once at most, and makes nothing durable.
	Flush(ctx context.Context, done func(bytes int64)) error
}
