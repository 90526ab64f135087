package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/loopdev"
)

// deviceFault is a row of the fault matrix whose targets are devices. It is done to the second of four nodes.
type deviceFault struct {
	name string

	write func(n int) syscall.Errno // of the victim's disk, for each write of n bytes; nil: an ordinary one
	short int64                     // bytes that the victim's disk lacks
	do    func(n *node)             // when the transfer is under way
	undo  func(n *node)             // before the push is made again

	state, reason string
	targets       []string // what the row may say about the victim's disk
	size          int64
	rate          string
}

// deviceVictim is the node to which something is done.
const deviceVictim = 1

var sick atomic.Bool // the disk of the row "write error"

var deviceFaults = []*deviceFault{
	{name: "kill", do: (*node).kill, undo: (*node).start, state: "failed", reason: gone, targets: []string{"overwritten", "unknown"}},
	{
		name: "stop", do: func(n *node) { n.daemon.Signal(syscall.SIGSTOP) }, undo: func(n *node) { n.daemon.Signal(syscall.SIGCONT) },
		state: "failed", reason: silent, targets: []string{"overwritten", "unknown"},
	},
	{name: "small device", short: 512, state: "refused", reason: "the source has", targets: []string{"untouched"}},
	{
		name: "write error", do: func(*node) { sick.Store(true) }, undo: func(*node) { sick.Store(false) },
		write: func(int) syscall.Errno {
			if sick.Load() {
				return syscall.EIO
			}
			return 0
		},
		state: "failed", reason: "input/output error", targets: []string{"overwritten"},
	},
	{
		// That a slow node is named and moved is TestFaultMatrix's: here the disks of other tests are slow beside it.
		name: "slow disk", state: "committed", targets: []string{"complete"}, size: 50e6, rate: "12M",
		write: func(n int) syscall.Errno {
			time.Sleep(time.Duration(n) * time.Second / 6e6) // the fault itself: 6 MB/s
			return 0
		},
	},
}

// Whatever happens to one node's disk, the others' are complete, its own is complete, untouched or says that it is half-written, and
// the row says which. The same command goes on when the fault is gone.
func TestDeviceFaults(t *testing.T) {
	lines := make([]string, len(deviceFaults))
	t.Run("row", func(t *testing.T) {
		for i, f := range deviceFaults {
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				lines[i] = f.play(t)
			})
		}
	})
	addToTable(t, "| fault, second of four nodes | seconds | outcome | its disk | the same command again |\n|---|---|---|---|---|\n", lines)
}

// old is what a device begins with before it is overwritten.
var old = bytes.Repeat([]byte("old\n"), 1024)

// play plays a row and returns its line of the table.
func (f *deviceFault) play(t *testing.T) (line string) {
	size, rate := f.size, f.rate
	if size == 0 {
		size, rate = 30e6, "10M"
	}
	size &^= 511
	r, devices := newDeviceRig(t, 2*time.Minute, 4, func(r *rig, node int) map[string]*loopdev.Device {
		return map[string]*loopdev.Device{"system": f.disk(t, r, node, size)}
	})
	for _, own := range devices {
		if _, err := own["system"].Open(t, os.O_WRONLY|os.O_SYNC).Write(old); err != nil {
			t.Fatal(err)
		}
	}
	r.start()
	defer func() { // before the devices go
		for _, n := range r.nodes {
			n.kill()
			<-n.daemon.Done()
		}
	}()
	sent := makeFile(t, filepath.Join(r.dir, "sent"), size)
	image, err := os.ReadFile(sent)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"raw", sent, "--output", "device:system", "--yes-overwrite", "4", "--json"}
	p := r.startPush(append(args, "--rate", rate, "--retries", "0")...)
	victim := r.nodes[deviceVictim]
	if f.do != nil {
		if _, err := p.process.Line(r.ctx, `"event":"progress"`); err != nil {
			t.Fatal(err)
		}
		// Before that its disk is untouched, and a node that is lost says so, too.
		disk := devices[deviceVictim]["system"]
		eventually(t, time.Minute, "the disk is written to", func() (bool, string) { return !begins(t, disk, old), p.process.Output() })
		f.do(victim)
	}
	exit := 3
	if f.state == "committed" {
		exit = 0
	}
	res := p.wait()
	r.want(res, exit, "committed", f.state, "committed", "committed")
	if res.report == nil {
		return ""
	}
	f.check(t, res, devices, image)
	line = fmt.Sprintf("| %s | %.1f | %s | %s |", f.name, res.took.Seconds(), outcome(res, deviceVictim, r.nodes, ""), res.report.Nodes[deviceVictim].Target)
	if f.undo == nil {
		return line + " |\n"
	}
	f.undo(victim)
	again := r.push(args...)
	r.want(again, 0, "committed")
	for i, own := range devices {
		if !bytes.HasPrefix(content(t, own["system"]), image) {
			t.Errorf("node %d: the second push left other bytes", i)
		}
	}
	return fmt.Sprintf("%s %s |\n", line, outcome(again, deviceVictim, r.nodes, ""))
}

