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
		for _, size := range crashSizes {
			c := &crashes{crashJob: crashJob{image: crashImage(size.image), patch: size.disk > size.image}, old: oldDisk(size.disk, sector)}
			c.failures(t)
			old := c.old
			if _, err := c.clone(old); err != nil {
				t.Fatal(err)
			}
			c.image[2*crashLeaf+5], c.image[32<<10], c.update = 0x80, 0x80, true
			c.old = old.Reboot(crashdisk.Newest)
			c.failures(t)
		}
	}
}

func (c *crashes) failures(t *testing.T) {
	t.Helper()
	c.want = c.complete(c.old)
	d := c.fresh()
	if _, err := c.clone(d); err != nil {
		t.Fatal(err)
	}
	total := d.Ops()
	for n := 1; n <= total; n++ {
		d := c.fresh()
		d.FailAt(n)
		target, err := c.clone(d)
		if err == nil {
			t.Errorf("operation %d of %d fails, and the transfer does not, %s", n, total, target.Outcome())
		}
		head := make([]byte, page)
		d.ReadAt(head, 0)
		marked := bytes.HasPrefix(head, []byte(disk.HalfWritten))
		switch is := target.Outcome(); {
		case is == Untouched && len(d.Pages(c.old)) == 0:
		case is == Overwritten && (marked || len(d.Pages(c.old)) == 0): // nobody knows what a write did that failed
		default:
			t.Errorf("operation %d of %d fails with %v: it says %s, marked: %v", n, total, err, is, marked)
		}
		for at := down(d.Size()-edge, page); target.compose != nil && at < d.Size(); at += page { // what reads signatures there does not know the mark
			c.noSignature(t, d, at, n, err)
		}
		for _, at := range late[1:] {
			if target.compose != nil {
				c.noSignature(t, d, at, n, err)
			}
		}
		for seed := range uint64(4) {
			left := d.Reboot(crashdisk.Random(seed<<16 + uint64(n)))
			if err := c.judge(left, c.old, c.want); err != nil {
				t.Errorf("operation %d of %d fails, then the power: %v", n, total, err)
			}
		}
		if target, err = c.clone(d); err != nil || len(d.Pages(c.want)) > 0 || target.Outcome() != Complete {
			t.Errorf("operation %d of %d fails; again: %v, %s, %d pages differ", n, total, err, target.Outcome(), len(d.Pages(c.want)))
		}
	}
}

func (c *crashes) noSignature(t *testing.T, d *crashdisk.Disk, at int64, n int, err error) {
	t.Helper()
	b := make([]byte, min(page, d.Size()-at))
	if d.ReadAt(b, at); len(bytes.Trim(b, "\x00")) > 0 {
		t.Errorf("operation %d fails with %v: there is a signature at %d", n, err, at)
	}
}
