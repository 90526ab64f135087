package e2e

import (
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/loopdev"
	"github.com/dolly-img/dolly-img/test/netns"
)

// deviceTools are the programs with which disks are made and compared.
var deviceTools = []string{"sgdisk", "mkfs.ext4", "e2fsck", "mkfs.xfs", "xfs_repair", "xz", "bmaptool"}

// newDeviceRig makes nodes with these devices, by their names.
func newDeviceRig(t *testing.T, timeout time.Duration, count int, make func(r *rig, node int) map[string]*loopdev.Device) (r *rig, devices []map[string]*loopdev.Device) {
	t.Helper()
	ctx := need(t, timeout, deviceTools...)
	r = newRig(t, ctx, netns.Config{Nodes: count})
	for i, n := range r.nodes {
		own := make(r, i)
		devices = append(devices, own)
		var policy strings.Builder
		for name, d := range own {
			fmt.Fprintf(&policy, "[[device]]\nname = %q\npath = %q\n", name, d.Path)
		}
		n.setPolicy(policy.String())
		n.wrap = []string{"env", "DOLLY_IMG_TEST_LOOPS_BELOW=" + r.dir}
	}
	return r, devices
}

// The whole disk of a machine, with a GPT, ext4 and xfs, on six larger disks of two nodes, in three pushes at once: each
// table fits its disk, the file systems are whole, and what is in them is what was sent.
func TestDeviceDisks(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			together(t)
			names := []string{"a", "b", "c"}
			var disk loopdev.Disk
			r, devices := newDeviceRig(t, 3*time.Minute, 2, func(r *rig, node int) map[string]*loopdev.Device {
				if node == 0 {
					disk = loopdev.MakeDisk(t, r.dir, sector)
				}
				own := map[string]*loopdev.Device{}
				for k, name := range names {
					size := disk.Size + int64(node*len(names)+k)*int64(sector)<<(2*node)
					own[name] = loopdev.New(t, r.dir, size, loopdev.Options{Sector: sector})
				}
				return own
			})
			source := loopdev.Over(t, disk.File, loopdev.Options{Sector: sector, ReadOnly: true})
			r.start()
			var pushes []*push
			for i, name := range names {
				sent := disk.File
				switch i {
				case 0: // the device itself
					sent = source.Path
				case 1: // compressed, with a block map beside it
					sent += ".xz"
					r.on(r.net.Server, "sh", "-c", "xz -0 -k "+disk.File+" && bmaptool create "+disk.File+" >"+disk.File+".bmap")
				}
				pushes = append(pushes, r.startPush("raw", sent, "--output", "device:"+name, "--yes-overwrite", "2"))
			}
			for _, p := range pushes {
				res := p.wait()
				r.want(res, 0, "committed")
				for i := range r.nodes {
					if row := res.report.Nodes[i]; row.Target != "complete" || row.Facts["size"] == nil {
						t.Errorf("row %+v", row)
					}
				}
			}
			if t.Failed() {
				return
			}
			for _, own := range devices {
				for _, d := range own {
					disk.Check(t, d)
				}
			}
		})
	}
}

