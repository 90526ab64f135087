package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/leaf"
)

// edge is how many bytes at the beginning and at the end of a device are overwritten first.
const edge = 1 << 20

// smallest is the size in bytes of the smallest device that can be a target: its edges do not touch.
const smallest = 2 * edge

// Patch is bytes that the device shall have at an offset, instead of those of the image or of what was there.
type Patch struct {
	Off   int64
	Bytes []byte
}

// Options say what a Target does beside writing the blob.
type Options struct {
	// Identity tells this device from others, as its serial number and WWN do. Only a journal with the same one counts.
	Identity string
	// Transfer names the transfer in the journal.
	Transfer string
	// Trust leaves it out to read back what was written before Publish. What Publish writes is read back all the same.
	Trust bool
	// Patch returns what is to be different from the image, such as the backup of a partition table, which moves to the end
	// of a larger device. image has size bytes. nil patches nothing.
	Patch func(image io.ReaderAt, size int64, on Device) ([]Patch, error)
}

// Outcome is what a Target has made of its device.
type Outcome string

// These are the outcomes.
const (
	Untouched   Outcome = "untouched"   // nothing was written
	Overwritten Outcome = "overwritten" // it is half-written, says so, and cannot be used
	Complete    Outcome = "complete"    // the image was written, and read back where Publish wrote it
	Unknown     Outcome = "unknown"     // its last write failed, and so did marking it as half-written
)

// Target writes one blob to a device: a Sink and an Opener of exactly one blob, whose Writer is a Placer.
type Target struct {
	d     Device
	o     Options
	leaf  int64 // the size of a leaf in bytes
	depth chan struct{}

	// What follows is set by Offer.
	size   int64 // of the blob in bytes
	tailAt int64 // where the tail begins: the leaves, but for the first, that have bytes of the last edge of the blob

	mu      sync.Mutex
	idle    sync.Cond // no chunk is in flight, and nobody writes the journal
	outcome Outcome
	begun   bool      // the edges are overwritten
	before  before    // what was there when the transfer began
	err     error     // the first failure of a write
	first   []byte    // the first leaf, or the first edge where that is longer, in memory; nil before Begin and Compare
	tail    []byte    // the tail up to the end of its last sector, in memory; nil where all is in the first leaf
	stored  int64     // what comes next is behind this offset
	good    int64     // all bytes before it are right
	cur     chunk     // what is being filled
	flight  []*chunk  // what is being written
	noted   *leaf.Set // the leaves that the journal may name; nil before Begin and Compared
	journal journaling
	compose []area // what Publish writes
	kept    bool
	closed  bool
}

// New makes a Target of d, which Close closes.
func New(d Device, o Options) *Target {
	return newTarget(d, o, leaf.Size, inFlight, journalBytes)
}

func newTarget(d Device, o Options, leafSize int64, depth int, every int64) *Target {
	t := &Target{d: d, o: o, leaf: leafSize, depth: make(chan struct{}, depth), size: -1, outcome: Untouched}
	t.journal.every = every
	t.idle.L = &t.mu
	return t
}

// String is the name of the device.
func (t *Target) String() string { return t.d.String() }

// Outcome says what the device is by now.
func (t *Target) Outcome() Outcome {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.outcome
}

// TargetState is Outcome in the words of the ring; see ring.Overwriter.
func (t *Target) TargetState() ring.TargetState { return ring.TargetState(t.Outcome()) }

func (t *Target) fail(what string, err error) error {
	return fmt.Errorf("device %s: %s: %w", t.d, what, err)
}

// tooSmall returns the error of a device on which a source of size bytes has no room.
func (t *Target) tooSmall(size int64) error {
	has, wants := bytesize.Text(t.d.Size()), bytesize.Text(size)
	if has == wants { // they differ by less than is shown
		has, wants = fmt.Sprintf("%d bytes", t.d.Size()), fmt.Sprint(size)
	}
	return errkind.Errorf("device-small", "device %s: is too small: %s, the source has %s", t.d, has, wants)
}

