//go:build !race

package device

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/dolly-img/dolly-img/ring/ringtest/crashdisk"
)

// crashes takes the power away before each operation of a job, reboots in many ways, judges what is left, and lets the next
// transfer go on. broken breaks the disk.
type crashes struct {
	crashJob
	old, want *crashdisk.Disk
	broken    func(*crashdisk.Disk)
	seeds     uint64 // how often it reboots after each crash

	points, resumed int // how many reboots were judged, and in how many of them the journal named leaves
}

func (c *crashes) fresh() *crashdisk.Disk {
	d := c.old.Reboot(crashdisk.Newest)
	if c.broken != nil {
		c.broken(d)
	}
	return d
}

func (c *crashes) sweep() error {
	c.want = c.complete(c.old)
	d := c.fresh()
	if _, err := c.clone(d); err != nil {
		return fmt.Errorf("undisturbed: %w", err)
	}
	if differ := d.Pages(c.want); len(differ) > 0 {
		return fmt.Errorf("undisturbed: %d pages differ, the first at %d", len(differ), differ[0])
	}
	total := d.Ops()
	for n := 1; n <= total+1; n++ {
		d := c.fresh()
		d.CrashAt(n)
		target, worked := c.clone(d)
		if (worked == nil) != (target.Outcome() == Complete) {
			return fmt.Errorf("before operation %d of %d: %v, and it says %s", n, total, worked, target.Outcome())
		}
		least := 0 // what was flushed of the journal is not lost until Publish overwrites it
		for seed := range c.seeds {
			choose := crashdisk.Random(seed<<16 + uint64(n))
			switch seed {
			case 0:
				choose = crashdisk.Oldest
			case 1:
				choose = crashdisk.Newest
			}
			left := d.Reboot(choose)
			leaves, err := c.rebooted(left, worked == nil)
			if err == nil && seed == 0 && target.compose == nil {
				least = leaves
			}
			if err == nil && leaves < least {
				err = fmt.Errorf("the journal names %d leaves, and has named %d", leaves, least)
			}
			if err == nil && seed%12 <= 1 {
				err = c.again(left)
			}
			if err == nil && seed%12 == 1 {
				err = c.twice(left, seed<<16+uint64(n))
			}
			if err != nil {
				return fmt.Errorf("power lost before operation %d of %d (%v), seed %d: %w", n, total, worked, seed, err)
			}
		}
	}
	return nil
}

// rebooted judges what is left, and returns how many leaves its journal names.
func (c *crashes) rebooted(left *crashdisk.Disk, worked bool) (leaves int, err error) {
	c.points++
	if err := c.judge(left, c.old, c.want); err != nil {
		return 0, err
	}
	if worked && len(left.Pages(c.want)) > 0 {
		return 0, errors.New("it said that it is complete")
	}
	if leaves, err = c.judgeJournal(left); leaves > 0 {
		c.resumed++
	}
	return leaves, err
}

// again lets the next transfer go on to the end.
func (c *crashes) again(left *crashdisk.Disk) error {
	d := left.Reboot(crashdisk.Newest)
	if _, err := c.clone(d); err != nil {
		return fmt.Errorf("again: %w", err)
	}
	if differ := d.Pages(c.want); len(differ) > 0 {
		return fmt.Errorf("again: %d pages differ, the first at %d", len(differ), differ[0])
	}
	return nil
}

// twice lets the next transfer lose power, too, before some operation, and then another one go on to the end.
func (c *crashes) twice(left *crashdisk.Disk, seed uint64) error {
	choose := crashdisk.Random(seed)
	n := 1 + choose(60) // behind the last operation it judges what is complete
	d := left.Reboot(crashdisk.Newest)
	d.CrashAt(n)
	_, worked := c.clone(d)
	twice := d.Reboot(choose)
	err := c.judge(twice, left, c.want)
	if err == nil {
		err = c.again(twice)
	}
	if err != nil {
		return fmt.Errorf("lost again before operation %d (%v): %w", n, worked, err)
	}
	return nil
}

// Whenever the power is lost, the disk is what it was, or says that it is half-written and has no signature, or is complete.
func TestCrashSweep(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		for _, size := range crashSizes {
			patch := size.disk > size.image
			if !patch && sector != 512 {
				continue
			}
			c := &crashes{crashJob: crashJob{image: crashImage(size.image), patch: patch}, old: oldDisk(size.disk, sector), seeds: 24}
			if err := c.sweep(); err != nil {
				t.Fatalf("sectors of %d bytes, %+v: %v", sector, size, err)
			}
			if c.points < 1000 || c.resumed < 100 {
				t.Errorf("sectors of %d bytes, %+v: only %d points, and leaves in the journal at %d", sector, size, c.points, c.resumed)
			}
		}
	}
	c := &crashes{crashJob: crashJob{image: crashImage(crashSizes[0].image)}, old: oldDisk(crashSizes[0].disk, 512), broken: (*crashdisk.Disk).IgnoreFlush, seeds: 24}
	if c.sweep() == nil {
		t.Error("the sweep does not notice that the disk flushes nothing")
	}
}

// The same of an update, wherever the image has changed. What has not changed is not written, and the journal names it from the
// first on.
func TestCrashSweepUpdate(t *testing.T) {
	for _, size := range crashSizes {
		for name, tt := range map[string]struct {
			at     []int64 // where the image has changed
			leaves int64   // that may be written, beside the first MiB and the end, which are twice
		}{
			"nothing":                   {nil, 0},
			"middle":                    {[]int64{2*crashLeaf + 5, 4*crashLeaf - 1}, 2},
			"beginning":                 {[]int64{page}, 0},
			"end":                       {[]int64{size.image - 3}, 0},
			"beginning, middle and end": {[]int64{32 << 10, 3*crashLeaf + 12345, size.image - 5000}, 1},
		} {
			was := &crashJob{image: crashImage(size.image), patch: size.disk > size.image}
			old := oldDisk(size.disk, 512)
			if _, err := was.clone(old); err != nil {
				t.Fatal(err)
			}
			c := &crashes{crashJob: crashJob{image: bytes.Clone(was.image), patch: was.patch, update: true}, old: old.Reboot(crashdisk.Newest), seeds: 8}
			for _, at := range tt.at {
				c.image[at] ^= 0x80
			}
			if err := c.sweep(); err != nil {
				t.Fatalf("%s, %+v: %v", name, size, err)
			}
			if len(tt.at) > 0 && (c.points < 150 || c.resumed < 10) {
				t.Errorf("%s, %+v: only %d points, and leaves in the journal at %d", name, size, c.points, c.resumed)
			}
			d := c.fresh()
			if target, err := c.clone(d); err != nil || target.before.inPlace != (len(tt.at) == 0) {
				t.Errorf("%s, %+v: %v, in place: %v", name, size, err, target.before.inPlace)
			}
			most := (tt.leaves + 6) * crashLeaf
			if len(tt.at) == 0 {
				most = 0
			}
			if n := d.Written(); n > most {
				t.Errorf("%s, %+v: wrote %d bytes, and %d would do", name, size, n, most)
			}
		}
	}
}
