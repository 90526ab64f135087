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

// Sizes of the image and of the disk in the sweep: on a larger disk, and on one as large, where the last leaf is so short that MD
// has its superblock in the one before it.
var crashSizes = []struct{ image, disk int64 }{{6*crashLeaf + 700, 8 * crashLeaf}, {6*crashLeaf + 32<<10, 6*crashLeaf + 32<<10}}

// crashImage is an image of size bytes, which are six leaves and less than one more, most of it zeros, with bytes in all pages
// that could be a signature, and around the ends of leaves.
func crashImage(size int64) []byte {
	b := make([]byte, size)
	for i, at := range []int64{
		0, page, 32 << 10, 64 << 10, disk.HalfWrittenAt, slotAt, crashLeaf - page, crashLeaf, 2*crashLeaf - page,
		3*crashLeaf + 12345, 4*crashLeaf - 1, 5 * crashLeaf, 6*crashLeaf - 2*page, 6 * crashLeaf, size - page - 512,
	} {
		for k := range min(size-at, 2*page) {
			b[at+k] = byte(i + 1)
		}
	}
	return b
}

// oldDisk is a disk on which something was.
func oldDisk(size, sector int64) *crashdisk.Disk {
	d := crashdisk.New(size, sector)
	p := bytes.Repeat([]byte{0xee}, 2*page)
	for at := int64(0); at+2*page <= d.Size(); at += 1 << 18 {
		d.WriteAt(p, at)
	}
	d.WriteAt(p[:page], d.Size()-page)
	d.WriteAt(p[:page], 32<<10)
	d.WriteAt(p[:page], 64<<10)
	d.Flush()
	return d
}

// crashJob is what is done to a disk.
type crashJob struct {
	image         []byte
	patch, update bool
}

func (j *crashJob) target(d Device) *Target {
	o := Options{Identity: "serial 1", Transfer: "crash"}
	if j.patch {
		o.Patch = func(image io.ReaderAt, size int64, on Device) ([]Patch, error) {
			b := make([]byte, 3)
			if _, err := image.ReadAt(b, crashLeaf-1); err != nil {
				return nil, err
			}
			return []Patch{{10, []byte("patched")}, {on.Size() - 10, b}}, nil
		}
	}
	return newTarget(d, o, crashLeaf, 1, crashLeaf)
}

