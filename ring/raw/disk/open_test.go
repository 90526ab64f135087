package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/test/loopdev"
)

// A device is opened for one, and its facts are those of what it holds, in its partitions, too.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "disk.img")
	makeDisk(t, file)
	d := loopdev.Over(t, file, loopdev.Options{})
	roots := Host()
	rule := identity.Device{Name: "system", Path: d.Path}
	if _, err := roots.Open(rule); err == nil || err.Error() != d.Path+": is a loop device" {
		t.Fatalf("a loop device that is nobody's: %v", err)
	}
	roots.Loops = dir
	for n, start := range []int64{1 << 20, 17 << 20} {
		d.AddPartition(t, n+1, start, 16<<20)
	}
	o, err := roots.Open(rule)
	if err != nil {
		t.Fatal(err)
	}
	f, err := o.Facts(o.File)
	if err != nil {
		t.Fatal(err)
	}
	if f.Output != "device:system" || f.Size != 64<<20 || f.Sector != 512 || f.Held() != `gpt, ext4 "root", swap "sw"` || f.DiskSeq == 0 {
		t.Errorf("%+v", f)
	}
	for _, path := range []string{d.Path, d.Partition(1)} {
		if _, err := roots.Open(identity.Device{Path: path}); err == nil || err.Error() != path+" is busy: "+d.Path+" is open in this process" {
			t.Errorf("%s is opened twice: %v", path, err)
		}
	}
	if err := o.File.Close(); err != nil {
		t.Fatal(err)
	}

	lock := d.Open(t, os.O_RDONLY)
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	if _, err := roots.Open(rule); err == nil || err.Error() != d.Path+" is locked by another program" {
		t.Errorf("a device that is locked: %v", err)
	}
	lock.Close()

	mountedElsewhere(t, d, func() error { _, err := roots.Open(rule); return err })

	at := filepath.Join(dir, "mnt")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(d.Partition(1), at, "ext4", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	busy := new(BusyError)
	if _, err := roots.Open(rule); !errors.As(err, &busy) || busy.Error() != d.Path+" is busy: mounted at "+at+" on "+filepath.Base(d.Partition(1)) {
		t.Errorf("a mounted device: %v", err)
	} else if kind, about := errkind.Of(err); kind != "device-mounted" || about[0] != d.Partition(1) {
		t.Errorf("%s %q", kind, about)
	}
	o, err = roots.Open(identity.Device{Path: d.Partition(2)})
	if err != nil {
		t.Fatal(err)
	}
	defer o.File.Close()
	if f, err := o.Facts(o.File); err != nil || f.Kind != Partition || f.Held() != `swap "sw"` || f.Size != 16<<20 {
		t.Errorf("%+v, %v", f, err)
	}
}

// mountedElsewhere wants open to say that a container has mounted the first partition of d: that mount is not among those of this
// process.
func mountedElsewhere(t *testing.T, d *loopdev.Device, open func() error) {
	t.Helper()
	there := exec.Command("sh", "-c", `mount -o ro "$0" /mnt && echo mounted && read end`, d.Partition(1))
	there.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	end, err := there.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	says, err := there.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := there.Start(); err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadFull(says, make([]byte, len("mounted\n")))
	busyThere := open()
	end.Close()
	there.Wait()
	want := fmt.Sprintf("%s is busy: %s is mounted at /mnt in the mount namespace of process %d (sh)", d.Path, d.Partition(1), there.Process.Pid)
	if err != nil || busyThere == nil || busyThere.Error() != want {
		t.Errorf("a device that a container has mounted: %v, %v, want %s", err, busyThere, want)
	}
}

