package e2e

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/loopdev"
)

// writtenTo returns how many bytes were written to a device or discarded on it since it is there
// (Documentation/block/stat.rst).
func writtenTo(t *testing.T, d *loopdev.Device) (n int64) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(d.Path), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text))
	for _, i := range []int{6, 13} {
		sectors, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		n += 512 * sectors
	}
	return n
}

// change writes n random bytes into a file.
func change(t *testing.T, file string, off, n int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	rand.Read(b)
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// An update of devices sends and writes what differs, and nothing where nothing does. One of whose nodes is killed goes on.
func TestDeviceUpdate(t *testing.T) {
	together(t)
	const mib = 1 << 20
	const size = 384 << 20
	r, devices := newDeviceRig(t, 3*time.Minute, 2, func(r *rig, node int) map[string]*loopdev.Device {
		return map[string]*loopdev.Device{"system": loopdev.New(t, r.dir, size+int64(node)*8*mib, loopdev.Options{})}
	})
	sent := filepath.Join(r.dir, "sent")
	change(t, sent, 0, 5*mib)
	change(t, sent, 120*mib, 9*mib)
	change(t, sent, size-2*mib, 2*mib)
	r.start()
	args := []string{"raw", sent, "--output", "device:system", "--yes-overwrite", "2"}
	equal := func() {
		t.Helper()
		for _, own := range devices {
			r.on(r.net.Server, "cmp", "-n", fmt.Sprint(size), sent, own["system"].Path)
		}
	}
	r.want(r.push(args...), 0, "committed")
	equal()

	args = append(args, "--update")
	update := func(state string, payload, written int64) {
		t.Helper()
		var before []int64
		for _, own := range devices {
			before = append(before, writtenTo(t, own["system"]))
		}
		res := r.push(args...)
		r.want(res, 0, state)
		for i, own := range devices {
			row, n := res.report.Nodes[i], writtenTo(t, own["system"])-before[i]
			if row.Bytes > payload || n > written || row.Target != "complete" {
				t.Errorf("wrote %d bytes, at most %d expected: %+v", n, written, row)
			}
		}
		equal()
	}
	change(t, sent, 124*mib+99, 3*mib)
	change(t, sent, 301*mib, 5)
	update("committed", 8*mib, 15*mib)
	update("held", 0, 0)

	// In the middle of an update.
	change(t, sent, 200*mib, 60*mib)
	p := r.startPush(append(args, "--rate", "8M", "--json", "--retries", "0")...)
	isHalf := func() bool { return begins(t, devices[1]["system"], []byte("dolly-img half")) }
	eventually(t, 60*time.Second, "the update writes", func() (bool, string) { return isHalf(), p.process.Output() })
	victim := r.nodes[1]
	victim.kill()
	r.want(p.wait(), 3, "committed", "failed")
	if !isHalf() {
		t.Error("the disk of who was killed does not say that it is half-written")
	}
	victim.start()
	res := r.push(args...)
	r.want(res, 0, "held", "committed")
	if row := res.report.Nodes[1]; row.Skipped < size-80*mib {
		t.Errorf("who was killed went on from %d bytes: %+v", row.Skipped, row)
	}
	equal()
	update("held", 0, 0)
}
