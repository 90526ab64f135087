//go:build linux

package raw

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/dolly-img/dolly-img/ring/ringtest"
	"github.com/dolly-img/dolly-img/test/loopdev"
)

// loopOver makes a loop device that holds b.
func loopOver(t *testing.T, b []byte, o loopdev.Options) *loopdev.Device {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return loopdev.Over(t, file, o)
}

func openDevice(t *testing.T, path string) *Device {
	t.Helper()
	d, err := OpenDevice(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestDevice(t *testing.T) {
	for _, o := range []loopdev.Options{{}, {Sector: 4096, Direct: true}, {ReadOnly: true}} {
		for _, size := range []int{4096, 1<<20 + 8192} {
			want := random(size)
			dev := loopOver(t, want, o)
			ringtest.TestSource(t, func(t *testing.T) ring.Source {
				dev.Check(t)
				return openDevice(t, dev.Path)
			}, want)
		}
	}
}

// It travels in leaves whatever its size, and has its SHA-256 computed where that is wanted.
func TestDeviceBlob(t *testing.T) {
	want := random(9 << 20)
	dev := loopOver(t, want, loopdev.Options{})
	if !IsDevice(dev.Path) || IsDevice(dev.File) || IsDevice("/dev/null") || IsDevice(dev.File+"-missing") {
		t.Error("what is a device and what is none")
	}
	d := openDevice(t, dev.Path)
	blobs, err := d.Blobs(t.Context())
	if err != nil || !leaf.In(blobs[0]) || blobs[0].Annotations[v1.AnnotationTitle] != filepath.Base(dev.Path) {
		t.Errorf("%+v, %v", blobs, err)
	}
	d.WantSHA256()
	r, err := d.Open(t.Context(), blobs[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		t.Fatal(err)
	}
	if d.SHA256() != digest.FromBytes(want) || d.SHA256() != digest.NewDigest(digest.SHA256, h) {
		t.Errorf("SHA-256 %s", d.SHA256())
	}
	if d.Sector() != 512 {
		t.Errorf("sectors of %d bytes", d.Sector())
	}
	if err := iotest.TestReader(io.NewSectionReader(d, 60_000, 1_000), want[60_000:61_000]); err != nil {
		t.Error(err)
	}
	for _, off := range []int64{0, 511, 2<<20 - 1, 9<<20 - 1} {
		b := make([]byte, 3<<20+1)
		n, err := d.ReadAt(b, off)
		if !bytes.Equal(b[:n], want[off:min(off+int64(len(b)), int64(len(want)))]) || (err == io.EOF) != (n < len(b)) {
			t.Errorf("%d bytes at %d: %v", n, off, err)
		}
	}
	// Nobody else gets it meanwhile.
	if f, err := os.OpenFile(dev.Path, os.O_RDONLY|unix.O_EXCL, 0); !errors.Is(err, unix.EBUSY) {
		f.Close()
		t.Errorf("opened exclusively beside a transfer: %v", err)
	}
}

// formatted makes a loop device with an ext4 in it.
func formatted(t *testing.T) *loopdev.Device {
	t.Helper()
	loopdev.Need(t, "mkfs.ext4")
	dev := loopOver(t, make([]byte, 16<<20), loopdev.Options{})
	if out, err := exec.Command("mkfs.ext4", "-q", dev.Path).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	return dev
}

func mount(t *testing.T, dev string, flags uintptr) (at string) {
	t.Helper()
	at = t.TempDir()
	if err := unix.Mount(dev, at, "ext4", flags, ""); err != nil {
		t.Fatalf("mount %s: %v", dev, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
	})
	return at
}

// What is mounted is refused, but for a file system to which nothing can be written, and that only as long as it is so.
func TestDeviceMounted(t *testing.T) {
	dev := formatted(t)
	at := mount(t, dev.Path, 0)
	_, err := OpenDevice(dev.Path)
	if want := fmt.Sprintf("input %s is in use: mounted at %s", dev.Path, at); err == nil || err.Error() != want || kindOf(err) != "input-mounted "+at {
		t.Errorf("mounted: %v, kind %q, want %s", err, kindOf(err), want)
	}
	// A read-only view of a file system that is written to elsewhere is not enough.
	view := t.TempDir()
	if err := errors.Join(unix.Mount(at, view, "", unix.MS_BIND, ""), unix.Mount("", view, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDevice(dev.Path); kindOf(err) != "input-mounted "+at {
		t.Errorf("a read-only view of it: %v", err)
	}
	if err := unix.Unmount(view, 0); err != nil {
		t.Fatal(err)
	}

	if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	d := openDevice(t, dev.Path)
	r, err := d.Open(t.Context(), v1.Descriptor{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || len(got) != 16<<20 {
		t.Errorf("read-only: %d bytes, %v", len(got), err)
	}
	if err := d.Unchanged(t.Context()); err != nil {
		t.Errorf("read-only: %v", err)
	}
	for range 2 { // and also after it was made read-only again
		if err := unix.Mount("", at, "", unix.MS_REMOUNT, ""); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at, "new"), []byte("new"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.Unchanged(t.Context()); kindOf(err) != "input-changes" {
			t.Errorf("written to: %v", err)
		}
		if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		if err := d.Unchanged(t.Context()); kindOf(err) != "input-changes" || !strings.Contains(err.Error(), "written to while it was read") {
			t.Errorf("written to, and read-only again: %v", err)
		}
	}
}

// A partition that is mounted keeps the whole disk from being read, and says which one it is.
func TestDevicePartitionMounted(t *testing.T) {
	dev := loopOver(t, make([]byte, 32<<20), loopdev.Options{})
	dev.AddPartition(t, 1, 1<<20, 8<<20)
	dev.AddPartition(t, 2, 16<<20, 8<<20)
	loopdev.Need(t, "mkfs.ext4")
	for n := 1; n <= 2; n++ {
		dev.Check(t)
		if out, err := exec.Command("mkfs.ext4", "-q", dev.Partition(n)).CombinedOutput(); err != nil {
			t.Fatalf("mkfs.ext4: %v: %s", err, out)
		}
	}
	at := mount(t, dev.Partition(2), 0)
	on := "loop" + strings.TrimPrefix(dev.Path, "/dev/loop") + "p2"
	_, err := OpenDevice(dev.Path)
	if want := "mounted at " + at + " on " + on; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	openDevice(t, dev.Partition(1)).Close() // it is not the one
	if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	openDevice(t, dev.Path).Close()
	// Somebody has the other partition, and is not seen. That the mounted one is read-only does not explain him.
	f, err := os.OpenFile(dev.Partition(1), os.O_RDONLY|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := OpenDevice(dev.Path); kindOf(err) != "input-busy" {
		t.Errorf("a partition is held by nobody who is seen: %v", err)
	}
}

// What is held without a trace is refused, and what is no device, or has no medium.
func TestDeviceRefused(t *testing.T) {
	dev := loopOver(t, make([]byte, 1<<20), loopdev.Options{})
	held := dev.Open(t, os.O_RDONLY|unix.O_EXCL)
	if _, err := OpenDevice(dev.Path); kindOf(err) != "input-busy" {
		t.Errorf("held: %v", err)
	}
	held.Close()
	empty := loopOver(t, nil, loopdev.Options{})
	if _, err := OpenDevice(empty.Path); kindOf(err) != "input-medium" {
		t.Errorf("empty: %v", err)
	}
}

// Of a device that is written to while it is read nothing is committed.
func TestDeviceWritten(t *testing.T) {
	dev := loopOver(t, random(4<<20), loopdev.Options{})
	w := dev.Open(t, os.O_RDWR)
	if _, err := w.WriteAt([]byte("before"), 0); err != nil { // it is in memory only when the transfer begins
		t.Fatal(err)
	}
	d := openDevice(t, dev.Path)
	r, err := d.Open(t.Context(), v1.Descriptor{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.HasPrefix(got, []byte("before")) {
		t.Errorf("%v", err)
	}
	if err := d.Unchanged(t.Context()); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	if _, err := w.WriteAt([]byte("after"), 3<<20); err != nil {
		t.Fatal(err)
	}
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := d.Unchanged(t.Context()); kindOf(err) != "input-changes" {
		t.Errorf("written to: %v", err)
	}
}

// A read that fails names its byte, and nothing comes after it.
func TestDeviceBroken(t *testing.T) {
	want := random(6 << 20)
	dev := loopOver(t, want, loopdev.Options{})
	d := openDevice(t, dev.Path)
	const end = 4<<20 + 3*4096
	if err := os.Truncate(dev.File, end); err != nil { // the kernel fails to read the device from there on
		t.Fatal(err)
	}
	r, err := d.Open(t.Context(), v1.Descriptor{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if text := fmt.Sprintf("input %s cannot be read at byte %d: input/output error", dev.Path, end); err == nil || err.Error() != text {
		t.Errorf("got %v, want %s", err, text)
	}
	if !bytes.Equal(got, want[:len(got)]) || len(got) > end {
		t.Errorf("%d bytes came before", len(got))
	}
}