// makeDisk makes the image of a disk that has ext4 and swap in two partitions.
func makeDisk(t *testing.T, file string) {
	t.Helper()
	ext4, swap := filepath.Join(t.TempDir(), "ext4"), filepath.Join(t.TempDir(), "swap")
	for _, f := range []struct {
		path string
		size int64
	}{{file, 64 << 20}, {ext4, 16 << 20}, {swap, 16 << 20}} {
		if err := os.WriteFile(f.path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(f.path, f.size); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"sgdisk", "-n", "1:2048:+16M", "-n", "2:34816:+16M", file}, {"mkfs.ext4", "-q", "-L", "root", ext4}, {"mkswap", "-q", "-L", "sw", swap},
		{"dd", "if=" + ext4, "of=" + file, "bs=1M", "seek=1", "conv=notrunc", "status=none"},
		{"dd", "if=" + swap, "of=" + file, "bs=1M", "seek=17", "conv=notrunc", "status=none"},
	} {
		loopdev.Need(t, args[0])
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
}

// Facts fit into what may travel, whatever a disk says of itself, and are of the same device whatever it holds.
func TestFacts(t *testing.T) {
	long := strings.Repeat("<ü", 300)
	f := Facts{Output: cut(long, maxPath), Path: cut(long, maxPath), Model: cut(long, maxFact), Serial: cut(long, maxFact), WWN: cut(long, maxFact), Kind: Multipath, Size: 1 << 62}
	for range 200 {
		f.Holds = append(f.Holds, Signature{HalfWrittenType, cut(long, maxFact)})
	}
	if err := f.shorten(); err != nil {
		t.Fatal(err)
	}
	if b, err := json.Marshal(f); err != nil || len(b) > 4096 || len(f.Holds) < 5 || !strings.HasSuffix(f.Held(), ", and more") {
		t.Errorf("%d bytes, %v: %s", len(b), err, b)
	}
	a := Facts{Kind: Disk, Path: "/dev/sda", Number: "8:0", Size: 100, Sector: 512, Model: "M", Serial: "S", DiskSeq: 7, Holds: []Signature{{"gpt", ""}}}
	for _, tt := range []struct {
		change func(f *Facts)
		same   bool
	}{
		{func(f *Facts) { f.Path, f.Number, f.DiskSeq, f.Holds = "/dev/sdb", "8:16", 9, nil }, true}, // after a reboot
		{func(f *Facts) { f.Serial = "T" }, false},
		{func(f *Facts) { f.Size++ }, false},
		{func(f *Facts) { f.Sector = 4096 }, false},
		{func(f *Facts) { f.Kind = Partition }, false},
	} {
		b := a
		tt.change(&b)
		if a.Same(&b) != tt.same || (a.Identity() == b.Identity()) != tt.same && a.Sector == b.Sector {
			t.Errorf("%+v: same %v, want %v; %q", b, a.Same(&b), tt.same, b.Identity())
		}
	}
	if long := (&Facts{Kind: Mapped, MapName: strings.Repeat("m", 127), UUID: "LVM-" + strings.Repeat("u", 64), Size: 1}); len(long.Identity()) > 126 || long.Identity() == (&Facts{Kind: Mapped, MapName: long.MapName, UUID: long.UUID, Size: 2}).Identity() {
		t.Errorf("%q", long.Identity())
	}
	// What the device mapper and MD made is told apart by its own name, and not by a number that another one may have by now.
	m := everything(t).scan()
	if md := describe(identity.Device{}, m.Named("md127")); md.UUID != "0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f" {
		t.Errorf("%+v", md)
	}
	lv := describe(identity.Device{}, m.Named("dm-3"))
	if lv.MapName != "vg0-root" || lv.UUID != "LVM-abc" {
		t.Errorf("%+v", lv)
	}
	for _, tt := range []struct {
		change func(f *Facts)
		same   bool
	}{
		{func(f *Facts) { f.Path, f.Number = "/dev/dm-4", "253:4" }, true},
		{func(f *Facts) { f.MapName, f.UUID = "vg0-home", "LVM-2" }, false},
		{func(f *Facts) { f.UUID = "LVM-2" }, false},
	} {
		b := *lv
		tt.change(&b)
		if lv.Same(&b) != tt.same || (lv.Identity() == b.Identity()) != tt.same {
			t.Errorf("%+v: same %v, want %v", b, lv.Same(&b), tt.same)
		}
	}
	a.Serial = ""
	b2 := a
	if b2.Path = "/dev/sdb"; a.Same(&b2) || a.Identity() == b2.Identity() {
		t.Error("nothing tells these disks apart but their places")
	}
}
