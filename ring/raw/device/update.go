package device

import (
	"context"
	"fmt"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/leaf"
)

// This file has what a device holds when a transfer begins: leaves that an earlier one has left, or with an update all that are
// right.

// before is what was there when the transfer began. The mutex of the Target guards it.
type before struct {
	found   *journal  // that of an earlier transfer, which counts; nil: none
	held    *leaf.Set // the leaves that need not be brought, and were not since; nil: none
	updates bool      // Compare was called
	reading bool      // and not Compared: all of the device may be read
	inPlace bool      // nothing is to be written
}

// Compare reads into memory what the device has of the leaves that are written last, and has Open read the rest. Nothing is
// written: not before it is known that something is to change. See ring.Comparer.
func (t *Target) Compare(ctx context.Context, _ v1.Descriptor) (size int64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	t.mu.Lock()
	usable := t.size >= 0 && !t.closed
	if usable {
		t.remember()
	}
	t.mu.Unlock()
	if !usable {
		return 0, fmt.Errorf("device %s: compared before it was offered, or after it was closed", t.d)
	}
	head := min(t.size, t.leaf)
	if _, err := t.d.ReadAt(t.first[:up(head, t.d.Sector())], 0); err != nil {
		return 0, t.fail("read", err)
	}
	clear(t.first[head:])
	if t.tail != nil {
		if _, err := t.d.ReadAt(t.tail, t.tailAt); err != nil {
			return 0, t.fail("read", err)
		}
		clear(t.tail[t.size-t.tailAt:])
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.before.updates, t.before.reading = true, true
	return t.size, nil
}

// Same reports that nobody has written to the device since: whoever opened it keeps others from using it (O_EXCL).
func (t *Target) Same(v1.Descriptor) bool { return true }

// Compared takes the leaves that are right. The first journal will name them, as far as they are not in memory; see ring.Compared.
func (t *Target) Compared(_ v1.Descriptor, right *leaf.Set) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.before.reading = false
	t.note(right.Clone())
}

// note takes a set as what was there before. nil is an empty one. mu is held.
func (t *Target) note(held *leaf.Set) {
	if held == nil {
		held = leaf.NewSet(t.size, t.leaf)
	}
	t.before.held, t.noted = held, t.outsideMemory(held)
}

// holds reports whether all leaves between two offsets were there before.
func (t *Target) holds(off, end int64) bool {
	return off%t.leaf == 0 && t.before.held.Next(off) >= end
}

// inPlace reports whether an update finds that the device is just what Publish would make it. What is not in memory was not
// written, and is right.
func (t *Target) inPlace() (bool, error) {
	t.mu.Lock()
	changes := t.begun || !t.before.updates
	t.mu.Unlock()
	if changes {
		return false, nil
	}
	all, err := t.areas()
	if err != nil {
		return false, err
	}
	if _, n, err := t.differs(append(all, t.end(all))); n > 0 || err != nil {
		return false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.compose, t.before.inPlace, t.outcome = all, true, Complete
	return true, nil
}

// end returns the last MiB as a transfer leaves it: zeros, but for what Publish writes there. There may be a signature, which
// somebody else has written behind the image.
func (t *Target) end(all []area) area {
	end := area{t.d.Size() - edge, aligned(edge)}
	for _, a := range all {
		if from, to := max(a.off, end.off), min(a.end(), end.end()); from < to {
			copy(end.b[from-end.off:], a.b[from-a.off:to-a.off])
		}
	}
	return end
}
