package device

import (
	"bytes"

	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/dolly-img/dolly-img/ring/raw/disk"
)

// This file has what a half-written device says about itself: the mark and the journal.

// journaling is whether the journal is being written, and what it said last. The mutex of the Target guards it.
type journaling struct {
	busy     bool
	sequence uint64
	good     int64 // what was good then
	over     bool  // Publish will write the image where the journal is
	lost     bool  // and has begun to
}

// like returns a journal of this blob on this device that names nothing.
func (t *Target) like() *journal {
	return &journal{device: t.d.Size(), blob: t.size, leaf: t.leaf, identity: cutName(t.o.Identity), transfer: cutName(t.o.Transfer)}
}

func cutName(s string) string { return s[:min(len(s), nameLength)] }

// readJournal looks for what an earlier transfer left. found is nil where the device is not marked in both places, or has no
// journal of the same blob.
func (t *Target) readJournal() (found *journal, marked bool, err error) {
	b := aligned(page + 2*slotSize)
	if _, err := t.d.ReadAt(b[:page], 0); err != nil {
		return nil, false, err
	}
	first := bytes.HasPrefix(b, []byte(disk.HalfWritten))
	if _, err := t.d.ReadAt(b, disk.HalfWrittenAt); err != nil {
		return nil, false, err
	}
	second := bytes.HasPrefix(b, []byte(disk.HalfWritten))
	if !first || !second {
		return nil, first || second, nil
	}
	for slot := range int64(2) {
		j, err := decode(b[page+slot*slotSize:][:slotSize], t.like())
		if err == nil && (found == nil || j.sequence > found.sequence) {
			found = j
		}
	}
	return found, true, nil
}

// begin marks the device as half-written and overwrites its edges, unless an earlier transfer of the same blob has done
// that.
func (t *Target) begin() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.beginLocked()
}

func (t *Target) beginLocked() error {
	if t.begun || t.err != nil {
		return t.err
	}
	t.outcome = Overwritten
	if t.found != nil {
		t.journal.sequence = t.found.sequence
	} else {
		t.mu.Unlock() // Good must not wait, and nobody else begins
		err := t.overwriteEdges()
		t.mu.Lock()
		if err != nil {
			t.err = err
			return err
		}
	}
	t.begun = true
	return nil
}

// overwriteEdges writes the mark and flushes it, and then zeros to the first and the last MiB. A first sector that is
// half-written cannot be: the page around it is written with what it had.
func (t *Target) overwriteEdges() error {
	b := aligned(edge)
	if _, err := t.d.ReadAt(b[:page], 0); err != nil {
		return t.fail("read", err)
	}
	clear(b[:t.d.Sector()])
	copy(b, disk.HalfWritten)
	if err := t.writeFlushed(b[:page], 0); err != nil {
		return err
	}
	clear(b)
	if _, err := t.d.WriteAt(b, t.d.Size()-edge); err != nil {
		return t.fail("write zeros to the end", err)
	}
	copy(b, disk.HalfWritten)
	copy(b[disk.HalfWrittenAt:], disk.HalfWritten)
	return t.writeFlushed(b, 0)
}

func (t *Target) writeFlushed(b []byte, off int64) error {
	if _, err := t.d.WriteAt(b, off); err != nil {
		return t.fail("write the mark", err)
	}
	return t.flush()
}

// isGood notes that all bytes before off are right, and begins to write the journal when that is worth it.
func (t *Target) isGood(off int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	unit := t.noted.Unit()
	for at := down(t.good, unit); at+unit <= off; at += unit {
		if at >= t.leaf && at+unit <= t.lastAt() {
			t.noted.Add(at)
		}
	}
	t.good = max(t.good, off)
	if !t.begun || t.closed || t.journal.busy || t.journal.over || t.good-t.journal.good < t.patchy {
		return
	}
	t.journal.busy = true
	go func() {
		err := t.writeJournal()
		t.mu.Lock()
		defer t.mu.Unlock()
		if err != nil && t.err == nil {
			t.err = err
		}
		t.journal.busy = false
		t.idle.Broadcast()
	}()
}

// forget removes the leaves of n bytes at off from a set.
func forget(s *leaf.Set, off, n int64) {
	for at := down(off, s.Unit()); at < off+n; at += s.Unit() {
		s.Remove(at)
	}
}

// writeJournal flushes the device, and then writes which leaves are good and were written before that.
func (t *Target) writeJournal() error {
	t.mu.Lock()
	j := t.like()
	j.leaves = t.noted.Clone()
	for _, c := range append(t.flight, &t.cur) {
		forget(j.leaves, c.off, c.n)
	}
	t.journal.sequence++
	j.sequence = t.journal.sequence
	t.journal.good = t.good
	t.mu.Unlock()
	if err := t.flush(); err != nil {
		return err
	}
	at := slotAt + int64(j.sequence%2)*slotSize
	if _, err := t.d.WriteAt(j.encode(), at); err != nil {
		return t.fail("write the journal", err)
	}
	return nil
}
