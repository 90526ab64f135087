//go:build !race

package device

import (
	"errors"
	"fmt"
	"testing"

	"github.com/dolly-img/dolly-img/ring/ringtest/crashdisk"
)

// sweep takes the power away before each operation, reboots in many ways, judges what is left, and lets the next transfer
// go on. It returns how many reboots it judged, and in how many of them the journal named leaves.
func sweep(sector int64, patch bool, broken func(*crashdisk.Disk)) (points, resumed int, err error) {
	image, old := crashImage(), oldDisk(sector)
	want := complete(old, image, patch)
	fresh := func() *crashdisk.Disk {
		d := old.Reboot(crashdisk.Newest)
		broken(d)
		return d
	}
	d := fresh()
	if _, err := clone(d, image, patch); err != nil {
		return 0, 0, fmt.Errorf("undisturbed: %w", err)
	}
	if differ := d.Pages(want); len(differ) > 0 {
		return 0, 0, fmt.Errorf("undisturbed: %d pages differ, the first at %d", len(differ), differ[0])
	}
	total := d.Ops()
	for n := 1; n <= total+1; n++ {
		d := fresh()
		d.CrashAt(n)
		target, worked := clone(d, image, patch)
		if (worked == nil) != (target.Outcome() == Complete) {
			return points, resumed, fmt.Errorf("before operation %d of %d: %v, and it says %s", n, total, worked, target.Outcome())
		}
		least := 0 // what was flushed of the journal is not lost until Publish overwrites it
		for seed := range uint64(24) {
			choose := crashdisk.Random(seed<<16 + uint64(n))
			switch seed {
			case 0:
				choose = crashdisk.Oldest
			case 1:
				choose = crashdisk.Newest
			}
			what := fmt.Sprintf("power lost before operation %d of %d (%v), seed %d", n, total, worked, seed)
			left := d.Reboot(choose)
			points++
			err := judge(left, old, want)
			if err == nil && worked == nil && len(left.Pages(want)) > 0 {
				err = errors.New("it said that it is complete")
			}
			if err != nil {
				return points, resumed, fmt.Errorf("%s: %w", what, err)
			}
			leaves, err := judgeJournal(left, image)
			if err != nil {
				return points, resumed, fmt.Errorf("%s: %w", what, err)
			}
			if leaves > 0 {
				resumed++
			}
			if seed == 0 && target.compose == nil {
				least = leaves
			}
			if leaves < least {
				return points, resumed, fmt.Errorf("%s: the journal names %d leaves, and has named %d", what, leaves, least)
			}
			if seed%12 > 1 {
				continue
			}
			if _, err := clone(left, image, patch); err != nil {
				return points, resumed, fmt.Errorf("%s: again: %w", what, err)
			}
			if differ := left.Pages(want); len(differ) > 0 {
				return points, resumed, fmt.Errorf("%s: again: %d pages differ, the first at %d", what, len(differ), differ[0])
			}
		}
	}
	return points, resumed, nil
}

// Whenever the power is lost, the disk is what it was, or says that it is half-written and has no signature, or is complete.
func TestCrashSweep(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		for _, patch := range []bool{false, true} {
			points, resumed, err := sweep(sector, patch, func(*crashdisk.Disk) {})
			if err != nil {
				t.Fatalf("sectors of %d bytes, patched %v: %v", sector, patch, err)
			}
			if points < 1000 || resumed < 100 {
				t.Errorf("sectors of %d bytes, patched %v: only %d points, and leaves in the journal at %d", sector, patch, points, resumed)
			}
		}
	}
	if _, _, err := sweep(512, false, (*crashdisk.Disk).IgnoreFlush); err == nil {
		t.Error("the sweep does not notice that the disk flushes nothing")
	}
}
