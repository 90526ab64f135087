package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// From keys to a running container image on every node, and again.
func TestPushSIF(t *testing.T) {
	together(t)
	for _, nodes := range []int{4, 8} {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			ctx := need(t, 2*time.Minute, "mksquashfs", "squashfuse", "fusermount3", busybox)
			r := newRig(t, ctx, netns.Config{Nodes: nodes})
			r.start()
			image := makeSIF(t, "busybox.sif", 8<<20)
			output := r.data + "/busybox.sif"

			res := r.push("push", image, "--output", output)
			r.want(res, 0, "committed")
			r.same(image, "busybox.sif", r.nodes...)
			last := r.nodes[nodes-1]
			runsBusybox(t, ctx, last.path("busybox.sif"))
			code, path := r.run(last.Host, "cache", "path", "localhost/busybox:latest", "--cache", last.cache)
			if code != 0 || strings.Contains(path, "\n") {
				t.Fatalf("cache path: %d: %s", code, path)
			}
			if got, want := sum(t, path), sum(t, image); got != want {
				t.Errorf("in the cache: %s, want %s", got, want)
			}
			if code, out := r.run(last.Host, "cache", "verify", "--cache", last.cache); code != 0 {
				t.Errorf("cache verify: %d: %s", code, out)
			}

			// What everybody has moves nothing.
			r.holds("push", image, "--output", output)

			// A node that lost its output gets it from its own cache.
			if err := os.Remove(last.path("busybox.sif")); err != nil {
				t.Fatal(err)
			}
			res = r.push("push", image, "--output", output)
			states := make([]string, nodes)
			for i := range states {
				states[i] = "held"
			}
			states[nodes-1] = "committed"
			r.want(res, 0, states...)
			r.same(image, "busybox.sif", last)
			r.movedNothing(res)
			for _, n := range r.nodes {
				n.empty("busybox.sif")
			}

			// The daemon ends cleanly when told to.
			last.daemon.Signal(os.Interrupt)
			if code, err := last.daemon.Wait(ctx); err != nil || code != 0 {
				t.Errorf("daemon: %d, %v\n%s", code, err, last.daemon.Output())
			}
		})
	}
}

// holds demands that every node holds what is pushed. It is the fastest of three that
// shows how long that takes: the server reads the image to know its digest, and what
// else the machine does is not ours.
func (r *rig) holds(args ...string) {
	r.t.Helper()
	res := r.push(args...)
	for tries := 1; tries < 3 && res.took > time.Second; tries++ {
		res = r.push(args...)
	}
	r.want(res, 0, "held")
	r.movedNothing(res)
}

// movedNothing demands that the whole push was a talk of at most a second, without
// bytes of the image.
func (r *rig) movedNothing(res *result) {
	r.t.Helper()
	if res.took > time.Second {
		r.t.Errorf("took %v", res.took)
	}
	if res.report == nil {
		return
	}
	for _, row := range res.report.Nodes {
		if row.Bytes != 0 || row.Skipped == 0 {
			r.t.Errorf("row %+v", row)
		}
	}
	// A handshake with its certificates, offer and answer.
	if limit := int64(16<<10) * int64(len(r.nodes)); res.sent > limit {
		r.t.Errorf("the server sent %d bytes, want at most %d", res.sent, limit)
	}
}

// A long image to four nodes leaves the server once, stays out of the nodes' memory,
// and arrives.
func TestLongImage(t *testing.T) {
	ctx := need(t, 8*time.Minute, "mksquashfs", busybox)
	image := makeSIF(t, "big.sif", 256<<20) // four times what a node may take of memory
	info, err := os.Stat(image)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, ctx, netns.Config{Nodes: 4})
	r.start()
	peak := r.watchMemory()
	res := r.push("push", image)
	r.want(res, 0, "committed")
	want := sum(t, image)
	for i, n := range r.nodes {
		code, path := r.run(n.Host, "cache", "path", "localhost/big:latest", "--cache", n.cache)
		if code != 0 {
			t.Fatalf("cache path: %d: %s", code, path)
		}
		if got := sum(t, path); got != want {
			t.Errorf("%s: %s, want %s", n.Name, got, want)
		}
		if size := peak()[i]; size > 64<<20 {
			t.Errorf("%s: %d MiB of anonymous memory", n.Name, size>>20)
		}
	}
	t.Logf("%d bytes in %v, %d sent; anonymous memory at most %v", info.Size(), res.took, res.sent, peak())
	if limit := info.Size() + info.Size()/20; res.sent > limit || res.sent < info.Size() {
		t.Errorf("the server sent %d bytes of an image of %d", res.sent, info.Size())
	}
	r.holds("push", image)
}

// watchMemory looks at the daemons until the test ends. What it returns tells the most
// anonymous memory each has had, in the order of the nodes.
func (r *rig) watchMemory() (peak func() []int64) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	most := make([]int64, len(r.nodes))
	look := make(chan chan []int64)
	go func() {
		defer close(stopped)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case reply := <-look:
				reply <- append([]int64(nil), most...)
			case <-tick.C:
				for i, n := range r.nodes {
					if now, err := netns.AnonMemory(n.daemon.Pid()); err == nil {
						most[i] = max(most[i], now)
					}
				}
			}
		}
	}()
	r.t.Cleanup(func() { close(stop); <-stopped })
	return func() []int64 {
		reply := make(chan []int64)
		look <- reply
		return <-reply
	}
}
