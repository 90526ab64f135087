//go:build !race

package device

import (
	"bytes"
	"testing"

	"github.com/dolly-img/dolly-img/ring/raw/disk"
	"github.com/dolly-img/dolly-img/ring/ringtest/crashdisk"
)

// Whichever write or flush the disk refuses once, what the Target says of it is so, also when the power is lost then, and the next
// transfer makes it complete.
func TestCrashSweepFailures(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		for _, patch := range []bool{false, true} {
			failures(t, sector, patch)
		}
	}
}

func failures(t *testing.T, sector int64, patch bool) {
	image, old := crashImage(), oldDisk(sector)
	want := complete(old, image, patch)
	d := old.Reboot(crashdisk.Newest)
	if _, err := clone(d, image, patch); err != nil {
		t.Fatal(err)
	}
	total := d.Ops()
	for n := 1; n <= total; n++ {
		d := old.Reboot(crashdisk.Newest)
		d.FailAt(n)
		target, err := clone(d, image, patch)
		if err == nil {
			t.Errorf("operation %d of %d fails, and the transfer does not, %s", n, total, target.Outcome())
		}
		head := make([]byte, page)
		d.ReadAt(head, 0)
		marked := bytes.HasPrefix(head, []byte(disk.HalfWritten))
		switch is := target.Outcome(); {
		case is == Untouched && len(d.Pages(old)) == 0:
		case is == Overwritten && (marked || len(d.Pages(old)) == 0): // nobody knows what a write did that failed
		default:
			t.Errorf("operation %d of %d fails with %v: it says %s, marked: %v", n, total, err, is, marked)
		}
		for _, at := range late[1:] { // what reads signatures there does not know the mark
			if d.ReadAt(head, at); target.compose != nil && len(bytes.Trim(head, "\x00")) > 0 {
				t.Errorf("operation %d of %d fails with %v: there is a signature at %d", n, total, err, at)
			}
		}
		for seed := range uint64(4) {
			left := d.Reboot(crashdisk.Random(seed<<16 + uint64(n)))
			if err := judge(left, old, want); err != nil {
				t.Errorf("operation %d of %d fails, then the power: %v", n, total, err)
			}
		}
		if target, err = clone(d, image, patch); err != nil || len(d.Pages(want)) > 0 || target.Outcome() != Complete {
			t.Errorf("operation %d of %d fails; again: %v, %s, %d pages differ", n, total, err, target.Outcome(), len(d.Pages(want)))
		}
	}
}
