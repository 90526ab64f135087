package device

import (
	"bytes"
	"testing"

	"github.com/dolly-img/dolly-img/ring/ringtest/crashdisk"
)

// A signature at the end of a larger device, behind the right image, goes in an update as it goes in a clone.
func TestUpdateClearsEnd(t *testing.T) {
	j := &crashJob{image: crashImage(crashSizes[0].image), update: true}
	d := crashdisk.New(crashSizes[0].disk, 512)
	for _, signed := range []bool{false, true, false} {
		sector := aligned(512)
		if signed {
			copy(sector, "MD")
			if _, err := d.WriteAt(sector, d.Size()-64<<10); err != nil {
				t.Fatal(err)
			}
		}
		before := d.Written()
		target, err := j.clone(d)
		if err != nil {
			t.Fatal(err)
		}
		if first := before == 0; target.before.inPlace == (first || signed) {
			t.Errorf("in place: %v, signed: %v", target.before.inPlace, signed)
		}
		got := readDevice(t, d, d.Size())
		if !bytes.Equal(got[:len(j.image)], j.image) || len(bytes.Trim(got[d.Size()-edge:], "\x00")) > 0 {
			t.Errorf("signed %v: the image differs, or there is something in the last MiB", signed)
		}
	}
}
