package device

import (
	"bytes"
	"errors"
	"testing"

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
