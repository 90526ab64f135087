package device

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/dolly-img/dolly-img/ring/raw/disk"
)

// area is a run of whole sectors that Publish writes and reads back.
type area struct {
	off int64
	b   []byte
}

func (a area) end() int64 { return a.off + int64(len(a.b)) }

// signatures are the pages in which most file systems and tables have their signatures: all that have it at the beginning;
// tables of 4 KiB sectors and MD 1.2; ISO 9660; btrfs. They are written when everything else is there.
var signatures = []int64{page, 32 << 10, 64 << 10}

// areas returns what Publish has to write, first the beginning of the device.
func (t *Target) areas() ([]area, error) {
	first := t.first[:up(max(min(t.size, t.leaf), edge), t.d.Sector())]
	all := []area{{0, first}}
	if t.tail != nil {
		all = append(all, area{t.tailAt, t.tail})
	}
	if t.o.Patch == nil {
		return all, nil
	}
	r := &reader{ctx: context.Background(), t: t}
	defer r.Close()
	patches, err := t.o.Patch(&image{t, r}, t.size, t.d)
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", t.d, err)
	}
	for i := range all { // what is in memory is still replayed
		b := aligned(len(all[i].b))
		copy(b, all[i].b)
		all[i].b = b
	}
	for _, p := range patches {
		if p.Off < 0 || p.Off > t.d.Size()-int64(len(p.Bytes)) {
			return nil, fmt.Errorf("device %s: a patch of bytes %d to %d is outside of it", t.d, p.Off, p.Off+int64(len(p.Bytes)))
		}
		if all, err = t.patch(all, p); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// patch applies p to the areas, and adds sectors where there are none.
func (t *Target) patch(all []area, p Patch) ([]area, error) {
	for len(p.Bytes) > 0 {
		i := slices.IndexFunc(all, func(a area) bool { return a.off <= p.Off && p.Off < a.end() })
		if i < 0 {
			a := area{down(p.Off, t.d.Sector()), aligned(int(t.d.Sector()))}
			if _, err := t.d.ReadAt(a.b, a.off); err != nil {
				return nil, t.fail("read what is patched", err)
			}
			all, i = append(all, a), len(all)
		}
		n := copy(all[i].b[p.Off-all[i].off:], p.Bytes)
		p = Patch{p.Off + int64(n), p.Bytes[n:]}
	}
	return all, nil
}

// Publish writes the beginning and the end of the image, in an order that doc.go explains.
func (t *Target) Publish(context.Context) error {
	if t.compose == nil {
		return fmt.Errorf("device %s: published before it was prepared", t.d)
	}
	if t.before.inPlace {
		return nil
	}
	t.mu.Lock()
	t.journal.lost = true
	t.mu.Unlock()
	err := t.writeAll()
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.outcome = Complete
		return nil
	}
	if t.remark() == nil {
		t.outcome = Overwritten
	}
	return err
}

func (t *Target) writeAll() error {
	if err := t.writePages(false); err != nil {
		return err
	}
	if err := t.flush(); err != nil {
		return err
	}
	if err := t.writePages(true); err != nil {
		return err
	}
	first := t.compose[0].b[:page]
	marked := aligned(page)
	copy(marked[t.d.Sector():], first[t.d.Sector():])
	copy(marked, disk.HalfWritten)
	if err := t.writeArea(marked, 0); err != nil {
		return err
	}
	if err := t.flush(); err != nil {
		return err
	}
	t.mu.Lock()
	t.outcome = Unknown
	t.mu.Unlock()
	if err := t.writeArea(first, 0); err != nil {
		return err
	}
	if err := t.flush(); err != nil {
		return err
	}
	return t.compare()
}

// late reports whether what Publish writes at off has to wait until everything else is there: there may be a signature, at the
// beginning or at the end of the image, or at the end of the device.
func (t *Target) late(off int64) bool {
	return slices.Contains(signatures, down(off, page)) || off >= max(edge, down(t.size-edge, page))
}

// writePages writes those pages but the first that are late, or those that are not.
func (t *Target) writePages(late bool) error {
	for _, a := range t.compose {
		for at := max(page, a.off); at < a.end(); {
			is, end := t.late(at), at
			for end < a.end() && t.late(end) == is {
				end = min(down(end, page)+page, a.end())
			}
			if is == late {
				if err := t.bring(a.b[at-a.off:end-a.off], at); err != nil {
					return err
				}
			}
			at = end
		}
	}
	return nil
}

// bring writes b at off. In an update it writes only the parts that differ: most of the first leaf and of the tail is there.
func (t *Target) bring(b []byte, off int64) error {
	if !t.before.updates {
		return t.writeArea(b, off)
	}
	is := reads.Get().(*[readSize]byte)
	defer reads.Put(is)
	for n := 0; len(b) > 0; b, off = b[n:], off+int64(n) {
		n = int(min(int64(len(b)), down(off, readSize)+readSize-off))
		if _, err := t.d.ReadAt(is[:n], off); err != nil {
			return t.fail(fmt.Sprintf("read at byte %d", off), err)
		}
		if bytes.Equal(is[:n], b[:n]) {
			continue
		}
		if err := t.writeArea(b[:n], off); err != nil {
			return err
		}
	}
	return nil
}

func (t *Target) writeArea(b []byte, off int64) error {
	for len(b) > 0 {
		n := min(len(b), chunkSize)
		if _, err := t.d.WriteAt(b[:n], off); err != nil {
			return t.fail(fmt.Sprintf("write at byte %d", off), err)
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// compare reads back what Publish has written.
func (t *Target) compare() error {
	off, n, err := t.differs(t.compose)
	if err == nil && n > 0 {
		err = t.fail("read back", fmt.Errorf("bytes %d to %d are not what was written", off, off+n))
	}
	return err
}

// differs returns n bytes at off of the areas among which the device has others. n is 0 where it has no others.
func (t *Target) differs(areas []area) (off, n int64, err error) {
	buf := newChunk()
	defer freeChunk(buf)
	for _, a := range areas {
		for off := a.off; off < a.end(); off += n {
			n = min(chunkSize, a.end()-off)
			if _, err := t.d.ReadAt(buf[:n], off); err != nil {
				return 0, 0, t.fail(fmt.Sprintf("read back at byte %d", off), err)
			}
			if !bytes.Equal(buf[:n], a.b[off-a.off:][:n]) {
				return off, n, nil
			}
		}
	}
	return 0, 0, nil
}

// remark marks a device as half-written again that Publish could not make complete. Some formats have nothing in the first
// sector, such as btrfs and MD: what Publish wrote of their signatures goes, too, where the device can still do that.
func (t *Target) remark() error {
	b := aligned(page)
	copy(b, disk.HalfWritten)
	if err := t.writeFlushed(b, 0); err != nil {
		return err
	}
	got := aligned(page)
	if _, err := t.d.ReadAt(got, 0); err != nil {
		return err
	}
	if !bytes.Equal(b, got) {
		return errors.New("the mark cannot be read back")
	}
	b = aligned(edge + page)
	for _, s := range signatures {
		t.d.WriteAt(b[:page], s)
	}
	if from := down(t.size-edge, page); from >= edge {
		t.d.WriteAt(b[:up(t.size, t.d.Sector())-from], from)
	}
	t.d.WriteAt(b[:edge], t.d.Size()-edge)
	t.d.Flush()
	return nil
}
