package device

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/dolly-img/dolly-img/ring/raw/disk"
	"github.com/dolly-img/dolly-img/ring/ringtest/crashdisk"
)

// crashLeaf is the size of a leaf in the sweep, in bytes.
const crashLeaf = edge

// crashImage is an image of six leaves and a part of a sector, most of it zeros, with bytes in all pages that could be a
// signature, and around the ends of leaves.
func crashImage() []byte {
	b := make([]byte, 6*crashLeaf+700)
	for i, at := range []int64{
		0, page, 32 << 10, 64 << 10, disk.HalfWrittenAt, slotAt, crashLeaf - page, crashLeaf, 2*crashLeaf - page,
		3*crashLeaf + 12345, 4*crashLeaf - 1, 5 * crashLeaf, 6*crashLeaf - 2*page, 6 * crashLeaf,
	} {
		for k := range min(int64(len(b))-at, 2*page) {
			b[at+k] = byte(i + 1)
		}
	}
	return b
}

// oldDisk is a disk on which something was.
func oldDisk(sector int64) *crashdisk.Disk {
	d := crashdisk.New(8*crashLeaf, sector)
	p := bytes.Repeat([]byte{0xee}, 2*page)
	for at := int64(0); at < d.Size(); at += 1 << 18 {
		d.WriteAt(p, at)
	}
	d.WriteAt(p[:page], d.Size()-page)
	d.WriteAt(p[:page], 32<<10)
	d.WriteAt(p[:page], 64<<10)
	d.Flush()
	return d
}

// clone writes the image to the disk as the ring does, with one write in flight so that the order is always the same.
func clone(d Device, image []byte, patch bool) (t *Target, err error) {
	o := Options{Identity: "serial 1", Transfer: "crash"}
	if patch {
		o.Patch = func(image io.ReaderAt, size int64, on Device) ([]Patch, error) {
			b := make([]byte, 3)
			if _, err := image.ReadAt(b, crashLeaf-1); err != nil {
				return nil, err
			}
			return []Patch{{10, []byte("patched")}, {on.Size() - 10, b}}, nil
		}
	}
	t = newTarget(d, o, crashLeaf, 1, crashLeaf)
	defer func() {
		if err != nil {
			t.Keep()
		}
		err = errors.Join(err, t.Close())
	}()
	ctx := context.Background()
	blob := v1.Descriptor{MediaType: leaf.MediaType, Size: int64(len(image))}
	if _, _, err := t.Offer(ctx, []v1.Descriptor{blob}); err != nil {
		return t, err
	}
	w, err := t.Begin(ctx, blob, 0)
	if err != nil {
		return t, err
	}
	for off := int64(0); off < blob.Size; {
		end := min(off+crashLeaf, blob.Size)
		if err := feed(w.(ring.Placer), image, off, end); err != nil {
			return t, errors.Join(err, w.Abort(off))
		}
		w.(ring.Cautious).Good(end)
		t.waitJournal()
		off = end
	}
	if err := w.(ring.Flusher).Flush(ctx, func(int64) {}); err != nil {
		return t, errors.Join(err, w.Abort(0))
	}
	if err := w.Commit(ctx, blob); err != nil {
		return t, errors.Join(err, w.Abort(0))
	}
	if _, err := t.Prepare(ctx, nil); err != nil {
		return t, err
	}
	return t, t.Publish(ctx)
}

func (t *Target) waitJournal() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.journal.busy {
		t.idle.Wait()
	}
}

var zeros = make([]byte, 64<<10)

// feed brings bytes from off to end, those of 64 KiB that are zeros as zeros.
func feed(p ring.Placer, image []byte, off, end int64) error {
	for off < end {
		n := min(end-off, 64<<10)
		b := image[off : off+n]
		var err error
		if bytes.Equal(b, zeros) {
			err = p.Zero(off, n)
		} else {
			_, err = p.WriteAt(b, off)
		}
		if err != nil {
			return err
		}
		off += n
	}
	return nil
}

// complete returns what the disk has to be in the end.
func complete(old *crashdisk.Disk, image []byte, patch bool) *crashdisk.Disk {
	want := old.Reboot(crashdisk.Newest)
	want.Zero(want.Size()-edge, edge)
	b := make([]byte, up(int64(len(image)), want.Sector()))
	copy(b, image)
	if patch {
		copy(b[10:], "patched")
		end := make([]byte, page)
		copy(end[page-10:], image[crashLeaf-1:crashLeaf+2])
		want.WriteAt(end, want.Size()-page)
	}
	want.WriteAt(b, 0)
	return want
}

// late are the pages that must be the last ones, written out so that the test does not believe the code.
var late = []int64{0, 4 << 10, 32 << 10, 64 << 10}

// judge says what is wrong with what a power loss left on a disk.
func judge(d, old, want *crashdisk.Disk) error {
	marked := false
	head := make([]byte, edge)
	d.ReadAt(head, 0)
	for _, at := range []int64{0, disk.HalfWrittenAt} {
		marked = marked || bytes.HasPrefix(head[at:], []byte(disk.HalfWritten))
	}
	fromOld, fromWant := d.Pages(old), d.Pages(want)
	if !marked {
		if len(fromOld) > 0 && len(fromWant) > 0 {
			return fmt.Errorf("neither old nor complete, and does not say that it is half-written: %d and %d pages differ", len(fromOld), len(fromWant))
		}
		return nil
	}
	// It says that it is half-written. Others do not know that word: what could be a signature of what was there is only there
	// while nothing but the edges was touched, and one of the image only when all else is complete.
	inside := slices.ContainsFunc(fromOld, func(at int64) bool { return at >= edge && at < d.Size()-edge })
	for _, at := range late {
		b := head[at : at+page]
		if at == 0 {
			b = b[d.Sector():] // behind the mark
		}
		switch {
		case bytes.Contains(b, []byte{0xee}) && inside:
			return fmt.Errorf("a signature of what was there at %d, though more than the edges was overwritten", at)
		case len(bytes.Trim(b, "\x00\xee")) > 0 && slices.ContainsFunc(fromWant, func(at int64) bool { return !slices.Contains(late, at) }):
			return fmt.Errorf("a signature of the image at %d, though it is not complete", at)
		}
	}
	return nil
}

// judgeJournal compares what the journal of a disk names with the image.
func judgeJournal(d *crashdisk.Disk, image []byte) (leaves int, err error) {
	t := newTarget(d, Options{Identity: "serial 1"}, crashLeaf, 1, crashLeaf)
	if _, _, err := t.Offer(context.Background(), []v1.Descriptor{{Size: int64(len(image))}}); err != nil || t.found == nil {
		return 0, err
	}
	b := make([]byte, crashLeaf)
	for at := int64(0); at < int64(len(image)); at += crashLeaf {
		if !t.found.leaves.Has(at) {
			continue
		}
		leaves++
		if d.ReadAt(b, at); !bytes.Equal(b, image[at:at+crashLeaf]) {
			return 0, fmt.Errorf("the journal names the leaf at %d, which is not there", at)
		}
	}
	return leaves, nil
}