// A push to disks whose server and one of whose nodes are killed in its middle leaves disks that say that they are half-written,
// and the same command goes on from there.
func TestDeviceResume(t *testing.T) {
	together(t)
	var disk loopdev.Disk
	r, devices := newDeviceRig(t, 3*time.Minute, 3, func(r *rig, node int) map[string]*loopdev.Device {
		if node == 0 {
			disk = loopdev.MakeDisk(t, r.dir, 512)
		}
		return map[string]*loopdev.Device{"system": loopdev.New(t, r.dir, disk.Size+64<<20, loopdev.Options{})}
	})
	// So many bytes that there is a middle: in the free space behind the second partition, which Check does not look at.
	f, err := os.OpenFile(disk.File, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	noise := make([]byte, 9<<20)
	rand.Read(noise)
	if _, err := f.WriteAt(noise, 390<<20); err != nil {
		t.Fatal(err)
	}
	r.start()
	args := []string{"raw", disk.File, "--output", "device:system", "--yes-overwrite", "3"}
	p := r.startPush(append(args, "--rate", "5M", "--json", "--retries", "0")...)
	eventually(t, time.Minute, "all nodes have a third of it", func() (bool, string) { return p.moved() >= disk.Size/3, p.process.Output() })
	r.nodes[1].kill()
	p.process.Kill()
	p.wait()
	for i, own := range devices {
		b := make([]byte, 1<<20)
		d := own["system"].Open(t, os.O_RDONLY)
		if _, err := d.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		d.Close()
		if !strings.HasPrefix(string(b), "dolly-img half") || strings.Contains(string(b), "EFI PART") {
			t.Errorf("node %d: the disk does not say that it is half-written: %.16q", i, b)
		}
	}
	r.nodes[1].start()
	res := r.push(args...)
	r.want(res, 0, "committed")
	for i, row := range res.report.Nodes {
		if i != 1 && row.Skipped < disk.Size/4 { // who was killed may have no journal yet, which is written each 10 s
			t.Errorf("node %d went on from %d bytes of %d", i, row.Skipped, disk.Size)
		}
	}
	for _, own := range devices {
		disk.Check(t, own["system"])
	}
}

// A daemon that may not have a partition table read again leaves that to udev, which notices that the disk was closed, and says so.
func TestDeviceWithoutPrivilege(t *testing.T) {
	const mib = 1 << 20
	r, devices := newDeviceRig(t, time.Minute, 1, func(r *rig, _ int) map[string]*loopdev.Device {
		return map[string]*loopdev.Device{"system": loopdev.New(t, r.dir, 32*mib, loopdev.Options{})}
	})
	needPrograms(t, "setpriv")
	n, target := r.nodes[0], devices[0]["system"]
	n.wrap = append(n.wrap, "setpriv", "--bounding-set=-sys_admin")
	r.start()
	source := loopdev.New(t, r.dir, 24*mib, loopdev.Options{})
	r.on(r.net.Server, "sgdisk", "-n", "1:1M:+8M", source.Path)
	r.want(r.push("raw", source.File, "--output", "device:system", "--yes-overwrite", "1"), 0, "committed")
	if got := target.Partitions(t); len(got) > 0 {
		t.Fatalf("the daemon is privileged: partitions %v", got)
	}
	target.AddPartition(t, 1, mib, 8*mib) // as udev does
	if _, err := n.daemon.Line(r.ctx, "udev"); err != nil {
		t.Error(err)
	}
}

// Each node that cannot take a disk says why before anything is overwritten, and the others get it.
func TestDeviceRefused(t *testing.T) {
	together(t)
	const mib = 1 << 20
	r, devices := newDeviceRig(t, time.Minute, 4, func(r *rig, node int) map[string]*loopdev.Device {
		opts, size := loopdev.Options{}, int64(32*mib)
		switch node {
		case 1:
			opts.Sector = 4096
		case 2:
			size = 16 * mib
		}
		return map[string]*loopdev.Device{"system": loopdev.New(t, r.dir, size, opts)}
	})
	part := devices[3]["system"]
	part.AddPartition(t, 1, mib, 30*mib)
	r.nodes[3].setPolicy(fmt.Sprintf("[[device]]\nname = \"system\"\npath = %q\n", part.Partition(1)))
	r.start()
	source := loopdev.New(t, r.dir, 24*mib, loopdev.Options{})
	r.on(r.net.Server, "sgdisk", "-n", "1:1M:+8M", source.Path)
	res := r.push("raw", source.File, "--output", "device:system", "--yes-overwrite", "4")
	r.want(res, 3, "committed", "refused", "refused", "refused")
	for i, want := range []string{"", "sectors of 4096 bytes", "is too small: 16.8 MB, the source has 25.2 MB", "is a partition"} {
		row := res.report.Nodes[i]
		if !strings.Contains(row.Reason, want) {
			t.Errorf("%q, want %q", row.Reason, want)
		}
		if code := []string{"", "sector-size", "too-small", "kind"}[i]; row.Code != code || row.Target != map[bool]string{true: "complete", false: "untouched"}[i == 0] {
			t.Errorf("%+v, want %s", row, code)
		}
	}
	for i, own := range devices {
		f := own["system"].Open(t, os.O_RDONLY)
		b := make([]byte, mib)
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if written := strings.Trim(string(b), "\x00") != ""; written != (i == 0) {
			t.Errorf("node %d: written: %v", i, written)
		}
	}
	// The same to a partition that shall get it all the same.
	r.nodes = r.nodes[3:]
	r.want(r.push("raw", source.File, "--output", "device:system", "--yes-overwrite", "1", "--force-kind"), 0, "committed")
}
