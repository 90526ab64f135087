package e2e

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/loopdev"
	"github.com/dolly-img/dolly-img/test/netns"
)

// A block device becomes a file on four nodes, byte for byte. One that is mounted is refused with the place and the way
// out, and one that is mounted read-only is sent.
func TestRawDevice(t *testing.T) {
	together(t)
	ctx := need(t, time.Minute, "mkfs.ext4", "unshare")
	r := newRig(t, ctx, netns.Config{Nodes: 4})
	r.start()
	file := filepath.Join(r.dir, "disk.img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 80<<20); err != nil {
		t.Fatal(err)
	}
	dev := loopdev.Over(t, file, loopdev.Options{})
	r.on(r.net.Server, "mkfs.ext4", "-q", dev.Path)
	w := dev.Open(t, os.O_RDWR)
	noise := make([]byte, 3<<20)
	rand.Read(noise)
	if _, err := w.WriteAt(noise, 40<<20); err != nil {
		t.Fatal(err)
	}
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{"tls", "plain"} {
		res := r.push("raw", dev.Path, "--output", r.data+"/"+data, "--data", data)
		r.want(res, 0, "committed")
		r.same(dev.Path, data, r.nodes...)
		if code, text := r.run(r.net.Server, "digest", dev.Path); code != 0 || strings.TrimSpace(text) != res.report.Digest+"  "+dev.Path {
			t.Errorf("exit %d, digest %s, and the report has %s", code, text, res.report.Digest)
		}
	}

	// In a namespace of its own, so that no other test's takes a copy of the mount along and keeps it.
	mounted := func(options, output string) (code int, text string) {
		dev.Check(t)
		script := fmt.Sprintf("mount -t ext4 -o %s %s %s && exec %s raw %s --keys %s --nodes %s --output %s/%s",
			options, dev.Path, r.data, binary, dev.Path, r.keys, r.list(), r.data, output)
		p, err := netns.Start(r.net.Server.Command(ctx, "unshare", "-m", "sh", "-c", script))
		if err == nil {
			code, err = p.Wait(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		return code, p.Output()
	}
	code, text := mounted("rw", "none")
	for _, want := range []string{"input " + dev.Path + " is in use: mounted at " + r.data + "\n", "mount -o remount,ro " + r.data} {
		if code != 1 || !strings.Contains(text, want) {
			t.Errorf("mounted: exit %d, want %q in %s", code, want, text)
		}
	}
	if code, text = mounted("ro", "again"); code != 0 {
		t.Errorf("mounted read-only: exit %d: %s", code, text)
	}
	r.same(dev.Path, "again", r.nodes...)
	for _, n := range r.nodes {
		n.empty("tls", "plain", "again")
	}
}

// The image in a compressed file becomes a file on four nodes, with a block map and without; one that is damaged near
// its end leaves nothing there.
func TestRawExpanded(t *testing.T) {
	ctx := need(t, time.Minute, "xz", "zstd", "gzip", "bmaptool")
	r := newRig(t, ctx, netns.Config{Nodes: 4})
	r.start()
	at := func(name string) string { return filepath.Join(r.dir, name) }
	image := make([]byte, 70<<20)
	rand.Read(image[1<<20 : 3<<20])
	copy(image[50<<20:], bytes.Repeat([]byte("text "), 1<<20))
	if err := os.WriteFile(at("disk.raw"), image, 0o600); err != nil {
		t.Fatal(err)
	}
	shell := func(script string) { r.on(r.net.Server, "sh", "-c", "cd "+r.dir+" && "+script) }
	shell("fallocate -d disk.raw && xz -0 -k -T2 disk.raw && gzip -1 -k disk.raw && zstd -q -1 disk.raw -o other.zst && bmaptool create disk.raw >disk.raw.bmap")
	for _, tt := range []struct{ input, says string }{
		{"disk.raw.xz", "block map"}, {"disk.raw.gz", "block map"}, {"other.zst", "compressed with zstd"}, {"disk.raw", "block map"},
	} {
		res := r.push("raw", at(tt.input), "--format", "auto", "--output", r.data+"/"+tt.input)
		r.want(res, 0, "committed")
		if !strings.Contains(res.output, tt.says) {
			t.Errorf("%s: no %q in %s", tt.input, tt.says, res.output)
		}
		r.same(at("disk.raw"), tt.input, r.nodes...)
	}
	shell(`cp disk.raw.xz bad.xz && printf x | dd of=bad.xz bs=1 seek=$(($(stat -c %s bad.xz) * 9 / 10)) conv=notrunc status=none`)
	res := r.push("raw", at("bad.xz"), "--format", "auto", "--output", r.data+"/bad")
	r.want(res, 1, "failed")
	if !strings.Contains(res.output, "bad.xz is damaged: xz: ") {
		t.Errorf("damaged: %s", res.output)
	}
	for _, n := range r.nodes {
		n.empty("disk.raw.xz", "disk.raw.gz", "other.zst", "disk.raw")
	}
}
