package device

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/dolly-img/dolly-img/ring/ringtest/crashdisk"
)

// like16 is a journal of a blob of 16 leaves and a part of one.
func like16() *journal {
	const blob = 16*leaf.Size + 5
	return &journal{device: 1 << 30, blob: blob, leaf: leaf.Size, identity: "serial 1", transfer: "t", leaves: leaf.NewSet(blob, leaf.Size)}
}

// slot fills up what encode returned.
func slot(b []byte) []byte { return append(b, make([]byte, slotSize-len(b))...) }

// FuzzJournal finds no slot that is read and would be written in another way.
func FuzzJournal(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > slotSize {
			return
		}
		b = slot(b)
		j, err := decode(b, like16())
		if err != nil {
			return
		}
		if again := j.encode(); !bytes.Equal(again[:page+len(j.leaves.Bits())], b[:len(again[:page+len(j.leaves.Bits())])]) {
			t.Errorf("%+v is written in another way than it was read", j)
		}
	})
}

func TestJournal(t *testing.T) {
	j := like16()
	j.sequence = 7
	for _, l := range []int64{1, 2, 9, 15} {
		j.leaves.Add(l * leaf.Size)
	}
	b := slot(j.encode())
	got, err := decode(b, like16())
	if err != nil || got.sequence != 7 || got.transfer != "t" || !bytes.Equal(got.leaves.Bits(), j.leaves.Bits()) {
		t.Fatalf("%+v, %v", got, err)
	}
	for at := range b[:page+len(j.leaves.Bits())] { // a slot of which any byte is lost
		b[at] ^= 1
		if _, err := decode(b, like16()); err == nil {
			t.Fatalf("byte %d was changed, and nobody sees it", at)
		}
		b[at] ^= 1
	}
	for name, change := range map[string]func(*journal){
		"another device":       func(j *journal) { j.device++ },
		"another serial":       func(j *journal) { j.identity = "serial 2" },
		"a blob of other size": func(j *journal) { j.blob++ },
		"other leaves":         func(j *journal) { j.leaf *= 2 },
	} {
		like := like16()
		change(like)
		if _, err := decode(b, like); err == nil {
			t.Errorf("%s: the journal counts", name)
		}
	}
	// The largest device has a bitmap that fits into its slot.
	j = &journal{device: 1 << 60, blob: 1<<60 - 1, leaf: leaf.Size, leaves: leaf.NewSet(1<<60-1, leaf.Size)}
	if n := len(j.encode()); n > slotSize {
		t.Errorf("a slot of %d bytes, and there is room for %d", n, slotSize)
	}
}

// What is good may be said late. From Prepare on, the place of the journal belongs to the image.
func TestNoJournalOverImage(t *testing.T) {
	image := random(17 << 20)
	d := crashdisk.New(24<<20, 512)
	target := newTarget(d, Options{}, 4<<20, inFlight, 4<<20)
	ctx, blob := t.Context(), v1.Descriptor{MediaType: leaf.MediaType, Size: int64(len(image))}
	if _, _, err := target.Offer(ctx, []v1.Descriptor{blob}); err != nil {
		t.Fatal(err)
	}
	w, err := target.Begin(ctx, blob, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(image)
	if err = errors.Join(err, w.Commit(ctx, blob)); err != nil {
		t.Fatal(err)
	}
	if _, err = target.Prepare(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if err = target.Publish(ctx); err != nil {
		t.Fatal(err)
	}
	w.(ring.Cautious).Good(blob.Size)
	if err = target.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readDevice(t, d, blob.Size); !bytes.Equal(got, image) || target.Outcome() != Complete {
		t.Errorf("%s, and the journal lies over the image", target.Outcome())
	}
}

// Who is killed goes on from what was good some time ago, or some bytes ago, and does not flush his disk more often than that.
func TestJournalIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		image := random(24 << 20)
		d, blob := crashdisk.New(32<<20, 512), v1.Descriptor{MediaType: leaf.MediaType, Size: int64(len(image))}
		begin := func() (*Target, ring.Writer) {
			t.Helper()
			target := newTarget(d, Options{}, leaf.Size, inFlight, 3*leaf.Size)
			if _, _, err := target.Offer(t.Context(), []v1.Descriptor{blob}); err != nil {
				t.Fatal(err)
			}
			w, err := target.Begin(t.Context(), blob, 0)
			if err != nil {
				t.Fatal(err)
			}
			return target, w
		}
		named := func() (n int) { // by whom would be killed now
			target, _ := begin()
			for off := int64(0); off < blob.Size; off += leaf.Size {
				if target.Holds(blob, off) {
					n++
				}
			}
			return n
		}
		target, w := begin()
		write := func(k int64) {
			t.Helper()
			if _, err := w.Write(image[k*leaf.Size:][:leaf.Size]); err != nil {
				t.Fatal(err)
			}
			target.drain()
			w.(ring.Cautious).Good((k + 1) * leaf.Size)
			target.waitJournal()
		}
		for k, want := range []int{0, 0, 0, 3} { // the first leaf is in memory
			if write(int64(k)); named() != want {
				t.Errorf("after leaf %d the journal names %d leaves, want %d", k, named(), want)
			}
		}
		time.Sleep(journalTime - time.Second)
		if write(4); named() != 3 {
			t.Errorf("before its time the journal names %d leaves, want 3", named())
		}
		time.Sleep(time.Second)
		flushed := d.Ops()
		if w.(ring.Cautious).Good(5 * leaf.Size); named() != 3 && named() != 4 {
			t.Errorf("the journal names %d leaves", named())
		}
		if target.waitJournal(); named() != 4 {
			t.Errorf("after its time the journal names %d leaves, want 4", named())
		}
		time.Sleep(2 * journalTime)
		if w.(ring.Cautious).Good(5 * leaf.Size); d.Ops() != flushed+2 { // a flush and a write
			t.Errorf("%d operations for one journal", d.Ops()-flushed)
		}
	})
}

// A transfer that is ended and may go on says all that is good, and one that may not says nothing.
func TestJournalAtTheEnd(t *testing.T) {
	image := random(24 << 20)
	for _, keep := range []bool{true, false} {
		d, blob := crashdisk.New(32<<20, 512), v1.Descriptor{MediaType: leaf.MediaType, Size: int64(len(image))}
		target := New(d, Options{})
		if _, _, err := target.Offer(t.Context(), []v1.Descriptor{blob}); err != nil {
			t.Fatal(err)
		}
		w, err := target.Begin(t.Context(), blob, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(image[:14<<20]); err != nil {
			t.Fatal(err)
		}
		w.(ring.Cautious).Good(12 << 20)
		err = w.Abort(12 << 20)
		if keep {
			target.Keep()
		}
		if err := errors.Join(err, target.Close()); err != nil {
			t.Fatal(err)
		}
		next := New(d, Options{})
		if _, _, err := next.Offer(t.Context(), []v1.Descriptor{blob}); err != nil {
			t.Fatal(err)
		}
		for off := int64(0); off < blob.Size; off += leaf.Size {
			want := keep && off > 0 && off < 12<<20
			if next.Holds(blob, off) != want {
				t.Errorf("kept %v: the leaf at %d is named: %v", keep, off, !want)
			}
		}
	}
}
