package device

import (
	"bytes"
	"time"

	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/dolly-img/dolly-img/ring/raw/disk"
)

// This file has what a half-written device says about itself: the mark and the journal.

const (
	// journalBytes and journalTime are how many bytes that are good, and how much time, a journal is behind at most: so much is
	// brought again after a crash. Each journal takes a flush, for which a disk empties its cache and lets writes wait, so there
	// are not more of them.
	journalBytes = 256 << 20
	journalTime  = 10 * time.Second
)

// journaling is whether the journal is being written, and what it said last. The mutex of the Target guards it.
type journaling struct {
	every    int64 // journalBytes
	busy     bool
	sequence uint64
	at       time.Time // when it was written
	fresh    int64     // how many bytes are good that it does not name
	over     bool      // Publish will write the image where the journal is
	lost     bool      // and has begun to
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
	t.mu.Unlock() // Good must not wait, and nobody else begins
	err := t.mark()
	t.mu.Lock()
	if err != nil {
		t.err = err
		return err
	}
	t.journal.at = time.Now()
	t.begun = true
	return nil
}

// mark has the device say that it is half-written, and which leaves it has all the same.
func (t *Target) mark() error {
	var named []byte
	if found := t.before.found; found != nil {
		t.journal.sequence, named = found.sequence, found.leaves.Bits()
	} else if err := t.overwriteEdges(); err != nil {
		return err
	}
	if !t.noted.Any(0, t.size) || bytes.Equal(t.noted.Bits(), named) {
		return nil
	}
	return t.writeJournal() // not before the edges are on the medium: who finds a journal leaves them as they are
}

// overwriteEdges writes the mark and flushes it, and then zeros to the first and the last MiB. A first sector that is half-written cannot be: the page around it is written with what it had.
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
		if at >= t.leaf && at+unit <= t.tailAt && !t.noted.Has(at) {
			t.noted.Add(at)
			t.journal.fresh += unit
		}
	}
	t.good = max(t.good, off)
	j := &t.journal
	if !t.begun || t.closed || j.busy || j.over || j.fresh == 0 || j.fresh < j.every && time.Since(j.at) < journalTime {
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

// forget removes the leaves of n bytes at off from a set, which may be nil.
func forget(s *leaf.Set, off, n int64) {
	if s == nil {
		return
	}
	for at := down(off, s.Unit()); at < off+n; at += s.Unit() {
		s.Remove(at)
	}
}

// nextJournal returns a journal of the leaves that are good and were written before now.
func (t *Target) nextJournal() *journal {
	t.mu.Lock()
	defer t.mu.Unlock()
	j := t.like()
	j.leaves = t.noted.Clone()
	for _, c := range append(t.flight, &t.cur) {
		forget(j.leaves, c.off, c.n)
	}
	t.journal.sequence++
	j.sequence = t.journal.sequence
	t.journal.fresh, t.journal.at = 0, time.Now()
	return j
}

// writeJournal flushes the device, and then writes which leaves are good and were written before that.
func (t *Target) writeJournal() error {
	j := t.nextJournal()
	if err := t.flush(); err != nil {
		return err
	}
	if _, err := t.d.WriteAt(j.encode(), j.at()); err != nil {
		return t.fail("write the journal", err)
	}
	return nil
}
