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
	if t.last != nil {
		all = append(all, area{t.lastAt(), t.last})
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
	first := t.compose[0]
	for _, a := range t.compose[1:] {
		if err := t.writeArea(a.b, a.off); err != nil {
			return err
		}
	}
	from := int64(page)
	for _, s := range append(slices.Clone(signatures), first.end()) {
		if err := t.writeArea(first.b[from:max(from, s)], from); err != nil {
			return err
		}
		from = s + page
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, s := range signatures {
		if err := t.writeArea(first.b[s:s+page], s); err != nil {
			return err
		}
	}
	marked := aligned(page)
	copy(marked[t.d.Sector():], first.b[t.d.Sector():page])
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
	if err := t.writeArea(first.b[:page], 0); err != nil {
		return err
	}
	if err := t.flush(); err != nil {
		return err
	}
	return t.compare()
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
	buf := newChunk()
	defer freeChunk(buf)
	for _, a := range t.compose {
		for off := a.off; off < a.end(); {
			b := buf[:min(chunkSize, a.end()-off)]
			if _, err := t.d.ReadAt(b, off); err != nil {
				return t.fail(fmt.Sprintf("read back at byte %d", off), err)
			}
			if want := a.b[off-a.off:][:len(b)]; !bytes.Equal(b, want) {
				return t.fail("read back", fmt.Errorf("bytes %d to %d are not what was written", off, off+int64(len(b))))
			}
			off += int64(len(b))
		}
	}
	return nil
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
	clear(b)
	for _, s := range signatures {
		t.d.WriteAt(b, s)
	}
	t.d.Flush()
	return nil
}
