package gpt

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// A damaged table is left as it is, and a note says so.
func TestPatchesSpoiled(t *testing.T) {
	for _, tt := range spoiled {
		if tt.want == "" {
			continue
		}
		im := spoiledImage()
		tt.spoil(im)
		if tt.sum {
			im.sum()
		}
		for _, target := range []int64{im.size(), 2 * im.size()} {
			patches, notes, err := Patches(im.reader(), im.size(), target, 512)
			if err != nil || len(patches) > 0 || len(notes) == 0 || !strings.Contains(notes[len(notes)-1], tt.want) {
				t.Errorf("%s: %v %q %v", tt.name, patches, notes, err)
			}
		}
		if _, notes, _ := Patches(im.reader(), im.size(), 2*im.size(), 512); !tt.sum {
			if !strings.Contains(notes[0], "only the backup") {
				t.Errorf("%s, with a valid backup: %q", tt.name, notes)
			}
		}
	}
}

func TestPatchesSector(t *testing.T) {
	im := newImage(4096, 256)
	var wrong *SectorError
	if _, _, err := Patches(im.reader(), im.size(), 2*im.size(), 512); !errors.As(err, &wrong) {
		t.Errorf("a table for 4096 bytes on a disk with 512: %v", err)
	}
	if _, _, err := Patches(im.reader(), im.size(), im.size()-4096, 4096); err == nil || !strings.Contains(err.Error(), "smaller") {
		t.Errorf("a smaller disk: %v", err)
	}
	if notes, err := Notes(im.reader(), im.size()); err != nil || len(notes) > 0 {
		t.Errorf("a table for 4096 bytes: %q, %v", notes, err)
	}
	im.b[4096+60]++
	if notes, err := Notes(im.reader(), im.size()); err != nil || len(notes) != 2 {
		t.Errorf("a damaged table for 4096 bytes: %q, %v", notes, err)
	}
	for _, b := range [][]byte{nil, make([]byte, 1<<20), mbrOf([3]uint32{0x83, 8, 8})} {
		patches, notes, err := Patches(bytes.NewReader(b), int64(len(b)), 2<<20, 4096)
		if patches != nil || notes != nil || err != nil {
			t.Errorf("no GPT: %v %v %v", patches, notes, err)
		}
	}
}

// What is cut off behind the last partition has no backup. It gets one, unless no room is left for it.
func TestPatchesCut(t *testing.T) {
	whole := spoiledImage()
	cut := image{whole.b[:121*512], 512}
	for sectors, want := range map[int64]bool{121: false, 121 + 32: false, 121 + 33: true, 256: true, 1000: true} {
		patches, notes, err := Patches(cut.reader(), cut.size(), sectors*512, 512)
		if err != nil || want != (len(patches) > 0) || want != (len(notes) == 0) {
			t.Errorf("%d sectors: %d patches, notes %q, %v", sectors, len(patches), notes, err)
			continue
		}
		if want {
			disk := cut.onto(sectors*512, patches)
			if _, notes, err := Patches(disk.reader(), disk.size(), disk.size(), 512); err != nil || len(notes) > 0 {
				t.Errorf("%d sectors, afterwards: %q, %v", sectors, notes, err)
			}
		}
	}
	disk := cut.onto(256*512, nil)
	patches, _, _ := Patches(cut.reader(), cut.size(), disk.size(), 512)
	if got := cut.onto(256*512, patches); !bytes.Equal(got.b, whole.b) {
		t.Error("a disk of the size that it had is another one")
	}
}

// A disk of the image's size is exactly the image, whatever is wrong with it, and a note says that.
func TestPatchesSame(t *testing.T) {
	for want, spoil := range map[string]func(im image){
		"":                        func(im image) {},
		"not valid, as in the":    func(im image) { im.b[len(im.b)-450]++ },
		"not at the end of the d": func(im image) { put(im.header()[32:], uint64(254)); sumHeader(im.header()) },
	} {
		im := spoiledImage()
		spoil(im)
		patches, notes, err := Patches(im.reader(), im.size(), im.size(), 512)
		if again, err := Notes(im.reader(), im.size()); err != nil || !slices.Equal(again, notes) {
			t.Errorf("%q: notes %q, %v", want, again, err)
		}
		if err != nil || len(patches) > 0 || (want != "") != (len(notes) > 0) || !strings.Contains(strings.Join(notes, " "), want) {
			t.Errorf("%q: %v %q %v", want, patches, notes, err)
		}
	}
}