// Offer takes one blob of known length that fits. It claims no front of it, because the first leaf is never there.
func (t *Target) Offer(ctx context.Context, blobs []v1.Descriptor) (held []int64, free int64, err error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	if len(blobs) != 1 {
		return nil, 0, fmt.Errorf("device %s: takes one blob, not %d", t.d, len(blobs))
	}
	size, have := blobs[0].Size, t.d.Size()
	switch {
	case size < 0:
		return nil, 0, fmt.Errorf("device %s: the length of what is sent is not known", t.d)
	case size > have:
		return nil, 0, t.tooSmall(size)
	case have < smallest:
		return nil, 0, errkind.Errorf("device-small", "device %s: has %d bytes, and has to have %d", t.d, have, smallest)
	}
	t.size, t.tailAt = size, max(t.leaf, down(size-edge, t.leaf))
	found, marked, err := t.readJournal()
	if err != nil {
		return nil, 0, t.fail("read", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.before.found = found; found != nil {
		t.before.held = t.outsideMemory(found.leaves)
	}
	if marked {
		t.outcome = Overwritten
	}
	return []int64{0}, have, nil
}

// Holds reports whether an earlier transfer has left the leaf at off; see ring.Holder.
func (t *Target) Holds(_ v1.Descriptor, off int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.before.held.Has(off)
}

// ReadsBack says that a device is not to be trusted; see ring.ReadBacker.
func (t *Target) ReadsBack() bool { return !t.o.Trust }

// outsideMemory returns those of a set of leaves that are on the device only.
func (t *Target) outsideMemory(s *leaf.Set) *leaf.Set {
	s = s.Clone()
	forget(s, 0, min(t.leaf, t.size))
	forget(s, t.tailAt, t.size-t.tailAt)
	return s
}

// Begin goes on with the blob at off. Nothing is written to the device.
func (t *Target) Begin(ctx context.Context, _ v1.Descriptor, off int64) (ring.Writer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.size < 0 || t.closed {
		return nil, fmt.Errorf("device %s: begun before it was offered, or after it was closed", t.d)
	}
	if off < 0 || off > t.size || off > t.stored && !t.holds(t.stored, off) {
		return nil, fmt.Errorf("device %s: cannot go on at byte %d of %d", t.d, off, t.size)
	}
	t.remember()
	t.before.reading = false
	if t.noted == nil {
		t.note(t.before.held)
	}
	t.stored = off
	return &writer{t: t, off: off}, nil
}

// remember has memory for what is written last.
func (t *Target) remember() {
	if t.first == nil {
		t.first = aligned(int(max(t.leaf, edge)))
		if t.size > t.tailAt {
			t.tail = aligned(int(up(t.size-t.tailAt, t.d.Sector())))
		}
	}
}

// Prepare composes what Publish will write. If an update has found nothing else that differs, and the device has just that,
// nothing is written at all.
func (t *Target) Prepare(ctx context.Context, _ []v1.Descriptor) (inPlace bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if t.first == nil {
		return false, fmt.Errorf("device %s: nothing was written", t.d)
	}
	if inPlace, err := t.inPlace(); err != nil || inPlace {
		return inPlace, err
	}
	if err := t.begin(); err != nil {
		return false, err
	}
	t.mu.Lock()
	t.journal.over = true
	t.settle()
	t.mu.Unlock()
	t.compose, err = t.areas()
	return false, err
}

// Keep has Close leave a journal of what is good, from which another transfer goes on.
func (t *Target) Keep() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = true
}

// Close closes the device. Where it is half-written, it stays marked so.
func (t *Target) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	t.settle()
	half := t.begun && t.outcome == Overwritten && !t.journal.lost
	if half && !t.kept {
		t.noted = leaf.NewSet(t.size, t.leaf)
	}
	t.mu.Unlock()
	var err error
	if half {
		err = t.writeJournal()
		if err == nil {
			err = t.flush()
		}
	}
	return errors.Join(err, t.d.Close())
}

var (
	_ ring.Sink     = (*Target)(nil)
	_ ring.Opener   = (*Target)(nil)
	_ ring.Keeper   = (*Target)(nil)
	_ ring.Preparer = (*Target)(nil)
	_ ring.Holder   = (*Target)(nil)
	_ ring.Comparer = (*Target)(nil)
	_ ring.Compared = (*Target)(nil)

	_ ring.ReadBacker = (*Target)(nil)
	_ ring.Overwriter = (*Target)(nil)

	_ io.Closer     = (*Target)(nil)
	_ fmt.Stringer  = (*Target)(nil)
	_ ring.Placer   = (*writer)(nil)
	_ ring.Flusher  = (*writer)(nil)
	_ ring.Cautious = (*writer)(nil)
)
