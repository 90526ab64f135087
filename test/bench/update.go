package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/test/netns"
)

// updateSize is how many bytes are updated: 256 leaves.
const updateSize = 1 << 30

// place is where the source and the target of an update lie: files, or loop devices over files, in memory or on the disk that has the
// directory for temporary files.
type place struct {
	device, memory bool
}

func (p place) String() string {
	what, where := "file", "on the disk"
	if p.device {
		what = "loop device"
	}
	if p.memory {
		where = "in memory"
	}
	return what + " " + where
}

// pair is a node, and a source and its target, which are equal.
type pair struct {
	*images
	loops
	place          place
	net            *netns.Net
	source, target string
	node           *netns.Process
	push           []string // the words of an update
	report         string
}

// update measures updates of one node: in which nothing changed, beside reading and hashing both, and in which a hundredth did.
// Server and node are on this machine, and share its cores and its disk.
func (i *images) update(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	var fs unix.Statfs_t
	if err := unix.Statfs(os.TempDir(), &fs); err != nil {
		return err
	}
	places := []place{{memory: true}, {device: true, memory: true}}
	if fs.Type == unix.TMPFS_MAGIC {
		fmt.Fprintf(os.Stderr, "%s is in memory: nothing is measured on a disk (set TMPDIR)\n", os.TempDir())
	} else {
		places = append(places, place{}, place{device: true})
	}
	i.add("cores, which hash 2 GiB where nothing changed", float64(runtime.NumCPU()))
	for _, at := range places {
		if err := i.withPair(ctx, at, nil, (*pair).unchanged); err != nil {
			return fmt.Errorf("%v: %w", at, err)
		}
	}
	for _, mkfs := range [][]string{{"mkfs.xfs", "-q", "-m", "reflink=1"}, {"mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"}, nil} {
		if err := i.withPair(ctx, place{device: mkfs == nil, memory: true}, mkfs, (*pair).changed); err != nil {
			return fmt.Errorf("a hundredth changed, %q: %w", mkfs, err)
		}
	}
	return nil
}

// withPair calls do with a node and a pair. With mkfs the target lies on a file system that it makes.
func (i *images) withPair(ctx context.Context, at place, mkfs []string, do func(*pair, context.Context) error) error {
	return i.withNodes(ctx, 1, func(net *netns.Net, dir string) (err error) {
		p := &pair{images: i, place: at, net: net, report: filepath.Join(dir, "report.json")}
		defer func() {
			if p.node != nil { // which uses the devices
				p.node.Kill()
				p.node.Wait(context.Background())
			}
			if cerr := p.loops.close(); err == nil {
				err = cerr
			}
		}()
		files := dir
		if !at.memory {
			if files, err = os.MkdirTemp("", "dolly-img-bench-"); err != nil {
				return err
			}
			defer os.RemoveAll(files)
		}
		output, err := p.make(ctx, files, mkfs)
		if err != nil {
			return err
		}
		policy := overwrites(filepath.Dir(p.target))
		if at.device {
			policy = fmt.Sprintf("[[device]]\nname = \"system\"\npath = %q\n[data]\nplain = true\n", p.target)
		}
		list, nodes, err := daemons{binary: i.binary, policy: policy, env: []string{"DOLLY_IMG_TEST_LOOPS_BELOW=" + files}}.start(ctx, net, dir)
		if len(nodes) > 0 {
			p.node = nodes[0]
		}
		if err != nil {
			return err
		}
		p.push = append([]string{"raw", "--input", p.source, "--update", "--nodes", list, "--keys", filepath.Join(dir, "keys"),
			"--data", "plain", "--report", p.report, "--quiet"}, output...)
		return do(p, ctx)
	})
}

// make makes the source and the target in dir, and returns how the target is named to the server.
func (p *pair) make(ctx context.Context, dir string, mkfs []string) (output []string, err error) {
	p.source, p.target = filepath.Join(dir, "source"), filepath.Join(dir, "target")
	if mkfs != nil {
		disk := filepath.Join(dir, "disk")
		if err := hollow(disk, 3*updateSize); err != nil {
			return nil, err
		}
		device, err := p.attach(ctx, disk, p.place)
		if err != nil {
			return nil, err
		}
		at := filepath.Join(dir, "mounted")
		if err := p.mount(ctx, device, at, mkfs...); err != nil {
			return nil, err
		}
		p.target = filepath.Join(at, "target")
	}
	if err := random(p.source, updateSize); err != nil {
		return nil, err
	}
	for _, words := range [][]string{{"cp", "--reflink=never", "--preserve=mode,timestamps", p.source, p.target}, {"sync"}} {
		if out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", words[0], err, out)
		}
	}
	if !p.place.device {
		return []string{"--output", p.target}, nil
	}
	for _, name := range []*string{&p.source, &p.target} {
		if *name, err = p.attach(ctx, *name, p.place); err != nil {
			return nil, err
		}
	}
	return []string{"--output", "device:system", "--yes-overwrite", "1"}, nil
}