// disk makes the disk of a node for an image of size bytes.
func (f *deviceFault) disk(t *testing.T, r *rig, node int, size int64) *loopdev.Device {
	if node != deviceVictim {
		return loopdev.New(t, r.dir, size+4<<20, loopdev.Options{})
	}
	if f.write == nil {
		if f.short > 0 {
			size -= f.short + 4<<20
		}
		return loopdev.New(t, r.dir, size+4<<20, loopdev.Options{})
	}
	dir := filepath.Join(r.dir, "disk")
	r.mkdir(dir)
	return loopdev.NewLiar(t, dir, size+4<<20, func(b []byte, _ int64) ([]byte, syscall.Errno) {
		if errno := f.write(len(b)); errno != 0 {
			return nil, errno
		}
		return b, 0
	})
}

// check compares what the rows say about the disks with what is on them.
func (f *deviceFault) check(t *testing.T, res *result, devices []map[string]*loopdev.Device, image []byte) {
	t.Helper()
	for i, row := range res.report.Nodes {
		targets := []string{"complete"}
		if i == deviceVictim {
			targets = f.targets
			if !strings.Contains(row.Reason, f.reason) {
				t.Errorf("row %+v: the reason does not say %q\n%s", row, f.reason, res.output)
			}
		}
		b := content(t, devices[i]["system"])
		var is string
		switch {
		case bytes.HasPrefix(b, image):
			is = "complete"
		case bytes.HasPrefix(b, []byte("dolly-img half")):
			is = "overwritten"
		case bytes.HasPrefix(b, old):
			is = "untouched"
		default:
			t.Errorf("node %d: the disk is neither complete nor untouched, and does not say that it is half-written: %.64q", i, b)
		}
		if is == "untouched" && strings.Contains(row.Reason, "write the mark") {
			is = "overwritten" // nobody knows what a write did that failed, and this was the first one
		}
		if !slices.Contains(targets, row.Target) || row.Target != is && row.Target != "unknown" {
			t.Errorf("row %+v: the disk is %s, and the row may say %q", row, is, targets)
		}
	}
}

// begins reports whether the first bytes of a device are these.
func begins(t *testing.T, d *loopdev.Device, with []byte) bool {
	t.Helper()
	f := d.Open(t, os.O_RDONLY)
	defer f.Close()
	b := make([]byte, 4096)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return bytes.HasPrefix(b, with)
}

// content returns all bytes of a device.
func content(t *testing.T, d *loopdev.Device) []byte {
	t.Helper()
	f := d.Open(t, os.O_RDONLY)
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// changes are the system calls by which a file is opened for writing or changed by its name.
const changes = "open,openat,openat2,creat,truncate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,mknod,mknodat,link,linkat,symlink,symlinkat,mount,swapon"

var (
	opening  = regexp.MustCompile(`\b(open|openat|openat2|creat)\([^"]*"([^"]*)"`)
	writable = regexp.MustCompile(`O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND|O_TMPFILE|\bcreat\(`)
)

// tracerOf returns the process that traces another one, as a number. strace leaves it to others to wait for it (-D).
func tracerOf(t *testing.T, pid int) string {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "TracerPid:")
	tracer, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	if tracer == "" || tracer == "0" {
		t.Fatalf("nobody traces process %d:\n%s", pid, status)
	}
	return tracer
}

// While a daemon overwrites a device, the first time and again, it opens nothing else for writing, and changes no file by its name.
func TestDeviceOnlyTheNamed(t *testing.T) {
	together(t)
	const mib = 1 << 20
	var other *loopdev.Device // that the policy names, too
	r, devices := newDeviceRig(t, time.Minute, 1, func(r *rig, _ int) map[string]*loopdev.Device {
		other = loopdev.New(t, r.dir, 40*mib, loopdev.Options{})
		return map[string]*loopdev.Device{"system": loopdev.New(t, r.dir, 40*mib, loopdev.Options{}), "other": other}
	})
	needPrograms(t, "strace")
	n, trace := r.nodes[0], filepath.Join(r.dir, "trace")
	n.wrap = append(n.wrap, "strace", "-D", "-f", "--seccomp-bpf", "-q", "-s", "4096", "-o", trace, "-e", "trace="+changes)
	r.start()
	before, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	source := loopdev.New(t, r.dir, 24*mib, loopdev.Options{})
	r.on(r.net.Server, "sgdisk", "-n", "1:1M:+8M", source.Path)
	for range 2 {
		r.want(r.push("raw", source.File, "--output", "device:system", "--yes-overwrite", "1"), 0, "committed")
	}
	tracer := tracerOf(t, n.daemon.Pid())
	n.daemon.Signal(os.Interrupt)
	if _, err := n.daemon.Wait(r.ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "strace ends", func() (bool, string) {
		_, err := os.Stat("/proc/" + tracer + "/fd/0")
		return err != nil, "it still runs"
	})
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	named := 0
	for line := range strings.Lines(text[len(before):]) {
		switch m := opening.FindStringSubmatch(line); {
		case strings.Contains(line, "+++") || strings.Contains(line, "---") || strings.Contains(line, "resumed>"):
		case m == nil:
			t.Errorf("a file is changed: %s", line)
		case writable.MatchString(line) && m[2] == devices[0]["system"].Path:
			named++
		case writable.MatchString(line):
			t.Errorf("opened for writing: %s", line)
		}
	}
	if named < 2 {
		t.Errorf("the trace has %d of 2 times that the device is opened for writing:\n%s", named, text)
	}
	if len(bytes.Trim(content(t, other), "\x00")) > 0 {
		t.Error("the other device was written")
	}
}