// clone does it as the ring does, with one write in flight so that the order is always the same.
func (j *crashJob) clone(d Device) (t *Target, err error) {
	t = j.target(d)
	defer func() {
		if err != nil {
			t.Keep()
		}
		err = errors.Join(err, t.Close())
	}()
	ctx := context.Background()
	blob := v1.Descriptor{MediaType: leaf.MediaType, Size: int64(len(j.image))}
	if _, _, err := t.Offer(ctx, []v1.Descriptor{blob}); err != nil {
		return t, err
	}
	var right *leaf.Set
	if j.update {
		if right, err = j.compare(ctx, t, blob); err != nil {
			return t, err
		}
	}
	off := right.Next(0)
	w, err := t.Begin(ctx, blob, off)
	if err != nil {
		return t, err
	}
	for off < blob.Size {
		w.(ring.Cautious).Good(off)
		end := min(off+crashLeaf, blob.Size)
		if err := feed(w.(ring.Placer), j.image, off, end); err != nil {
			return t, errors.Join(err, w.Abort(off))
		}
		w.(ring.Cautious).Good(end)
		t.waitJournal()
		off = right.Next(end)
	}
	w.(ring.Cautious).Good(off)
	t.waitJournal()
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

// compare finds out which leaves are right. The last one has no mark if it is not whole: it is right only with all others.
func (j *crashJob) compare(ctx context.Context, t *Target, blob v1.Descriptor) (*leaf.Set, error) {
	if n, err := t.Compare(ctx, blob); err != nil || n != blob.Size {
		return nil, errors.Join(err, fmt.Errorf("%d bytes to compare of %d", n, blob.Size))
	}
	right, all := leaf.NewSet(blob.Size, crashLeaf), true
	for off := int64(0); off < blob.Size; off += crashLeaf {
		r, err := t.Open(ctx, blob, off)
		if err != nil {
			return nil, err
		}
		want := j.image[off:min(off+crashLeaf, blob.Size)]
		same := true
		for k, b := 0, make([]byte, 64<<10); k < len(want); {
			n, err := r.Read(b[:min(len(b), len(want)-k)])
			if err != nil {
				return nil, err
			}
			same = same && bytes.Equal(b[:n], want[k:k+n])
			k += n
		}
		r.Close()
		if all = all && same; same && (all || len(want) == crashLeaf) {
			right.Add(off)
		}
	}
	t.Compared(blob, right)
	return right, nil
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
func (j *crashJob) complete(old *crashdisk.Disk) *crashdisk.Disk {
	want := old.Reboot(crashdisk.Newest)
	want.Zero(want.Size()-edge, edge)
	b := make([]byte, up(int64(len(j.image)), want.Sector()))
	copy(b, j.image)
	if j.patch {
		copy(b[10:], "patched")
		end := make([]byte, page)
		copy(end[page-10:], j.image[crashLeaf-1:crashLeaf+2])
		want.WriteAt(end, want.Size()-page)
	}
	want.WriteAt(b, 0)
	return want
}

// late are the pages that must be the last ones, written out so that the test does not believe the code.
var late = []int64{0, 4 << 10, 32 << 10, 64 << 10}

// isLate reports whether a page must be one of the last ones: it may have a signature at the beginning of the image, at
// its end, or at the end of the disk.
func (j *crashJob) isLate(d *crashdisk.Disk, at int64) bool {
	size := int64(len(j.image))
	return slices.Contains(late, at) || at >= d.Size()-edge || at >= size-edge-page && at < size
}

// judge says what is wrong with what a power loss left on a disk.
func (j *crashJob) judge(d, old, want *crashdisk.Disk) error {
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
	nearOld := !slices.ContainsFunc(fromOld, func(at int64) bool { return at >= edge && at < d.Size()-edge })
	nearWant := !slices.ContainsFunc(fromWant, func(at int64) bool { return !j.isLate(d, at) })
	is, was, becomes := make([]byte, d.Sector()), make([]byte, d.Sector()), make([]byte, d.Sector())
	var sectors []int64
	for _, at := range d.Pages(crashdisk.New(d.Size(), d.Sector())) {
		for k := int64(0); k < page && j.isLate(d, at); k += d.Sector() {
			sectors = append(sectors, at+k)
		}
	}
	for _, at := range sectors {
		if at == 0 {
			continue // the mark
		}
		d.ReadAt(is, at)
		old.ReadAt(was, at)
		want.ReadAt(becomes, at)
		isOld, isWant := bytes.Equal(is, was), bytes.Equal(is, becomes)
		inside := at >= edge && at < d.Size()-edge // at the end of an image on a larger disk, where nobody looks for a signature
		switch {
		case bytes.Equal(is, zeros[:len(is)]) || isOld && (nearOld || inside) || isWant && nearWant:
		case isOld:
			return fmt.Errorf("a signature of what was there at %d, though more than the edges was overwritten", at)
		case isWant:
			return fmt.Errorf("a signature of the image at %d, though it is not complete", at)
		default:
			return fmt.Errorf("at %d is what was never there", at)
		}
	}
	return nil
}

// judgeJournal compares what the journal of a disk names with the image.
func (j *crashJob) judgeJournal(d *crashdisk.Disk) (leaves int, err error) {
	t, size := j.target(d), int64(len(j.image))
	if _, _, err := t.Offer(context.Background(), []v1.Descriptor{{Size: size}}); err != nil {
		return 0, err
	}
	b := make([]byte, crashLeaf)
	for at := int64(0); at < size; at += crashLeaf {
		if !t.Holds(v1.Descriptor{}, at) {
			continue
		}
		leaves++
		if d.ReadAt(b, at); !bytes.Equal(b, j.image[at:at+crashLeaf]) {
			return 0, fmt.Errorf("the journal names the leaf at %d, which is not there", at)
		}
	}
	return leaves, nil
}
