package e2e

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/loopdev"
	"github.com/dolly-img/dolly-img/test/netns"
)

// However large the image, and with a successor that takes next to nothing for a
// while, a node stays small.
func TestMemory(t *testing.T) {
	ctx := need(t, 5*time.Minute)
	r := newRig(t, ctx, netns.Config{Nodes: 3})
	r.start()
	sent := makeThin(t, filepath.Join(r.dir, "thin"), 1<<30, 64<<10)
	peak := r.watchMemory()
	p := r.startPush("raw", "--input", sent, "--verify-only", "--data", "plain", "--json")
	if _, err := p.process.Line(ctx, `"event":"progress"`); err != nil {
		t.Fatal(err)
	}
	slow := r.nodes[1]
	if err := slow.Shape(ctx, 5_000_000); err != nil {
		t.Fatal(err)
	}
	<-time.After(2 * time.Second) // the fault's own length
	if err := slow.Shape(ctx, 100_000_000_000); err != nil {
		t.Fatal(err)
	}
	r.want(p.wait(), 0, "committed")
	r.checkMemory(peak(), 64<<20)
}

// The same where zeros pass so fast that the sums of leaves come by ten thousands each second, on the server, too.
func TestMemoryOfZeros(t *testing.T) {
	ctx := need(t, 5*time.Minute)
	r := newRig(t, ctx, netns.Config{Nodes: 2})
	r.start()
	sent := makeThin(t, filepath.Join(r.dir, "thin"), 64<<30, 64<<20)
	r.memoryOfZeros(sent, "--output", r.data+"/file", "--data", "plain")
}

// The same onto a device of a node. It is not read back here: to hash as many zeros takes a minute of a core. It was tried by hand
// (test/bench/RESULTS.md).
func TestMemoryOfZerosOnDevice(t *testing.T) {
	const size = 64 << 30
	r, _ := newDeviceRig(t, 5*time.Minute, 1, func(r *rig, _ int) map[string]*loopdev.Device {
		return map[string]*loopdev.Device{"system": loopdev.New(t, r.dir, size, loopdev.Options{})}
	})
	r.start()
	sent := makeThin(t, filepath.Join(r.dir, "thin"), size, 64<<20)
	r.memoryOfZeros(sent, "--output", "device:system", "--verify", "none", "--yes-overwrite", "1")
}

// memoryOfZeros sends a file, and holds that neither the nodes nor the server need much memory for it.
func (r *rig) memoryOfZeros(sent string, flags ...string) {
	r.t.Helper()
	peak := r.watchMemory()
	server := int64(0)
	p := r.startPush(append([]string{"raw", "--input", sent}, flags...)...)
	for ended := false; !ended; {
		if now, err := netns.AnonMemory(p.process.Pid()); err == nil {
			server = max(server, now)
		}
		select {
		case <-p.process.Done():
			ended = true
		case <-time.After(20 * time.Millisecond): // between two looks
		}
	}
	r.want(p.wait(), 0, "committed")
	r.checkMemory(peak(), 64<<20)
	r.t.Logf("server: at most %d MiB of anonymous memory", server>>20)
	if server > 64<<20 || server == 0 {
		r.t.Errorf("server: %d MiB of anonymous memory", server>>20)
	}
}

