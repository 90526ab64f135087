package e2e

import (
	"bytes"
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/loopdev"
)

var deviceMoments = flag.Int("device.moments", 4, "at how many moments TestDeviceKilled kills somebody")

// onTheWay says what a device is on the way from one image to another, in the words of rows.
func onTheWay(t *testing.T, d *loopdev.Device, from, to []byte) string {
	t.Helper()
	switch b := content(t, d); {
	case bytes.Equal(b, to):
		return "complete"
	case bytes.Equal(b, from):
		return "untouched"
	case bytes.HasPrefix(b, []byte("dolly-img half")):
		return "overwritten"
	}
	return "damaged"
}

// Whenever the server or a node is killed while devices are overwritten, each device is as it was, or complete, or says that it
// is half-written. The row says which, and the same command completes all of them.
func TestDeviceKilled(t *testing.T) {
	together(t)
	const size = 24 << 20
	r, devices := newDeviceRig(t, 10*time.Minute, 2, func(r *rig, _ int) map[string]*loopdev.Device {
		return map[string]*loopdev.Device{"system": loopdev.New(t, r.dir, size, loopdev.Options{})}
	})
	r.start()
	images, sent := make([][]byte, 2), make([]string, 2)
	for i := range images {
		images[i], sent[i] = make([]byte, size), filepath.Join(r.dir, fmt.Sprint("image", i))
		rand.Read(images[i])
		if err := os.WriteFile(sent[i], images[i], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := func(k int) []string {
		return []string{"raw", sent[k%2], "--output", "device:system", "--yes-overwrite", "2", "--retries", "0"}
	}
	state := func(d *loopdev.Device, k int) string { return onTheWay(t, d, images[(k+1)%2], images[k%2]) }
	res := r.push(args(0)...)
	r.want(res, 0, "committed")
	whole := res.took
	seen := map[string]int{}
	for k := 1; k <= *deviceMoments; k++ {
		p := r.startPush(args(k)...)
		select { // the moment itself, not a state that is waited for
		case <-time.After(whole * time.Duration(k) / time.Duration(*deviceMoments)):
		case <-p.process.Done():
		}
		victim := k % 3
		if victim < len(r.nodes) {
			r.nodes[victim].kill()
		} else {
			p.process.Signal(syscall.SIGKILL)
		}
		res := p.wait()
		for i, own := range devices {
			is := state(own["system"], k)
			seen[is]++
			if is == "damaged" {
				t.Errorf("moment %d: the device of node %d is neither of the images, and does not say that it is half-written\n%s", k, i, res.output)
			}
			if res.report == nil || i >= len(res.report.Nodes) {
				continue // its server was killed
			}
			if target := res.report.Nodes[i].Target; target != is && target != "unknown" {
				t.Errorf("moment %d: the device of node %d is %s, and its row says %q\n%s", k, i, is, target, res.output)
			}
		}
		if victim < len(r.nodes) {
			r.nodes[victim].start()
		}
		if res := r.push(args(k)...); res.code != 0 {
			t.Fatalf("moment %d, once more: exit %d\n%s", k, res.code, res.output)
		}
		for i, own := range devices {
			if is := state(own["system"], k); is != "complete" {
				t.Fatalf("moment %d, once more: the device of node %d is %s", k, i, is)
			}
		}
	}
	t.Log(seen)
	if *deviceMoments >= 20 && (seen["untouched"] == 0 || seen["overwritten"] == 0) {
		t.Errorf("the moments are badly chosen: %v", seen)
	}
}