// hollow makes a file without blocks.
func hollow(name string, size int64) error {
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		return err
	}
	return os.Truncate(name, size)
}

// unchanged measures an update that changes nothing, once more with what was read in memory where that makes a difference: a
// device is read without the page cache, and a file in memory is in it.
func (p *pair) unchanged(ctx context.Context) error {
	if p.place.device || p.place.memory {
		return p.beside(ctx, "", true)
	}
	if err := p.beside(ctx, ", no caches", true); err != nil {
		return err
	}
	return p.beside(ctx, ", cached", false)
}

// beside measures an update beside what only reads both or hashes both, in turn.
func (p *pair) beside(ctx context.Context, note string, cold bool) error {
	// dd reads as fast as the disk goes, whatever is in memory. A file that is in memory can only be read from there.
	dd := func(of string) string { return "dd if=" + of + " of=/dev/null bs=4M status=none iflag=direct" }
	if p.place.memory && !p.place.device {
		dd = func(of string) string { return "dd if=" + of + " of=/dev/null bs=4M status=none" }
	}
	hash := func(of string) string { return "openssl dgst -sha256 " + of }
	var took []float64
	for _, script := range []string{
		dd(p.source), dd(p.target),
		dd(p.source) + " & " + dd(p.target) + " && wait $!",
		hash(p.source) + " & " + hash(p.target) + " && wait $!", "",
	} {
		if cold {
			if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
				return err // only root may, as all else here
			}
		}
		if script != "" {
			seconds, _, err := timed(ctx, p.net.Server, "sh", "-c", script)
			if err != nil {
				return err
			}
			took = append(took, seconds)
			continue
		}
		before, err := netns.CPU(p.node.Pid())
		if err != nil {
			return err
		}
		seconds, server, err := timed(ctx, p.net.Server, p.binary, p.push...)
		if err != nil {
			return err
		}
		after, err := netns.CPU(p.node.Pid())
		if err != nil {
			return err
		}
		took = append(took, seconds, server, (after - before).Seconds())
	}
	if _, err := p.row("held"); err != nil {
		return err
	}
	source, target, reads, hashes, seconds := took[0], took[1], took[2], took[3], took[4]
	for _, v := range []value{
		{"seconds", seconds}, {"of dd of the source", source}, {"of dd of the target", target}, {"to the slower dd", seconds / max(source, target)},
		{"of both dd at once", reads}, {"to these", seconds / reads}, {"of openssl sha256 of both at once", hashes}, {"to that", seconds / hashes},
		{"CPU-s of the server", took[5]}, {"CPU-s of the node", took[6]},
	} {
		p.add(fmt.Sprintf("1 GiB, nothing changed, %v%s: %s", p.place, note, v.name), v.v)
	}
	return nil
}

// changed measures what an update sends and writes when two of the 256 leaves differ.
func (p *pair) changed(ctx context.Context) error {
	device, to := p.target, "a loop device"
	if !p.place.device {
		device, to = p.devices[0], "a file on "
		var fs unix.Statfs_t
		if err := unix.Statfs(p.target, &fs); err != nil {
			return err
		}
		to += map[int64]string{unix.XFS_SUPER_MAGIC: "XFS, where files share blocks", unix.EXT4_SUPER_MAGIC: "ext4, where it is copied"}[fs.Type]
	}
	// A block in each of two leaves that are neither the first nor the last.
	for _, off := range []string{"80", "180"} {
		if err := succeed(ctx, p.net.Server, "dd", "if=/dev/urandom", "of="+p.source, "bs=4M", "count=1", "seek="+off, "conv=fsync,notrunc", "status=none"); err != nil {
			return err
		}
	}
	before, err := writtenTo(device)
	if err != nil {
		return err
	}
	seconds, _, err := timed(ctx, p.net.Server, p.binary, p.push...)
	if err == nil {
		err = succeed(ctx, p.net.Server, "sync")
	}
	if err != nil {
		return err
	}
	after, err := writtenTo(device)
	if err != nil {
		return err
	}
	got, err := p.row("committed")
	if err == nil {
		err = succeed(ctx, p.net.Server, "cmp", "-n", fmt.Sprint(updateSize), p.source, p.target)
	}
	for _, v := range []value{
		{"seconds", seconds}, {"payload to the size", float64(got) / updateSize}, {"bytes written to the size", float64(after-before) / updateSize},
	} {
		p.add(fmt.Sprintf("1 GiB, 2 of 256 leaves changed, to %s: %s", to, v.name), v.v)
	}
	return err
}

// row demands the state of the node's row, and returns the bytes that the node received.
func (p *pair) row(state string) (received int64, err error) {
	text, err := os.ReadFile(p.report)
	if err != nil {
		return 0, err
	}
	var said struct {
		Nodes []struct {
			State string
			Bytes int64
		}
	}
	if err := json.Unmarshal(text, &said); err != nil {
		return 0, err
	}
	if len(said.Nodes) != 1 || said.Nodes[0].State != state {
		return 0, fmt.Errorf("the node's row is not %s: %s", state, text)
	}
	return said.Nodes[0].Bytes, nil
}