// makeThin makes a file of zeros that has another byte so often. With 64 KiB hardly any of it travels as a run of zeros, and a
// fraction of it is stored here.
func makeThin(t *testing.T, path string, size, every int64) string {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(size)
	}
	for off := int64(0); off < size && err == nil; off += every {
		_, err = f.WriteAt([]byte{1}, off)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// The same where bytes are written: a disk that is slow, and waited for, and behind it a node that
// stands still for a while.
func TestMemoryBehindSlowDisk(t *testing.T) {
	together(t)
	ctx := need(t, 2*time.Minute, "strace")
	r := newRig(t, ctx, netns.Config{Nodes: 3})
	r.nodes[1].slowWrites(40 * time.Millisecond) // of a frame of 1 MiB at first, of smaller ones the slower it becomes
	r.start()
	sent := makeFile(t, filepath.Join(r.dir, "sent"), 96<<20)
	peak := r.watchMemory()
	p := r.startPush("raw", "--input", sent, "--output", r.data+"/file", "--data", "plain", "--straggler", "wait", "--json")
	if _, err := p.process.Line(ctx, `"bottleneck":"`+r.nodes[1].name()+`: disk`); err != nil {
		t.Fatal(err)
	}
	r.nodes[2].daemon.Signal(syscall.SIGSTOP)
	<-time.After(3 * time.Second) // the fault's own length
	r.nodes[2].daemon.Signal(syscall.SIGCONT)
	r.want(p.wait(), 0, "committed")
	r.same(sent, "file", r.nodes...)
	r.checkMemory(peak(), 64<<20)
}

func (r *rig) checkMemory(peak []int64, limit int64) {
	r.t.Helper()
	for i, most := range peak {
		r.t.Logf("%s: at most %d MiB of anonymous memory", r.nodes[i].Name, most>>20)
		if most > limit || most == 0 {
			r.t.Errorf("%s: %d MiB of anonymous memory, want at most %d", r.nodes[i].Name, most>>20, limit>>20)
		}
	}
}

// A node without SHA instructions is what the progress names as the limit, while bytes move.
func TestHashingIsTheLimit(t *testing.T) {
	ctx := need(t, time.Minute)
	r := newRig(t, ctx, netns.Config{Nodes: 1})
	r.nodes[0].wrap = []string{"env", "GODEBUG=cpu.all=off"}
	r.start()
	sent := makeThin(t, filepath.Join(r.dir, "thin"), 1<<30, 64<<10)
	res := r.push("raw", "--input", sent, "--verify-only", "--data", "plain", "--json")
	r.want(res, 0, "committed")
	if !strings.Contains(res.output, `"limit":"hash"`) {
		t.Errorf("no progress names it:\n%s", res.output)
	}
}

// Four transfers at once, each with its own outcome.
func TestFourTransfers(t *testing.T) {
	ctx := need(t, 2*time.Minute)
	r := newRig(t, ctx, netns.Config{Nodes: 3})
	r.start()
	peak := r.watchMemory()
	var files []string
	var pushes []*push
	for _, name := range []string{"a", "b", "c", "d"} {
		file := makeFile(t, filepath.Join(r.dir, name), 100<<20)
		files = append(files, file)
		pushes = append(pushes, r.startPush("raw", "--input", file, "--output", r.data+"/"+name))
	}
	for i, p := range pushes {
		r.want(p.wait(), 0, "committed")
		r.same(files[i], filepath.Base(files[i]), r.nodes...)
	}
	r.checkMemory(peak(), 128<<20)
}

// Who holds connections without a word keeps nobody else out.
func TestIdleConnections(t *testing.T) {
	ctx := need(t, time.Minute)
	r := newRig(t, ctx, netns.Config{Nodes: 3})
	idle := r.nodes[2].Host
	r.nodes = r.nodes[:2]
	r.start()
	var open []net.Conn
	if err := idle.Inside(func() error {
		for range 300 {
			c, err := net.DialTimeout("tcp", netip.AddrPortFrom(r.nodes[0].Addr, 9998).String(), 5*time.Second)
			if err != nil {
				return err
			}
			open = append(open, c)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	sent := makeFile(t, filepath.Join(r.dir, "sent"), 5<<20)
	res := r.push("raw", "--input", sent, "--output", r.data+"/file")
	r.want(res, 0, "committed")
	if res.took > 3*time.Second {
		t.Errorf("took %v", res.took)
	}
	// And all of them are shown out.
	var ended sync.WaitGroup
	for _, c := range open {
		ended.Go(func() {
			defer c.Close()
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if n, err := c.Read(make([]byte, 1)); n > 0 || os.IsTimeout(err) {
				t.Errorf("read %d, %v", n, err)
			}
		})
	}
	ended.Wait()
}
